//! Functions of a measure's points as functions on the unit cube.

use kc_core::{Error, Result};

use super::{Integrand, points, scale_rows};
use crate::Measure;

/// Values of scratch per piece of a block: 64 kB, which stay in the second-level cache.
const SCRATCH: usize = 1 << 13;

/// Cuts a block into pieces of rows, evaluates each and puts the outputs where they belong.
fn in_pieces(
    integrand: &impl Integrand,
    u: &[f64],
    active: &[bool],
    out: &mut [f64],
    mut piece: impl FnMut(&[f64], &mut [f64]) -> Result<()>,
) -> Result<()> {
    let count = points(integrand, u, active, out)?;
    let (dim, outputs) = (integrand.dim(), integrand.outputs());
    let rows = (SCRATCH / dim).max(64);
    if count <= rows {
        return piece(u, out);
    }
    let mut part = vec![0.0; outputs * rows];
    for (k, u) in u.chunks(rows * dim).enumerate() {
        let here = u.len() / dim;
        let part = &mut part[..outputs * here];
        for p in 0..outputs {
            part[p * here..][..here].copy_from_slice(&out[p * count + k * rows..][..here]);
        }
        piece(u, part)?;
        for p in 0..outputs {
            out[p * count + k * rows..][..here].copy_from_slice(&part[p * here..][..here]);
        }
    }
    Ok(())
}

/// `f(u) = g(psi(u))`: a function of the points of a measure that samples itself. Its integral over the cube is the
/// expectation of `g`.
#[derive(Debug, Clone)]
pub struct Transformed<M, G> {
    measure: M,
    function: G,
}

impl<M: Measure, G: Integrand> Transformed<M, G> {
    /// `function` of the points of `measure`; its `evaluate` is called with those.
    ///
    /// # Errors
    /// `Shape` if the dimensions differ.
    pub fn new(measure: M, function: G) -> Result<Self> {
        same_dimension("integrand", measure.dim(), function.dim())?;
        Ok(Self { measure, function })
    }

    /// The measure.
    pub fn measure(&self) -> &M {
        &self.measure
    }

    /// The function of its points.
    pub fn function(&self) -> &G {
        &self.function
    }
}

fn same_dimension(what: &'static str, want: usize, got: usize) -> Result<()> {
    if want == got {
        Ok(())
    } else {
        Err(Error::shape(what, format!("{want} coordinates, as the measure"), &[got]))
    }
}

impl<M: Measure, G: Integrand> Integrand for Transformed<M, G> {
    fn dim(&self) -> usize {
        self.measure.dim()
    }

    fn outputs(&self) -> usize {
        self.function.outputs()
    }

    fn combined(&self) -> usize {
        self.function.combined()
    }

    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        let mut t = Vec::new();
        in_pieces(self, u, active, out, |u, out| {
            t.resize(u.len(), 0.0);
            self.measure.transform(u, &mut t)?;
            self.function.evaluate(&t, active, out)
        })
    }

    fn bound(&self, low: &[f64], high: &[f64], combined_low: &mut [f64], combined_high: &mut [f64]) {
        self.function.bound(low, high, combined_low, combined_high);
    }

    fn needs(&self, unfinished: &[bool], individual: &mut [bool]) {
        self.function.needs(unfinished, individual);
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("{} under {}", self.function.fingerprint()?, self.measure.fingerprint()))
    }
}

/// Measures one after the other: the points of the first are what the second transforms, and so on. All but the
/// last have the unit cube as their range.
pub struct Chain {
    links: Vec<Box<dyn Measure>>,
}

impl Chain {
    /// From the first measure, which gets the uniform points, to the last, whose points come out.
    ///
    /// # Errors
    /// `Empty`; `Shape` if dimensions differ; `Argument` if a measure before the last has values outside of the
    /// unit interval or does not fill it (a mismatch of ranges).
    pub fn new(links: Vec<Box<dyn Measure>>) -> Result<Self> {
        let Some((last, before)) = links.split_last() else { return Err(Error::empty("sampler")) };
        for link in before {
            same_dimension("sampler", last.dim(), link.dim())?;
            if let Some((low, high)) = link.range().into_iter().find(|&range| range != (0.0, 1.0)) {
                let got = format!("values from {low} to {high} of {}", link.fingerprint());
                return Err(Error::argument(
                    "sampler",
                    "values that fill 0 to 1, as another measure follows",
                    got,
                ));
            }
        }
        Ok(Self { links })
    }

    /// Coordinates of a point.
    pub fn dim(&self) -> usize {
        self.links[0].dim()
    }

    /// Lower and upper end of each coordinate's values.
    pub fn range(&self) -> Vec<(f64, f64)> {
        self.links[self.links.len() - 1].range()
    }

    /// Maps rows of uniform values to points `t`, and gives how much each stretches volume: the product of
    /// 1 / density over the measures.
    ///
    /// # Errors
    /// As the measures' `transform` and `density`.
    pub fn sample(&self, u: &[f64], t: &mut [f64], jacobian: &mut [f64]) -> Result<()> {
        let mut from = u.to_vec();
        let mut density = vec![0.0; jacobian.len()];
        jacobian.fill(1.0);
        for link in &self.links {
            link.transform(&from, t)?;
            link.density(t, &mut density)?;
            jacobian.iter_mut().zip(&density).for_each(|(jacobian, density)| *jacobian /= density);
            from.copy_from_slice(t);
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        self.links.iter().map(|link| link.fingerprint()).collect::<Vec<_>>().join(" then ")
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Chain").field(&self.fingerprint()).finish()
    }
}

impl<M: Measure + 'static> From<M> for Chain {
    fn from(measure: M) -> Self {
        Self { links: vec![Box::new(measure)] }
    }
}

/// `f(u) = g(t) rho(t) |dt/du|`: an expectation (or, with [`Lebesgue`](crate::measure::Lebesgue), an integral) under
/// a target measure of density `rho`, whose points `t` come from other measures.
///
/// ```
/// use kc_qmc::Integrand;
/// use kc_qmc::integrand::{ImportanceSampled, from_fn};
/// use kc_qmc::measure::{Gaussian, Lebesgue};
/// // The integral of exp(-t^2) over the line.
/// let g = from_fn(1, |t: &[f64]| (-t[0] * t[0]).exp());
/// let sampler = Gaussian::iid(1, 0.0, 0.5)?;
/// let f = ImportanceSampled::new(Lebesgue::real(1)?, sampler, g)?;
/// let mut y = [0.0; 2];
/// f.evaluate(&[0.3, 0.9], &[true], &mut y)?;
/// let root_pi = std::f64::consts::PI.sqrt();
/// assert!(y.iter().all(|y| (y - root_pi).abs() < 1e-14));
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ImportanceSampled<M, G> {
    target: M,
    sampler: Chain,
    function: G,
}

impl<M: Measure, G: Integrand> ImportanceSampled<M, G> {
    /// `function` under `target`, at points of `sampler` (a measure, or a [`Chain`] of them).
    ///
    /// # Errors
    /// `Shape` if the dimensions differ; `Argument` if the sampler's values do not reach everywhere the target's
    /// do (a mismatch of ranges), so that a part of the integral would be missed.
    pub fn new(target: M, sampler: impl Into<Chain>, function: G) -> Result<Self> {
        let sampler = sampler.into();
        same_dimension("integrand", target.dim(), function.dim())?;
        same_dimension("sampler", target.dim(), sampler.dim())?;
        for ((low, high), (from, to)) in target.range().into_iter().zip(sampler.range()) {
            if from > low || to < high {
                let got = format!("values from {from} to {to}");
                return Err(Error::argument("sampler", format!("values that cover {low} to {high}"), got));
            }
        }
        Ok(Self { target, sampler, function })
    }
}

impl<M: Measure, G: Integrand> Integrand for ImportanceSampled<M, G> {
    fn dim(&self) -> usize {
        self.target.dim()
    }

    fn outputs(&self) -> usize {
        self.function.outputs()
    }

    fn combined(&self) -> usize {
        self.function.combined()
    }

    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        let (mut t, mut weights, mut density) = (Vec::new(), Vec::new(), Vec::new());
        in_pieces(self, u, active, out, |u, out| {
            let count = u.len() / self.dim();
            t.resize(u.len(), 0.0);
            weights.resize(count, 0.0);
            density.resize(count, 0.0);
            self.sampler.sample(u, &mut t, &mut weights)?;
            self.target.density(&t, &mut density)?;
            weights.iter_mut().zip(&density).for_each(|(weight, density)| *weight *= density);
            self.function.evaluate(&t, active, out)?;
            scale_rows(active, &weights, out);
            Ok(())
        })
    }

    fn bound(&self, low: &[f64], high: &[f64], combined_low: &mut [f64], combined_high: &mut [f64]) {
        self.function.bound(low, high, combined_low, combined_high);
    }

    fn needs(&self, unfinished: &[bool], individual: &mut [bool]) {
        self.function.needs(unfinished, individual);
    }

    fn fingerprint(&self) -> Option<String> {
        let (function, target) = (self.function.fingerprint()?, self.target.fingerprint());
        Some(format!("{function} under {target} by {}", self.sampler.fingerprint()))
    }
}
