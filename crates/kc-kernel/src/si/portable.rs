//! The loops, for any processor; `x86.rs` compiles them for AVX2.

use super::Polynomial;

#[inline(always)]
fn fma<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Horner's rule up to a degree.
#[inline(always)]
fn value<const FMA: bool, const DEGREE: usize>(c: &Polynomial, x: f64, z: f64) -> f64 {
    let t = (x - z).abs();
    let u = t * (1.0 - t);
    let mut sum = c[DEGREE];
    for k in (0..DEGREE).rev() {
        sum = fma::<FMA>(sum, u, c[k]);
    }
    sum
}

#[inline(always)]
fn factor_of<const FMA: bool, const DEGREE: usize>(c: &Polynomial, x: &[f64], z: f64, out: &mut [f64]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = value::<FMA, DEGREE>(c, x, z);
    }
}

#[inline(always)]
fn multiply_of<const FMA: bool, const DEGREE: usize>(c: &Polynomial, x: &[f64], z: f64, v: &mut [f64]) {
    for (v, &x) in v.iter_mut().zip(x) {
        let p = value::<FMA, DEGREE>(c, x, z);
        *v = fma::<FMA>(*v, p, *v + p);
    }
}

/// Picks the loop of the degree.
macro_rules! by_degree {
    ($(#[$doc:meta])* $name:ident, $body:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name<const FMA: bool>(c: &Polynomial, x: &[f64], z: f64, out: &mut [f64]) {
            match c.iter().rposition(|&c| c != 0.0).unwrap_or(0) {
                0 | 1 => $body::<FMA, 1>(c, x, z, out),
                2 => $body::<FMA, 2>(c, x, z, out),
                3 => $body::<FMA, 3>(c, x, z, out),
                4 => $body::<FMA, 4>(c, x, z, out),
                _ => $body::<FMA, 5>(c, x, z, out),
            }
        }
    };
}

by_degree!(
    /// The polynomial at each `x`.
    factor,
    factor_of
);
by_degree!(
    /// `v = (1 + v) (1 + polynomial) - 1` at each `x`.
    multiply,
    multiply_of
);
