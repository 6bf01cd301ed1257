//! Fourier and Walsh functions: in what integrands are expanded.

use std::f64::consts::PI;

use kc_core::{Complex, Result};
use kc_fft::{fftbr, fwht};

use super::transform::Coefficient;

/// The functions in which the integrand is expanded.
pub(super) trait Basis: Send {
    type Value: Coefficient;
    /// Names of the guaranteed and the Bayesian algorithm.
    const NAMES: [&'static str; 2];

    /// Unitary transform of the values at points in natural order.
    fn transform(values: Vec<f64>) -> Result<Vec<Self::Value>>;

    /// Refers the coefficients of the second half of the points to the origin of the first.
    fn turn(fresh: &mut [Self::Value]);

    /// The coefficient as one real number, for least squares.
    fn real(value: Self::Value) -> f64;
}

pub(super) struct Walsh;

impl Basis for Walsh {
    type Value = f64;
    const NAMES: [&'static str; 2] = ["net-g", "bayes-net"];

    fn transform(mut values: Vec<f64>) -> Result<Vec<f64>> {
        let n = values.len();
        fwht(&mut values, n)?;
        Ok(values)
    }

    fn turn(_fresh: &mut [f64]) {}

    fn real(value: f64) -> f64 {
        value
    }
}

pub(super) struct Fourier;

impl Basis for Fourier {
    type Value = Complex<f64>;
    const NAMES: [&'static str; 2] = ["lattice-g", "bayes-lattice"];

    fn transform(values: Vec<f64>) -> Result<Vec<Complex<f64>>> {
        let mut values: Vec<Complex<f64>> = values.into_iter().map(Complex::from).collect();
        let n = values.len();
        fftbr(&mut values, n)?;
        Ok(values)
    }

    /// The new points lie half a step on: `exp(-i pi k / n)`, as products of two short tables.
    fn turn(fresh: &mut [Complex<f64>]) {
        let n = fresh.len();
        let short = 1usize << (n.ilog2() / 2);
        let cis = |k: usize| Complex::cis(-PI * k as f64 / n as f64);
        let steps: Vec<_> = (0..short).map(cis).collect();
        for (at, part) in fresh.chunks_mut(short).enumerate() {
            let first = cis(at * short);
            part.iter_mut().zip(&steps).for_each(|(value, step)| *value *= first * step);
        }
    }

    fn real(value: Complex<f64>) -> f64 {
        value.re
    }
}
