//! What all point sets have in common.

use std::ops::Range;

use kc_core::{Error, Result, Tensor};

/// In which order the points of a sequence come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// The sequence's own order: radical inverse of the index.
    #[default]
    Natural,
    /// Gray-code order: the same points, neighbours differ in one digit of the index.
    Gray,
    /// `i / n` (lattices only): a closed set of `n` points.
    Linear,
}

/// Which engine scrambles nested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NusEngine {
    /// [`Trie`](Self::Trie) for the first 2^12 points, which [`Hash`](Self::Hash) continues.
    #[default]
    Auto,
    /// The lazily grown tree of the reference: the same bits for the same seed.
    Trie,
    /// A keyed hash of each prefix: stateless, any index at once; not the reference's bits.
    Hash,
}

/// How a sequence is randomised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Randomize {
    /// Not at all.
    None,
    /// Shift modulo 1.
    Shift,
    /// Linear matrix scrambling.
    Lms,
    /// Digital shift.
    Ds,
    /// Linear matrix scrambling, then a digital shift.
    LmsDs,
    /// Digit permutations.
    Dp,
    /// Linear matrix scrambling, then digit permutations.
    LmsDp,
    /// Nested uniform (Owen) scrambling.
    Nus(NusEngine),
    /// Multipliers and random starts of the R package qrng (Halton only).
    Qrng,
    /// Independent draws: the set has no other structure (IID, Latin hypercube).
    Iid,
}

/// What a sequence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Rank-1 lattice.
    Lattice,
    /// Digital net in base 2.
    DigitalNet,
    /// Digital net in another base, or in several (Halton, Faure).
    GeneralNet,
    /// Kronecker sequence.
    Kronecker,
    /// A fixed set: Hammersley, Korobov, Latin hypercube.
    Closed,
    /// Independent uniform points.
    Iid,
    /// Some rows of another sequence.
    Subsequence,
}

/// Which coordinates of a table a sequence uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dims {
    /// The first so many.
    First(usize),
    /// These, counted from 0, all different.
    List(Vec<usize>),
}

impl Dims {
    /// The coordinates, checked: at least one, all below `available`, none twice.
    pub fn resolve(&self, available: usize) -> Result<Vec<usize>> {
        let expected = || format!("1 to {available} distinct dimensions");
        let list = match self {
            Dims::First(count) if (1..=available).contains(count) => return Ok((0..*count).collect()),
            Dims::First(count) => return Err(Error::argument("dims", expected(), count)),
            Dims::List(list) => list.clone(),
        };
        if list.is_empty() {
            return Err(Error::empty("dims"));
        }
        let mut sorted = list.clone();
        sorted.sort_unstable();
        for (at, &dim) in list.iter().enumerate() {
            if dim >= available {
                return Err(Error::index("dims", &[at], dim, available));
            }
        }
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::argument("dims", expected(), format!("{} twice", pair[0])));
        }
        Ok(list)
    }
}

impl From<usize> for Dims {
    fn from(count: usize) -> Self {
        Dims::First(count)
    }
}

/// Points of the unit cube, in replications that share a table and differ in their random numbers.
///
/// Filling `0..n` at once, in pieces, or from `m > 0` gives the same bits; so does any number of threads.
pub trait Sequence: Send + Sync {
    /// Coordinates of a point.
    fn dim(&self) -> usize;

    /// Independent randomisations; at least 1.
    fn replications(&self) -> usize;

    /// How many points there are.
    fn limit(&self) -> u128;

    /// What it is.
    fn family(&self) -> Family;

    /// Its order.
    fn order(&self) -> Order;

    /// Its randomisation.
    fn randomize(&self) -> Randomize;

    /// A text that is equal for two sequences only if they give the same points.
    fn fingerprint(&self) -> String;

    /// Writes the points `rows` of every replication into `out`, which has shape (replications, rows,
    /// dimensions), row-major.
    ///
    /// # Errors
    /// `rows` reaches beyond [`limit`](Self::limit) or does not suit the order; `out` has another length.
    fn fill(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()>;

    /// As [`fill`](Self::fill) for a block of a larger range: any rows below the limit, whatever the order. Rows
    /// of a block that does not end at powers of 2 are not evenly spread by themselves.
    ///
    /// # Errors
    /// `rows` reaches beyond [`limit`](Self::limit); `out` has another length.
    fn fill_block(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        self.fill(rows, out)
    }

    /// As [`fill`](Self::fill), as integers of so many bits, which it returns. For digital nets in base 2.
    ///
    /// # Errors
    /// As `fill`; `Unsupported` for other families.
    fn fill_digits(&mut self, _rows: Range<u64>, _out: &mut [u64]) -> Result<u32> {
        Err(Error::unsupported("integer points", "only digital nets in base 2 have them"))
    }

    /// New independent sequences like this one, with these numbers of dimensions, from spawned seeds.
    ///
    /// # Errors
    /// A number of dimensions that the table does not have.
    fn spawn(&mut self, dims: &[usize]) -> Result<Vec<Box<dyn Sequence>>>;

    /// The points `rows` as a tensor (replications, rows, dimensions).
    ///
    /// # Errors
    /// As [`fill`](Self::fill), and `TooLarge`.
    fn points(&mut self, rows: Range<u64>) -> Result<Tensor<f64, 3>> {
        let count = usize::try_from(rows.end.saturating_sub(rows.start)).unwrap_or(usize::MAX);
        let mut out = Tensor::zeros([self.replications(), count, self.dim()])?;
        self.fill(rows, out.as_mut_slice())?;
        Ok(out)
    }
}

impl<S: Sequence + ?Sized> Sequence for Box<S> {
    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn replications(&self) -> usize {
        (**self).replications()
    }

    fn limit(&self) -> u128 {
        (**self).limit()
    }

    fn family(&self) -> Family {
        (**self).family()
    }

    fn order(&self) -> Order {
        (**self).order()
    }

    fn randomize(&self) -> Randomize {
        (**self).randomize()
    }

    fn fingerprint(&self) -> String {
        (**self).fingerprint()
    }

    fn fill(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        (**self).fill(rows, out)
    }

    fn fill_block(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        (**self).fill_block(rows, out)
    }

    fn fill_digits(&mut self, rows: Range<u64>, out: &mut [u64]) -> Result<u32> {
        (**self).fill_digits(rows, out)
    }

    fn spawn(&mut self, dims: &[usize]) -> Result<Vec<Box<dyn Sequence>>> {
        (**self).spawn(dims)
    }
}
