//! The definitions, in plain loops with f64 sums and complex numbers. Slow; what everything else is tested against.

use kc_core::{Complex, Error, Result, Tensor, TensorView};

use crate::arc_cosine::{Order, value};
use crate::universal::Side;
use crate::{Scalar, check_width};

type C = Complex<f64>;

fn dot<T: Scalar>(a: TensorView<'_, T, 1>, b: TensorView<'_, T, 1>) -> f64 {
    a.iter().zip(b.iter()).map(|(a, b)| a.to_f64() * b.to_f64()).sum()
}

/// `m^-1/2 max(G x, threshold)` for rows `x` `[n, d]`: `[n, m]`.
///
/// # Errors
/// If the memory cannot be had.
pub fn relu_features<T: Scalar>(
    g: TensorView<'_, T, 2>,
    x: TensorView<'_, T, 2>,
    threshold: f64,
) -> Result<Tensor<f64, 2>> {
    let scale = (g.rows() as f64).powf(-0.5);
    Tensor::from_fn([x.rows(), g.rows()], |[i, k]| dot(g.row(k), x.row(i)).max(threshold) * scale)
}

/// What universal features are made of.
#[derive(Debug, Clone, Copy)]
pub struct UniversalTerms<'a> {
    /// Frequencies.
    pub xi: &'a [f64],
    /// Coefficients.
    pub c: &'a [C],
    /// Share of the exponent on the side of x.
    pub split: f64,
    /// Tilt.
    pub lam: f64,
}

/// Universal features of rows of one side, with biases `b` for weights: complex `[n, m]`.
///
/// # Errors
/// If the memory cannot be had.
pub fn universal_features<T: Scalar>(
    terms: UniversalTerms<'_>,
    g: TensorView<'_, T, 2>,
    side: Side,
    rows: TensorView<'_, T, 2>,
    b: Option<&[T]>,
) -> Result<Tensor<C, 2>> {
    let (m, d) = (g.rows(), g.cols());
    let root = (1.0 + 4.0 * terms.lam).sqrt();
    let amplitude = (m as f64).powf(-0.5) * root.powf(0.5 * d as f64);
    Tensor::from_fn([rows.rows(), m], |[i, k]| {
        let z = C::new(0.0, 2.0 * std::f64::consts::PI * terms.xi[k]);
        let power = if side == Side::X { terms.split } else { 1.0 - terms.split };
        let a = if power == 0.0 { C::new(1.0, 0.0) } else { z.powf(power) };
        let exponent = a * root * dot(g.row(k), rows.row(i)) - a * a * dot(rows.row(i), rows.row(i)) * 0.5;
        let feature = (exponent - terms.lam * dot(g.row(k), g.row(k))).exp() * amplitude;
        match side {
            Side::X => feature,
            Side::W => feature * terms.c[k] * (z * b.map_or(0.0, |b| b[i].to_f64())).exp(),
        }
    })
}

/// Random Maclaurin features of rows of one side, without exact terms: `omega` holds the signs of all features.
///
/// # Errors
/// If the memory cannot be had.
pub fn maclaurin_features<T: Scalar>(
    coefficients: &[f64],
    degrees: &[usize],
    omega: TensorView<'_, T, 2>,
    side: Side,
    rows: TensorView<'_, T, 2>,
) -> Result<Tensor<f64, 2>> {
    let total: f64 = (0..coefficients.len()).map(|n| 0.5f64.powi(n as i32 + 1)).sum();
    Tensor::from_fn([rows.rows(), degrees.len()], |[i, k]| {
        let (n, start) = (degrees[k], degrees[..k].iter().sum::<usize>());
        let (c, p) = (coefficients[n], 0.5f64.powi(n as i32 + 1) / total);
        let sign = if side == Side::W && c < 0.0 { -1.0 } else { 1.0 };
        let product: f64 = (start..start + n).map(|j| dot(omega.row(j), rows.row(i))).product();
        sign * (c.abs() / p / degrees.len() as f64).sqrt() * product
    })
}

/// `Re(Phi psi^T)`, without conjugation.
///
/// # Errors
/// If the memory cannot be had.
pub fn real_product(phi: TensorView<'_, C, 2>, psi: TensorView<'_, C, 2>) -> Result<Tensor<f64, 2>> {
    Tensor::from_fn([phi.rows(), psi.rows()], |[i, o]| {
        (0..phi.cols()).map(|k| (phi.at([i, k]) * psi.at([o, k])).re).sum()
    })
}

/// `Phi psi^T` of real features.
///
/// # Errors
/// If the memory cannot be had.
pub fn product(phi: TensorView<'_, f64, 2>, psi: TensorView<'_, f64, 2>) -> Result<Tensor<f64, 2>> {
    Tensor::from_fn([phi.rows(), psi.rows()], |[i, o]| dot(phi.row(i), psi.row(o)))
}

/// `f(w . x + b)`: what the features of a function tend to, `[n, out]`.
///
/// # Errors
/// `Shape` if `w` has other columns than `x`, or `b` is not one for each row of `w`.
pub fn exact_layer<T: Scalar>(
    f: impl Fn(f64) -> f64,
    x: TensorView<'_, T, 2>,
    w: TensorView<'_, T, 2>,
    b: Option<&[T]>,
) -> Result<Tensor<f64, 2>> {
    check_width("w", w.shape(), x.cols())?;
    if let Some(b) = b
        && b.len() != w.rows()
    {
        return Err(Error::shape("b", format!("[{}], one for each row of w", w.rows()), &[b.len()]));
    }
    Tensor::from_fn([x.rows(), w.rows()], |[i, o]| {
        f(dot(x.row(i), w.row(o)) + b.map_or(0.0, |b| b[o].to_f64()))
    })
}

/// The arc-cosine kernel of each pair of rows.
///
/// # Errors
/// If the memory cannot be had.
pub fn arccos_kernel<T: Scalar>(
    order: Order,
    x: TensorView<'_, T, 2>,
    w: TensorView<'_, T, 2>,
) -> Result<Tensor<f64, 2>> {
    Tensor::from_fn([x.rows(), w.rows()], |[i, o]| {
        let lengths = (dot(x.row(i), x.row(i)) * dot(w.row(o), w.row(o))).sqrt();
        value(order, dot(x.row(i), w.row(o)), lengths)
    })
}
