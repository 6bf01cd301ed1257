//! rep-t: a Student interval from independent randomisations.

use std::ops::Range;

use kc_core::{Error, Result};

use super::doubling::{Bounds, Doubling, Family, Limits};
use super::run::Run;
use super::state::{Reader, Writer};
use super::stop::{ErrorRule, Tolerance, check_alpha, check_inflate, check_n_init, individual_alphas};
use super::sums::{Moments, sum};
use super::variates::ControlVariates;
use super::{Cubature, no_variates};
use crate::special::t_quantile;
use crate::{Family as Kind, Integrand, Randomize, Sequence};

/// Settings of rep-t: R independent randomisations of a low-discrepancy sequence, doubled until the Student interval
/// of their means is short enough. Any integrand, any such sequence; the interval is as good as the means are
/// normal.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ReplicatedConfig {
    /// Absolute tolerance, 0 or more.
    pub abs_tol: f64,
    /// Relative tolerance, 0 or more.
    pub rel_tol: f64,
    /// Which tolerance counts.
    pub error: ErrorRule,
    /// First number of points of each replication: a power of two.
    pub n_init: u64,
    /// Most points, over all replications.
    pub n_limit: u64,
    /// Chance that a combined interval misses, above 0 and below 1.
    pub alpha: f64,
    /// Factor on the width of the interval, 1 or more.
    pub inflate: f64,
}

impl Default for ReplicatedConfig {
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

/// Rows of one request: their points are made block by block, only their sums are kept.
const CHUNK: u64 = 1 << 16;

impl Cubature for ReplicatedConfig {
    fn start_controlled<'a>(
        &self,
        sequence: &'a mut dyn Sequence,
        integrand: &'a dyn Integrand,
        variates: &ControlVariates<'a>,
    ) -> Result<Run<'a>> {
        no_variates(variates)?;
        check_n_init(self.n_init, 1)?;
        check_alpha(self.alpha)?;
        check_inflate(self.inflate)?;
        let tolerance = Tolerance::new(self.abs_tol, self.rel_tol, self.error)?;
        let limits = Limits { tolerance, n_init: self.n_init, n_limit: self.n_limit };
        if sequence.replications() < 2 {
            return Err(Error::argument("replications", "2 or more for rep-t", sequence.replications()));
        }
        if sequence.randomize() == Randomize::None {
            return Err(Error::argument("randomize", "a randomised sequence for rep-t", "none"));
        }
        if matches!(sequence.family(), Kind::Iid | Kind::Closed) {
            let reason =
                "rep-t needs an extensible low-discrepancy sequence; for independent points take mc-clt-vec";
            return Err(Error::unsupported("sequence", reason));
        }
        let replications = sequence.replications();
        let factor = |alpha: f64| {
            let t = -t_quantile(0.5 * alpha, (replications - 1) as f64);
            t * self.inflate / (replications as f64).sqrt()
        };
        let family = Replicated {
            sums: vec![vec![0.0; replications]; integrand.outputs()],
            factors: individual_alphas(integrand, self.alpha).into_iter().map(factor).collect(),
            key: format!("alpha {:?} inflate {:?}", self.alpha, self.inflate),
        };
        Ok(Run::new(Doubling::new(sequence, integrand, variates, family, limits)?))
    }
}

struct Replicated {
    /// Sum of the values of each output in each replication.
    sums: Vec<Vec<f64>>,
    /// Half width over standard deviation of the replications' means, per output.
    factors: Vec<f64>,
    key: String,
}

impl Family for Replicated {
    fn name(&self) -> &'static str {
        "rep-t"
    }

    fn fingerprint(&self) -> String {
        self.key.clone()
    }

    fn chunk(&self) -> u64 {
        CHUNK
    }

    fn add(&mut self, output: usize, rows: Range<u64>, values: &mut [Vec<f64>]) -> Result<()> {
        let rows = (rows.end - rows.start) as usize;
        for (total, values) in self.sums[output].iter_mut().zip(values[output].chunks_exact(rows)) {
            *total += sum(values);
        }
        Ok(())
    }

    fn close(&mut self, output: usize, n: u64, _sequence: &mut dyn Sequence) -> Result<Bounds> {
        let means: Vec<f64> = self.sums[output].iter().map(|sum| sum / n as f64).collect();
        let moments = Moments::of(&means);
        Ok(Bounds { mean: moments.mean, half: self.factors[output] * moments.deviation(), violated: false })
    }

    fn save(&self, output: usize, out: &mut Writer) {
        out.list(&self.sums[output]);
    }

    fn load(&mut self, output: usize, _extent: u64, from: &mut Reader<'_>) -> Result<()> {
        self.sums[output] = from.list_of(self.sums[output].len())?;
        Ok(())
    }
}
