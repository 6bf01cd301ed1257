//! The tile for any processor: the arithmetic is safe code that the compiler vectorises.

#![expect(unsafe_code, reason = "reads packed panels and writes a tile by pointer, as every kernel does")]

use super::Real;

/// # Safety
/// See `Kernel::run`.
pub(super) unsafe fn tile<T: Real, const MR: usize, const NR: usize>(
    k: usize,
    a: *const T,
    b: *const T,
    c: *mut T,
    stride: isize,
    alpha: T,
    add: bool,
) {
    // SAFETY: the contract of the kernel: k * MR and k * NR elements.
    let (a, b) = unsafe { (std::slice::from_raw_parts(a, k * MR), std::slice::from_raw_parts(b, k * NR)) };
    let sums = sums::<T, MR, NR>(a, b);
    for (i, row) in sums.iter().enumerate() {
        for (j, &sum) in row.iter().enumerate() {
            // SAFETY: an element of the tile, by the contract.
            let to = unsafe { &mut *c.offset(i as isize * stride + j as isize) };
            *to = if add { *to + alpha * sum } else { alpha * sum };
        }
    }
}

#[inline(always)]
fn sums<T: Real, const MR: usize, const NR: usize>(a: &[T], b: &[T]) -> [[T; NR]; MR] {
    let mut sums = [[T::default(); NR]; MR];
    for (a, b) in a.as_chunks::<MR>().0.iter().zip(b.as_chunks::<NR>().0) {
        for (row, &x) in sums.iter_mut().zip(a) {
            for (sum, &y) in row.iter_mut().zip(b) {
                *sum += x * y;
            }
        }
    }
    sums
}
