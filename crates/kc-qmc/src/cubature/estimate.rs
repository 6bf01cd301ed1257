//! The answer of a cubature.

/// What a cubature found, and how honest it can be about it.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Estimate {
    /// The answers, one per combined output. NaN where the bounds are not finite.
    pub solution: Vec<f64>,
    /// Lower bounds of the combined outputs.
    pub low: Vec<f64>,
    /// Upper bounds of the combined outputs.
    pub high: Vec<f64>,
    /// Points used in all: of the output that needed most, over all replications and levels.
    pub n_total: u64,
    /// Points that each individual output used, over all replications.
    pub n: Vec<u64>,
    /// The limit on points or levels was reached before the tolerance.
    pub exhausted: bool,
    /// Individual outputs whose coefficients leave the cone that the bounds assume; `None` if it was not checked.
    pub cone_violation: Option<Vec<bool>>,
    /// Levels used (multilevel algorithms only).
    pub levels: Option<usize>,
    /// Points on each level, of each replication (multilevel algorithms only).
    pub n_level: Option<Vec<u64>>,
    /// The limit on points that was in force.
    pub n_limit: u64,
    /// The limit that was asked for is more than the sequence has, and was lowered to it.
    pub clipped: bool,
}
