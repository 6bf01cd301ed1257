//! mc-clt-vec: the central limit theorem on independent points, doubled until the interval is short enough.

use std::ops::Range;

use kc_core::Result;

use super::doubling::{Bounds, Doubling, Family, Limits};
use super::run::Run;
use super::state::{Reader, Writer};
use super::stop::{ErrorRule, Tolerance, check_alpha, check_inflate, check_n_init, individual_alphas};
use super::sums::Moments;
use super::variates::ControlVariates;
use super::{Cubature, independent, no_variates};
use crate::special::normal_quantile;
use crate::{Integrand, Sequence};

/// Settings of mc-clt-vec: all independent points drawn so far, doubled until the normal interval of their mean is
/// short enough. Vector outputs; the interval is asymptotic.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CltVecConfig {
    /// Absolute tolerance, 0 or more.
    pub abs_tol: f64,
    /// Relative tolerance, 0 or more.
    pub rel_tol: f64,
    /// Which tolerance counts.
    pub error: ErrorRule,
    /// First number of points: a power of two, 2 or more.
    pub n_init: u64,
    /// Most points.
    pub n_limit: u64,
    /// Chance that a combined interval misses, above 0 and below 1.
    pub alpha: f64,
    /// Factor on the width of the interval, 1 or more.
    pub inflate: f64,
}

impl Default for CltVecConfig {
    fn default() -> Self {
        Self {
            abs_tol: 1e-2,
            rel_tol: 0.0,
            error: ErrorRule::Either,
            n_init: 1 << 8,
            n_limit: 1 << 30,
            alpha: 0.01,
            inflate: 1.0,
        }
    }
}

/// Rows of one request.
const CHUNK: u64 = 1 << 18;

impl Cubature for CltVecConfig {
    fn start_controlled<'a>(
        &self,
        sequence: &'a mut dyn Sequence,
        integrand: &'a dyn Integrand,
        variates: &ControlVariates<'a>,
    ) -> Result<Run<'a>> {
        no_variates(variates)?;
        check_n_init(self.n_init, 2)?;
        check_alpha(self.alpha)?;
        check_inflate(self.inflate)?;
        independent(sequence)?;
        let tolerance = Tolerance::new(self.abs_tol, self.rel_tol, self.error)?;
        let limits = Limits { tolerance, n_init: self.n_init, n_limit: self.n_limit };
        let factor = |alpha: f64| -normal_quantile(0.5 * alpha) * self.inflate;
        let family = CltVec {
            moments: vec![Moments::default(); integrand.outputs()],
            factors: individual_alphas(integrand, self.alpha).into_iter().map(factor).collect(),
            key: format!("alpha {:?} inflate {:?}", self.alpha, self.inflate),
        };
        Ok(Run::new(Doubling::new(sequence, integrand, variates, family, limits)?))
    }
}

struct CltVec {
    moments: Vec<Moments>,
    /// Half width over standard error, per output.
    factors: Vec<f64>,
    key: String,
}

impl Family for CltVec {
    fn name(&self) -> &'static str {
        "mc-clt-vec"
    }

    fn fingerprint(&self) -> String {
        self.key.clone()
    }

    fn chunk(&self) -> u64 {
        CHUNK
    }

    fn add(&mut self, output: usize, _rows: Range<u64>, values: &mut [Vec<f64>]) -> Result<()> {
        self.moments[output] = self.moments[output].join(Moments::of(&values[output]));
        Ok(())
    }

    fn close(&mut self, output: usize, n: u64, _sequence: &mut dyn Sequence) -> Result<Bounds> {
        let moments = self.moments[output];
        let half = self.factors[output] * moments.deviation() / (n as f64).sqrt();
        Ok(Bounds { mean: moments.mean, half, violated: false })
    }

    fn save(&self, output: usize, out: &mut Writer) {
        self.moments[output].save(out);
    }

    fn load(&mut self, output: usize, extent: u64, from: &mut Reader<'_>) -> Result<()> {
        self.moments[output] = Moments::load(from)?;
        if self.moments[output].count != extent {
            return Err(from.wrong("moments of another number of points"));
        }
        Ok(())
    }
}
