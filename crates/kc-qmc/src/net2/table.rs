//! Generating matrices: the built-in tables and the user's.

use std::sync::Arc;

use kc_core::{Error, Result};

use super::joe_kuo::{self, SobolMatrices};
use crate::data::net2 as data;
use crate::rng::Seed;

/// Which generating matrices a net is made of.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum NetTable {
    /// Sobol' points with the direction numbers of Joe and Kuo (2008): 21 201 dimensions, 2^32 points, 32 bits.
    #[default]
    JoeKuo,
    /// Niederreiter-Xing matrices of the Magic Point Shop: 5 dimensions, 2^32 points, 32 bits.
    NiederreiterXing {
        /// The interlacing factor that the matrices were chosen for, 2 or 3.
        alpha: usize,
    },
    /// The user's own.
    Matrices(GeneratingMatrices),
}

impl NetTable {
    /// Dimensions of the table.
    pub fn dims(&self) -> usize {
        match self {
            NetTable::JoeKuo => data::JOE_KUO_DIMS,
            NetTable::NiederreiterXing { .. } => data::NX_DIMS,
            NetTable::Matrices(user) => user.shape()[1],
        }
    }

    /// The matrices of some dimensions: 1 replication, or as many as the user gave.
    ///
    /// # Errors
    /// A dimension that the table does not have; a Niederreiter-Xing table that is not there.
    pub fn matrices(&self, dims: &[usize]) -> Result<GeneratingMatrices> {
        let available = self.dims();
        if let Some(at) = dims.iter().position(|&dim| dim >= available) {
            return Err(Error::index("dims", &[at], dims[at], available));
        }
        match self {
            NetTable::JoeKuo => {
                let mut matrices = SobolMatrices::new(dims);
                let mut values = vec![0; dims.len() * joe_kuo::COLUMNS];
                for columns in values.chunks_exact_mut(joe_kuo::COLUMNS) {
                    matrices.read(columns, 0);
                }
                Ok(GeneratingMatrices::trusted([1, dims.len(), joe_kuo::COLUMNS], 32, values))
            }
            NetTable::NiederreiterXing { alpha } => {
                let bytes = match alpha {
                    2 => data::NX_ALPHA2,
                    3 => data::NX_ALPHA3,
                    _ => {
                        return Err(Error::argument(
                            "table",
                            "Niederreiter-Xing matrices for alpha 2 or 3",
                            alpha,
                        ));
                    }
                };
                let (words, _) = bytes.as_chunks::<4>();
                let rows = words.as_chunks::<{ data::NX_COLUMNS }>().0;
                let values =
                    dims.iter().flat_map(|&dim| rows[dim].map(|word| u64::from(u32::from_le_bytes(word))));
                Ok(GeneratingMatrices::trusted([1, dims.len(), data::NX_COLUMNS], 32, values.collect()))
            }
            NetTable::Matrices(user) => {
                let [replications, all, columns] = user.shape();
                let mut values = Vec::with_capacity(replications * dims.len() * columns);
                for replication in 0..replications {
                    for dim in dims {
                        let start = (replication * all + dim) * columns;
                        values.extend_from_slice(&user.values()[start..start + columns]);
                    }
                }
                Ok(GeneratingMatrices::trusted([replications, dims.len(), columns], user.bits(), values))
            }
        }
    }

    /// A short name, different for different tables.
    pub(super) fn name(&self) -> String {
        match self {
            NetTable::JoeKuo => "joe-kuo-6.21201".into(),
            NetTable::NiederreiterXing { alpha } => format!("nx-s5-alpha{alpha}-m32"),
            NetTable::Matrices(user) => format!("matrices{:?}", user.shape()),
        }
    }
}

/// Which bit of an integer is the first row of a matrix, and the first binary digit of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BitOrder {
    /// The most significant of the table's bits.
    #[default]
    Msb,
    /// The least significant bit.
    Lsb,
}

/// Generating matrices over the field of two elements, checked: shape (replications, dimensions, columns), each
/// column an integer whose most significant bit is the matrix's first row. `columns` columns make 2^`columns`
/// points.
///
/// ```
/// use kc_qmc::net2::{BitOrder, GeneratingMatrices};
/// // The van der Corput sequence: the identity, here with its first row in the least significant bit.
/// let identity = GeneratingMatrices::new([1, 1, 4], vec![1, 2, 4, 8], BitOrder::Lsb)?;
/// assert_eq!(identity.values(), [8, 4, 2, 1]);
/// assert_eq!(identity.bits(), 4);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratingMatrices {
    shape: [usize; 3],
    bits: u32,
    values: Arc<[u64]>,
}

impl GeneratingMatrices {
    /// Matrices whose number of bits is the length of the largest entry.
    ///
    /// # Errors
    /// `Shape` if `values` does not have `shape`, or there are no columns or more than 64; `Empty` if all entries
    /// are 0.
    pub fn new(shape: [usize; 3], values: Vec<u64>, order: BitOrder) -> Result<Self> {
        let bits = 64 - values.iter().fold(0, |all, &v| all | v).leading_zeros();
        if bits == 0 {
            return Err(Error::empty("matrices: entries that are not 0"));
        }
        Self::with_bits(shape, values, bits, order)
    }

    /// Matrices of `bits` rows, which may be more than the largest entry needs.
    ///
    /// # Errors
    /// As [`new`](Self::new); `Argument` if `bits` is not 1 to 64, or an entry has more bits.
    pub fn with_bits(shape: [usize; 3], mut values: Vec<u64>, bits: u32, order: BitOrder) -> Result<Self> {
        if !(1..=64).contains(&bits) {
            return Err(Error::argument("bits", "1 to 64 bits in an entry of the matrices", bits));
        }
        let count = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        let columns_fit = (1..=64).contains(&shape[2]);
        if !columns_fit || shape.contains(&0) || count != Some(values.len()) {
            let expected = format!(
                "(replications, dimensions, 1 to 64 columns), all at least 1, for {} entries",
                values.len()
            );
            return Err(Error::shape("matrices", expected, &shape));
        }
        if let Some(at) = values.iter().position(|&v| v > u64::MAX >> (64 - bits)) {
            let index = (at / (shape[1] * shape[2]), at / shape[2] % shape[1], at % shape[2]);
            let got = format!("{} at {index:?}", values[at]);
            return Err(Error::argument("matrices", format!("entries below 2^{bits}"), got));
        }
        if order == BitOrder::Lsb {
            for value in &mut values {
                *value = value.reverse_bits() >> (64 - bits);
            }
        }
        Ok(Self::trusted(shape, bits, values))
    }

    fn trusted(shape: [usize; 3], bits: u32, values: Vec<u64>) -> Self {
        Self { shape, bits, values: values.into() }
    }

    /// Random matrices, each uniform among those whose first `min(columns, bits)` rows and columns are
    /// nonsingular, so that every coordinate by itself is evenly spread.
    ///
    /// # Errors
    /// `Argument` or `Shape` if `columns` or `bits` is not 1 to 64, or `dims` is 0.
    pub fn random(dims: usize, columns: usize, bits: u32, seed: &Seed) -> Result<Self> {
        if !(1..=64).contains(&columns) || !(1..=64).contains(&bits) || dims == 0 {
            let expected = "dims at least 1, columns and bits 1 to 64";
            return Err(Error::argument("matrices", expected, format!("{dims}, {columns}, {bits}")));
        }
        let mut rng = seed.rng();
        let size = columns.min(bits as usize);
        let mut values = Vec::with_capacity(dims * columns);
        for _ in 0..dims {
            let matrix = loop {
                let matrix: Vec<u64> = (0..columns).map(|_| rng.bits(bits)).collect();
                let mut square = super::quality::Basis::default();
                if matrix[..size].iter().all(|&column| square.insert(column >> (bits as usize - size))) {
                    break matrix;
                }
            };
            values.extend(matrix);
        }
        Ok(Self::trusted([1, dims, columns], bits, values))
    }

    /// A polynomial lattice: matrix entry (row l, column c), l from 1 and c from 0, is `u_{l+c}` of the expansion
    /// `a(z) / Q(z) = sum of u_l z^-l` (H. Niederreiter, 1992). The modulus Q, bit i its coefficient of z^i, has
    /// degree m, for 2^m points; each dimension has a generator a of lower degree.
    ///
    /// # Errors
    /// `Argument` if the degree of `modulus` is not 1 to 63 or a generator's is not below it, or `bits` is not
    /// 1 to 64; `Empty` without generators.
    pub fn polynomial_lattice(modulus: u64, generators: &[u64], bits: u32) -> Result<Self> {
        let Some(degree) = modulus.checked_ilog2().filter(|&degree| degree > 0) else {
            return Err(Error::argument("modulus", "a polynomial of degree 1 to 63", modulus));
        };
        if !(1..=64).contains(&bits) {
            return Err(Error::argument("bits", "1 to 64", bits));
        }
        if generators.is_empty() {
            return Err(Error::empty("generators"));
        }
        if let Some(&large) = generators.iter().find(|&&a| a >> degree != 0) {
            let expected = format!("polynomials of degree below {degree}");
            return Err(Error::argument("generators", expected, large));
        }
        let mut values = Vec::with_capacity(generators.len() * degree as usize);
        for &generator in generators {
            // Long division: the remainder times z yields a digit when it reaches the modulus' degree.
            let mut rest = generator;
            let mut digit = || {
                let top = rest >> (degree - 1) & 1;
                rest = rest << 1 ^ if top == 1 { modulus } else { 0 };
                top
            };
            let digits: Vec<u64> = (0..bits + degree - 1).map(|_| digit()).collect();
            let column = |c: usize| digits[c..c + bits as usize].iter().fold(0, |value, u| value << 1 | u);
            values.extend((0..degree as usize).map(column));
        }
        Ok(Self::trusted([1, generators.len(), degree as usize], bits, values))
    }

    /// (replications, dimensions, columns).
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Bits of an entry.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// All entries in row-major order, most significant bit first.
    pub fn values(&self) -> &[u64] {
        &self.values
    }
}

/// The matrices of a net under construction: whole, or unpacked one after the other.
#[derive(Debug)]
pub(super) enum Source<'a> {
    JoeKuo(&'a [usize]),
    Matrices(GeneratingMatrices),
}

impl<'a> Source<'a> {
    /// The matrices of these dimensions of a table.
    pub(super) fn new(table: &NetTable, dims: &'a [usize]) -> Result<Self> {
        match table {
            NetTable::JoeKuo => Ok(Source::JoeKuo(dims)),
            _ => table.matrices(dims).map(Source::Matrices),
        }
    }

    /// (replications, dimensions, columns).
    pub(super) fn shape(&self) -> [usize; 3] {
        match self {
            Source::JoeKuo(dims) => [1, dims.len(), joe_kuo::COLUMNS],
            Source::Matrices(matrices) => matrices.shape(),
        }
    }

    /// Bits of an entry.
    pub(super) fn bits(&self) -> u32 {
        match self {
            Source::JoeKuo(_) => 32,
            Source::Matrices(matrices) => matrices.bits(),
        }
    }

    /// Reads the matrices of one replication, modulo their number, in order.
    pub(super) fn reader(&self, replication: usize) -> Reader<'_> {
        match self {
            Source::JoeKuo(dims) => Reader::JoeKuo(Box::new(SobolMatrices::new(dims))),
            Source::Matrices(matrices) => {
                let [replications, dims, columns] = matrices.shape();
                let start = replication % replications * dims * columns;
                Reader::Matrices(&matrices.values()[start..start + dims * columns])
            }
        }
    }
}

/// The matrices of one replication, one after the other.
pub(super) enum Reader<'a> {
    JoeKuo(Box<SobolMatrices<'a>>),
    Matrices(&'a [u64]),
}

impl Reader<'_> {
    /// The next matrix's columns, without their last `cut` bits.
    pub(super) fn read(&mut self, columns: &mut [u64], cut: u32) {
        match self {
            Reader::JoeKuo(matrices) => matrices.read(columns, cut),
            Reader::Matrices(values) => {
                let (matrix, rest) = values.split_at(columns.len());
                for (column, entry) in columns.iter_mut().zip(matrix) {
                    *column = entry >> cut;
                }
                *values = rest;
            }
        }
    }
}
