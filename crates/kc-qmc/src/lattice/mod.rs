//! Rank-1 lattices: the multiples of one integer vector modulo 1.
//!
//! Point `i` of a lattice with generating vector `z` is
//!
//! ```text
//! x_i = frac(frac(phi(i) z) + shift)        phi(i) = radical inverse of i in base 2
//! ```
//!
//! so that every first 2^m points are a group under addition modulo 1, and each further power of two of points
//! halves the gaps. Lattices integrate smooth periodic functions fast; random shifts make the estimate unbiased and
//! give its error.
//!
//! | [`Order`] | `phi(i)` | rows |
//! |---|---|---|
//! | `Natural` | bits of `i` reversed | from 0 or a power of 2 to a power of 2 |
//! | `Gray` | bits of `i ^ (i >> 1)` reversed | any |
//! | `Linear` | `i / n` | `0..n` only: the points depend on `n` |
//!
//! [`LatticeVector`] says where `z` comes from: two published vectors, the user, or random numbers.
//!
//! ```
//! use kc_qmc::{Sequence, lattice::{Lattice, LatticeConfig}};
//!
//! let mut lattice = Lattice::new(LatticeConfig::new(3, 7u64))?;
//! let x = lattice.points(0..8)?;
//! assert_eq!(x.shape(), [1, 8, 3]);
//! assert!(x.as_slice().iter().all(|x| (0.0..1.0).contains(x)));
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! # Exactness
//! The same bits as QMCPy's `Lattice` for the same seed: `phi(i) z` is one f64 product, all else is exact.
//!
//! # Cost
//! One multiplication, one rounding, two additions and a comparison per value, 4 values at a time, from tables that
//! repeat every few rows; the limit is storing 8 bytes per value.
//!
//! # Source
//! S. Joe, I. H. Sloan, *Lattice Methods for Multiple Integration* (1994); F. Y. Kuo, D. Nuyens, *Application of
//! quasi-Monte Carlo methods to elliptic PDEs* (2016), for the extensible orders.

use std::ops::Range;

use kc_core::{Error, Isa, Result};

use crate::blocks::{
    check_closed, check_out, check_powers_of_two, check_replications, count_rows, fill_blocks,
    replications_need_randomization,
};
use crate::data;
use crate::fingerprint::Fingerprint;
use crate::rng::{Seed, Sfc64};
use crate::sequence::{Dims, Family, Order, Randomize, Sequence};

mod portable;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod x86;

/// The generating vector of a lattice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LatticeVector {
    /// F. Y. Kuo's "lattice-33002-1024-1048576.9125": 9125 dimensions, 2^20 points.
    #[default]
    Kuo,
    /// R. Cools, F. Y. Kuo and D. Nuyens' "exod2_base2_m20": 250 dimensions, 2^20 points.
    Ckn,
    /// Given.
    User(UserVector),
    /// `z_0 = 1` and other components odd, uniform from 3 to 2^M - 1, another vector for each replication; 2^M points.
    /// M from 2 to 26.
    Random(u32),
}

/// Generating vectors that are given: one for all replications, or one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserVector {
    sets: usize,
    dims: usize,
    values: Vec<u64>,
    log2_limit: u32,
}

impl UserVector {
    /// Components are below this: exact in f64, with room for rounding.
    pub const BOUND: u64 = 1 << 51;

    /// One vector, good for `2^log2_limit` points (0 to 52).
    ///
    /// # Errors
    /// No components, a component of 2^51 or more, or `log2_limit` above 52.
    pub fn new(values: Vec<u64>, log2_limit: u32) -> Result<Self> {
        Self::per_replication(1, values, log2_limit)
    }

    /// `sets` vectors, one after another in `values`: one for each replication.
    ///
    /// # Errors
    /// As [`new`](Self::new), or `values` is no multiple of `sets`.
    pub fn per_replication(sets: usize, values: Vec<u64>, log2_limit: u32) -> Result<Self> {
        if values.is_empty() {
            return Err(Error::empty("vector"));
        }
        if sets == 0 || !values.len().is_multiple_of(sets) {
            return Err(Error::shape("vector", format!("{sets} vectors of one length"), &[values.len()]));
        }
        if log2_limit > 52 {
            return Err(Error::argument("log2_limit", "0 to 52", log2_limit));
        }
        if let Some((at, z)) = values.iter().enumerate().find(|(_, z)| **z >= Self::BOUND) {
            return Err(Error::argument("vector", "components below 2^51", format!("{z} at {at}")));
        }
        Ok(Self { sets, dims: values.len() / sets, values, log2_limit })
    }

    /// Components of a vector.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// Vectors.
    pub fn sets(&self) -> usize {
        self.sets
    }

    /// All components, vector after vector.
    pub fn values(&self) -> &[u64] {
        &self.values
    }

    /// Base-2 logarithm of the number of points.
    pub fn log2_limit(&self) -> u32 {
        self.log2_limit
    }
}

/// What a lattice is made from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LatticeConfig {
    /// The coordinates of the vector to use.
    pub dims: Dims,
    /// Where shifts and random vectors come from.
    pub seed: Seed,
    /// The order of the points.
    pub order: Order,
    /// [`Randomize::Shift`] (the default) or [`Randomize::None`].
    pub randomize: Randomize,
    /// Independent shifts; at least 1.
    pub replications: usize,
    /// The generating vector.
    pub vector: LatticeVector,
    /// Shifts in `[0, 1)`, (replications, dimensions), instead of random ones.
    pub shifts: Option<Vec<f64>>,
}

impl LatticeConfig {
    /// A shifted lattice in natural order with Kuo's vector.
    pub fn new(dims: impl Into<Dims>, seed: impl Into<Seed>) -> Self {
        Self {
            dims: dims.into(),
            seed: seed.into(),
            order: Order::default(),
            randomize: Randomize::Shift,
            replications: 1,
            vector: LatticeVector::default(),
            shifts: None,
        }
    }
}

/// A randomly shifted rank-1 lattice. The page is [`crate::lattice`].
#[derive(Debug, Clone)]
pub struct Lattice {
    config: LatticeConfig,
    dim: usize,
    limit: u128,
    /// Generating vectors: one, or one for each replication.
    vectors: Vec<f64>,
    /// Shifts, (replications, dimensions); zeros without randomization.
    shifts: Vec<f64>,
}

impl Lattice {
    /// Draws what is random.
    ///
    /// # Errors
    /// Dimensions that the vector does not have, a randomization other than shift and none, no replications, or
    /// several without randomization that would all be equal.
    pub fn new(config: LatticeConfig) -> Result<Self> {
        let available = match &config.vector {
            LatticeVector::Kuo => data::LATTICE_KUO_DIMS,
            LatticeVector::Ckn => data::LATTICE_CKN_DIMS,
            LatticeVector::User(user) => user.dims,
            LatticeVector::Random(_) => 1 << 24,
        };
        let dims = config.dims.resolve(available)?;
        check_replications(config.replications, dims.len())?;
        let mut rng = config.seed.rng();
        let (vectors, log2_limit) = vectors(&config, &dims, &mut rng)?;
        let sets = vectors.len() / dims.len();
        if sets != 1 && sets != config.replications {
            let expected = format!("one vector, or one for each of {} replications", config.replications);
            return Err(Error::shape("vector", expected, &[sets, dims.len()]));
        }
        let randomized = match config.randomize {
            Randomize::Shift => true,
            Randomize::None if sets == config.replications => false,
            Randomize::None => return Err(replications_need_randomization(config.replications)),
            other => return Err(Error::argument("randomize", "shift or none", format!("{other:?}"))),
        };
        let shifts =
            draw_shifts(&mut rng, config.replications, dims.len(), randomized, config.shifts.as_deref())?;
        Ok(Self { dim: dims.len(), limit: 1 << log2_limit, vectors, shifts, config })
    }

    /// What it was made from.
    pub fn config(&self) -> &LatticeConfig {
        &self.config
    }

    /// The generating vectors as used, (1 or replications, dimensions).
    pub fn vectors(&self) -> &[f64] {
        &self.vectors
    }

    /// The shifts, (replications, dimensions); zeros without randomization.
    pub fn shifts(&self) -> &[f64] {
        &self.shifts
    }

    /// [`Sequence::fill`] on a level of the processor.
    ///
    /// # Errors
    /// As there.
    pub fn fill_with(&self, isa: Isa, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        if self.config.order == Order::Natural {
            check_powers_of_two(&rows)?;
        }
        self.write(isa, rows, out)
    }

    /// Any rows that the order has.
    fn write(&self, isa: Isa, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        let count = count_rows(&rows, self.limit)?;
        check_out(out, [self.config.replications, count, self.dim])?;
        if self.config.order == Order::Linear {
            check_closed(&rows)?;
        }
        let walks: Vec<portable::Walk> = (0..self.config.replications)
            .map(|l| {
                let z = &self.vectors[l * self.dim % self.vectors.len()..][..self.dim];
                portable::Walk::new(self.config.order, rows.end, z, &self.shifts[l * self.dim..][..self.dim])
            })
            .collect();
        fill_blocks(isa, out, rows, self.dim, |replication, rows, values| {
            #[cfg(target_arch = "x86_64")]
            x86::fill(isa, &walks[replication], rows, values);
            #[cfg(not(target_arch = "x86_64"))]
            portable::fill(&walks[replication], rows, values);
        });
        Ok(())
    }
}

/// The vectors that a configuration asks for, and the base-2 logarithm of how many points they are good for.
fn vectors(config: &LatticeConfig, dims: &[usize], rng: &mut Sfc64) -> Result<(Vec<f64>, u32)> {
    let table = |component: fn(usize) -> u32| dims.iter().map(|&dim| f64::from(component(dim))).collect();
    Ok(match &config.vector {
        LatticeVector::Kuo => (table(data::lattice_kuo), 20),
        LatticeVector::Ckn => (table(data::lattice_ckn), 20),
        LatticeVector::User(user) => {
            let of_set = |set: &[u64]| dims.iter().map(|&dim| set[dim] as f64).collect::<Vec<_>>();
            (user.values.chunks(user.dims).flat_map(of_set).collect(), user.log2_limit)
        }
        &LatticeVector::Random(bits) => {
            if !(2..=26).contains(&bits) {
                return Err(Error::argument("vector", "random vectors of 2 to 26 bits", bits));
            }
            if matches!(config.dims, Dims::List(_)) {
                return Err(Error::argument("dims", "a number of dimensions for random vectors", "a list"));
            }
            let mut z = Vec::with_capacity(config.replications * dims.len());
            for _ in 0..config.replications {
                z.push(1.0);
                z.extend((1..dims.len()).map(|_| (2 * rng.below((1 << (bits - 1)) - 1) + 3) as f64));
            }
            (z, bits)
        }
    })
}

/// Shifts, (replications, dimensions): given ones, uniform ones, or zeros.
pub(crate) fn draw_shifts(
    rng: &mut Sfc64,
    replications: usize,
    dim: usize,
    randomized: bool,
    given: Option<&[f64]>,
) -> Result<Vec<f64>> {
    let len = replications * dim;
    let Some(given) = given else {
        return Ok((0..len).map(|_| if randomized { rng.uniform() } else { 0.0 }).collect());
    };
    if !randomized {
        return Err(Error::argument("shifts", "randomization by shift", "none"));
    }
    if given.len() != len {
        return Err(Error::shape("shifts", format!("[{replications}, {dim}]"), &[given.len()]));
    }
    match given.iter().position(|shift| !(0.0..1.0).contains(shift)) {
        Some(at) => Err(Error::argument("shifts", "values in [0, 1)", format!("{} at {at}", given[at]))),
        None => Ok(given.to_vec()),
    }
}

impl Sequence for Lattice {
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
        Family::Lattice
    }

    fn order(&self) -> Order {
        self.config.order
    }

    fn randomize(&self) -> Randomize {
        self.config.randomize
    }

    fn fingerprint(&self) -> String {
        Fingerprint::new("lattice")
            .field("order", format_args!("{:?}", self.config.order))
            .field("replications", self.config.replications)
            .floats("vector", &self.vectors)
            .floats("shift", &self.shifts)
            .finish()
    }

    fn fill(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        self.fill_with(Isa::best(), rows, out)
    }

    fn fill_block(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        self.write(Isa::best(), rows, out)
    }

    fn spawn(&mut self, dims: &[usize]) -> Result<Vec<Box<dyn Sequence>>> {
        if self.config.shifts.is_some() {
            return Err(Error::unsupported("spawning", "the shifts of this lattice are given"));
        }
        let seeds = self.config.seed.spawn(dims.len());
        let child = |(&dim, seed)| {
            let config = LatticeConfig { dims: Dims::First(dim), seed, ..self.config.clone() };
            Ok(Box::new(Lattice::new(config)?) as Box<dyn Sequence>)
        };
        dims.iter().zip(seeds).map(child).collect()
    }
}
