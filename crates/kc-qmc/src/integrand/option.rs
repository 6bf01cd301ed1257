//! Financial options on a stock that follows geometric Brownian motion.

use kc_core::{Error, Result};

use super::{Integrand, Transformed, parameter, points};
use crate::measure::{BrownianConfig, Decomposition, GeometricBrownianMotion};
use crate::special::normal_cdf;

/// What an option pays on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OptionKind {
    /// The last price.
    European,
    /// The mean price.
    #[default]
    Asian,
    /// The last price, if the path has (or has not) touched the barrier.
    Barrier,
    /// The last price against the extreme one, the start included.
    Lookback,
    /// A fixed sum if the last price is beyond the strike.
    Digital,
}

/// The right to buy or to sell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Side {
    /// To buy.
    #[default]
    Call,
    /// To sell.
    Put,
}

/// Which mean an Asian option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AsianMean {
    /// Of the prices.
    #[default]
    Arithmetic,
    /// Of their logarithms.
    Geometric,
}

/// Which quadrature rule the mean over time uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AsianRule {
    /// The start and the last price count half.
    #[default]
    Trapezoidal,
    /// All prices but the start.
    Right,
}

/// What touching the barrier does. The barrier is up if the start is below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Barrier {
    /// It brings the option to life.
    #[default]
    In,
    /// It ends the option.
    Out,
}

/// An option and the stock below it; the defaults are QMCPy's.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OptionConfig {
    /// What it pays on.
    pub kind: OptionKind,
    /// Call or put.
    pub side: Side,
    /// sigma > 0, per square root of time.
    pub volatility: f64,
    /// The price at time 0, positive.
    pub start: f64,
    /// The strike K, positive.
    pub strike: f64,
    /// The rate r of growth and discount, per time.
    pub rate: f64,
    /// The time of exercise, positive.
    pub t_final: f64,
    /// How coordinates drive the path.
    pub decomposition: Decomposition,
    /// The mean of an Asian option.
    pub mean: AsianMean,
    /// The rule of that mean.
    pub rule: AsianRule,
    /// What the barrier does.
    pub barrier: Barrier,
    /// Where it is, positive.
    pub barrier_price: f64,
    /// What a digital option pays, positive.
    pub payout: f64,
}

impl Default for OptionConfig {
    fn default() -> Self {
        Self {
            kind: OptionKind::Asian,
            side: Side::Call,
            volatility: 0.5,
            start: 30.0,
            strike: 35.0,
            rate: 0.0,
            t_final: 1.0,
            decomposition: Decomposition::Pca,
            mean: AsianMean::Arithmetic,
            rule: AsianRule::Trapezoidal,
            barrier: Barrier::In,
            barrier_price: 38.0,
            payout: 10.0,
        }
    }
}

/// The discounted payoff of an option as a function of price paths at times `j T / d`.
///
/// ```
/// use kc_qmc::integrand::{FinancialOption, OptionConfig};
/// let option = FinancialOption::new(2, &OptionConfig::default())?;
/// // The trapezoidal mean of 30, 40 and 60 is 42.5.
/// assert_eq!(option.payoff(&[40.0, 60.0]), 7.5);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct FinancialOption {
    config: OptionConfig,
    dim: usize,
    discount: f64,
}

impl FinancialOption {
    /// For paths of `dim` prices.
    ///
    /// # Errors
    /// `Empty` without prices, `Argument` for parameters out of their range.
    pub fn new(dim: usize, config: &OptionConfig) -> Result<Self> {
        if dim == 0 {
            return Err(Error::empty("option.dim"));
        }
        for (name, value) in [
            ("volatility", config.volatility),
            ("start", config.start),
            ("strike", config.strike),
            ("t_final", config.t_final),
            ("barrier_price", config.barrier_price),
            ("payout", config.payout),
        ] {
            parameter("option", name, value, "a positive number", |x| x > 0.0)?;
        }
        parameter("option", "rate", config.rate, "a number", |_| true)?;
        Ok(Self { config: config.clone(), dim, discount: (-config.rate * config.t_final).exp() })
    }

    /// As a function on the unit cube of `dim` coordinates.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on_cube(dim: usize, config: &OptionConfig) -> Result<Transformed<GeometricBrownianMotion, Self>> {
        let option = Self::new(dim, config)?;
        Transformed::new(option.measure(dim)?, option)
    }

    /// The motion of the stock, at `dim` times.
    ///
    /// # Errors
    /// `Empty` without times.
    pub fn measure(&self, dim: usize) -> Result<GeometricBrownianMotion> {
        let motion = BrownianConfig {
            t_final: self.config.t_final,
            initial: self.config.start,
            drift: self.config.rate,
            diffusion: self.config.volatility * self.config.volatility,
            decomposition: self.config.decomposition,
            ..BrownianConfig::default()
        };
        GeometricBrownianMotion::new(dim, &motion)
    }

    /// Its settings.
    pub fn config(&self) -> &OptionConfig {
        &self.config
    }

    /// The discounted payoff of a path of at least one price, of any length.
    pub fn payoff(&self, path: &[f64]) -> f64 {
        self.discount * self.undiscounted(path)
    }

    /// `max(value - K, 0)` for a call, `max(K - value, 0)` for a put.
    fn exercised(&self, value: f64) -> f64 {
        match self.config.side {
            Side::Call => (value - self.config.strike).max(0.0),
            Side::Put => (self.config.strike - value).max(0.0),
        }
    }

    fn undiscounted(&self, path: &[f64]) -> f64 {
        let config = &self.config;
        let Some((&last, before)) = path.split_last() else { return 0.0 };
        match config.kind {
            OptionKind::European => self.exercised(last),
            OptionKind::Asian => {
                let count = path.len() as f64;
                let mean = match (config.mean, config.rule) {
                    (AsianMean::Arithmetic, AsianRule::Trapezoidal) => {
                        (config.start / 2.0 + before.iter().sum::<f64>() + last / 2.0) / count
                    }
                    (AsianMean::Arithmetic, AsianRule::Right) => path.iter().sum::<f64>() / count,
                    (AsianMean::Geometric, AsianRule::Trapezoidal) => {
                        let ends = (config.start * last).ln() / 2.0;
                        ((ends + log_sum(before)) / count).exp()
                    }
                    (AsianMean::Geometric, AsianRule::Right) => (log_sum(path) / count).exp(),
                };
                self.exercised(mean)
            }
            OptionKind::Barrier => {
                let up = config.start < config.barrier_price;
                let touched = path.iter().any(|&price| {
                    if up { price >= config.barrier_price } else { price <= config.barrier_price }
                });
                if touched == (config.barrier == Barrier::In) { self.exercised(last) } else { 0.0 }
            }
            OptionKind::Lookback => match config.side {
                Side::Call => last - path.iter().copied().fold(config.start, f64::min),
                Side::Put => path.iter().copied().fold(config.start, f64::max) - last,
            },
            OptionKind::Digital => {
                let pays = match config.side {
                    Side::Call => last >= config.strike,
                    Side::Put => last <= config.strike,
                };
                if pays { config.payout } else { 0.0 }
            }
        }
    }

    /// The fair price in closed form: European and digital options, and the geometric mean by the right rule.
    pub fn exact(&self) -> Option<f64> {
        let config = &self.config;
        let (rate, sigma, time) = (config.rate, config.volatility, config.t_final);
        match (config.kind, config.mean, config.rule) {
            (OptionKind::European, ..) => Some(
                self.discount
                    * self.lognormal_price((rate - sigma * sigma / 2.0) * time, sigma * time.sqrt()),
            ),
            (OptionKind::Digital, ..) => {
                let above = ((config.start / config.strike).ln() + (rate - sigma * sigma / 2.0) * time)
                    / (sigma * time.sqrt());
                let side = if config.side == Side::Call { above } else { -above };
                Some(self.discount * config.payout * normal_cdf(side))
            }
            (OptionKind::Asian, AsianMean::Geometric, AsianRule::Right) => {
                // The mean of the logarithms is normal: mean time (1 + 1/d)/2, variance (1 + 1/d)(2 + 1/d)/6.
                let step = 1.0 / self.dim as f64;
                let mean = (rate - sigma * sigma / 2.0) * time * (1.0 + step) / 2.0;
                let deviation = sigma * (time * (1.0 + step) * (2.0 + step) / 6.0).sqrt();
                Some(self.discount * self.lognormal_price(mean, deviation))
            }
            _ => None,
        }
    }

    /// The mean payoff where `ln(value / S0)` is normal.
    fn lognormal_price(&self, mean: f64, deviation: f64) -> f64 {
        let (start, strike) = (self.config.start, self.config.strike);
        let above = ((start / strike).ln() + mean) / deviation;
        let forward = start * (mean + deviation * deviation / 2.0).exp();
        match self.config.side {
            Side::Call => forward * normal_cdf(above + deviation) - strike * normal_cdf(above),
            Side::Put => strike * normal_cdf(-above) - forward * normal_cdf(-above - deviation),
        }
    }
}

/// The sum of the logarithms.
fn log_sum(prices: &[f64]) -> f64 {
    prices.iter().map(|price| price.ln()).sum()
}

impl Integrand for FinancialOption {
    fn dim(&self) -> usize {
        self.dim
    }

    fn evaluate(&self, t: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        points(self, t, active, out)?;
        for (path, out) in t.chunks_exact(self.dim).zip(out) {
            *out = self.payoff(path);
        }
        Ok(())
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("option {} {:?}", self.dim, self.config))
    }
}
