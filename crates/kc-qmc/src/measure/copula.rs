//! Copulas: dependence between coordinates, apart from their distributions.

use kc_core::{Error, Result};

use super::gaussian::forward_solve;
use super::marginals::no_density;
use super::student::{ConditionalT, clip, symmetrised};
use super::{Distribution, Marginals, Measure, density_rows, in_unit_interval, parameter, rows};
use crate::small::cholesky;
use crate::special::{normal_cdf, normal_quantile, t_cdf, t_ln_pdf, t_quantile};

/// Steps of a bisection of the unit interval: enough for every bit.
const HALVINGS: usize = 60;

/// A copula: the joint distribution of uniform variables.
///
/// A point of independent uniform values `u` becomes a dependent one `v` by the inverse of the conditional
/// distribution functions, coordinate after coordinate. Values are kept in `[eps, 1 - eps]`.
///
/// Sources: R. B. Nelsen, *An introduction to copulas* (2006); M. Hofert, M. Mächler, A. J. McNeil, *Likelihood inference
/// for Archimedean copulas in high dimensions* (2012).
#[derive(Debug, Clone, PartialEq)]
pub struct Copula {
    dim: usize,
    family: Family,
}

#[derive(Debug, Clone, PartialEq)]
enum Family {
    Gaussian { correlation: Vec<f64>, lower: Vec<f64> },
    Student { correlation: Vec<f64>, df: f64, conditional: ConditionalT },
    Clayton { theta: f64 },
    Gumbel { theta: f64, derivatives: Derivatives },
    Frank { theta: f64, derivatives: Derivatives },
}

impl Copula {
    /// That of a normal distribution with this correlation matrix (row-major).
    ///
    /// # Errors
    /// `Empty`, `Shape`, `NotFinite`; `Argument` unless it is symmetric with a unit diagonal; `Singular` unless it is
    /// positive definite.
    pub fn gaussian(dim: usize, correlation: &[f64]) -> Result<Self> {
        let correlation = checked_correlation(dim, correlation)?;
        let lower = cholesky("copula.correlation", &correlation, dim)?;
        Ok(Self { dim, family: Family::Gaussian { correlation, lower } })
    }

    /// That of a t distribution with this correlation matrix and degrees of freedom.
    ///
    /// # Errors
    /// As [`gaussian`](Self::gaussian), and `Argument` unless `df` is positive.
    pub fn student(dim: usize, correlation: &[f64], df: f64) -> Result<Self> {
        parameter("student_copula", "df", df, "a positive number", |df| df > 0.0)?;
        let correlation = checked_correlation(dim, correlation)?;
        let conditional = ConditionalT::new("copula.correlation", &correlation, dim, df)?;
        Ok(Self { dim, family: Family::Student { correlation, df, conditional } })
    }

    /// Clayton's, `theta > 0`: dependence where values are small.
    ///
    /// # Errors
    /// `Empty`, `Argument`.
    pub fn clayton(dim: usize, theta: f64) -> Result<Self> {
        super::dimension("clayton_copula", dim)?;
        parameter("clayton_copula", "theta", theta, "a positive number", |t| t > 0.0)?;
        Ok(Self { dim, family: Family::Clayton { theta } })
    }

    /// Gumbel's, `theta >= 1` (1 is independence): dependence where values are large.
    ///
    /// # Errors
    /// `Empty`, `Argument`.
    pub fn gumbel(dim: usize, theta: f64) -> Result<Self> {
        super::dimension("gumbel_copula", dim)?;
        parameter("gumbel_copula", "theta", theta, "a number from 1", |t| t >= 1.0)?;
        Ok(Self { dim, family: Family::Gumbel { theta, derivatives: Derivatives::gumbel(dim, 1.0 / theta) } })
    }

    /// Frank's, `theta` not 0 and, in more than two dimensions, positive.
    ///
    /// # Errors
    /// `Empty`, `Argument`.
    pub fn frank(dim: usize, theta: f64) -> Result<Self> {
        super::dimension("frank_copula", dim)?;
        if dim == 2 {
            parameter("frank_copula", "theta", theta, "a number other than 0", |t| t != 0.0)?;
        } else {
            let expected = "a positive number (negative ones need 2 coordinates)";
            parameter("frank_copula", "theta", theta, expected, |t| t > 0.0)?;
        }
        Ok(Self { dim, family: Family::Frank { theta, derivatives: Derivatives::frank(dim) } })
    }

    /// Coordinates of a point.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Dependent uniform values `v` for rows of independent ones.
    ///
    /// # Errors
    /// `Shape`; `Argument` for values outside of `[0, 1]`.
    pub fn transform(&self, u: &[f64], v: &mut [f64]) -> Result<()> {
        rows(self.dim, u, v)?;
        in_unit_interval(self.dim, u)?;
        let (mut z, mut t) = (vec![0.0; self.dim], vec![0.0; self.dim]);
        for (u, v) in u.chunks_exact(self.dim).zip(v.chunks_exact_mut(self.dim)) {
            match &self.family {
                Family::Gaussian { lower, .. } => {
                    z.iter_mut().zip(u).for_each(|(z, &u)| *z = normal_quantile(clip(u)));
                    for (row, v) in lower.chunks_exact(self.dim).zip(v.iter_mut()) {
                        *v = normal_cdf(row.iter().zip(&z).map(|(l, z)| l * z).sum());
                    }
                }
                Family::Student { df, conditional, .. } => {
                    conditional.transform(u, &mut z, &mut t);
                    v.iter_mut().zip(&t).for_each(|(v, &t)| *v = t_cdf(t, *df));
                }
                Family::Clayton { theta } => clayton(*theta, u, v),
                Family::Gumbel { theta, .. } if *theta == 1.0 => v.copy_from_slice(u),
                Family::Gumbel { theta, derivatives } => {
                    gumbel(*theta, derivatives, u, v);
                }
                Family::Frank { theta, derivatives } => frank(*theta, derivatives, u, v),
            }
            v.iter_mut().for_each(|v| *v = clip(*v));
        }
        Ok(())
    }

    /// The logarithm of the density at a point of the cube; `z` and `w` are scratch of its length.
    fn ln_density(&self, v: &[f64], z: &mut [f64], w: &mut [f64]) -> f64 {
        let d = self.dim as f64;
        match &self.family {
            Family::Gaussian { lower, .. } => {
                z.iter_mut().zip(v).for_each(|(z, &v)| *z = normal_quantile(v));
                forward_solve(lower, z, w);
                let volume: f64 = (0..self.dim).map(|i| lower[i * self.dim + i].ln()).sum();
                let squares: f64 = z.iter().zip(w.iter()).map(|(z, w)| z * z - w * w).sum();
                0.5 * squares - volume
            }
            Family::Student { df, conditional, .. } => {
                z.iter_mut().zip(v).for_each(|(z, &v)| *z = t_quantile(v, *df));
                let alone: f64 = z.iter().map(|&z| t_ln_pdf(z, *df)).sum();
                conditional.ln_density(z, w) - alone
            }
            Family::Clayton { theta } => {
                let sum =
                    v.iter().fold(f64::NEG_INFINITY, |sum, v| add_logs(sum, ln_exp_m1(-theta * v.ln())));
                let factors: f64 = (1..self.dim).map(|j| (theta * j as f64).ln_1p()).sum();
                let logs: f64 = v.iter().map(|v| v.ln()).sum();
                factors - (1.0 / theta + d) * add_logs(0.0, sum) - (theta + 1.0) * logs
            }
            Family::Gumbel { theta, derivatives } => {
                let log_t = v.iter().fold(f64::NEG_INFINITY, |sum, v| add_logs(sum, theta * (-v.ln()).ln()));
                let inner = v.iter().map(|v| theta.ln() + (theta - 1.0) * (-v.ln()).ln() - v.ln());
                gumbel_derivative(*theta, derivatives, self.dim, log_t) + inner.sum::<f64>()
            }
            Family::Frank { theta, derivatives } => {
                let log_z = v.iter().fold(frank_log_scale(*theta), |sum, &v| sum + frank_log_part(*theta, v));
                let inner = v.iter().map(|&v| theta.abs().ln() - (theta * v).exp_m1().abs().ln());
                frank_derivative(*theta, derivatives, self.dim, log_z) + inner.sum::<f64>()
            }
        }
    }

    fn fingerprint(&self) -> String {
        match &self.family {
            Family::Gaussian { correlation, .. } => format!("gaussian copula {correlation:?}"),
            Family::Student { correlation, df, .. } => format!("student copula {correlation:?} {df:?}"),
            Family::Clayton { theta } => format!("clayton copula {theta:?}"),
            Family::Gumbel { theta, .. } => format!("gumbel copula {theta:?}"),
            Family::Frank { theta, .. } => format!("frank copula {theta:?}"),
        }
    }
}

fn checked_correlation(dim: usize, matrix: &[f64]) -> Result<Vec<f64>> {
    const SLACK: f64 = 1e-12;
    super::dimension("copula", dim)?;
    let symmetric = symmetrised("copula.correlation", matrix, dim)?;
    if let Some(at) = (0..dim * dim).find(|&at| (symmetric[at] - matrix[at]).abs() > SLACK) {
        let got = format!("{} at row {}, column {}", matrix[at], at / dim, at % dim);
        return Err(Error::argument("copula.correlation", "a symmetric matrix", got));
    }
    if let Some(i) = (0..dim).find(|i| (symmetric[i * dim + i] - 1.0).abs() > SLACK) {
        let got = format!("{} in row {i}", symmetric[i * dim + i]);
        return Err(Error::argument("copula.correlation", "ones on the diagonal", got));
    }
    Ok(symmetric)
}

/// `ln(e^a + e^b)`
fn add_logs(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if high == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// `ln(e^x - 1)` for `x >= 0`
fn ln_exp_m1(x: f64) -> f64 {
    if x > 1.0 { x + (-(-x).exp()).ln_1p() } else { x.exp_m1().ln() }
}

/// In logarithms, as `v^-theta` overflows.
fn clayton(theta: f64, u: &[f64], v: &mut [f64]) {
    // ln(1 + sum of v^-theta - 1)
    let mut log_sum = 0.0;
    for (j, (v, &u)) in v.iter_mut().zip(u).enumerate() {
        let exponent = if j == 0 { theta } else { theta / (1.0 + j as f64 * theta) };
        let log_phi = log_sum + ln_exp_m1(-exponent * clip(u).ln());
        *v = (-add_logs(0.0, log_phi) / theta).exp();
        log_sum = add_logs(log_sum, log_phi);
    }
}

/// `v` in `[eps, 1 - eps]` where an increasing function reaches `u`.
fn bisect(u: f64, cdf: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (f64::EPSILON, 1.0 - f64::EPSILON);
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if cdf(middle) < u {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// Polynomials with coefficients that are not negative, one for each order of derivative: row k has the powers 1 to k, each
/// row divided by the exponential of `scale[k]`.
#[derive(Debug, Clone, PartialEq)]
struct Derivatives {
    rows: Vec<Vec<f64>>,
    scale: Vec<f64>,
}

impl Derivatives {
    /// `|psi^(k)(t)| = psi(t) t^-k P_k(t^alpha)` for `psi = exp(-t^alpha)`.
    fn gumbel(dim: usize, alpha: f64) -> Self {
        Self::by_recurrence(dim, alpha, |k, j| (k - alpha * j, alpha))
    }

    /// `Li_(1-k)(z)` in `y = z / (1 - z)`: `sum_j S(k, j) (j-1)! y^j`.
    fn frank(dim: usize) -> Self {
        Self::by_recurrence(dim, 1.0, |_, j| (j, j))
    }

    /// Row 1 is `first`; row k + 1 gets from entry j of row k the first factor at j and the second one at j + 1.
    fn by_recurrence(dim: usize, first: f64, factors: impl Fn(f64, f64) -> (f64, f64)) -> Self {
        let (mut rows, mut scale) = (vec![Vec::new(), vec![first]], vec![0.0, 0.0]);
        for k in 1..dim {
            let last = &rows[k];
            let mut next = vec![0.0; k + 1];
            for (at, &c) in last.iter().enumerate() {
                let (stay, up) = factors(k as f64, at as f64 + 1.0);
                next[at] += stay * c;
                next[at + 1] += up * c;
            }
            let largest = next.iter().fold(0.0f64, |m, &c| m.max(c));
            next.iter_mut().for_each(|c| *c /= largest);
            scale.push(scale[k] + largest.ln());
            rows.push(next);
        }
        Self { rows, scale }
    }

    /// The logarithm of polynomial `k` at `e^log_y > 0`.
    fn ln(&self, k: usize, log_y: f64) -> f64 {
        let row = &self.rows[k];
        // From the largest power down in 1/y, or from the smallest up in y, so that nothing overflows.
        let sum = if log_y > 0.0 {
            let inverse = (-log_y).exp();
            k as f64 * log_y + row.iter().fold(0.0, |sum, c| sum * inverse + c).ln()
        } else {
            let y = log_y.exp();
            log_y + row.iter().rev().fold(0.0, |sum, c| sum * y + c).ln()
        };
        sum + self.scale[k]
    }
}

/// `ln |psi^(k)(t)|`
fn gumbel_derivative(theta: f64, derivatives: &Derivatives, k: usize, log_t: f64) -> f64 {
    let log_x = log_t / theta;
    derivatives.ln(k, log_x) - log_x.exp() - k as f64 * log_t
}

fn gumbel(theta: f64, derivatives: &Derivatives, u: &[f64], v: &mut [f64]) {
    let log_phi = |v: f64| theta * (-v.ln()).ln();
    v[0] = clip(u[0]);
    let mut log_t = log_phi(v[0]);
    for (j, &u) in u.iter().enumerate().skip(1) {
        let before = gumbel_derivative(theta, derivatives, j, log_t);
        v[j] = bisect(clip(u), |v| {
            (gumbel_derivative(theta, derivatives, j, add_logs(log_t, log_phi(v))) - before).exp()
        });
        log_t = add_logs(log_t, log_phi(v[j]));
    }
}

/// `ln |1 - e^-theta|`
fn frank_log_scale(theta: f64) -> f64 {
    if theta > 1.0 { (-(-theta).exp()).ln_1p() } else { (-theta).exp_m1().abs().ln() }
}

/// `ln((1 - e^(-theta v)) / (1 - e^-theta))`, minus the generator of Frank's copula.
fn frank_log_part(theta: f64, v: f64) -> f64 {
    frank_log_scale(theta * v) - frank_log_scale(theta)
}

/// `ln |psi^(k)|` for `|z| = |1 - e^-theta| e^-t`.
fn frank_derivative(theta: f64, derivatives: &Derivatives, k: usize, log_z: f64) -> f64 {
    if theta < 0.0 {
        // z is negative, which two coordinates allow: |y| = |z| / (1 + |z|), and y (1 + y) for the second order.
        let log_y = log_z - add_logs(0.0, log_z);
        let second = if k == 2 { -add_logs(0.0, log_z) } else { 0.0 };
        return log_y + second - (-theta).ln();
    }
    let log_y = log_z - (-log_z.exp_m1()).ln();
    derivatives.ln(k, log_y) - theta.ln()
}

fn frank(theta: f64, derivatives: &Derivatives, u: &[f64], v: &mut [f64]) {
    v[0] = clip(u[0]);
    let mut log_z = frank_log_scale(theta) + frank_log_part(theta, v[0]);
    for (j, &u) in u.iter().enumerate().skip(1) {
        let before = frank_derivative(theta, derivatives, j, log_z);
        v[j] = bisect(clip(u), |v| {
            (frank_derivative(theta, derivatives, j, log_z + frank_log_part(theta, v)) - before).exp()
        });
        log_z += frank_log_part(theta, v[j]);
    }
}

/// Coordinates with any distributions, dependent through a copula.
///
/// ```
/// use kc_qmc::Measure;
/// use kc_qmc::measure::{Copula, CopulaMeasure};
/// let copula = Copula::clayton(2, 2.0)?;
/// let measure = CopulaMeasure::new(copula, vec!["norm".parse()?, "expon(rate=0.5)".parse()?])?;
/// let mut t = [0.0; 2];
/// measure.transform(&[0.5, 0.5], &mut t)?;
/// assert_eq!(t[0], 0.0);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CopulaMeasure {
    copula: Copula,
    marginals: Marginals,
}

impl CopulaMeasure {
    /// From a copula and one distribution per coordinate.
    ///
    /// # Errors
    /// `Shape` if their numbers differ; `Argument` for parameters out of their range.
    pub fn new(copula: Copula, marginals: Vec<Distribution>) -> Result<Self> {
        if marginals.len() != copula.dim {
            return Err(Error::shape(
                "copula.marginals",
                format!("{} distributions", copula.dim),
                &[marginals.len()],
            ));
        }
        Ok(Self { copula, marginals: Marginals::new(marginals)? })
    }
}

impl Measure for CopulaMeasure {
    fn dim(&self) -> usize {
        self.copula.dim
    }

    fn range(&self) -> Vec<(f64, f64)> {
        self.marginals.range()
    }

    fn transform(&self, u: &[f64], t: &mut [f64]) -> Result<()> {
        rows(self.dim(), u, t)?;
        let mut v = vec![0.0; u.len()];
        self.copula.transform(u, &mut v)?;
        self.marginals.quantiles(&v, t)
    }

    fn density(&self, t: &[f64], out: &mut [f64]) -> Result<()> {
        let dim = self.dim();
        density_rows(dim, t, out)?;
        if let Some(discrete) = self.marginals.list().iter().find(|distribution| distribution.is_discrete()) {
            return Err(no_density(discrete));
        }
        let [mut v, mut z, mut w] = [(); 3].map(|()| vec![0.0; dim]);
        for (t, out) in t.chunks_exact(dim).zip(out) {
            let alone = self.marginals.ln_density(t)?;
            if alone == f64::NEG_INFINITY {
                *out = 0.0;
                continue;
            }
            for ((v, distribution), &t) in v.iter_mut().zip(self.marginals.list()).zip(t) {
                *v = clip(distribution.cdf(t));
            }
            *out = (alone + self.copula.ln_density(&v, &mut z, &mut w)).exp();
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        format!("{} of {}", self.copula.fingerprint(), self.marginals.fingerprint())
    }

    fn mean(&self) -> Option<Vec<f64>> {
        self.marginals.mean()
    }

    fn variance(&self) -> Option<Vec<f64>> {
        self.marginals.variance()
    }
}
