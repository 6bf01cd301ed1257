//! The Walsh-Hadamard transform in natural (Hadamard) order.
//!
//! ```text
//! y_k = n^-1/2 sum_i (-1)^popcount(i and k) x_i          i, k = 0 .. n - 1,  n = 2^m
//! ```
//!
//! It is its own inverse. `m` stages of additions and subtractions; three of them are done in a pass over registers,
//! blocks are finished in the first cache before they are combined, and the factor `n^-1/2` is applied once, in
//! the last pass. Stages follow one another in the same order everywhere, so all levels and any number of
//! threads give the same bits as [`reference::fwht`].
//!
//! Cost: `n log2 n` additions. The crate's README has figures. The error is at most about `m` units in the
//! last place of the largest partial sum.

use kc_core::bytemuck::{self, Pod};
use kc_core::{Float, Isa, Result};
use rayon::prelude::*;

use crate::Sample;
use crate::rows::{self, TASK};

mod portable;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Vectors of a block that is finished in the first cache (16 KiB).
const LEAF: usize = 512;

/// The kernels of an element type. A vector is what a register of 32 bytes holds.
pub(crate) trait Kernels: Float {
    /// An array of this type.
    type Vector: Pod + Send + Sync;

    /// All stages of a block of at most [`LEAF`] vectors, times `scale`.
    fn leaf(isa: Isa, x: &mut [Self::Vector], scale: Option<Self>);

    /// Three stages across rows of equal length, times `scale`.
    fn pass(isa: Isa, rows: [&mut [Self::Vector]; 8], scale: Option<Self>);

    /// The last stage alone, across two rows, times `scale`.
    fn double(isa: Isa, rows: [&mut [Self::Vector]; 2], scale: Self);
}

/// The unitary Walsh-Hadamard transform of each row of `n` values, in place; its own inverse.
///
/// # Errors
/// `Argument` if `n` is not a power of two, `Shape` if it does not divide the length.
pub fn fwht<T: Sample>(x: &mut [T], n: usize) -> Result<()> {
    fwht_with(Isa::best(), x, n)
}

/// As [`fwht`], on a chosen level; all give the same bits.
pub fn fwht_with<T: Sample>(isa: Isa, x: &mut [T], n: usize) -> Result<()> {
    rows::check("x", x.len(), n)?;
    rows::for_each(x, n, |row| transform(isa, row));
    Ok(())
}

/// The transforms of rows of `n` values whose halves have been transformed already, in place: one stage. This is
/// how a transform grows when the number of points doubles.
///
/// # Errors
/// As [`fwht`], and `n` is at least 2.
pub fn fwht_double<T: Sample>(x: &mut [T], n: usize) -> Result<()> {
    rows::check("x", x.len(), n)?;
    rows::check_halves(n)?;
    let scale = T::from_f64(0.5f64.sqrt());
    rows::for_each(x, n, |row| {
        let (low, high) = row.split_at_mut(row.len() / 2);
        let lanes = size_of::<T::Vector>() / size_of::<T>();
        if low.len().is_multiple_of(lanes) {
            T::double(Isa::best(), [bytemuck::cast_slice_mut(low), bytemuck::cast_slice_mut(high)], scale);
        } else {
            for (a, b) in low.iter_mut().zip(high) {
                let (x, y, s) = (a.to_f64(), b.to_f64(), 0.5f64.sqrt());
                (*a, *b) = (T::from_f64((x + y) * s), T::from_f64((x - y) * s));
            }
        }
    });
    Ok(())
}

fn transform<T: Sample>(isa: Isa, row: &mut [T]) {
    let n = row.len();
    let scale = T::from_f64((n as f64).sqrt().recip());
    if n >= size_of::<T::Vector>() / size_of::<T>() {
        run(isa, bytemuck::cast_slice_mut(row), Some(scale));
    } else if n > 1 {
        portable::short(row, scale);
    }
}

/// Transforms the eighths of a block, then combines them: each block is combined while the smallest cache that holds
/// it still does.
fn run<T: Kernels>(isa: Isa, x: &mut [T::Vector], scale: Option<T>) {
    if x.len() <= LEAF {
        return T::leaf(isa, x, scale);
    }
    let eighth = x.len() / 8;
    if size_of_val(x) >= TASK * size_of::<f64>() {
        x.par_chunks_exact_mut(eighth).for_each(|x| run::<T>(isa, x, None));
    } else {
        x.chunks_exact_mut(eighth).for_each(|x| run::<T>(isa, x, None));
    }
    combine::<T>(isa, rows::split(x), scale);
}

fn combine<T: Kernels>(isa: Isa, rows: [&mut [T::Vector]; 8], scale: Option<T>) {
    let columns = rows[0].len();
    if columns * 8 * size_of::<T::Vector>() <= TASK * size_of::<f64>() {
        return T::pass(isa, rows, scale);
    }
    let [left, right] = rows::halves(rows, columns / 2);
    rayon::join(|| combine::<T>(isa, left, scale), || combine::<T>(isa, right, scale));
}
