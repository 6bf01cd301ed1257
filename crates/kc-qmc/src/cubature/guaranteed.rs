//! net-g and lattice-g: error bounds from the decay of Walsh or Fourier coefficients.

use std::ops::Range;

use kc_core::{Error, Result};

use super::basis::{Basis, Fourier, Walsh};
use super::doubling::{Bounds, Doubling, Family, Limits};
use super::run::Run;
use super::state::{Reader, Writer};
use super::stop::{ErrorRule, Tolerance, check_n_init};
use super::transform::{Coefficient, LAG, Ordered};
use super::variates::{ControlVariates, least_squares};
use super::{Cubature, randomized_natural};
use crate::periodize::Periodization;
use crate::{Family as Kind, Integrand, Sequence};

/// Settings of net-g (on digital nets in base 2) and lattice-g (on rank-1 lattices): which of the two runs is the
/// sequence's matter.
///
/// The half width of the interval is `5 2^-m` times the sum of the magnitudes of the coefficients at the positions
/// `2^(m-5) .. 2^(m-4)` of the kept order. It holds for integrands whose coefficients decay as the cone asks: a
/// spike that no point has met (`exp(-10^6 |u - .37|^2)`) is integrated to 0, and payoffs with jumps can miss the
/// tolerance on lattices.
///
/// Sources: F. Hickernell, Ll. Jimenez Rugama, *Reliable adaptive cubature using digital sequences* (2016);
/// Ll. Jimenez Rugama, F. Hickernell, *Adaptive multidimensional integration based on rank-1 lattices* (2016).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GuaranteedConfig {
    /// Absolute tolerance, 0 or more.
    pub abs_tol: f64,
    /// Relative tolerance, 0 or more.
    pub rel_tol: f64,
    /// Which tolerance counts.
    pub error: ErrorRule,
    /// First number of points: a power of two, 2^8 or more.
    pub n_init: u64,
    /// How the integrand is made periodic; `None`: the tent on lattices, not at all on nets.
    pub periodization: Option<Periodization>,
    /// Most points.
    pub n_limit: u64,
    /// Look whether the coefficients stay inside of the cone.
    pub check_cone: bool,
}

impl Default for GuaranteedConfig {
    fn default() -> Self {
        Self {
            abs_tol: 1e-2,
            rel_tol: 0.0,
            error: ErrorRule::Either,
            n_init: 1 << 10,
            periodization: None,
            n_limit: 1 << 30,
            check_cone: false,
        }
    }
}

impl Cubature for GuaranteedConfig {
    fn start_controlled<'a>(
        &self,
        sequence: &'a mut dyn Sequence,
        integrand: &'a dyn Integrand,
        variates: &ControlVariates<'a>,
    ) -> Result<Run<'a>> {
        check_n_init(self.n_init, 1 << 8)?;
        let limits = Limits {
            tolerance: Tolerance::new(self.abs_tol, self.rel_tol, self.error)?,
            n_init: self.n_init,
            n_limit: self.n_limit,
        };
        randomized_natural(sequence, &[Kind::DigitalNet, Kind::Lattice])?;
        if sequence.family() == Kind::DigitalNet {
            let family = Guaranteed::<Walsh>::new(self, integrand, variates, Periodization::None);
            return Ok(Run::new(Doubling::new(sequence, integrand, variates, family, limits)?));
        }
        if !variates.functions.is_empty() {
            return Err(Error::unsupported("control variates on lattices", "take a digital net"));
        }
        let family = Guaranteed::<Fourier>::new(self, integrand, variates, Periodization::Baker);
        Ok(Run::new(Doubling::new(sequence, integrand, variates, family, limits)?))
    }
}

/// What is kept of one output.
struct Output<T> {
    /// Coefficients without the variates' part.
    ordered: Option<Ordered<T>>,
    /// Coefficients of the control variates.
    beta: Vec<f64>,
    /// If beta is refitted: coefficients of the integrand and of each variate, in natural order.
    raw: Vec<Vec<T>>,
    /// Largest lower and smallest upper bound on the true sums of each level, over all doublings.
    cone: Vec<[f64; 2]>,
}

struct Guaranteed<B: Basis> {
    outputs: Vec<Output<B::Value>>,
    /// `beta . means` is added back: means of each output's variates.
    means: Vec<Vec<f64>>,
    refit: bool,
    check_cone: bool,
    periodization: Periodization,
    m_init: u32,
}

/// `5 2^-m`.
fn fudge(m: u32) -> f64 {
    5.0 * (-f64::from(m)).exp2()
}

impl<B: Basis> Guaranteed<B> {
    fn new(
        config: &GuaranteedConfig,
        integrand: &dyn Integrand,
        variates: &ControlVariates<'_>,
        periodization: Periodization,
    ) -> Self {
        let count = integrand.outputs();
        let output = || Output { ordered: None, beta: Vec::new(), raw: Vec::new(), cone: Vec::new() };
        Self {
            outputs: (0..count).map(|_| output()).collect(),
            means: (0..count)
                .map(|p| variates.means.iter().copied().skip(p).step_by(count).collect())
                .collect(),
            refit: variates.refit,
            check_cone: config.check_cone,
            periodization: config.periodization.unwrap_or(periodization),
            m_init: config.n_init.ilog2(),
        }
    }

    fn variates(&self) -> usize {
        self.means.first().map_or(0, Vec::len)
    }

    /// First points of an output: `lists` are the values of the integrand and of its variates.
    fn first(output: &mut Output<B::Value>, lists: Vec<Vec<f64>>, refit: bool) -> Result<()> {
        let mut raw = Vec::with_capacity(lists.len());
        for values in lists {
            let factor = (values.len() as f64).sqrt().recip();
            let mut coefficients = B::transform(values)?;
            coefficients.iter_mut().for_each(|c| *c = c.scale(factor));
            raw.push(coefficients);
        }
        if raw.len() == 1 {
            output.ordered = raw.pop().map(Ordered::new);
            return Ok(());
        }
        let start = raw[0].len() >> (LAG + 1);
        let kappa = Ordered::new(raw[0].clone()).kappa;
        output.beta = fit::<B>(&raw, &kappa[start..]);
        output.ordered = Some(Ordered::new(without::<B>(&raw, &output.beta)));
        if refit {
            output.raw = raw;
        }
        Ok(())
    }

    /// As many new points as there were.
    fn more(output: &mut Output<B::Value>, mut lists: Vec<Vec<f64>>) -> Result<()> {
        let Some(ordered) = output.ordered.as_mut() else { return Ok(()) };
        let factor = (lists[0].len() as f64).sqrt().recip();
        if output.raw.is_empty() {
            let (values, variates) = lists.split_at_mut(1);
            for (beta, variate) in output.beta.iter().zip(variates) {
                values[0].iter_mut().zip(variate).for_each(|(y, cv)| *y -= beta * *cv);
            }
            let mut fresh = B::transform(lists.swap_remove(0))?;
            B::turn(&mut fresh);
            ordered.double(&fresh, factor);
            return Ok(());
        }
        for (coefficients, values) in output.raw.iter_mut().zip(lists) {
            let mut fresh = B::transform(values)?;
            B::turn(&mut fresh);
            for (old, new) in coefficients.iter_mut().zip(&mut fresh) {
                (*old, *new) = old.butterfly(new.scale(factor));
            }
            coefficients.append(&mut fresh);
        }
        // The new beta is fitted where the old order puts small coefficients.
        let start = output.raw[0].len() >> (LAG + 1);
        output.beta = fit::<B>(&output.raw, &ordered.kappa[start..]);
        ordered.double_anew(&without::<B>(&output.raw, &output.beta));
        Ok(())
    }

    /// Narrows the cone's bounds of each level; is one of them empty?
    fn violates(output: &mut Output<B::Value>, ordered: &Ordered<B::Value>, first: u32) -> bool {
        let m = ordered.values.len().ilog2();
        let levels = first..=m;
        output.cone.resize((m - first) as usize + 1, [f64::NEG_INFINITY, f64::INFINITY]);
        for (level, [low, high]) in levels.zip(&mut output.cone) {
            let lag = m - level;
            let c = fudge(lag) * (-f64::from(lag)).exp2() / ((1.0 + fudge(LAG)) * (-f64::from(LAG)).exp2());
            let sum = ordered.level_sum(level - 1);
            *low = low.max(sum / (1.0 + c));
            if c < 1.0 {
                *high = high.min(sum / (1.0 - c));
            }
        }
        output.cone.iter().any(|[low, high]| low > high)
    }
}

/// Coefficients of the variates that leave least at the wave numbers `waves`.
fn fit<B: Basis>(raw: &[Vec<B::Value>], waves: &[u32]) -> Vec<f64> {
    let at = |list: &Vec<B::Value>| waves.iter().map(|k| B::real(list[*k as usize])).collect();
    least_squares(raw[1..].iter().map(at).collect(), at(&raw[0]))
}

/// Coefficients of the integrand without the variates' part.
fn without<B: Basis>(raw: &[Vec<B::Value>], beta: &[f64]) -> Vec<B::Value> {
    let mut rest = raw[0].clone();
    for (beta, variate) in beta.iter().zip(&raw[1..]) {
        rest.iter_mut().zip(variate).for_each(|(y, cv)| *y = y.minus(cv.scale(*beta)));
    }
    rest
}

impl<B: Basis> Family for Guaranteed<B> {
    fn name(&self) -> &'static str {
        B::NAMES[0]
    }

    fn fingerprint(&self) -> String {
        format!("check_cone {}", self.check_cone)
    }

    fn chunk(&self) -> u64 {
        u64::MAX >> 1
    }

    fn add(&mut self, output: usize, rows: Range<u64>, values: &mut [Vec<f64>]) -> Result<()> {
        let lists = values.iter_mut().skip(output).step_by(self.outputs.len()).map(std::mem::take).collect();
        let output = &mut self.outputs[output];
        if rows.start == 0 { Self::first(output, lists, self.refit) } else { Self::more(output, lists) }
    }

    fn close(&mut self, output: usize, n: u64, _sequence: &mut dyn Sequence) -> Result<Bounds> {
        let means = &self.means[output];
        let output = &mut self.outputs[output];
        let Some(ordered) = output.ordered.take() else {
            return Err(Error::empty("coefficients"));
        };
        let m = n.ilog2();
        let known: f64 = output.beta.iter().zip(means).map(|(beta, mean)| beta * mean).sum();
        let bounds = Bounds {
            mean: ordered.mean() + known,
            half: fudge(m) * ordered.level_sum(m - LAG - 1),
            violated: self.check_cone && Self::violates(output, &ordered, self.m_init - LAG),
        };
        output.ordered = Some(ordered);
        Ok(bounds)
    }

    fn periodization(&self) -> Periodization {
        self.periodization
    }

    fn checks_cone(&self) -> bool {
        self.check_cone
    }

    fn save(&self, output: usize, out: &mut Writer) {
        let output = &self.outputs[output];
        let Some(ordered) = &output.ordered else { return };
        out.list(&ordered.values);
        out.list(&ordered.kappa);
        out.list(&output.beta);
        out.u64(output.raw.len() as u64);
        output.raw.iter().for_each(|list| out.list(list));
        out.list(output.cone.as_flattened());
    }

    fn load(&mut self, output: usize, extent: u64, from: &mut Reader<'_>) -> Result<()> {
        let variates = self.variates();
        let output = &mut self.outputs[output];
        if extent == 0 {
            output.ordered = None;
            return Ok(());
        }
        if !extent.is_power_of_two() {
            return Err(from.wrong("half a doubling"));
        }
        let n = extent as usize;
        let ordered = Ordered { values: from.list_of::<B::Value>(n)?, kappa: from.list_of::<u32>(n)? };
        if ordered.kappa.iter().any(|k| u64::from(*k) >= extent) {
            return Err(from.wrong("a wave number beyond the number of points"));
        }
        output.ordered = Some(ordered);
        output.beta = from.list_of(variates)?;
        let lists = if self.refit && variates > 0 { 1 + variates } else { 0 };
        if from.u64()? != lists as u64 {
            return Err(from.wrong("another number of control variates"));
        }
        output.raw = (0..lists).map(|_| from.list_of(n)).collect::<Result<_>>()?;
        let cone = from.list::<f64>()?;
        let levels = if self.check_cone { (extent.ilog2() + LAG + 1).saturating_sub(self.m_init) } else { 0 };
        if cone.len() as u64 != 2 * u64::from(levels) {
            return Err(from.wrong("another number of levels of the cone"));
        }
        output.cone = cone.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
        Ok(())
    }
}
