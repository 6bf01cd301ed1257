//! Products with one vector: a row times many rows (dots), and a sum of scaled rows (axpy). Both read the matrix
//! once and are bound by memory; the bodies are safe code that the compiler vectorises for the level.

#![expect(unsafe_code, reason = "enters functions compiled for a level that the Isa proves")]

#[cfg(target_arch = "x86_64")]
use kc_core::Level;
use kc_core::{Isa, TensorView};

use super::float::Real;

/// Independent partial sums of a row's dot product.
const LANES: usize = 16;
/// Rows that are read side by side: as many streams keep more of the memory's requests under way, and their sums fill
/// the registers.
const ROWS: usize = 4;

#[inline(always)]
fn mul_add<T: Real, const FMA: bool>(a: T, b: T, c: T) -> T {
    if FMA { a.fused(b, c) } else { a * b + c }
}

/// The products of `R` rows with `x`. A row's sum is taken in the same order whatever `R` is.
#[inline(always)]
fn dot<T: Real, const FMA: bool, const R: usize>(rows: [&[T]; R], x: &[T]) -> [T; R] {
    let mut sums = [[T::default(); LANES]; R];
    let (blocks, rest) = x.as_chunks::<LANES>();
    let chunks = rows.map(|row| row.as_chunks::<LANES>());
    for (i, x) in blocks.iter().enumerate() {
        for (sums, (row, _)) in sums.iter_mut().zip(&chunks) {
            for l in 0..LANES {
                sums[l] = mul_add::<T, FMA>(row[i][l], x[l], sums[l]);
            }
        }
    }
    for (sums, (_, row)) in sums.iter_mut().zip(&chunks) {
        for ((sum, &a), &x) in sums.iter_mut().zip(*row).zip(rest) {
            *sum = mul_add::<T, FMA>(a, x, *sum);
        }
    }
    sums.map(|mut sums| {
        let mut width = LANES;
        while width > 1 {
            width /= 2;
            for l in 0..width {
                let other = sums[l + width];
                sums[l] += other;
            }
        }
        sums[0]
    })
}

#[inline(always)]
fn dots_body<T: Real, const FMA: bool>(a: TensorView<'_, T, 2>, x: &[T], out: &mut [T]) {
    let row = |i: usize| a.row_slice(i).map_or(&[][..], |row| &row[..x.len()]);
    let (fours, rest) = out.as_chunks_mut::<ROWS>();
    let left = ROWS * fours.len();
    for (i, out) in fours.iter_mut().enumerate() {
        *out = dot::<T, FMA, ROWS>(std::array::from_fn(|r| row(ROWS * i + r)), x);
    }
    for (i, out) in rest.iter_mut().enumerate() {
        [*out] = dot::<T, FMA, 1>([row(left + i)], x);
    }
}

#[inline(always)]
fn combine_body<T: Real, const FMA: bool>(a: TensorView<'_, T, 2>, x: &[T], out: &mut [T]) {
    out.fill(T::default());
    for (first, four) in x.chunks(4).enumerate() {
        let row = |i: usize| a.row_slice(4 * first + i).unwrap_or_default();
        if let [x0, x1, x2, x3] = *four {
            let (r0, r1, r2, r3) = (row(0), row(1), row(2), row(3));
            for ((((out, &a0), &a1), &a2), &a3) in out.iter_mut().zip(r0).zip(r1).zip(r2).zip(r3) {
                let sum = mul_add::<T, FMA>(a0, x0, *out);
                let sum = mul_add::<T, FMA>(a1, x1, sum);
                let sum = mul_add::<T, FMA>(a2, x2, sum);
                *out = mul_add::<T, FMA>(a3, x3, sum);
            }
        } else {
            for (i, &x) in four.iter().enumerate() {
                for (out, &a) in out.iter_mut().zip(row(i)) {
                    *out = mul_add::<T, FMA>(a, x, *out);
                }
            }
        }
    }
}

macro_rules! levels {
    ($(#[$doc:meta])* $name:ident, $body:ident) => {
        $(#[$doc])*
        pub(crate) fn $name<T: Real>(isa: Isa, a: TensorView<'_, T, 2>, x: &[T], out: &mut [T]) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2<T: Real>(a: TensorView<'_, T, 2>, x: &[T], out: &mut [T]) {
                    $body::<T, true>(a, x, out);
                }
                #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
                fn avx512<T: Real>(a: TensorView<'_, T, 2>, x: &[T], out: &mut [T]) {
                    $body::<T, true>(a, x, out);
                }
                if isa.level() > Level::Avx2 {
                    // SAFETY: isa proves the instructions.
                    return unsafe { avx512(a, x, out) };
                }
                if isa.level() == Level::Avx2 {
                    // SAFETY: isa proves the instructions.
                    return unsafe { avx2(a, x, out) };
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = isa;
            $body::<T, false>(a, x, out);
        }
    };
}

levels! {
    /// `out[i] = sum_k a[i,k] x[k]`; the rows of `a` are contiguous.
    dots, dots_body
}
levels! {
    /// `out[j] = sum_k x[k] a[k,j]`; the rows of `a` are contiguous.
    combine, combine_body
}
