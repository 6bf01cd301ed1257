//! Brownian motion and geometric Brownian motion at given times.

use std::f64::consts::PI;

use kc_core::{Error, Isa, Result};

use super::gaussian::{Decomposition, with_quantiles};
use super::linear::Panels;
use super::{Measure, density_rows, dimension, endpoints, parameter, rows};
use crate::small::eigen_symmetric;
use crate::special::normal_quantiles;

/// In which order a bridge visits its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BridgeOrder {
    /// Sorted times take the ranks of the van der Corput sequence in Gray-code order, whose first point is
    /// moved to the end.
    #[default]
    VanDerCorput,
    /// The monitoring times as they were given.
    AsGiven,
}

/// In which order the values of a path come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OutputOrder {
    /// By time.
    #[default]
    Increasing,
    /// As the monitoring times were given.
    Input,
}

/// Settings of a Brownian motion.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BrownianConfig {
    /// The last time, T > 0.
    pub t_final: f64,
    /// The value at time 0; positive for the geometric motion.
    pub initial: f64,
    /// The drift: gamma, or the rate r of the geometric motion, per unit of time.
    pub drift: f64,
    /// The diffusion sigma^2 > 0: variance per unit of time, the squared volatility of the geometric motion.
    pub diffusion: f64,
    /// How coordinates drive the path.
    pub decomposition: Decomposition,
    /// Distinct times in (0, T], one per coordinate. By default `j T / d`; for the bridge T times the van der
    /// Corput points, which are the same if d is a power of 2.
    pub monitoring_times: Option<Vec<f64>>,
    /// The order in which a bridge visits monitoring times.
    pub bridge_order: BridgeOrder,
    /// The order of the values of a path.
    pub output_order: OutputOrder,
}

impl Default for BrownianConfig {
    fn default() -> Self {
        Self {
            t_final: 1.0,
            initial: 0.0,
            drift: 0.0,
            diffusion: 1.0,
            decomposition: Decomposition::Pca,
            monitoring_times: None,
            bridge_order: BridgeOrder::VanDerCorput,
            output_order: OutputOrder::Increasing,
        }
    }
}

/// Brownian motion: mean `b0 + gamma t`, covariance `sigma^2 min(s, t)`.
///
/// Cost per point and beyond its quantiles: `d^2` multiplications for principal components, `d` for the others.
/// Source of the bridge: A. B. Owen, *Monte Carlo theory, methods and examples*, section 6.4.
///
/// ```
/// use kc_qmc::Measure;
/// use kc_qmc::measure::{BrownianConfig, BrownianMotion, Decomposition};
/// let mut config = BrownianConfig::default();
/// config.decomposition = Decomposition::Bridge;
/// let motion = BrownianMotion::new(4, &config)?;
/// assert_eq!(motion.times(), [0.25, 0.5, 0.75, 1.0]);
/// let mut path = [0.0; 4];
/// motion.transform(&[0.5; 4], &mut path)?;
/// assert_eq!(path, [0.0; 4]);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct BrownianMotion {
    config: BrownianConfig,
    /// Increasing.
    times: Vec<f64>,
    construction: Construction,
    /// Value `k` of a point is the path at time `output[k]`; `None` for increasing times.
    output: Option<Vec<usize>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Construction {
    /// Row k: what coordinate k adds to each time.
    Components(Panels),
    /// The standard deviations of the increments.
    Increments(Vec<f64>),
    Bridge(Vec<BridgeStep>),
}

/// One coordinate's part in a bridge.
#[derive(Debug, Clone, PartialEq)]
struct BridgeStep {
    /// Which time is set.
    at: usize,
    /// The nearest times that are set already, with their weights.
    left: Option<(usize, f64)>,
    right: Option<(usize, f64)>,
    deviation: f64,
}

impl BrownianMotion {
    /// For points of `dim` coordinates, one per time.
    ///
    /// # Errors
    /// `Empty` without coordinates; `Argument` for parameters out of their range, times outside of (0, T] or equal
    /// ones; `Shape` for a number of times other than `dim`.
    pub fn new(dim: usize, config: &BrownianConfig) -> Result<Self> {
        dimension("brownian_motion", dim)?;
        let check = |name, value, expected, accept: fn(f64) -> bool| {
            parameter("brownian_motion", name, value, expected, accept)
        };
        check("t_final", config.t_final, "a positive time", |t| t > 0.0)?;
        check("initial", config.initial, "a number", |_| true)?;
        check("drift", config.drift, "a number", |_| true)?;
        check("diffusion", config.diffusion, "a positive number", |v| v > 0.0)?;
        let bridge = config.decomposition == Decomposition::Bridge;
        let visits = match &config.monitoring_times {
            Some(times) => monitoring_times(dim, times, config)?,
            None if bridge => van_der_corput(dim).map(|x| config.t_final * x).collect(),
            None => even_times(dim, config.t_final),
        };
        let mut times = visits.clone();
        times.sort_by(f64::total_cmp);
        let construction = match config.decomposition {
            Decomposition::Pca if config.monitoring_times.is_none() => Construction::Components(Panels::new(
                &sine_components(dim, config.t_final * config.diffusion),
                dim,
            )),
            Decomposition::Pca => {
                Construction::Components(Panels::new(&components(&times, config.diffusion)?, dim))
            }
            Decomposition::Cholesky => {
                Construction::Increments(gaps(&times).map(|gap| (config.diffusion * gap).sqrt()).collect())
            }
            Decomposition::Bridge => Construction::Bridge(bridge_steps(&visits, config.diffusion)),
        };
        let output = match (&config.monitoring_times, config.output_order) {
            (Some(given), OutputOrder::Input) => {
                Some(given.iter().map(|t| times.partition_point(|x| x < t)).collect())
            }
            _ => None,
        };
        Ok(Self { config: config.clone(), times, construction, output })
    }

    /// The times, increasing.
    pub fn times(&self) -> &[f64] {
        &self.times
    }

    /// The times in the order of a point's values.
    fn output_times(&self) -> Vec<f64> {
        match &self.output {
            Some(output) => output.iter().map(|&at| self.times[at]).collect(),
            None => self.times.clone(),
        }
    }

    /// The density of paths whose mean at time t is `initial + drift t`.
    fn path_density(&self, initial: f64, drift: f64, path: &[f64]) -> f64 {
        let mut sorted = vec![0.0; path.len()];
        for (k, &x) in path.iter().enumerate() {
            sorted[self.output.as_ref().map_or(k, |output| output[k])] = x;
        }
        let mut log = 0.0;
        let mut last = initial;
        for (x, gap) in sorted.into_iter().zip(gaps(&self.times)) {
            let variance = self.config.diffusion * gap;
            let from_mean = x - last - drift * gap;
            log -= 0.5 * (from_mean * from_mean / variance + (2.0 * PI * variance).ln());
            last = x;
        }
        log.exp()
    }
}

/// The times as a bridge visits them, checked.
fn monitoring_times(dim: usize, given: &[f64], config: &BrownianConfig) -> Result<Vec<f64>> {
    if given.len() != dim {
        return Err(Error::shape("brownian_motion.monitoring_times", format!("{dim} times"), &[given.len()]));
    }
    for &time in given {
        parameter("brownian_motion", "monitoring_times", time, "times after 0, up to t_final", |t| {
            t > 0.0 && t <= config.t_final
        })?;
    }
    let mut sorted = given.to_vec();
    sorted.sort_by(f64::total_cmp);
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        let got = format!("{} twice", pair[0]);
        return Err(Error::argument("brownian_motion.monitoring_times", "distinct times", got));
    }
    if config.bridge_order == BridgeOrder::AsGiven {
        return Ok(given.to_vec());
    }
    let order: Vec<f64> = van_der_corput(dim).collect();
    let mut by_size: Vec<usize> = (0..dim).collect();
    by_size.sort_by(|&i, &j| order[i].total_cmp(&order[j]));
    let mut visits = vec![0.0; dim];
    by_size.iter().zip(sorted).for_each(|(&at, time)| visits[at] = time);
    Ok(visits)
}

fn even_times(dim: usize, t_final: f64) -> Vec<f64> {
    (1..=dim).map(|j| if j == dim { t_final } else { j as f64 * t_final / dim as f64 }).collect()
}

/// The first points of the van der Corput sequence in Gray-code order, 1 in the place of 0.
fn van_der_corput(count: usize) -> impl Iterator<Item = f64> {
    const UNIT: f64 = 1.0 / 18_446_744_073_709_551_616.0;
    (0..count as u64).map(|i| if i == 0 { 1.0 } else { (i ^ i >> 1).reverse_bits() as f64 * UNIT })
}

/// The differences of increasing times, from 0 on.
fn gaps(times: &[f64]) -> impl Iterator<Item = f64> {
    times.iter().enumerate().map(|(j, &t)| if j == 0 { t } else { t - times[j - 1] })
}

/// Principal components of Brownian motion at even times: sines, of which component k has k - 1/2 half waves.
/// Eigenvalues `variance / (4 d sin^2((2k-1) pi / (4d+2)))`.
fn sine_components(dim: usize, variance: f64) -> Vec<f64> {
    let whole = 2 * dim as u64 + 1;
    let angle = |multiple: u64| (multiple % (2 * whole)) as f64 * PI / whole as f64;
    let mut components = Vec::with_capacity(dim * dim);
    for k in 1..=dim as u64 {
        let sine = (0.5 * angle(2 * k - 1)).sin();
        let deviation = (variance / dim as f64).sqrt() / (2.0 * sine);
        let scale = deviation * 2.0 / (whole as f64).sqrt();
        components.extend((1..=dim as u64).map(|j| scale * angle((2 * k - 1) * j).sin()));
    }
    components
}

/// Principal components at any times.
fn components(times: &[f64], diffusion: f64) -> Result<Vec<f64>> {
    let n = times.len();
    let covariance: Vec<f64> = (0..n * n).map(|at| diffusion * times[at / n].min(times[at % n])).collect();
    let mut eigen = eigen_symmetric(&covariance, n)?;
    for (row, value) in eigen.vectors.chunks_exact_mut(n).zip(&eigen.values) {
        row.iter_mut().for_each(|x| *x *= value.max(0.0).sqrt());
    }
    Ok(eigen.vectors)
}

/// The steps of a bridge that visits these times. Neighbours are found by taking the times out of a linked list
/// again, last first.
fn bridge_steps(visits: &[f64], diffusion: f64) -> Vec<BridgeStep> {
    let n = visits.len();
    let mut by_time: Vec<usize> = (0..n).collect();
    by_time.sort_by(|&i, &j| visits[i].total_cmp(&visits[j]));
    let mut rank = vec![0; n];
    by_time.iter().enumerate().for_each(|(at, &j)| rank[j] = at);
    let time = |at: usize| visits[by_time[at]];
    let mut before: Vec<Option<usize>> = (0..n).map(|at| at.checked_sub(1)).collect();
    let mut after: Vec<Option<usize>> = (0..n).map(|at| (at + 1 < n).then_some(at + 1)).collect();
    let mut steps: Vec<BridgeStep> = (0..n)
        .rev()
        .map(|j| {
            let (at, s) = (rank[j], visits[j]);
            let (left, right) = (before[at], after[at]);
            if let Some(left) = left {
                after[left] = right;
            }
            if let Some(right) = right {
                before[right] = left;
            }
            let start = left.map_or(0.0, time);
            match right.map(|right| (right, time(right))) {
                Some((right, end)) => BridgeStep {
                    at,
                    left: left.map(|left| (left, (end - s) / (end - start))),
                    right: Some((right, (s - start) / (end - start))),
                    deviation: (diffusion * (s - start) * (end - s) / (end - start)).sqrt(),
                },
                None => BridgeStep {
                    at,
                    left: left.map(|left| (left, 1.0)),
                    right: None,
                    deviation: (diffusion * (s - start)).sqrt(),
                },
            }
        })
        .collect();
    steps.reverse();
    steps
}

impl Measure for BrownianMotion {
    fn dim(&self) -> usize {
        self.times.len()
    }

    fn range(&self) -> Vec<(f64, f64)> {
        vec![(f64::NEG_INFINITY, f64::INFINITY); self.dim()]
    }

    fn transform(&self, u: &[f64], t: &mut [f64]) -> Result<()> {
        let dim = self.dim();
        rows(dim, u, t)?;
        let (initial, drift) = (self.config.initial, self.config.drift);
        let mean: Vec<f64> = self.times.iter().map(|time| initial + drift * time).collect();
        match &self.construction {
            Construction::Components(components) => {
                let isa = Isa::best();
                with_quantiles(dim, u, t, |z, t| components.affine(isa, z, &mean, t))?;
            }
            Construction::Increments(deviations) => {
                normal_quantiles(u, t)?;
                endpoints(dim, u, t)?;
                for path in t.chunks_exact_mut(dim) {
                    let mut sum = 0.0;
                    for ((x, deviation), mean) in path.iter_mut().zip(deviations).zip(&mean) {
                        sum += deviation * *x;
                        *x = mean + sum;
                    }
                }
            }
            Construction::Bridge(steps) => with_quantiles(dim, u, t, |z, t| {
                for (z, path) in z.chunks_exact(dim).zip(t.chunks_exact_mut(dim)) {
                    for (z, step) in z.iter().zip(steps) {
                        let from =
                            |end: Option<(usize, f64)>| end.map_or(0.0, |(at, weight)| weight * path[at]);
                        path[step.at] = step.deviation * z + from(step.left) + from(step.right);
                    }
                    path.iter_mut().zip(&mean).for_each(|(x, mean)| *x += mean);
                }
            })?,
        }
        if let Some(output) = &self.output {
            let mut sorted = vec![0.0; dim];
            for path in t.chunks_exact_mut(dim) {
                sorted.copy_from_slice(path);
                path.iter_mut().zip(output).for_each(|(x, &at)| *x = sorted[at]);
            }
        }
        Ok(())
    }

    fn density(&self, t: &[f64], out: &mut [f64]) -> Result<()> {
        density_rows(self.dim(), t, out)?;
        for (path, out) in t.chunks_exact(self.dim()).zip(out) {
            *out = self.path_density(self.config.initial, self.config.drift, path);
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        format!("brownian_motion {} {:?}", self.dim(), self.config)
    }

    fn mean(&self) -> Option<Vec<f64>> {
        let at = |time: &f64| self.config.initial + self.config.drift * time;
        Some(self.output_times().iter().map(at).collect())
    }

    fn variance(&self) -> Option<Vec<f64>> {
        Some(self.output_times().iter().map(|time| self.config.diffusion * time).collect())
    }

    fn covariance(&self) -> Option<Vec<f64>> {
        let times = self.output_times();
        let row = |s: &f64| times.iter().map(|t| self.config.diffusion * s.min(*t)).collect::<Vec<f64>>();
        Some(times.iter().flat_map(row).collect())
    }
}

/// Geometric Brownian motion: `S0 exp((r - sigma^2/2) t + B_t)` with B of variance `sigma^2 t` and no drift.
///
/// ```
/// use kc_qmc::Measure;
/// use kc_qmc::measure::{BrownianConfig, GeometricBrownianMotion};
/// let mut config = BrownianConfig::default();
/// config.initial = 30.0;
/// config.diffusion = 0.25;
/// let stock = GeometricBrownianMotion::new(3, &config)?;
/// assert_eq!(stock.mean().unwrap(), [30.0; 3]);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct GeometricBrownianMotion {
    /// Without drift, from 0.
    motion: BrownianMotion,
    initial: f64,
    rate: f64,
    /// `(r - sigma^2/2) t` for each value.
    trend: Vec<f64>,
}

impl GeometricBrownianMotion {
    /// For points of `dim` coordinates, one per time.
    ///
    /// # Errors
    /// As [`BrownianMotion::new`], and `Argument` unless the initial value is positive.
    pub fn new(dim: usize, config: &BrownianConfig) -> Result<Self> {
        parameter("geometric_brownian_motion", "initial", config.initial, "a positive price", |s| s > 0.0)?;
        parameter("geometric_brownian_motion", "drift", config.drift, "a number", |_| true)?;
        let mut driftless = config.clone();
        driftless.initial = 0.0;
        driftless.drift = 0.0;
        let motion = BrownianMotion::new(dim, &driftless)?;
        let per_time = config.drift - 0.5 * config.diffusion;
        let trend = motion.output_times().iter().map(|time| per_time * time).collect();
        Ok(Self { motion, initial: config.initial, rate: config.drift, trend })
    }

    /// The times, increasing.
    pub fn times(&self) -> &[f64] {
        self.motion.times()
    }
}

impl Measure for GeometricBrownianMotion {
    fn dim(&self) -> usize {
        self.motion.dim()
    }

    fn range(&self) -> Vec<(f64, f64)> {
        vec![(0.0, f64::INFINITY); self.dim()]
    }

    fn transform(&self, u: &[f64], t: &mut [f64]) -> Result<()> {
        self.motion.transform(u, t)?;
        for path in t.chunks_exact_mut(self.dim()) {
            path.iter_mut().zip(&self.trend).for_each(|(x, trend)| *x += trend);
        }
        kc_core::math::exp_in_place(t);
        t.iter_mut().for_each(|x| *x *= self.initial);
        Ok(())
    }

    fn density(&self, t: &[f64], out: &mut [f64]) -> Result<()> {
        density_rows(self.dim(), t, out)?;
        let drift = self.rate - 0.5 * self.motion.config.diffusion;
        let mut logs = vec![0.0; self.dim()];
        for (path, out) in t.chunks_exact(self.dim()).zip(out) {
            if path.iter().any(|&x| x <= 0.0) {
                *out = 0.0;
                continue;
            }
            logs.iter_mut().zip(path).for_each(|(log, x)| *log = (x / self.initial).ln());
            *out = self.motion.path_density(0.0, drift, &logs) / path.iter().product::<f64>();
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        format!("geometric {:?} {:?} {}", self.initial, self.rate, self.motion.fingerprint())
    }

    fn mean(&self) -> Option<Vec<f64>> {
        let at = |time: &f64| self.initial * (self.rate * time).exp();
        Some(self.motion.output_times().iter().map(at).collect())
    }

    fn variance(&self) -> Option<Vec<f64>> {
        let diffusion = self.motion.config.diffusion;
        let means = self.mean()?;
        let times = self.motion.output_times();
        Some(means.iter().zip(&times).map(|(mean, time)| mean * mean * (diffusion * time).exp_m1()).collect())
    }

    fn covariance(&self) -> Option<Vec<f64>> {
        let means = self.mean()?;
        let normal = self.motion.covariance()?;
        let n = means.len();
        Some((0..n * n).map(|at| means[at / n] * means[at % n] * normal[at].exp_m1()).collect())
    }
}
