//! Adaptive cubature: the integral of a function on the unit cube to a tolerance, with the fewest evaluations and an
//! honest stop.
//!
//! | Settings | Names | Points | Bounds |
//! |---|---|---|---|
//! | [`GuaranteedConfig`] | net-g, lattice-g | digital net, lattice | decay of Walsh or Fourier coefficients |
//! | [`ReplicatedConfig`] | rep-t | any low-discrepancy sequence, replicated | Student |
//! | [`BayesConfig`] | bayes-net, bayes-lattice | digital net, lattice | credible interval of a Gaussian process |
//! | [`CltConfig`], [`CltVecConfig`] | mc-clt, mc-clt-vec | independent | central limit theorem |
//! | [`MeanGuaranteedConfig`] | mc-g | independent | Berry-Esseen inequality |
//! | [`MlmcConfig`], [`MlmcContConfig`] | mlmc, mlmc-cont | independent, per level | root mean square error |
//! | [`MlqmcConfig`], [`MlqmcContConfig`] | mlqmc, mlqmc-cont | replicated, per level | root mean square error |
//! | [`FailureConfig`] | pf-gp | chosen by a Gaussian process | credible interval of a probability |
//!
//! # The rule
//! With `tol(v) = max(abs_tol, rel_tol |v|)` (or `min`, see [`ErrorRule`]) and bounds `[L, H]` of a combined output, it
//! is done when `H - L <= tol(L) + tol(H)`, and the answer is `(L + H + tol(L) - tol(H)) / 2`. Individual outputs that
//! no unfinished combined output needs are not evaluated any more; should one be needed again it catches up. When the
//! limit on points is reached first, the estimate says so ([`Estimate::exhausted`]).
//!
//! # Cost
//! Points are made, used and forgotten in blocks that stay in the second-level cache; net-g keeps one coefficient (8
//! bytes) and one wave number (4 bytes) per point and output. A doubling transforms the new half only. Blocks run on
//! the caller's rayon pool; sums have a fixed shape, so that results do not depend on the number of threads.
//!
//! # Example
//! ```
//! use kc_qmc::cubature::{Cubature, GuaranteedConfig};
//! use kc_qmc::integrand::from_fn;
//! use kc_qmc::net2::{DigitalNet, DigitalNetConfig};
//!
//! let mut net = DigitalNet::new(DigitalNetConfig::new(2, 7u64))?;
//! let f = from_fn(2, |u: &[f64]| u[0] * u[1]);
//! let mut config = GuaranteedConfig::default();
//! config.abs_tol = 1e-4;
//! let answer = config.integrate(&mut net, &f)?;
//! assert!((answer.solution[0] - 0.25).abs() < 1e-4 && !answer.exhausted);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! The same by asking and telling, for functions that something else evaluates:
//! ```
//! # use kc_qmc::cubature::{Cubature, GuaranteedConfig};
//! # use kc_qmc::integrand::from_fn;
//! # use kc_qmc::net2::{DigitalNet, DigitalNetConfig};
//! # let mut net = DigitalNet::new(DigitalNetConfig::new(2, 7u64))?;
//! # let f = from_fn(2, |u: &[f64]| u[0] * u[1]);
//! let config = GuaranteedConfig::default();
//! let mut run = config.start(&mut net, &f)?;
//! while let Some(batch) = run.ask()? {
//!     let values: Vec<f64> = batch.points.as_slice().chunks_exact(2).map(|u| u[0] * u[1]).collect();
//!     run.tell(&values)?;
//! }
//! assert!((run.estimate().solution[0] - 0.25).abs() < 1e-2);
//! # Ok::<(), kc_core::Error>(())
//! ```

mod basis;
mod bayes;
mod clt;
mod doubling;
mod estimate;
mod failure;
mod gp;
mod guaranteed;
mod mc;
mod mlmc;
mod mlqmc;
mod multilevel;
mod option;
mod replicated;
mod run;
mod stages;
mod state;
mod stop;
mod sums;
mod transform;
mod variates;

use kc_core::{Error, Result};

pub use bayes::{BayesConfig, CredibleBound};
pub use clt::CltVecConfig;
pub use estimate::Estimate;
pub use failure::{Failure, FailureConfig};
pub use guaranteed::GuaranteedConfig;
pub use mc::{CltConfig, MeanGuaranteedConfig};
pub use mlmc::{MlmcConfig, MlmcContConfig};
pub use mlqmc::{MlqmcConfig, MlqmcContConfig};
pub use multilevel::{Continuation, LevelsConfig, Multilevel, MultilevelCubature};
pub use option::MultilevelOption;
pub use replicated::ReplicatedConfig;
pub use run::{Batch, Run};
pub use stop::ErrorRule;
pub use variates::ControlVariates;

use crate::{Family, Integrand, Order, Randomize, Sequence};

/// Algorithms for one integrand.
pub trait Cubature {
    /// A run that has not evaluated anything yet, with control variates.
    ///
    /// # Errors
    /// Settings out of range; a sequence that does not suit; variates where the algorithm takes none.
    fn start_controlled<'a>(
        &self,
        sequence: &'a mut dyn Sequence,
        integrand: &'a dyn Integrand,
        variates: &ControlVariates<'a>,
    ) -> Result<Run<'a>>;

    /// A run that has not evaluated anything yet.
    ///
    /// # Errors
    /// Settings out of range; a sequence that does not suit.
    fn start<'a>(&self, sequence: &'a mut dyn Sequence, integrand: &'a dyn Integrand) -> Result<Run<'a>> {
        self.start_controlled(sequence, integrand, &ControlVariates::none())
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`Run::finish`].
    fn integrate(&self, sequence: &mut dyn Sequence, integrand: &dyn Integrand) -> Result<Estimate> {
        self.start(sequence, integrand)?.finish()
    }
}

/// A randomised sequence of one of the families, in natural order, without replications.
fn randomized_natural(sequence: &dyn Sequence, families: &[Family]) -> Result<()> {
    if !families.contains(&sequence.family()) {
        let expected = "a rank-1 lattice or a digital net in base 2";
        return Err(Error::argument("sequence", expected, format!("{:?}", sequence.family())));
    }
    if sequence.order() != Order::Natural {
        return Err(Error::argument("order", "natural order", format!("{:?}", sequence.order())));
    }
    if sequence.randomize() == Randomize::None {
        return Err(Error::argument("randomize", "a randomised sequence", "none"));
    }
    single(sequence)
}

/// Independent points, without replications.
fn independent(sequence: &dyn Sequence) -> Result<()> {
    if sequence.family() != Family::Iid {
        return Err(Error::argument("sequence", "independent points", format!("{:?}", sequence.family())));
    }
    single(sequence)
}

fn single(sequence: &dyn Sequence) -> Result<()> {
    match sequence.replications() {
        1 => Ok(()),
        more => Err(Error::argument("replications", "1 for this algorithm", more)),
    }
}

fn no_variates(variates: &ControlVariates<'_>) -> Result<()> {
    if variates.functions.is_empty() {
        return Ok(());
    }
    Err(Error::unsupported("control variates", "only net-g, mc-clt and mc-g take them"))
}
