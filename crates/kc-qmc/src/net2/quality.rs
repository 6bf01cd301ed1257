//! How good a net is.

use kc_core::{Error, Result};

use super::GeneratingMatrices;

/// Vectors that [`t_value`] may try.
const TRIES: u64 = 1 << 28;

/// The exact quality parameter t of the net of the first `2^log2_points` points of the first replication's
/// matrices: the least t for which every elementary interval of volume `2^(t-m)` holds exactly 2^t points (H.
/// Niederreiter, 1987).
///
/// t is m + 1 minus the least number of vectors that are dependent when each matrix contributes its first few
/// rows, which a search over all choices finds: `binomial(m + d, d)` steps at worst.
///
/// ```
/// use kc_qmc::net2::{NetTable, t_value};
/// let sobol = NetTable::JoeKuo.matrices(&[0, 1, 2])?;
/// assert_eq!(t_value(&sobol, 10)?, 1);
/// # Ok::<(), kc_core::Error>(())
/// ```
///
/// # Errors
/// `Argument` if the matrices have fewer than `log2_points` columns, or that is 0; `TooLarge` if the search takes
/// more than 2^28 steps.
pub fn t_value(matrices: &GeneratingMatrices, log2_points: u32) -> Result<u32> {
    let [_, dims, columns] = matrices.shape();
    let m = log2_points as usize;
    if !(1..=columns).contains(&m) {
        return Err(Error::argument("log2_points", format!("1 to {columns}"), log2_points));
    }
    let row = |dim: usize, row: u32| {
        let columns = &matrices.values()[dim * columns..dim * columns + m];
        columns.iter().fold(0u64, |sum, column| sum << 1 | (column >> (matrices.bits() - 1 - row) & 1))
    };
    let rows: Vec<Vec<u64>> =
        (0..dims).map(|dim| (0..matrices.bits()).map(|b| row(dim, b)).collect()).collect();
    let mut search = Search { rows, least: log2_points + 1, tries: 0 };
    search.extend(0, Basis::default(), 0)?;
    Ok(log2_points + 1 - search.least)
}

/// The search for few dependent rows.
struct Search {
    /// The rows of each matrix, first row first.
    rows: Vec<Vec<u64>>,
    /// As many rows are known to be dependent.
    least: u32,
    tries: u64,
}

impl Search {
    /// Adds rows of the matrices from `dim` on to `count` independent ones.
    fn extend(&mut self, dim: usize, mut basis: Basis, mut count: u32) -> Result<()> {
        if dim == self.rows.len() {
            return Ok(());
        }
        self.extend(dim + 1, basis, count)?;
        let mut row = 0;
        while count + 1 < self.least {
            self.tries += 1;
            if self.tries > TRIES {
                return Err(Error::too_large("t_value", self.tries, TRIES, "steps of the search"));
            }
            let vector = self.rows[dim].get(row).copied().unwrap_or(0);
            (row, count) = (row + 1, count + 1);
            if !basis.insert(vector) {
                self.least = count;
                break;
            }
            self.extend(dim + 1, basis, count)?;
        }
        Ok(())
    }
}

/// The Walsh figure of merit of points given as integers of `bits` bits, shape (n, dim): the mean of `prod over j
/// and b of (1 + (-1)^(digit b of x_j) 2^-b) - 1`, b from 1, which bounds the error for smooth functions (M.
/// Matsumoto, M. Saito, K. Matoba, *A computable figure of merit for quasi-Monte Carlo point sets*, 2014). Meant
/// for nets without a shift. The sum is rounded like one of numbers near 1.
///
/// # Errors
/// `Argument` if `bits` is not 1 to 64; `Shape` if the length is no multiple of `dim`, or 0.
pub fn walsh_figure_of_merit(digits: &[u64], dim: usize, bits: u32) -> Result<f64> {
    if !(1..=64).contains(&bits) {
        return Err(Error::argument("bits", "1 to 64", bits));
    }
    if digits.is_empty() || digits.len().checked_rem(dim).is_none_or(|rest| rest != 0) {
        return Err(Error::shape("digits", format!("(n, {dim}) integers, n at least 1"), &[digits.len()]));
    }
    let factor = |x: u64, b: u32| {
        let sign = if x >> (bits - b) & 1 == 1 { -1.0 } else { 1.0 };
        1.0 + sign * super::convert::power(b)
    };
    let merit = |x: u64| (1..=bits).map(|b| factor(x, b)).product::<f64>();
    let points = digits.chunks_exact(dim);
    let count = points.len() as f64;
    Ok(points.map(|point| point.iter().map(|&x| merit(x)).product::<f64>() - 1.0).sum::<f64>() / count)
}

/// Independent binary vectors, each reduced to a leading bit of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Basis {
    /// The vector whose leading bit is bit i, or 0.
    vectors: [u64; 64],
}

impl Default for Basis {
    fn default() -> Self {
        Self { vectors: [0; 64] }
    }
}

impl Basis {
    /// Adds a vector; false if it depends on those before.
    pub(super) fn insert(&mut self, mut vector: u64) -> bool {
        while let Some(lead) = vector.checked_ilog2() {
            let known = &mut self.vectors[lead as usize];
            if *known == 0 {
                *known = vector;
                return true;
            }
            vector ^= *known;
        }
        false
    }
}
