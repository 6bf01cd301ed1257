//! mc-clt and mc-g: one pilot sample of independent points decides how many more are drawn.

use kc_core::{Error, Result};

use super::Cubature;
use super::run::Run;
use super::stages::{Next, Plan, Stages};
use super::stop::{ErrorRule, Tolerance, check_alpha, check_inflate};
use super::sums::Moments;
use super::variates::ControlVariates;
use crate::special::{normal_cdf, normal_quantile};
use crate::{Integrand, Sequence};

/// Settings of mc-clt: the pilot sample's deviation s gives the second sample `n = max(n_init, (z s inflate /
/// tol)^2)` points, and the second sample alone the answer. The interval is asymptotic. One output; control
/// variates.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CltConfig {
    /// Absolute tolerance, 0 or more.
    pub abs_tol: f64,
    /// Relative tolerance, 0 or more; the larger of the two counts.
    pub rel_tol: f64,
    /// Points of the pilot sample, 2 or more.
    pub n_init: u64,
    /// Most points, twice `n_init` or more.
    pub n_limit: u64,
    /// Chance that the interval misses, above 0 and below 1.
    pub alpha: f64,
    /// Factor on the pilot sample's deviation, 1 or more.
    pub inflate: f64,
}

impl Default for CltConfig {
    fn default() -> Self {
        Self { abs_tol: 1e-2, rel_tol: 0.0, n_init: 1 << 10, n_limit: 1 << 30, alpha: 0.01, inflate: 1.2 }
    }
}

impl Cubature for CltConfig {
    fn start_controlled<'a>(
        &self,
        sequence: &'a mut dyn Sequence,
        integrand: &'a dyn Integrand,
        variates: &ControlVariates<'a>,
    ) -> Result<Run<'a>> {
        check_alpha(self.alpha)?;
        check_inflate(self.inflate)?;
        let tolerance = Tolerance::new(self.abs_tol, self.rel_tol, ErrorRule::Either)?;
        let plan = Clt { config: self.clone(), tolerance, z: -normal_quantile(0.5 * self.alpha) };
        Ok(Run::new(Stages::new(sequence, integrand, variates, plan, self.n_limit)?))
    }
}

struct Clt {
    config: CltConfig,
    tolerance: Tolerance,
    z: f64,
}

impl Plan for Clt {
    fn name(&self) -> &'static str {
        "mc-clt"
    }

    fn fingerprint(&self) -> String {
        format!("{:?}", self.config)
    }

    fn n_init(&self) -> u64 {
        self.config.n_init
    }

    fn next(&self, samples: &[Moments], n_limit: u64) -> Result<Next> {
        let pilot = samples[0];
        let ratio = self.z * pilot.deviation() * self.config.inflate / self.tolerance.at(pilot.mean);
        let want = (ratio * ratio).ceil().max(pilot.count as f64);
        let left = n_limit - pilot.count;
        let Some(main) = samples.get(1) else {
            return Ok(Next::Sample(if want > left as f64 { left } else { want as u64 }));
        };
        let half = self.z * self.config.inflate * main.deviation() / (main.count as f64).sqrt();
        Ok(Next::Done { solution: main.mean, half, exhausted: want > left as f64 })
    }
}

/// Settings of mc-g: guaranteed for integrands whose kurtosis is below the bound that `n_init`, `alpha` and `inflate`
/// imply, by the Berry-Esseen inequality. One output; control variates.
///
/// Source: F. Hickernell, L. Jiang, Y. Liu, A. Owen, *Guaranteed conservative fixed width confidence intervals via
/// Monte Carlo sampling* (2013).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MeanGuaranteedConfig {
    /// Absolute tolerance, 0 or more.
    pub abs_tol: f64,
    /// Relative tolerance, 0 or more; the larger of the two counts.
    pub rel_tol: f64,
    /// Points of the pilot sample, 4 or more.
    pub n_init: u64,
    /// Most points, twice `n_init` or more.
    pub n_limit: u64,
    /// Chance that the interval misses, above 0 and below 1.
    pub alpha: f64,
    /// Factor on the pilot sample's deviation, above 1.
    pub inflate: f64,
}

impl Default for MeanGuaranteedConfig {
    fn default() -> Self {
        Self { abs_tol: 1e-2, rel_tol: 0.0, n_init: 1 << 10, n_limit: 1 << 30, alpha: 0.01, inflate: 1.2 }
    }
}

impl Cubature for MeanGuaranteedConfig {
    fn start_controlled<'a>(
        &self,
        sequence: &'a mut dyn Sequence,
        integrand: &'a dyn Integrand,
        variates: &ControlVariates<'a>,
    ) -> Result<Run<'a>> {
        check_alpha(self.alpha)?;
        check_inflate(self.inflate)?;
        if self.n_init < 4 {
            return Err(Error::argument("n_init", "4 or more for mc-g", self.n_init));
        }
        let tolerance = Tolerance::new(self.abs_tol, self.rel_tol, ErrorRule::Either)?;
        let plan = MeanGuaranteed::new(self, tolerance);
        Ok(Run::new(Stages::new(sequence, integrand, variates, plan, self.n_limit)?))
    }
}

struct MeanGuaranteed {
    config: MeanGuaranteedConfig,
    tolerance: Tolerance,
    /// Chance that the deviation is underestimated.
    alpha_sigma: f64,
    /// Bound on the third absolute moment, from that on the kurtosis.
    third: f64,
}

/// Distance of the distribution of a standardised mean of n terms from the normal one at `x = sqrt(n) t`, times
/// `sqrt(n)`: the better of a uniform and a decaying bound. For x below -1 the decaying one is meant with its sign.
fn berry_esseen(third: f64, x: f64) -> f64 {
    (0.3328 * (third + 0.429)).min(18.1139 * third / (1.0 + x * x * x))
}

/// Where a function changes its sign between `low` and `high`, by bisection to the last bit.
fn sign_change(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    let at_low = f(low) > 0.0;
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low.min(high) || middle >= low.max(high) {
            return middle;
        }
        if (f(middle) > 0.0) == at_low { low = middle } else { high = middle }
    }
}

impl MeanGuaranteed {
    fn new(config: &MeanGuaranteedConfig, tolerance: Tolerance) -> Self {
        let (n, alpha_sigma) = (config.n_init as f64, 0.5 * config.alpha);
        let room = 1.0 - 1.0 / (config.inflate * config.inflate);
        let kurtosis = (n - 3.0) / (n - 1.0) + alpha_sigma * n / (1.0 - alpha_sigma) * room * room;
        Self { config: config.clone(), tolerance, alpha_sigma, third: kurtosis.powf(0.75) }
    }

    /// The widest interval that the roots are looked for in.
    fn bracket() -> f64 {
        -normal_quantile(f64::EPSILON)
    }

    /// Points for a half width of `ratio` deviations at level `alpha`: the fewer of Chebyshev's and Berry-Esseen's.
    fn points(&self, ratio: f64, alpha: f64, n_limit: u64) -> f64 {
        let chebyshev = (1.0 / (alpha * ratio * ratio)).ceil();
        let b = Self::bracket();
        let root = sign_change(-b, b, |log| {
            let x = log.exp() * ratio;
            normal_cdf(-x) + (-log).exp() * berry_esseen(self.third, x) - 0.5 * alpha
        });
        chebyshev.min((2.0 * root).exp().ceil()).min(n_limit as f64)
    }

    /// Half width, in deviations, that `n` points have at level `alpha`.
    fn width(&self, n: f64, alpha: f64) -> f64 {
        let root = n.sqrt();
        sign_change(0.0, Self::bracket(), |t| {
            normal_cdf(-root * t) + berry_esseen(self.third, root * t) / root - 0.5 * alpha
        })
    }

    /// Half width, in deviations, of the first sample of the relative algorithm.
    fn first_width(&self, n: f64, alpha: f64) -> f64 {
        let b = Self::bracket();
        let root = sign_change(-b, b, |s| {
            normal_cdf(n * s) + berry_esseen(self.third, n.sqrt() * s) / n.sqrt() - 0.5 * alpha
        });
        (1.0 / (n * alpha).sqrt()).min((2.0 * root).exp())
    }

    /// Only the absolute tolerance counts: one more sample.
    fn absolute(&self, samples: &[Moments], n_limit: u64) -> Next {
        let pilot = samples[0];
        let sigma = self.config.inflate * pilot.deviation();
        let alpha = 1.0 - (1.0 - self.config.alpha) / (1.0 - self.alpha_sigma);
        let left = n_limit - pilot.count;
        if sigma == 0.0 {
            // A pilot sample without variance: any second sample meets the tolerance.
            return match samples.get(1) {
                None => Next::Sample(1),
                Some(main) => Next::Done { solution: main.mean, half: 0.0, exhausted: false },
            };
        }
        let want = self.points(self.config.abs_tol / sigma, alpha, n_limit);
        match samples.get(1) {
            None => Next::Sample(if want > left as f64 { left } else { want as u64 }),
            Some(main) => Next::Done {
                solution: main.mean,
                half: sigma * self.width(want.min(main.count as f64), alpha),
                exhausted: want > left as f64,
            },
        }
    }

    /// The relative tolerance counts too: samples at ever shorter widths.
    fn relative(&self, samples: &[Moments], n_limit: u64) -> Next {
        let pilot = samples[0];
        let sigma = self.config.inflate * pilot.deviation();
        let alpha = (self.config.alpha - self.alpha_sigma) / (1.0 - self.alpha_sigma);
        let mut half = sigma * self.first_width(pilot.count as f64, 0.5 * alpha);
        let (mut size, mut drawn) = (pilot.count, pilot.count);
        let mut stage = 1.0f64;
        for sample in &samples[1..] {
            drawn += sample.count;
            let mean = sample.mean;
            let (low, high) = (self.tolerance.at(mean - half), self.tolerance.at(mean + half));
            if 0.5 * (low + high) >= half {
                return Next::Done { solution: mean + 0.5 * (low - high), half, exhausted: false };
            }
            if drawn >= n_limit {
                return Next::Done { solution: mean, half, exhausted: true };
            }
            let goal = self.config.abs_tol.max(0.95 * self.config.rel_tol * mean.abs());
            half = (0.5 * half).min(goal);
            stage += 1.0;
            size = self.points(half / sigma, stage.exp2() * alpha, n_limit) as u64;
        }
        Next::Sample(size.min(n_limit - drawn))
    }
}

impl Plan for MeanGuaranteed {
    fn name(&self) -> &'static str {
        "mc-g"
    }

    fn fingerprint(&self) -> String {
        format!("{:?}", self.config)
    }

    fn n_init(&self) -> u64 {
        self.config.n_init
    }

    fn next(&self, samples: &[Moments], n_limit: u64) -> Result<Next> {
        Ok(if self.config.rel_tol == 0.0 {
            self.absolute(samples, n_limit)
        } else {
            self.relative(samples, n_limit)
        })
    }
}
