//! Digital nets in any base: Halton's and Faure's sequences, and nets of given matrices.
//!
//! With the digits `i_0, i_1, ...` of the index in base b, least significant first, the digits of coordinate j are
//!
//! ```text
//! y_k = sum_c C_j[c][k] i_c  mod b        x = sum_k y_k b^-(k+1)
//! ```
//!
//! | Sequence | base of coordinate j | matrix `C_j` |
//! |---|---|---|
//! | [`Halton`] | the j-th prime | identity |
//! | [`Faure`] | the least prime of at least d | `C_j[c][k] = binom(c, k) j^(c-k)` |
//! | [`GeneralNet`] | given | given ([`BaseMatrices`]) |
//!
//! An index has `m = ceil(ln(limit) / ln(b_min))` digits, a coordinate `t = max(m, ceil(63 ln 2 / ln(b_min)))` after
//! randomization: linear scrambles (random lower triangular matrices, [`Randomize::Lms`]), shifts
//! ([`Randomize::Ds`]) and permutations ([`Randomize::Dp`]) of digits, scrambles with one of them (the default is
//! [`Randomize::LmsDp`]), nested permutations ([`Randomize::Nus`]), and for Halton the multipliers of Faure and Lemieux
//! ([`Randomize::Qrng`]). Higher order nets interlace the digits of `alpha` coordinates, which must share a base.
//!
//! ```
//! use kc_qmc::{Sequence, netb::{Halton, HaltonConfig}};
//!
//! let mut halton = Halton::new(HaltonConfig::new(2, 7u64))?;
//! let x = halton.points(0..2)?;
//! assert!((x.as_slice()[0] - 0.83790457).abs() < 1e-8);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! # Exactness
//! The same bits as QMCPy's `Halton`, `Faure` and `DigitalNetAnyBases` for the same seed: digits are summed in f64 from
//! the most significant on, each times a power of b that comes from repeated division.
//!
//! # Cost
//! Memory is a matrix of `t` times the digits of `limit` numbers of 16 bits per coordinate and replication. A value
//! costs one addition per digit that can change an f64, of a constant (without linear scrambling: 4 lanes at a time)
//! or of a looked-up term: for Halton's sequence in 10 dimensions 2e8 values per second on one core of a Zen 3
//! processor, 8e7 with linear scrambling. `Nus` keeps a tree of all points up to the last that was asked for.
//!
//! # Source
//! J. H. Halton (1960); H. Faure (1982); J. Dick and F. Pillichshammer, *Digital Nets and Sequences* (2010), for
//! scrambling and interlacing; A. B. Owen, *Randomly permuted (t,m,s)-nets and (t,s)-sequences* (1995); H. Faure and
//! C. Lemieux, *Generalized Halton sequences in 2008* (2009).

use std::ops::Range;

use kc_core::{Error, Isa, Result};
use rayon::prelude::*;

use crate::blocks::{
    check_out, check_replications, count_rows, for_each_tile, replications_need_randomization,
};
use crate::fingerprint::Fingerprint;
use crate::primes;
use crate::rng::{Seed, Sfc64};
use crate::sequence::{Dims, Family, NusEngine, Order, Randomize, Sequence};

mod binary;
mod config;
mod coordinate;
mod matrix;
mod named;
mod nus;
mod portable;
mod qrng;
mod random;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use config::{GeneralNetConfig, NetMatrices};
pub use matrix::BaseMatrices;
pub use named::{Faure, FaureConfig, Halton, HaltonConfig};

use coordinate::{Coordinate, DigitMap};
use matrix::{DigitMatrix, MOST_DIGITS};
use nus::Trie;
use portable::Plan;
use qrng::Multiplied;

/// Rows of a tile.
const TILE_ROWS: usize = 512;

/// Coordinates that are written side by side.
const TILE_DIMS: usize = 4;

/// Dimensions of Halton's sequence, at most.
pub(crate) const HALTON_DIMS: usize = 1000;

/// The largest base of Faure's sequence, and so its dimensions, at most.
const FAURE_DIMS: usize = 7919;

/// A net in any base. The page is [`crate::netb`].
#[derive(Debug, Clone)]
pub struct GeneralNet {
    config: GeneralNetConfig,
    dim: usize,
    limit: u128,
    source: Source,
}

/// Where points come from.
#[derive(Debug, Clone)]
enum Source {
    /// (replications, dimensions).
    Digits(Vec<Coordinate>),
    /// (replications, dimensions * alpha).
    Nested {
        tries: Vec<Trie>,
        digits: usize,
    },
    Multiplied(Vec<Multiplied>),
}

/// Bases and matrices of all coordinates before interlacing, (sets, dimensions * alpha), and sizes.
struct Tables {
    matrices: Vec<DigitMatrix>,
    sets: usize,
    /// Digits of a coordinate in the tables, and after randomization.
    rows: usize,
    digits: usize,
    limit: u128,
}

impl GeneralNet {
    /// Draws what is random.
    ///
    /// # Errors
    /// Dimensions that the tables do not have; no replications, or several without randomization that would all be
    /// equal; digits below those of the tables or above 64; interlacing of listed dimensions or of several bases;
    /// [`Randomize::Qrng`] for other than Halton's sequence, for more than 360 dimensions or several replications.
    pub fn new(mut config: GeneralNetConfig) -> Result<Self> {
        let (dims, tables) = config.tables()?;
        let (dim, replications) = (dims.len(), config.replications);
        let limit = tables.limit;
        let coordinates = replications.saturating_mul(tables.matrices.len() / tables.sets);
        check_replications(replications, tables.matrices.len() / tables.sets)?;
        if tables.sets != 1 && tables.sets != replications {
            let expected = format!("one set of matrices, or one for each of {replications} replications");
            return Err(Error::shape("matrices", expected, &[tables.sets, dim]));
        }
        let mut rng = config.seed.rng();
        let source = match config.randomize {
            Randomize::None if tables.sets != replications => {
                return Err(replications_need_randomization(replications));
            }
            Randomize::None | Randomize::Dp | Randomize::Ds => {
                let rows = (config.alpha * tables.rows).min(tables.digits);
                let matrices = interlace(tables.matrices, config.alpha, rows);
                let digits = if config.randomize == Randomize::None { rows } else { tables.digits };
                let matrix = |at: usize| matrices[at % matrices.len()].clone();
                Source::Digits(with_maps(
                    config.randomize,
                    (0..replications * dim).map(matrix),
                    digits,
                    &mut rng,
                ))
            }
            Randomize::Lms | Randomize::LmsDs | Randomize::LmsDp => {
                let rows = match config.alpha {
                    1 => tables.digits,
                    alpha => tables.digits.div_ceil(alpha).max(tables.rows),
                };
                let digits = coordinates.saturating_mul(rows).saturating_mul(tables.matrices[0].columns());
                const MOST: usize = 1 << 32;
                if digits > MOST {
                    return Err(Error::too_large(
                        "replications",
                        digits as u64,
                        MOST as u64,
                        "digits of matrices",
                    ));
                }
                let scramble =
                    |at: usize| tables.matrices[at % tables.matrices.len()].scrambled(&mut rng, rows);
                let matrices =
                    interlace((0..coordinates).map(scramble).collect(), config.alpha, tables.digits);
                Source::Digits(with_maps(config.randomize, matrices.into_iter(), tables.digits, &mut rng))
            }
            Randomize::Nus(NusEngine::Hash) => {
                let reason = "nets in general bases are scrambled by the tree only";
                return Err(Error::unsupported("nested scrambling by hashing", reason));
            }
            Randomize::Nus(_) => {
                let digits = match config.alpha {
                    1 => tables.digits,
                    alpha => tables.digits.div_ceil(alpha).max(tables.rows),
                };
                let seeds = config.seed.spawn(coordinates);
                let trie = |(at, seed): (usize, Seed)| {
                    Trie::new(tables.matrices[at % tables.matrices.len()].clone(), seed.rng(), digits)
                };
                let tries = seeds.into_iter().enumerate().map(trie).collect();
                Source::Nested { tries, digits: tables.digits }
            }
            Randomize::Qrng => {
                if !matches!(config.matrices, NetMatrices::Halton) {
                    return Err(Error::argument(
                        "randomize",
                        "a scrambling of digits; qrng is Halton's",
                        "qrng",
                    ));
                }
                if replications > 1 {
                    return Err(Error::argument("replications", "1 with qrng", replications));
                }
                if config.alpha > 1 {
                    return Err(Error::argument("alpha", "1 with qrng", config.alpha));
                }
                Source::Multiplied(qrng::draw(&mut rng, &dims)?)
            }
            other @ (Randomize::Shift | Randomize::Iid) => {
                let expected = "none, lms, dp, ds, lms-dp, lms-ds, nus or qrng";
                return Err(Error::argument("randomize", expected, format!("{other:?}")));
            }
        };
        Ok(Self { dim, limit, source, config })
    }

    /// What it was made from.
    pub fn config(&self) -> &GeneralNetConfig {
        &self.config
    }

    /// [`Sequence::fill`] on a level of the processor.
    ///
    /// # Errors
    /// As there.
    pub fn fill_with(&mut self, isa: Isa, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        let count = count_rows(&rows, self.limit)?;
        check_out(out, [self.config.replications, count, self.dim])?;
        self.fill_columns(isa, rows, out, self.dim, 0)
    }

    /// Writes the coordinates to columns `offset` and on of `out`, whose rows have `width` values.
    pub(crate) fn fill_columns(
        &mut self,
        isa: Isa,
        rows: Range<u64>,
        out: &mut [f64],
        width: usize,
        offset: usize,
    ) -> Result<()> {
        let count = (rows.end - rows.start) as usize;
        if count == 0 {
            return Ok(());
        }
        let (dim, alpha) = (self.dim, self.config.alpha);
        match &mut self.source {
            Source::Digits(coordinates) => {
                for (coordinates, set) in coordinates.chunks(dim).zip(out.chunks_mut(count * width)) {
                    let plans: Vec<Plan<'_>> =
                        coordinates.par_iter().map(|c| Plan::new(c, count as u64)).collect();
                    fill_set(set, rows.clone(), [width, offset, dim], |j, first, column| {
                        #[cfg(target_arch = "x86_64")]
                        x86::fill(isa, &plans[j], first, column);
                        #[cfg(not(target_arch = "x86_64"))]
                        plans[j].fill(first, column);
                    });
                }
            }
            Source::Nested { tries, digits } => {
                nus::check_rows(rows.end)?;
                tries.par_iter_mut().for_each(|trie| trie.grow(rows.end));
                for (tries, set) in tries.chunks(dim * alpha).zip(out.chunks_mut(count * width)) {
                    fill_set(set, rows.clone(), [width, offset, dim], |j, first, column| {
                        nus::fill(&tries[j * alpha..(j + 1) * alpha], *digits, first, column);
                    });
                }
            }
            Source::Multiplied(multiplied) => {
                fill_set(out, rows, [width, offset, dim], |j, first, column| {
                    multiplied[j].fill(first, column)
                });
            }
        }
        let _ = isa;
        Ok(())
    }
}

/// Every `alpha` matrices become one of `rows` rows.
fn interlace(matrices: Vec<DigitMatrix>, alpha: usize, rows: usize) -> Vec<DigitMatrix> {
    if alpha == 1 {
        return matrices;
    }
    matrices.chunks(alpha).map(|parts| DigitMatrix::interlaced(parts, rows)).collect()
}

/// Coordinates of the matrices with the digit maps that the randomization draws.
fn with_maps(
    randomize: Randomize,
    matrices: impl Iterator<Item = DigitMatrix>,
    digits: usize,
    rng: &mut Sfc64,
) -> Vec<Coordinate> {
    let mut scratch = Vec::new();
    let with_map = |matrix: DigitMatrix| {
        let map = match randomize {
            Randomize::Ds | Randomize::LmsDs => DigitMap::Shift(random::shift(rng, matrix.base, digits)),
            Randomize::Dp | Randomize::LmsDp => {
                let here = rng.clone();
                scratch.resize(matrix.base as usize, 0);
                (0..digits).for_each(|_| random::permutation(rng, &mut scratch));
                DigitMap::Permute(here)
            }
            _ => DigitMap::Identity,
        };
        Coordinate { matrix, map, digits }
    };
    matrices.map(with_map).collect()
}

/// Fills columns `offset..offset + dim` of rows of `width` values, tile by tile: `column(j, first, values)` gives
/// coordinate `j`.
fn fill_set(
    set: &mut [f64],
    rows: Range<u64>,
    [width, offset, dim]: [usize; 3],
    column: impl Fn(usize, u64, &mut [f64]) + Sync,
) {
    for_each_tile(set, rows, width, TILE_ROWS, |_, rows, values| {
        let count = values.len() / width;
        let mut columns = vec![0.0; TILE_DIMS * count];
        for j0 in (0..dim).step_by(TILE_DIMS) {
            let some = TILE_DIMS.min(dim - j0);
            for (j, values) in columns.chunks_mut(count).enumerate().take(some) {
                column(j0 + j, rows.start, values);
            }
            for (i, row) in values.chunks_exact_mut(width).enumerate() {
                let row = &mut row[offset + j0..][..some];
                row.iter_mut().enumerate().for_each(|(j, value)| *value = columns[j * count + i]);
            }
        }
    });
}

impl Sequence for GeneralNet {
    fn dim(&self) -> usize {
        self.dim
    }

    fn replications(&self) -> usize {
        self.config.replications
    }

    fn limit(&self) -> u128 {
        self.limit
    }

    fn family(&self) -> Family {
        Family::GeneralNet
    }

    fn order(&self) -> Order {
        Order::Natural
    }

    fn randomize(&self) -> Randomize {
        self.config.randomize
    }

    fn fingerprint(&self) -> String {
        let config = &self.config;
        let print = Fingerprint::new("net")
            .field("dims", format_args!("{:?}", config.dims))
            .field("seed", config.seed.name())
            .field("randomize", format_args!("{:?}", config.randomize))
            .field("replications", config.replications)
            .field("alpha", config.alpha)
            .field("digits", format_args!("{:?}", config.digits))
            .field("limit", config.limit);
        match &config.matrices {
            NetMatrices::Halton => print.field("matrices", "halton"),
            NetMatrices::Faure => print.field("matrices", "faure"),
            NetMatrices::Custom(given) => given.print(print),
        }
        .finish()
    }

    fn fill(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        self.fill_with(Isa::best(), rows, out)
    }

    fn spawn(&mut self, dims: &[usize]) -> Result<Vec<Box<dyn Sequence>>> {
        let seeds = self.config.seed.spawn(dims.len());
        let child = |(&dim, seed)| {
            let config = GeneralNetConfig { dims: Dims::First(dim), seed, ..self.config.clone() };
            Ok(Box::new(GeneralNet::new(config)?) as Box<dyn Sequence>)
        };
        dims.iter().zip(seeds).map(child).collect()
    }
}
