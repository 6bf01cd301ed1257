//! The score of a matrix that is too large for memory, or comes from elsewhere: row blocks pushed twice.

use kc_core::{Error, Float, Isa, Result, TensorView};

use super::norm::{self, Hidden, Squares, with_hidden};
use super::portable::Mean;
use super::{MnnConfig, MnnScore, check_matrix, check_settings, norms_of, score_of};

/// The first pass: column means. Push all rows in blocks, call [`finish_means`](Self::finish_means), push the
/// same rows again, in blocks of any sizes, and call [`MnnNormStream::finish`].
///
/// The result agrees with [`mnn`](super::mnn()) on the whole matrix to rounding: blocks are summed in the
/// order in which they come.
///
/// ```
/// use kc_core::{Tensor, par::chunks};
/// use kc_linalg::mnn::{MnnConfig, MnnStream, mnn};
///
/// let x = Tensor::<f32, 2>::from_fn([10, 3], |[i, j]| ((i * 7 + j * j) % 5) as f32)?;
/// let config = MnnConfig::default();
/// let mut means = MnnStream::new(3, &config)?;
/// for rows in chunks(10, 4) {
///     means.push(x.view().slice(0, rows)?)?;
/// }
/// let mut norms = means.finish_means()?;
/// for rows in chunks(10, 3) {
///     norms.push(x.view().slice(0, rows)?)?;
/// }
/// let (stream, whole) = (norms.finish()?, mnn(x.view(), &config)?);
/// assert!((stream.raw - whole.raw).abs() < 1e-6);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MnnStream {
    config: MnnConfig,
    isa: Isa,
    origin: Vec<f64>,
    sums: Vec<f64>,
    rows: usize,
}

/// The second pass: column norms. Made by [`MnnStream::finish_means`].
#[derive(Debug, Clone)]
pub struct MnnNormStream {
    config: MnnConfig,
    isa: Isa,
    mean: Vec<f64>,
    squares: Squares,
    rows: usize,
    seen: usize,
}

impl MnnStream {
    /// A stream of rows with `dim` columns.
    pub fn new(dim: usize, config: &MnnConfig) -> Result<Self> {
        check_matrix(1, dim)?;
        check_settings(dim, config)?;
        Ok(Self { config: *config, isa: Isa::best(), origin: vec![0.0; dim], sums: vec![0.0; dim], rows: 0 })
    }

    /// More rows. Fails if their number of columns differs or they hold NaN or infinity; the stream is then
    /// as it was before.
    pub fn push<T: Float>(&mut self, block: TensorView<'_, T, 2>) -> Result<()> {
        check_width(block, self.sums.len())?;
        if block.rows() == 0 {
            return Ok(());
        }
        let first = self.rows == 0;
        let origin = if first { norm::origin_of(block) } else { self.origin.clone() };
        let sums = match with_hidden!(block, |x| norm::sums(self.isa, x, &origin)) {
            Err(Error::NotFinite { arg, mut index, value }) => {
                index[0] += self.rows;
                return Err(Error::NotFinite { arg, index, value });
            }
            other => other?,
        };
        self.origin = origin;
        self.sums.iter_mut().zip(&sums).for_each(|(a, b)| *a += b);
        self.rows += block.rows();
        Ok(())
    }

    /// Ends the first pass. Fails if no row has come.
    pub fn finish_means(self) -> Result<MnnNormStream> {
        if self.rows == 0 {
            return Err(Error::empty("x"));
        }
        let dim = self.sums.len();
        let mean = if self.config.center {
            norm::mean_from(&self.origin, &self.sums, self.rows)
        } else {
            vec![0.0; dim]
        };
        Ok(MnnNormStream {
            config: self.config,
            isa: self.isa,
            mean,
            squares: Squares::zeros(dim),
            rows: self.rows,
            seen: 0,
        })
    }
}

impl MnnNormStream {
    /// More rows, the same as in the first pass.
    pub fn push<T: Float>(&mut self, block: TensorView<'_, T, 2>) -> Result<()> {
        check_width(block, self.squares.sums.len())?;
        let more = self.rows - self.seen;
        if block.rows() > more {
            return Err(Error::shape("block", format!("at most the {more} rows left"), &block.shape()));
        }
        let squares = with_hidden!(block, |x| self.block(x))?;
        self.squares = self.squares.clone().merge(&squares);
        self.seen += block.rows();
        Ok(())
    }

    fn block<H: Hidden>(&self, x: TensorView<'_, H, 2>) -> Result<Squares> {
        norm::squares(self.isa, x, &Mean::of(&self.mean), &self.config, self.seen)
    }

    /// The norms of all columns.
    pub fn column_norms(&self) -> Result<Vec<f64>> {
        self.check_complete()?;
        Ok(norms_of(&self.squares, &self.config))
    }

    /// The score. Fails if rows of the first pass have not come again.
    pub fn finish(self) -> Result<MnnScore> {
        self.check_complete()?;
        Ok(score_of(&self.squares, self.rows, &self.config))
    }

    fn check_complete(&self) -> Result<()> {
        if self.seen == self.rows {
            return Ok(());
        }
        Err(Error::shape("x", format!("all {} rows of the first pass", self.rows), &[self.seen]))
    }
}

fn check_width<T: Float>(block: TensorView<'_, T, 2>, dim: usize) -> Result<()> {
    if block.cols() == dim {
        return Ok(());
    }
    Err(Error::shape("block", format!("[_, {dim}]"), &block.shape()))
}
