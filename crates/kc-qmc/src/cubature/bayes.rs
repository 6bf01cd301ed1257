//! bayes-lattice and bayes-net: credible intervals under a Gaussian process whose kernel fits the points.

use std::ops::Range;

use kc_core::{Error, Result, par};

use super::basis::{Basis, Fourier, Walsh};
use super::doubling::{Bounds, Doubling, Family, Limits};
use super::run::Run;
use super::state::{Reader, Writer};
use super::stop::{ErrorRule, Tolerance, check_alpha, check_n_init};
use super::sums::sum;
use super::transform::Coefficient;
use super::variates::ControlVariates;
use super::{Cubature, no_variates, randomized_natural};
use crate::periodize::Periodization;
use crate::special::{normal_quantile, t_quantile};
use crate::{Family as Kind, Integrand, Sequence};

/// How the kernel's parameter and the interval follow from the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CredibleBound {
    /// Maximum likelihood for the parameter and the variance.
    #[default]
    Mle,
    /// Generalised cross validation.
    Gcv,
    /// Full Bayes for mean and variance: a Student interval; the parameter by maximum likelihood.
    Full,
}

/// Settings of bayes-lattice (on rank-1 lattices) and bayes-net (on digital nets in base 2): which of the two runs is
/// the sequence's matter.
///
/// The prior's covariance is a constant times `prod_j (1 + theta k(x_j - z_j))`: on lattices k is the Bernoulli
/// polynomial of degree 2r (up to its sign), on nets `(1 - 3 2^floor(log2 x)) / 10`. Fast transforms diagonalise it.
///
/// Sources: R. Jagadeeswaran, F. Hickernell, *Fast automatic Bayesian cubature using lattice sampling* (2019) and
/// *... using Sobol' sampling* (2022).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BayesConfig {
    /// Absolute tolerance, 0 or more.
    pub abs_tol: f64,
    /// Relative tolerance, 0 or more.
    pub rel_tol: f64,
    /// Which tolerance counts.
    pub error: ErrorRule,
    /// First number of points: a power of two, 2^2 or more.
    pub n_init: u64,
    /// How the integrand is made periodic; `None`: the sine transform of order 1 on lattices, not at all on nets.
    pub periodization: Option<Periodization>,
    /// Most points.
    pub n_limit: u64,
    /// Chance that an interval misses, above 0 and below 1.
    pub alpha: f64,
    /// The interval.
    pub bound: CredibleBound,
    /// Smoothness of the lattice kernel, 1 or 2. The net kernel has order 1.
    pub order: u32,
}

impl Default for BayesConfig {
    fn default() -> Self {
        Self {
            abs_tol: 1e-2,
            rel_tol: 0.0,
            error: ErrorRule::Either,
            n_init: 1 << 8,
            periodization: None,
            n_limit: 1 << 22,
            alpha: 0.01,
            bound: CredibleBound::Mle,
            order: 2,
        }
    }
}

impl Cubature for BayesConfig {
    fn start_controlled<'a>(
        &self,
        sequence: &'a mut dyn Sequence,
        integrand: &'a dyn Integrand,
        variates: &ControlVariates<'a>,
    ) -> Result<Run<'a>> {
        no_variates(variates)?;
        check_n_init(self.n_init, 4)?;
        check_alpha(self.alpha)?;
        if !(1..=2).contains(&self.order) {
            return Err(Error::argument("order", "1 or 2", self.order));
        }
        let tolerance = Tolerance::new(self.abs_tol, self.rel_tol, self.error)?;
        let limits = Limits { tolerance, n_init: self.n_init, n_limit: self.n_limit };
        randomized_natural(sequence, &[Kind::DigitalNet, Kind::Lattice])?;
        if sequence.family() == Kind::DigitalNet {
            let family = Bayes::<Walsh>::new(self, integrand, Periodization::None);
            return Ok(Run::new(Doubling::new(sequence, integrand, variates, family, limits)?));
        }
        let family = Bayes::<Fourier>::new(self, integrand, Periodization::C1Sin);
        Ok(Run::new(Doubling::new(sequence, integrand, variates, family, limits)?))
    }
}

/// A basis whose points have a kernel that it diagonalises.
trait Kernel: Basis {
    /// `theta`-free factors `k(x_i - x_0)` of the points `rows`, shape (rows, dim).
    fn factors(sequence: &mut dyn Sequence, rows: Range<u64>, order: u32) -> Result<Vec<f64>>;
}

impl Kernel for Fourier {
    fn factors(sequence: &mut dyn Sequence, rows: Range<u64>, order: u32) -> Result<Vec<f64>> {
        let dim = sequence.dim();
        let mut first = vec![0.0; dim];
        sequence.fill(0..1, &mut first)?;
        let mut points = vec![0.0; (rows.end - rows.start) as usize * dim];
        sequence.fill(rows, &mut points)?;
        for (x, first) in points.iter_mut().zip(first.iter().cycle()) {
            let step = *x - first;
            let step = if step < 0.0 { step + 1.0 } else { step };
            let product = step * (1.0 - step);
            // (-1)^(r+1) B_2r.
            *x = if order == 1 { 1.0 / 6.0 - product } else { 1.0 / 30.0 - product * product };
        }
        Ok(points)
    }
}

impl Kernel for Walsh {
    fn factors(sequence: &mut dyn Sequence, rows: Range<u64>, _order: u32) -> Result<Vec<f64>> {
        let dim = sequence.dim();
        let mut first = vec![0; dim];
        sequence.fill_digits(0..1, &mut first)?;
        let mut points = vec![0; (rows.end - rows.start) as usize * dim];
        let bits = sequence.fill_digits(rows, &mut points)?;
        let factor = |(x, first): (&u64, &u64)| match x ^ first {
            0 => 0.1,
            step => 0.1 * (1.0 - 3.0 * (f64::from(step.ilog2()) - f64::from(bits)).exp2()),
        };
        Ok(points.iter().zip(first.iter().cycle()).map(factor).collect())
    }
}

struct Bayes<B: Basis> {
    /// Coefficients of each output in natural order.
    coefficients: Vec<Vec<B::Value>>,
    /// Kernel factors of the points so far, shape (points, dim).
    factors: Vec<f64>,
    dim: usize,
    periodization: Periodization,
    bound: CredibleBound,
    order: u32,
    quantile: f64,
    key: String,
}

/// What the kernel with one parameter says of the values.
#[derive(Debug, Clone, Copy)]
struct Fit {
    /// To be minimised.
    loss: f64,
    /// First eigenvalue of the kernel minus 1.
    first: f64,
    /// `sum |y|^2 / lambda`, or `sum |y / lambda|^2` for GCV, without the first.
    norm: f64,
    /// `sum 1 / lambda`.
    trace: f64,
}

impl<B: Kernel> Bayes<B> {
    fn new(config: &BayesConfig, integrand: &dyn Integrand, periodization: Periodization) -> Self {
        let quantile = match config.bound {
            CredibleBound::Full => -t_quantile(0.5 * config.alpha, (config.n_init - 1) as f64),
            CredibleBound::Mle | CredibleBound::Gcv => -normal_quantile(0.5 * config.alpha),
        };
        Self {
            coefficients: (0..integrand.outputs()).map(|_| Vec::new()).collect(),
            factors: Vec::new(),
            dim: integrand.dim(),
            periodization: config.periodization.unwrap_or(periodization),
            bound: config.bound,
            order: config.order,
            quantile,
            key: format!("alpha {:?} bound {:?} order {}", config.alpha, config.bound, config.order),
        }
    }

    /// The kernel at `exp(log_theta)` against the values `y`, the unnormalised transform.
    fn fit(&self, log_theta: f64, y: &[B::Value]) -> Result<Fit> {
        let (n, theta) = (y.len(), log_theta.exp());
        let column = par::map_chunks(n, 1 << 12, |rows| {
            let points = self.factors[rows.start * self.dim..rows.end * self.dim].chunks_exact(self.dim);
            let less_one = |point: &[f64]| {
                let mut less_one = 0.0;
                point.iter().for_each(|factor| less_one += theta * factor * (1.0 + less_one));
                less_one
            };
            points.map(less_one).collect::<Vec<f64>>()
        })
        .concat();
        let largest = column.iter().fold(0.0f64, |max, k| max.max(k.abs()));
        let scale = (n as f64).sqrt();
        let mut lambda: Vec<f64> = B::transform(column)?.into_iter().map(|k| k.real() * scale).collect();
        let first = lambda[0];
        lambda[0] += n as f64;
        let (mut logs, mut norms, mut inverses) = (Vec::new(), Vec::new(), Vec::new());
        for (i, (lambda, y)) in lambda.iter().zip(y).enumerate() {
            let lambda = lambda.abs();
            if lambda <= 100.0 * f64::EPSILON * largest {
                continue;
            }
            logs.push(lambda.ln());
            inverses.push(1.0 / lambda);
            if i > 0 {
                let square = y.magnitude() * y.magnitude() / lambda;
                norms.push(if self.bound == CredibleBound::Gcv { square / lambda } else { square });
            }
        }
        let (norm, trace) = (sum(&norms), sum(&inverses));
        // A constant has no norm at all; any parameter fits it.
        let log_norm = norm.max(f64::MIN_POSITIVE).ln();
        let loss = match self.bound {
            CredibleBound::Gcv => log_norm - 2.0 * trace.ln(),
            CredibleBound::Mle | CredibleBound::Full => sum(&logs) + n as f64 * log_norm,
        };
        Ok(Fit { loss, first, norm, trace })
    }

    /// The parameter of least loss in `[-5, 0]`, by golden sections.
    fn best(&self, y: &[B::Value]) -> Result<Fit> {
        let ratio = 0.5 * (5f64.sqrt() - 1.0);
        let (mut low, mut high) = (-5.0, 0.0);
        let at = |share: f64, low: f64, high: f64| high - share * (high - low);
        let (mut left, mut right) = (at(ratio, low, high), at(1.0 - ratio, low, high));
        let (mut at_left, mut at_right) = (self.fit(left, y)?, self.fit(right, y)?);
        while high - low > 1e-2 {
            if at_left.loss < at_right.loss {
                (high, right, at_right) = (right, left, at_left);
                left = at(ratio, low, high);
                at_left = self.fit(left, y)?;
            } else {
                (low, left, at_left) = (left, right, at_right);
                right = at(1.0 - ratio, low, high);
                at_right = self.fit(right, y)?;
            }
        }
        Ok(if at_left.loss < at_right.loss { at_left } else { at_right })
    }
}

impl<B: Kernel> Family for Bayes<B> {
    fn name(&self) -> &'static str {
        B::NAMES[1]
    }

    fn fingerprint(&self) -> String {
        self.key.clone()
    }

    fn chunk(&self) -> u64 {
        u64::MAX >> 1
    }

    fn add(&mut self, output: usize, _rows: Range<u64>, values: &mut [Vec<f64>]) -> Result<()> {
        let values = std::mem::take(&mut values[output]);
        let factor = (values.len() as f64).sqrt().recip();
        let mut fresh = B::transform(values)?;
        let old = &mut self.coefficients[output];
        if old.is_empty() {
            fresh.iter_mut().for_each(|value| *value = value.scale(factor));
        } else {
            B::turn(&mut fresh);
            for (old, new) in old.iter_mut().zip(&mut fresh) {
                (*old, *new) = old.butterfly(new.scale(factor));
            }
        }
        old.append(&mut fresh);
        Ok(())
    }

    fn close(&mut self, output: usize, n: u64, sequence: &mut dyn Sequence) -> Result<Bounds> {
        let known = (self.factors.len() / self.dim) as u64;
        if known < n {
            let mut more = B::factors(sequence, known..n, self.order)?;
            self.factors.append(&mut more);
        }
        let n = n as f64;
        let y: Vec<B::Value> = self.coefficients[output].iter().map(|c| c.scale(n)).collect();
        let fit = self.best(&y)?;
        let norm = fit.norm / n;
        let share = (fit.first / (n + fit.first)).abs();
        let variance = match self.bound {
            CredibleBound::Mle => share * norm / n,
            CredibleBound::Gcv => share * norm / fit.trace,
            CredibleBound::Full => (fit.first / n).abs() * norm / (n - 1.0),
        };
        Ok(Bounds { mean: y[0].real() / n, half: self.quantile * variance.sqrt(), violated: false })
    }

    fn periodization(&self) -> Periodization {
        self.periodization
    }

    fn save(&self, output: usize, out: &mut Writer) {
        out.list(&self.coefficients[output]);
    }

    fn load(&mut self, output: usize, extent: u64, from: &mut Reader<'_>) -> Result<()> {
        self.coefficients[output] = from.list()?;
        if self.coefficients[output].len() as u64 != extent || (extent > 0 && !extent.is_power_of_two()) {
            return Err(from.wrong("another number of coefficients"));
        }
        Ok(())
    }
}
