//! Random Maclaurin features: `f(w . x)` from the power series of `f`.
//!
//! `f(z) = sum c_n z^n`. Feature `k` has a degree `n_k`, drawn with probability `p_n` in proportion to `2^-(n+1)` for
//! `n <= n_max`, and `n_k` vectors of random signs:
//!
//! ```text
//! Phi_k(x) = m^-1/2 sqrt(|c_n| / p_n) prod_j omega_kj . x          Psi_k(w) = sign(c_n) Phi_k(w)
//! ```
//!
//! `E[Phi . Psi] = sum_{n <= n_max} c_n (w . x)^n`: unbiased but for the terms beyond `n_max`
//! ([`Maclaurin::truncated`]), and meaningless where the series diverges (tanh: `|z| >= pi/2`). With `h01` degrees
//! start at 2, and the terms of degrees 0 and 1 are added exactly, as `1 + d` more features.
//!
//! A row costs `d` multiplications for each sign vector, on average one to three for each feature.
//!
//! Source: Kar and Karnick, "Random Feature Maps for Dot Product Kernels" (2012); `h01` is their H0/1 heuristic.

use kc_core::math::Real;
use kc_core::{Error, Isa, KcRng, Result, Tensor, TensorView, TensorViewMut};

use crate::universal::Side;
use crate::{FeatureMap, Projection, Scalar, check_finite, scratch};

/// The coefficients of a power series about 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Series {
    /// `exp z`
    Exp,
    /// `tanh z`, for `|z| < pi/2`
    #[default]
    Tanh,
    /// `z Phi(z)`, the exact GELU.
    Gelu,
    /// `c_0, c_1, ...`; 0 beyond.
    Table(Vec<f64>),
}

impl Series {
    /// `c_0 ..= c_most`.
    pub fn coefficients(&self, most: usize) -> Vec<f64> {
        let mut c = vec![0.0; most + 1];
        match self {
            Series::Exp => {
                let mut term = 1.0;
                for (n, c) in c.iter_mut().enumerate() {
                    *c = term;
                    term /= (n + 1) as f64;
                }
            }
            Series::Tanh => {
                // tanh' = 1 - tanh^2
                for n in 0..most {
                    let square: f64 = (0..=n).map(|i| c[i] * c[n - i]).sum();
                    c[n + 1] = (f64::from(u8::from(n == 0)) - square) / (n + 1) as f64;
                }
            }
            Series::Gelu => {
                // z (1/2 + (2 pi)^-1/2 sum_k (-1)^k z^(2k+1) / (2^k k! (2k+1)))
                let mut term = 1.0 / (2.0 * std::f64::consts::PI).sqrt();
                for (n, c) in c.iter_mut().enumerate() {
                    if n == 1 {
                        *c = 0.5;
                    } else if n >= 2 && n % 2 == 0 {
                        let k = (n - 2) / 2;
                        *c = term / (2 * k + 1) as f64;
                        term *= -0.5 / (k + 1) as f64;
                    }
                }
            }
            Series::Table(table) => {
                for (c, t) in c.iter_mut().zip(table) {
                    *c = *t;
                }
            }
        }
        c
    }
}

/// The map of both sides.
#[derive(Debug, Clone)]
pub struct Maclaurin<T: Scalar> {
    inputs: usize,
    coefficients: Vec<f64>,
    truncated: bool,
    degrees: Vec<usize>,
    /// The sign vectors of all features, one below the other; none if all degrees are 0.
    omega: Option<Projection<T>>,
    /// Factors of the random features, by side.
    factors: [Vec<T>; 2],
    /// Factors of the exact terms of degrees 0 and 1, by side.
    exact: Option<[[T; 2]; 2]>,
}

impl<T: Scalar> Maclaurin<T> {
    /// `m` random features for `d` inputs, of degrees up to `n_max`.
    ///
    /// # Errors
    /// `Empty`; `Argument` for `n_max` below 2 with `h01`, or above 64; `NotFinite`.
    pub fn draw(series: &Series, n_max: usize, h01: bool, m: usize, d: usize, seed: u64) -> Result<Self> {
        if m == 0 || d == 0 {
            return Err(Error::empty(if m == 0 { "m" } else { "d" }));
        }
        let coefficients = series.coefficients(n_max.min(65));
        let chances = chances(n_max, h01)?;
        let mut rng = KcRng::new(seed, 4);
        let mut degrees = Vec::with_capacity(m);
        for _ in 0..m {
            let mut left = rng.uniform();
            let degree = chances.iter().position(|p| {
                left -= p;
                left < 0.0
            });
            degrees.push(degree.unwrap_or(n_max));
        }
        let count: usize = degrees.iter().sum();
        let mut signs = KcRng::new(seed, 5);
        let omega = Tensor::from_fn([count, d], |_| {
            T::from_f64(if signs.next_u64() >> 63 == 1 { -1.0 } else { 1.0 })
        })?;
        let more = series.coefficients(n_max + 64);
        let mut out = Self::new(coefficients, h01, degrees, omega)?;
        out.truncated = more[n_max + 1..].iter().any(|c| *c != 0.0)
            || matches!(series, Series::Table(t) if t.iter().skip(n_max + 1).any(|c| *c != 0.0));
        Ok(out)
    }

    /// Given degrees and sign vectors `omega` `[sum of degrees, d]`, those of a feature one below the other.
    /// `coefficients` are `c_0 ..= c_{n_max}`; the probabilities are those of the page.
    ///
    /// # Errors
    /// `Shape` if `omega` has another number of rows; `Argument` for a degree above `n_max`; `Empty`; `NotFinite`.
    pub fn new(coefficients: Vec<f64>, h01: bool, degrees: Vec<usize>, omega: Tensor<T, 2>) -> Result<Self> {
        let [rows, inputs] = omega.shape();
        if degrees.is_empty() || inputs == 0 || coefficients.is_empty() {
            let name = if degrees.is_empty() {
                "degrees"
            } else if inputs == 0 {
                "omega"
            } else {
                "coefficients"
            };
            return Err(Error::empty(name));
        }
        let n_max = coefficients.len() - 1;
        let chances = chances(n_max, h01)?;
        if let Some(n) = coefficients.iter().position(|c| !c.is_finite()) {
            return Err(Error::not_finite("coefficients", &[n], coefficients[n]));
        }
        if let Some(&n) = degrees.iter().find(|&&n| n > n_max || chances[n] == 0.0) {
            return Err(Error::argument("degrees", format!("degrees up to {n_max} that can be drawn"), n));
        }
        let count = degrees.iter().fold(0usize, |sum, &n| sum.saturating_add(n));
        if rows != count {
            return Err(Error::shape(
                "omega",
                format!("[{count}, d], one row for each factor"),
                &[rows, inputs],
            ));
        }
        let size = |n: usize| (coefficients[n].abs() / chances[n] / degrees.len() as f64).sqrt();
        let sign = |n: usize| if coefficients[n] < 0.0 { -1.0 } else { 1.0 };
        let x = degrees.iter().map(|&n| T::from_f64(size(n))).collect();
        let w = degrees.iter().map(|&n| T::from_f64(sign(n) * size(n))).collect();
        let exact = h01.then(|| {
            let root = |n: usize| coefficients[n].abs().sqrt();
            [
                [T::from_f64(root(0)), T::from_f64(root(1))],
                [T::from_f64(sign(0) * root(0)), T::from_f64(sign(1) * root(1))],
            ]
        });
        let omega = if rows > 0 { Some(Projection::new(omega)?) } else { None };
        Ok(Self { inputs, coefficients, truncated: false, degrees, omega, factors: [x, w], exact })
    }

    /// True if the series goes on beyond `n_max`, so that the features are of its beginning only.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// `c_0 ..= c_{n_max}`
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    /// The degree of each random feature.
    pub fn degrees(&self) -> &[usize] {
        &self.degrees
    }

    /// True if the terms of degrees 0 and 1 are exact.
    pub fn h01(&self) -> bool {
        self.exact.is_some()
    }

    /// The sign vectors `[sum of degrees, d]`.
    pub fn omega(&self) -> Option<TensorView<'_, T, 2>> {
        self.omega.as_ref().and_then(Projection::matrix)
    }

    fn project(&self, rows: TensorView<'_, T, 2>, z: &mut [T]) -> Result<()> {
        match &self.omega {
            Some(omega) => {
                omega.apply_into(rows, TensorViewMut::from_slice([rows.rows(), omega.outputs()], z)?)
            }
            None => Ok(()),
        }
    }

    pub(crate) fn isa(&self) -> Isa {
        self.omega.as_ref().map_or(Isa::best(), Projection::isa)
    }

    fn factors_of_row(&self) -> usize {
        self.omega.as_ref().map_or(0, Projection::outputs)
    }

    /// Features of some rows of one side.
    ///
    /// # Errors
    /// `Shape`, `NotFinite`; `Argument` if a product of projections overflows.
    pub fn fill_side(
        &self,
        side: Side,
        rows: TensorView<'_, T, 2>,
        first: usize,
        out: &mut [T],
    ) -> Result<()> {
        let name = if side == Side::X { "x" } else { "w" };
        check_finite(name, rows, first)?;
        let (count, m) = (self.factors_of_row(), self.degrees.len());
        let at = usize::from(side == Side::W);
        scratch::with(rows.rows() * count, |z: &mut [T]| {
            self.project(rows, z)?;
            for (i, out) in out.chunks_exact_mut(FeatureMap::<T>::width(self)).enumerate() {
                let mut z = z[i * count..][..count].iter();
                for ((out, &degree), &factor) in out.iter_mut().zip(&self.degrees).zip(&self.factors[at]) {
                    let mut product = factor;
                    for z in z.by_ref().take(degree) {
                        product = product * *z;
                    }
                    *out = product;
                }
                if let Some(exact) = &self.exact {
                    out[m] = exact[at][0];
                    for (out, x) in out[m + 1..].iter_mut().zip(rows.row(i).iter()) {
                        *out = exact[at][1] * x;
                    }
                }
                if let Some(k) = kc_core::math::first_non_finite(out) {
                    let degree = self.degrees.get(k).copied().unwrap_or(1);
                    return Err(Error::argument(
                        name,
                        "products of projections that do not overflow (normalise the rows)",
                        format!("one of degree {degree} in row {}", first + i),
                    ));
                }
            }
            Ok(())
        })
    }

    /// From the gradient by the features of rows to that by the rows, `[n, d]`.
    ///
    /// # Errors
    /// `Shape`.
    pub fn backward_side(
        &self,
        side: Side,
        rows: TensorView<'_, T, 2>,
        gradient: TensorView<'_, T, 2>,
    ) -> Result<Tensor<T, 2>> {
        let (count, m, at) = (self.factors_of_row(), self.degrees.len(), usize::from(side == Side::W));
        let want = [rows.rows(), FeatureMap::<T>::width(self)];
        if gradient.shape() != want {
            return Err(Error::shape("gradient", format!("{want:?}"), &gradient.shape()));
        }
        let mut z = Tensor::<T, 2>::zeros([rows.rows(), count])?;
        self.project(rows, z.as_mut_slice())?;
        for i in 0..rows.rows() {
            let mut start = 0;
            for (k, (&degree, &factor)) in self.degrees.iter().zip(&self.factors[at]).enumerate() {
                let z = &mut z.as_mut_slice()[i * count + start..][..degree];
                start += degree;
                replace_by_products_of_others(z, gradient.at([i, k]) * factor);
            }
        }
        let mut dx = Tensor::zeros([rows.rows(), self.inputs])?;
        if let Some(omega) = &self.omega {
            omega.back_into(z.view(), dx.view_mut())?;
        }
        if let Some(exact) = &self.exact {
            for (i, dx) in dx.as_mut_slice().chunks_exact_mut(self.inputs).enumerate() {
                for (j, dx) in dx.iter_mut().enumerate() {
                    *dx = *dx + exact[at][1] * gradient.at([i, m + 1 + j]);
                }
            }
        }
        Ok(dx)
    }
}

/// Each element becomes `factor` times the product of all others.
fn replace_by_products_of_others<T: Scalar>(z: &mut [T], factor: T) {
    let mut after = [<T as Real>::ONE; 65];
    for j in (0..z.len()).rev() {
        after[j] = after[j + 1] * z[j];
    }
    let mut before = factor;
    for j in 0..z.len() {
        let own = z[j];
        z[j] = before * after[j + 1];
        before = before * own;
    }
}

/// `p_0 ..= p_{n_max}`
fn chances(n_max: usize, h01: bool) -> Result<Vec<f64>> {
    let least = if h01 { 2 } else { 0 };
    if !(least..=64).contains(&n_max) {
        return Err(Error::argument("n_max", format!("{least} to 64"), n_max));
    }
    let all: Vec<f64> =
        (0..=n_max).map(|n| if n < least { 0.0 } else { 0.5f64.powi(n as i32 + 1) }).collect();
    let sum: f64 = all.iter().sum();
    Ok(all.into_iter().map(|p| p / sum).collect())
}

impl<T: Scalar> FeatureMap<T> for Maclaurin<T> {
    fn inputs(&self) -> usize {
        self.inputs
    }

    fn width(&self) -> usize {
        self.degrees.len() + if self.exact.is_some() { 1 + self.inputs } else { 0 }
    }

    fn fill(&self, rows: TensorView<'_, T, 2>, first: usize, out: &mut [T]) -> Result<()> {
        self.fill_side(Side::X, rows, first, out)
    }
}
