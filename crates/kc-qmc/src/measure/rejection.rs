//! Deterministic acceptance-rejection: points of a density known up to a factor.

use kc_core::{Error, Result};

use super::{Measure, parameter};
use crate::Sequence;

/// Settings of acceptance-rejection.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RejectionConfig {
    /// `L` with `psi(x) <= L H(x)` everywhere, where `H` is the proposal's density (1 on the cube).
    pub bound: f64,
    /// The integral of `psi`; the share `integral / bound` of the candidates is accepted.
    pub integral: f64,
    /// How often more candidates are drawn when too few were accepted.
    pub retries: usize,
}

impl Default for RejectionConfig {
    fn default() -> Self {
        Self { bound: 1.0, integral: 1.0, retries: 4 }
    }
}

/// Accepted points and their weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// Rows of coordinates.
    pub points: Vec<f64>,
    /// `psi / integral` at each point: the density.
    pub weights: Vec<f64>,
    /// True if there are fewer points than asked for, as the retries were used up.
    pub short: bool,
}

/// Points of a density `psi` by acceptance and rejection of the points of a net.
///
/// Of each point of the driving sequence all coordinates but the last go through the proposal (the unit cube, or the
/// quantiles of a measure on the real line), and the candidate `x` is kept when `psi(x) >= L H(x) w` for the last coordinate
/// `w`. Candidates are drawn in batches that end at powers of 2.
///
/// Source: H. Zhu, J. Dick, *Discrepancy bounds for deterministic acceptance-rejection samplers* (2014), algorithms 2
/// and 3.
pub struct AcceptanceRejection<S, M, F> {
    driver: S,
    proposal: M,
    density: F,
    config: RejectionConfig,
    /// Driver points used.
    used: u64,
    /// Accepted points that nobody has asked for yet.
    waiting: Vec<f64>,
}

impl<S: Sequence, M: Measure, F: Fn(&[f64]) -> f64> AcceptanceRejection<S, M, F> {
    /// With a driver of one coordinate more than the proposal and one replication.
    ///
    /// # Errors
    /// `Shape` for a driver that does not fit; `Argument` unless bound and integral are positive.
    pub fn new(driver: S, proposal: M, density: F, config: &RejectionConfig) -> Result<Self> {
        let shape = [driver.replications(), driver.dim()];
        if shape != [1, proposal.dim() + 1] {
            let expected = format!("1 replication of {} coordinates", proposal.dim() + 1);
            return Err(Error::shape("rejection.driver", expected, &shape));
        }
        for (name, value) in [("bound", config.bound), ("integral", config.integral)] {
            parameter("rejection", name, value, "a positive number", |x| x > 0.0)?;
        }
        Ok(Self { driver, proposal, density, config: config.clone(), used: 0, waiting: Vec::new() })
    }

    /// Starts again: the next points are the first ones.
    pub fn restart(&mut self) {
        self.used = 0;
        self.waiting.clear();
    }

    /// The next `count` accepted points. Asking in pieces gives the same points as asking at once.
    ///
    /// # Errors
    /// Those of the driver and the proposal; `NotFinite` for a density that is; `Argument` where it is negative or
    /// above its bound; `TooLarge`.
    pub fn next_points(&mut self, count: usize) -> Result<Accepted> {
        let dim = self.proposal.dim();
        let rate = (self.config.integral / self.config.bound).max(1e-12);
        let wanted = count.saturating_sub(self.waiting.len() / dim);
        let batch = ((wanted as f64 / rate).ceil() as u64).max(2).checked_next_power_of_two();
        let batch = batch.ok_or_else(|| too_many(u64::MAX))?;
        for _ in 0..=self.config.retries {
            if self.waiting.len() / dim >= count {
                break;
            }
            self.draw(batch)?;
        }
        let taken = count.min(self.waiting.len() / dim);
        let points: Vec<f64> = self.waiting.drain(..taken * dim).collect();
        let weights = points.chunks_exact(dim).map(|x| (self.density)(x) / self.config.integral).collect();
        Ok(Accepted { points, weights, short: taken < count })
    }

    /// Draws candidates up to the next power of 2 after `batch` more.
    fn draw(&mut self, batch: u64) -> Result<()> {
        /// Candidates at once.
        const BLOCK: u64 = 4096;
        const SLACK: f64 = 1e-12;
        let dim = self.proposal.dim();
        let end = self.used.checked_add(batch).and_then(u64::checked_next_power_of_two);
        let end = end.ok_or_else(|| too_many(u64::MAX))?;
        if u128::from(end) > self.driver.limit() {
            return Err(too_many(end));
        }
        let (mut net, mut u, mut x) = (Vec::new(), Vec::new(), Vec::new());
        while self.used < end {
            let to = end.min(self.used + BLOCK);
            let rows = (to - self.used) as usize;
            net.resize(rows * (dim + 1), 0.0);
            x.resize(rows * dim, 0.0);
            self.driver.fill(self.used..to, &mut net)?;
            u.clear();
            net.chunks_exact(dim + 1).for_each(|point| u.extend_from_slice(&point[..dim]));
            self.proposal.transform(&u, &mut x)?;
            let mut height = vec![0.0; rows];
            self.proposal.density(&x, &mut height)?;
            for (i, (x, point)) in x.chunks_exact(dim).zip(net.chunks_exact(dim + 1)).enumerate() {
                let (psi, bound) = ((self.density)(x), self.config.bound * height[i]);
                if !psi.is_finite() {
                    return Err(Error::not_finite("rejection.density", &[self.used as usize + i], psi));
                }
                if psi < 0.0 || psi > bound * (1.0 + SLACK) {
                    return Err(Error::argument(
                        "rejection.density",
                        format!("values from 0 to {bound}"),
                        psi,
                    ));
                }
                if psi >= bound * point[dim] {
                    self.waiting.extend_from_slice(x);
                }
            }
            self.used = to;
        }
        Ok(())
    }
}

impl<S: Sequence, M: Measure, F> std::fmt::Debug for AcceptanceRejection<S, M, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcceptanceRejection")
            .field("driver", &self.driver.fingerprint())
            .field("proposal", &self.proposal.fingerprint())
            .field("config", &self.config)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

fn too_many(need: u64) -> Error {
    Error::too_large("rejection.driver", need, 1 << 63, "points")
}
