//! Korobov's lattices: a generating vector of powers of one number.

use std::ops::Range;

use kc_core::{Error, Isa, Result};
use rayon::prelude::*;

use super::{is_shifted, shifted};
use crate::blocks::{check_closed, check_out, check_replications, count_rows, fill_blocks};
use crate::data;
use crate::fingerprint::Fingerprint;
use crate::lattice::draw_shifts;
use crate::rng::Seed;
use crate::sequence::{Dims, Family, Order, Randomize, Sequence};

/// Points of a Korobov set, at most: products of indices stay below 2^64.
const MOST: u128 = 1 << 31;

/// Multiplications of a search, at most: some minutes on a few cores.
const EFFORT: u64 = 1 << 40;

/// Where Korobov's parameter `a` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KorobovParameter {
    /// From the table, or from [`search_korobov`] for a size that it does not have.
    #[default]
    Best,
    /// From the table only: 43 sizes up to 131072, 1 to 250 dimensions.
    Table,
    /// This one.
    Given(u64),
}

/// What a Korobov set is made from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct KorobovConfig {
    /// The coordinates to use; the largest one decides the parameter.
    pub dims: Dims,
    /// Where shifts come from.
    pub seed: Seed,
    /// [`Randomize::Shift`] (the default) or [`Randomize::None`].
    pub randomize: Randomize,
    /// Independent shifts; at least 1.
    pub replications: usize,
    /// Where the parameter comes from.
    pub parameter: KorobovParameter,
}

impl KorobovConfig {
    /// Shifted, with the best parameter.
    pub fn new(dims: impl Into<Dims>, seed: impl Into<Seed>) -> Self {
        Self {
            dims: dims.into(),
            seed: seed.into(),
            randomize: Randomize::Shift,
            replications: 1,
            parameter: KorobovParameter::default(),
        }
    }
}

/// Korobov's lattice of `n` points, shifted: `z = (1, a, a^2, ...) mod n`.
///
/// Source: N. M. Korobov, *The approximate computation of multiple integrals* (1959).
#[derive(Debug, Clone)]
pub struct Korobov {
    config: KorobovConfig,
    dims: Vec<usize>,
    shifts: Vec<f64>,
}

impl Korobov {
    /// Draws the shifts.
    ///
    /// # Errors
    /// No dimensions or more than 250, a randomization other than shift and none, no replications, or several without
    /// randomization that would all be equal.
    pub fn new(config: KorobovConfig) -> Result<Self> {
        let dims = config.dims.resolve(data::KOROBOV_DIMS)?;
        check_replications(config.replications, dims.len())?;
        let randomized = is_shifted(config.randomize, config.replications)?;
        let shifts = draw_shifts(&mut config.seed.rng(), config.replications, dims.len(), randomized, None)?;
        Ok(Self { config, dims, shifts })
    }

    /// What it was made from.
    pub fn config(&self) -> &KorobovConfig {
        &self.config
    }

    /// The parameter for `n` points.
    ///
    /// # Errors
    /// `n` is not in the table and a search was ruled out or would take too long.
    pub fn parameter(&self, n: u64) -> Result<u64> {
        let last = self.dims.iter().max().map_or(0, |last| last + 1);
        match self.config.parameter {
            KorobovParameter::Given(a) if n <= 1 || gcd(a % n, n) == 1 => Ok(a % n.max(1)),
            KorobovParameter::Given(a) => {
                Err(Error::argument("parameter", format!("no common divisor with {n}"), a))
            }
            choice => match data::korobov_sizes().position(|size| u64::from(size) == n) {
                Some(row) => Ok(data::korobov(row, last).into()),
                None if choice == KorobovParameter::Table => {
                    let near =
                        data::korobov_sizes().min_by_key(|&size| u64::from(size).abs_diff(n)).unwrap_or(1);
                    Err(Error::argument(
                        "rows",
                        format!("a tabulated number of points, for instance {near}"),
                        n,
                    ))
                }
                None => search_korobov(n, last),
            },
        }
    }
}

/// The Korobov parameter for `n` points and `dims` dimensions with the smallest
///
/// ```text
/// P2 = -1 + mean_k prod_j (1 + j^-2 2 pi^2 B2(frac(k z_j / n)))        B2(x) = x^2 - x + 1/6
/// ```
///
/// among the numbers without a common divisor with `n`; of equal ones the smallest. Costs `n^2 dims / 4` products.
///
/// # Errors
/// No points or dimensions; more than 2^31 points, or more than 2^40 products.
pub fn search_korobov(n: u64, dims: usize) -> Result<u64> {
    if n == 0 || dims == 0 {
        return Err(Error::empty(if n == 0 { "rows" } else { "dims" }));
    }
    let effort = u128::from(n) * u128::from(n) / 4 * dims as u128;
    if u128::from(n) > MOST || effort > u128::from(EFFORT) {
        let need = u64::try_from(effort).unwrap_or(u64::MAX);
        return Err(Error::too_large("rows", need, EFFORT, "products of a search for the parameter"));
    }
    if n <= 2 {
        return Ok(1);
    }
    // The factors of each coordinate at k / n. The same value for k and n - k, bit for bit: `a` and `n - a` are equal.
    let scale = 2.0 * std::f64::consts::PI * std::f64::consts::PI;
    let factor = |k: u64| {
        let x = k.min(n - k) as f64 / n as f64;
        scale * (x * x - x + 1.0 / 6.0)
    };
    let kernel: Vec<f64> = (0..n).map(factor).collect();
    let weights: Vec<f64> = (1..=dims).map(|j| 1.0 / (j * j) as f64).collect();
    let merit = |a: u64| {
        let mut z = 1;
        let mut product: Vec<f64> = vec![1.0; (n / 2) as usize + 1];
        for weight in &weights {
            let mut at = 0;
            for value in &mut product {
                *value *= 1.0 + weight * kernel[at as usize];
                at += z;
                at -= if at >= n { n } else { 0 };
            }
            z = z * a % n;
        }
        // Points k and n - k count once each; k = 0, and k = n / 2 if there is one, are their own partners.
        let twice: f64 = product[1..].iter().sum::<f64>() * 2.0;
        let middle = if n.is_multiple_of(2) { product[product.len() - 1] } else { 0.0 };
        (product[0] + twice - middle) / n as f64 - 1.0
    };
    let candidates: Vec<u64> = (1..=n / 2).filter(|&a| gcd(a, n) == 1).collect();
    let merits: Vec<f64> = candidates.par_iter().map(|&a| merit(a)).collect();
    let least = merits.iter().copied().fold(f64::INFINITY, f64::min);
    // Equal merits differ by rounding of sums in another order.
    let bound = least + (1.0 + least.abs()) * 1e-14 * (dims as f64 + 2.0);
    Ok(candidates.into_iter().zip(merits).find(|(_, merit)| *merit <= bound).map_or(1, |(a, _)| a))
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Sequence for Korobov {
    fn dim(&self) -> usize {
        self.dims.len()
    }

    fn replications(&self) -> usize {
        self.config.replications
    }

    fn limit(&self) -> u128 {
        MOST
    }

    fn family(&self) -> Family {
        Family::Closed
    }

    fn order(&self) -> Order {
        Order::Linear
    }

    fn randomize(&self) -> Randomize {
        self.config.randomize
    }

    fn fingerprint(&self) -> String {
        Fingerprint::new("korobov")
            .field("dims", format_args!("{:?}", self.dims))
            .field("parameter", format_args!("{:?}", self.config.parameter))
            .field("replications", self.config.replications)
            .floats("shift", &self.shifts)
            .finish()
    }

    fn fill(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        let count = count_rows(&rows, MOST)?;
        check_closed(&rows)?;
        let dim = self.dims.len();
        check_out(out, [self.config.replications, count, dim])?;
        if count == 0 {
            return Ok(());
        }
        let n = count as u64;
        let a = self.parameter(n)?;
        let power = |exponent: usize| (0..exponent).fold(1 % n, |z, _| z * a % n);
        let z: Vec<u64> = self.dims.iter().map(|&dim| power(dim)).collect();
        fill_blocks(Isa::best(), out, rows, dim, |replication, rows, values| {
            let shifts = &self.shifts[replication * dim..][..dim];
            for (i, row) in rows.zip(values.chunks_exact_mut(dim)) {
                for ((x, z), &shift) in row.iter_mut().zip(&z).zip(shifts) {
                    *x = shifted((i * z % n) as f64 / n as f64, shift);
                }
            }
        });
        Ok(())
    }

    fn spawn(&mut self, dims: &[usize]) -> Result<Vec<Box<dyn Sequence>>> {
        let seeds = self.config.seed.spawn(dims.len());
        let child = |(&dim, seed)| {
            let config = KorobovConfig { dims: Dims::First(dim), seed, ..self.config.clone() };
            Ok(Box::new(Korobov::new(config)?) as Box<dyn Sequence>)
        };
        dims.iter().zip(seeds).map(child).collect()
    }
}
