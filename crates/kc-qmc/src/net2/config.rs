//! What to build, checks of it, and what to know about it.

use std::fmt;

use kc_core::{Error, Result};

use super::NetTable;
use crate::blocks::check_replications;
use crate::rng::Seed;
use crate::sequence::{Dims, Order, Randomize};

/// Which ends of the unit interval points may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Interval {
    /// `[0, 1)` before rounding: `x 2^-t` to nearest, as in QMCPy.
    #[default]
    HalfOpen,
    /// `(0, 1)`: neither 0 nor 1 ever.
    Open,
}

/// A digital net to build.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DigitalNetConfig {
    /// The coordinates: how many, or which of the table.
    pub dims: Dims,
    /// The seed of all random numbers.
    pub seed: Seed,
    /// `None`, `Ds`, `Lms`, `LmsDs` (default) or `Nus`.
    pub randomize: Randomize,
    /// `Natural` (default; ranges must end at 0 or powers of 2) or `Gray`.
    pub order: Order,
    /// Interlacing factor, at least 1 (default: none). Needs `alpha` times as many dimensions of the table.
    pub alpha: usize,
    /// Bits t of the randomised points, up to 64; default 63. A built-in table with more is cut off (which
    /// [`NetWarning::Truncated`] tells); the user's matrices must not have more.
    pub bits: u32,
    /// Independent randomisations, at least 1 (default).
    pub replications: usize,
    /// The generating matrices; default Joe and Kuo's.
    pub table: NetTable,
    /// The ends of the interval; default `[0, 1)`.
    pub interval: Interval,
}

impl DigitalNetConfig {
    /// The defaults for these coordinates and this seed.
    pub fn new(dims: impl Into<Dims>, seed: impl Into<Seed>) -> Self {
        Self {
            dims: dims.into(),
            seed: seed.into(),
            randomize: Randomize::LmsDs,
            order: Order::Natural,
            alpha: 1,
            bits: 63,
            replications: 1,
            table: NetTable::JoeKuo,
            interval: Interval::HalfOpen,
        }
    }
}

impl Default for DigitalNetConfig {
    /// One coordinate, seed 0.
    fn default() -> Self {
        Self::new(1, 0u64)
    }
}

/// What a user of a net should know about the choices made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NetWarning {
    /// Without a shift the first point is the origin.
    OriginIsAPoint,
    /// In Gray order, a range whose ends are not 0 or powers of 2 is no net.
    GrayOrder,
    /// The table's low bits were cut off.
    Truncated {
        /// Bits of the table.
        table: u32,
        /// Bits that are left.
        bits: u32,
    },
    /// Matrices that are not square are interlaced; they may be interlaced already.
    NotSquare {
        /// Columns of the table.
        columns: usize,
        /// Bits of the table.
        bits: u32,
    },
}

impl fmt::Display for NetWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetWarning::OriginIsAPoint => {
                write!(f, "the first point is the origin: shift or scramble nested")
            }
            NetWarning::GrayOrder => {
                write!(f, "in Gray order, ranges should begin and end at 0 or powers of 2 to be nets")
            }
            NetWarning::Truncated { table, bits } => {
                write!(f, "the table's {table} bits are cut off to {bits}")
            }
            NetWarning::NotSquare { columns, bits } => {
                write!(
                    f,
                    "matrices of {columns} columns and {bits} bits are interlaced; make sure that they are not yet"
                )
            }
        }
    }
}

/// Checks everything that does not need the table's numbers; the dimensions of the table that are used.
pub(super) fn components(config: &DigitalNetConfig) -> Result<Vec<usize>> {
    let alpha = config.alpha;
    check_replications(config.replications, 1)?;
    if !(1..=64).contains(&config.bits) {
        return Err(Error::argument("bits", "1 to 64", config.bits));
    }
    if !matches!(config.order, Order::Natural | Order::Gray) {
        return Err(Error::argument(
            "order",
            "natural or gray for digital nets",
            format!("{:?}", config.order),
        ));
    }
    let known = [Randomize::None, Randomize::Ds, Randomize::Lms, Randomize::LmsDs];
    if !known.contains(&config.randomize) && !matches!(config.randomize, Randomize::Nus(_)) {
        let expected = "none, ds, lms, lms-ds or nus for digital nets in base 2";
        return Err(Error::argument("randomize", expected, format!("{:?}", config.randomize)));
    }
    match &config.dims {
        _ if alpha == 0 => Err(Error::argument("alpha", "at least 1", 0)),
        dims if alpha == 1 => dims.resolve(config.table.dims()),
        Dims::First(count) => {
            let dims = Dims::First(*count).resolve(config.table.dims() / alpha)?;
            Ok((0..alpha * dims.len()).collect())
        }
        Dims::List(_) => {
            let expected = "a number of dimensions, not a list, when alpha > 1 interlaces them";
            Err(Error::argument("dims", expected, format!("{:?}", config.dims)))
        }
    }
}
