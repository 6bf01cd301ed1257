//! Closures as integrands.

use std::fmt;

use kc_core::Result;

use super::{Integrand, points};

/// A scalar function of one point. It has no fingerprint, so cubature of it cannot be resumed.
#[derive(Clone)]
pub struct FnIntegrand<F> {
    dim: usize,
    function: F,
}

/// `function` of points of `dim` coordinates (at least 1).
pub fn from_fn<F: Fn(&[f64]) -> f64 + Send + Sync>(dim: usize, function: F) -> FnIntegrand<F> {
    FnIntegrand { dim: dim.max(1), function }
}

impl<F> fmt::Debug for FnIntegrand<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnIntegrand").field("dim", &self.dim).finish_non_exhaustive()
    }
}

impl<F: Fn(&[f64]) -> f64 + Send + Sync> Integrand for FnIntegrand<F> {
    fn dim(&self) -> usize {
        self.dim
    }

    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        points(self, u, active, out)?;
        for (u, out) in u.chunks_exact(self.dim).zip(out) {
            *out = (self.function)(u);
        }
        Ok(())
    }
}

/// A function of one point that writes several values. It has no fingerprint, so cubature of it cannot be resumed.
#[derive(Clone)]
pub struct VectorFnIntegrand<F> {
    dim: usize,
    outputs: usize,
    function: F,
}

/// `function` of points of `dim` coordinates (at least 1), which writes `outputs` values.
pub fn vector_from_fn<F: Fn(&[f64], &mut [f64]) + Send + Sync>(
    dim: usize,
    outputs: usize,
    function: F,
) -> VectorFnIntegrand<F> {
    VectorFnIntegrand { dim: dim.max(1), outputs, function }
}

impl<F> fmt::Debug for VectorFnIntegrand<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VectorFnIntegrand")
            .field("dim", &self.dim)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl<F: Fn(&[f64], &mut [f64]) + Send + Sync> Integrand for VectorFnIntegrand<F> {
    fn dim(&self) -> usize {
        self.dim
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        let count = points(self, u, active, out)?;
        let mut values = vec![0.0; self.outputs];
        for (i, u) in u.chunks_exact(self.dim).enumerate() {
            (self.function)(u, &mut values);
            values.iter().enumerate().for_each(|(p, &value)| out[p * count + i] = value);
        }
        Ok(())
    }
}
