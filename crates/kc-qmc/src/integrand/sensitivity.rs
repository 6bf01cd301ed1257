//! Sobol' sensitivity indices of any integrand.

use kc_core::{Error, Result};

use super::{Integrand, points};

/// Which sets of coordinates indices are computed for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Subsets {
    /// Each coordinate alone.
    #[default]
    Singletons,
    /// All sets but the empty and the full one: by size, then in lexicographic order. At most 16 coordinates.
    All,
    /// These: true for the coordinates that belong to a set.
    List(Vec<Vec<bool>>),
}

/// The closed and the total sensitivity index of each output of an integrand for each set of coordinates.
///
/// Points are pairs (x, z) of 2 d coordinates. For a set w, v has the coordinates of x on w and of z off w; individual
/// outputs, in an array (2, 3, sets, outputs), are `f(x)(f(v) - f(z))` (closed) and `(f(z) - f(v))^2 / 2` (total), then
/// `f(x)` and `f(x)^2` twice. Combined, in (2, sets, outputs): numerator over variance, clipped to `[0, 1]`.
///
/// Cost per point: 2 evaluations of `f`, and one per set.
///
/// Sources: A. G. Sorokin, J. Rathinavel, *On bounding and approximating functions of multiple expectations using
/// quasi-Monte Carlo* (2022); A. B. Owen, *Monte Carlo theory, methods and examples*, (A.16) and (A.18).
///
/// ```
/// use kc_qmc::Integrand;
/// use kc_qmc::integrand::{Ishigami, SensitivityIndices, Subsets};
/// let f = SensitivityIndices::new(Ishigami::on_cube(7.0, 0.1)?, Subsets::Singletons)?;
/// assert_eq!((f.dim(), f.outputs(), f.combined()), (6, 18, 6));
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SensitivityIndices<F> {
    function: F,
    subsets: Vec<Vec<bool>>,
}

impl<F: Integrand> SensitivityIndices<F> {
    /// For the individual outputs of `function`.
    ///
    /// # Errors
    /// `Argument` for a function of one coordinate, for empty or full sets, and for all sets of more than 16
    /// coordinates; `Shape` for sets of another dimension; `Empty` without sets.
    pub fn new(function: F, subsets: Subsets) -> Result<Self> {
        const MOST: usize = 16;
        let dim = function.dim();
        if dim < 2 {
            return Err(Error::argument("sensitivity.integrand", "2 or more coordinates", dim));
        }
        let subsets = match subsets {
            Subsets::Singletons => (0..dim).map(|j| (0..dim).map(|k| k == j).collect()).collect(),
            Subsets::All if dim > MOST => {
                return Err(Error::argument(
                    "sensitivity.subsets",
                    format!("all up to {MOST} coordinates"),
                    dim,
                ));
            }
            Subsets::All => {
                let mut masks: Vec<u32> = (1..(1u32 << dim) - 1).collect();
                // The first coordinate is the highest bit, so that lexicographic order is descending.
                masks.sort_by_key(|mask| (mask.count_ones(), u32::MAX - mask));
                masks.iter().map(|mask| (0..dim).map(|j| mask >> (dim - 1 - j) & 1 == 1).collect()).collect()
            }
            Subsets::List(list) => list,
        };
        if subsets.is_empty() {
            return Err(Error::empty("sensitivity.subsets"));
        }
        for subset in &subsets {
            if subset.len() != dim {
                return Err(Error::shape(
                    "sensitivity.subsets",
                    format!("sets of {dim} flags"),
                    &[subset.len()],
                ));
            }
            if subset.iter().all(|&flag| flag == subset[0]) {
                let got = if subset[0] { "all" } else { "none" };
                return Err(Error::argument("sensitivity.subsets", "some coordinates, not all", got));
            }
        }
        Ok(Self { function, subsets })
    }

    /// The sets.
    pub fn subsets(&self) -> &[Vec<bool>] {
        &self.subsets
    }

    /// The place of an individual output: `kind` 0 closed, 1 total; `what` 0 numerator, 1 mean, 2 mean square.
    fn place(&self, kind: usize, what: usize, set: usize, output: usize) -> usize {
        ((kind * 3 + what) * self.subsets.len() + set) * self.function.outputs() + output
    }

    /// The places (kind, set, output) of the combined outputs, in order.
    fn places(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let (sets, outputs) = (self.subsets.len(), self.function.outputs());
        (0..2 * sets * outputs).map(move |at| (at / (sets * outputs), at / outputs % sets, at % outputs))
    }
}

impl<F: Integrand> Integrand for SensitivityIndices<F> {
    fn dim(&self) -> usize {
        2 * self.function.dim()
    }

    fn outputs(&self) -> usize {
        6 * self.subsets.len() * self.function.outputs()
    }

    fn combined(&self) -> usize {
        2 * self.subsets.len() * self.function.outputs()
    }

    /// Closed and total indices, the sets, and the function's outputs if there are several.
    fn shape(&self) -> Vec<usize> {
        match self.function.outputs() {
            1 => vec![2, self.subsets.len()],
            outputs => vec![2, self.subsets.len(), outputs],
        }
    }

    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        let count = points(self, u, active, out)?;
        let (dim, outputs) = (self.function.dim(), self.function.outputs());
        let (mut x, mut z) = (Vec::with_capacity(count * dim), Vec::with_capacity(count * dim));
        for pair in u.chunks_exact(2 * dim) {
            x.extend_from_slice(&pair[..dim]);
            z.extend_from_slice(&pair[dim..]);
        }
        // What is needed of f for one set, and for any.
        let wanted = |set: usize, p: usize| (0..2).any(|kind| active[self.place(kind, 0, set, p)]);
        let any: Vec<bool> =
            (0..outputs).map(|p| (0..self.subsets.len()).any(|set| wanted(set, p))).collect();
        let mut fx = vec![0.0; outputs * count];
        let (mut fz, mut fv) = (fx.clone(), fx.clone());
        self.function.evaluate(&x, &any, &mut fx)?;
        self.function.evaluate(&z, &any, &mut fz)?;
        let mut v = vec![0.0; count * dim];
        for (set, subset) in self.subsets.iter().enumerate() {
            let flags: Vec<bool> = (0..outputs).map(|p| wanted(set, p)).collect();
            if !flags.contains(&true) {
                continue;
            }
            for ((v, x), z) in v.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).zip(z.chunks_exact(dim)) {
                for (j, v) in v.iter_mut().enumerate() {
                    *v = if subset[j] { x[j] } else { z[j] };
                }
            }
            self.function.evaluate(&v, &flags, &mut fv)?;
            for p in (0..outputs).filter(|&p| flags[p]) {
                let values = |f: &[f64], i: usize| f[p * count + i];
                let mut fill = |kind, what, value: &dyn Fn(usize) -> f64| {
                    let at = self.place(kind, what, set, p) * count;
                    out[at..at + count].iter_mut().enumerate().for_each(|(i, y)| *y = value(i));
                };
                fill(0, 0, &|i| values(&fx, i) * (values(&fv, i) - values(&fz, i)));
                fill(1, 0, &|i| 0.5 * (values(&fz, i) - values(&fv, i)).powi(2));
                for kind in 0..2 {
                    fill(kind, 1, &|i| values(&fx, i));
                    fill(kind, 2, &|i| values(&fx, i).powi(2));
                }
            }
        }
        Ok(())
    }

    fn bound(&self, low: &[f64], high: &[f64], combined_low: &mut [f64], combined_high: &mut [f64]) {
        for (at, (kind, set, p)) in self.places().enumerate() {
            let [tau, mean, square] = [0, 1, 2].map(|what| self.place(kind, what, set, p));
            let (mean_low, mean_high) = (low[mean] * low[mean], high[mean] * high[mean]);
            let (least_a, least_b) = (low[square] - mean_low, low[square] - mean_high);
            if least_a <= 0.0 || least_b <= 0.0 {
                (combined_low[at], combined_high[at]) = (0.0, 1.0);
                continue;
            }
            let (most_a, most_b) = (high[square] - mean_low, high[square] - mean_high);
            combined_low[at] = (low[tau] / most_a).min(low[tau] / most_b).clamp(0.0, 1.0);
            combined_high[at] = (high[tau] / least_a).max(high[tau] / least_b).clamp(0.0, 1.0);
        }
    }

    fn needs(&self, unfinished: &[bool], individual: &mut [bool]) {
        for ((kind, set, p), &flag) in self.places().zip(unfinished) {
            for what in 0..3 {
                individual[self.place(kind, what, set, p)] = flag;
            }
        }
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("sensitivity {:?} of {}", self.subsets, self.function.fingerprint()?))
    }
}
