//! What a net is made from.

use kc_core::{Error, Result};

use super::matrix::digits_of;
use super::*;

/// Bases and generating matrices.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetMatrices {
    /// Halton: the j-th prime and the identity; up to 1000 dimensions.
    Halton,
    /// Faure: the least prime of at least d and powers of Pascal's matrix; up to 7919 dimensions.
    Faure,
    /// Given.
    Custom(BaseMatrices),
}

/// What a net in any base is made from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GeneralNetConfig {
    /// The coordinates of the tables to use. A list only for Halton and given matrices with `alpha` 1.
    pub dims: Dims,
    /// Where the randomization comes from.
    pub seed: Seed,
    /// None, `Lms`, `Dp`, `Ds`, `LmsDp` (the default), `LmsDs`, `Nus` by the tree, or (Halton) `Qrng`.
    pub randomize: Randomize,
    /// Independent randomizations; at least 1.
    pub replications: usize,
    /// Bases and matrices.
    pub matrices: NetMatrices,
    /// Coordinates that are interlaced to one; at least 1.
    pub alpha: usize,
    /// Digits after randomization, up to 64; `None` for as many as an f64 has, and at least those of an index.
    pub digits: Option<usize>,
    /// Points, at most 2^63; given matrices may allow fewer.
    pub limit: u64,
}

impl GeneralNetConfig {
    /// Scrambled and permuted, 2^32 points.
    pub fn new(dims: impl Into<Dims>, seed: impl Into<Seed>, matrices: NetMatrices) -> Self {
        Self {
            dims: dims.into(),
            seed: seed.into(),
            randomize: Randomize::LmsDp,
            replications: 1,
            matrices,
            alpha: 1,
            digits: None,
            limit: 1 << 32,
        }
    }

    /// The dimensions in use, and their bases and matrices.
    pub(super) fn tables(&self) -> Result<(Vec<usize>, Tables)> {
        let alpha = self.alpha;
        if !(1..=MOST_DIGITS).contains(&alpha) {
            return Err(Error::argument("alpha", format!("1 to {MOST_DIGITS}"), alpha));
        }
        if !(1..=1 << 63).contains(&self.limit) {
            return Err(Error::argument("limit", "1 to 2^63 points", self.limit));
        }
        let available = match &self.matrices {
            NetMatrices::Halton => HALTON_DIMS,
            NetMatrices::Faure => FAURE_DIMS,
            NetMatrices::Custom(given) => given.dims() / alpha,
        };
        let dims = self.dims.resolve(available)?;
        let listed = dims.iter().enumerate().any(|(at, &dim)| at != dim);
        if alpha > 1 && listed {
            return Err(Error::argument("alpha", "1 with listed dimensions", alpha));
        }
        if listed && matches!(self.matrices, NetMatrices::Faure) {
            return Err(Error::argument("dims", "a number of dimensions for Faure's sequence", "a list"));
        }
        let parts = dims.len() * alpha;
        let tables = match &self.matrices {
            NetMatrices::Halton => {
                if alpha > 1 && parts > 1 {
                    return Err(Error::argument("alpha", "1, or one base for all coordinates", alpha));
                }
                let primes = primes::first(dims.iter().max().map_or(0, |last| last + 1));
                let least = dims.iter().map(|&dim| primes[dim]).min().unwrap_or(2);
                let sizes = Sizes::new(self, least, None)?;
                let matrix = |&dim: &usize| {
                    DigitMatrix::identity(primes[dim], sizes.columns(self.limit, primes[dim]), sizes.rows)
                };
                sizes.tables(dims.iter().map(matrix).collect(), 1, self.limit.into())
            }
            NetMatrices::Faure => {
                let base = primes::at_least(dims.len() as u32);
                let sizes = Sizes::new(self, base, None)?;
                let columns = sizes.columns(self.limit, base);
                let matrix = |k: usize| DigitMatrix::faure(base, k as u32, columns, sizes.rows);
                sizes.tables((0..parts).map(matrix).collect(), 1, self.limit.into())
            }
            NetMatrices::Custom(given) => {
                let used = || match alpha {
                    1 => dims.clone(),
                    _ => (0..parts).collect(),
                };
                let pairs: Vec<(usize, usize)> =
                    (0..given.sets()).flat_map(|set| used().into_iter().map(move |dim| (set, dim))).collect();
                let bases = || pairs.iter().map(|&(set, dim)| given.base(set, dim));
                let (least, most) = (bases().min().unwrap_or(2), bases().max().unwrap_or(2));
                if alpha > 1 && least != most {
                    return Err(Error::argument("alpha", "1, or one base for all coordinates", alpha));
                }
                let sizes = Sizes::new(self, least, Some((given.columns(), given.rows())))?;
                let points = u128::from(least).saturating_pow(given.columns() as u32);
                let limit = points.min(self.limit.into());
                let matrices = pairs.iter().map(|&(set, dim)| given.matrix(set, dim)).collect();
                sizes.tables(matrices, given.sets(), limit)
            }
        };
        Ok((dims, tables))
    }
}

/// Numbers of digits.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Of a coordinate in the tables.
    rows: usize,
    /// Of a coordinate after randomization.
    digits: usize,
}

impl Sizes {
    fn new(config: &GeneralNetConfig, least: u32, given: Option<(usize, usize)>) -> Result<Self> {
        let ln_base = f64::from(least).ln();
        let index = || ((config.limit as f64).ln() / ln_base).ceil().max(1.0) as usize;
        let (columns, rows) = given.unwrap_or_else(|| (index(), index()));
        let least = columns.max(rows);
        let usual = (63.0 * std::f64::consts::LN_2 / ln_base).ceil() as usize;
        match config.digits {
            None => Ok(Self { rows, digits: least.max(usual) }),
            Some(digits) if (least..=MOST_DIGITS).contains(&digits) => Ok(Self { rows, digits }),
            Some(digits) => Err(Error::argument("digits", format!("{least} to {MOST_DIGITS}"), digits)),
        }
    }

    /// Digits of the largest index in a base.
    fn columns(self, limit: u64, base: u32) -> usize {
        digits_of(limit - 1, base).count().clamp(1, self.rows)
    }

    fn tables(self, matrices: Vec<DigitMatrix>, sets: usize, limit: u128) -> Tables {
        Tables { matrices, sets, rows: self.rows, digits: self.digits, limit }
    }
}
