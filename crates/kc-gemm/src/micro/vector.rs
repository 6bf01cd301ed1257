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

// Functions that are always inlined instead of closures: a closure is compiled without the instructions of its caller
// unless the compiler chooses to inline it, and then `fused` is a library call.

#[inline(always)]
fn step<T: Real, const FMA: bool>(sums: &mut [T; LANES], a: &[T; LANES], x: &[T; LANES]) {
    for l in 0..LANES {
        sums[l] = mul_add::<T, FMA>(a[l], x[l], sums[l]);
    }
}

/// Adds what is left of a row, then the lanes in a tree.
#[inline(always)]
fn finish<T: Real, const FMA: bool>(mut sums: [T; LANES], a: &[T], x: &[T]) -> T {
    for ((sum, &a), &x) in sums.iter_mut().zip(a).zip(x) {
        *sum = mul_add::<T, FMA>(a, x, *sum);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for l in 0..width {
            let other = sums[l + width];
            sums[l] += other;
        }
    }
    sums[0]
}

#[inline(always)]
fn dot<T: Real, const FMA: bool>(a: &[T], x: &[T]) -> T {
    let ((x, x_rest), (a, a_rest)) = (x.as_chunks::<LANES>(), a.as_chunks::<LANES>());
    let mut sums = [T::default(); LANES];
    for (a, x) in a.iter().zip(x) {
        step::<T, FMA>(&mut sums, a, x);
    }
    finish::<T, FMA>(sums, a_rest, x_rest)
}

/// [`dot`] of four rows, each summed in the same order as alone.
#[inline(always)]
fn dot4<T: Real, const FMA: bool>([a, b, c, d]: [&[T]; ROWS], x: &[T]) -> [T; ROWS] {
    let (x, x_rest) = x.as_chunks::<LANES>();
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let ((c, c_rest), (d, d_rest)) = (c.as_chunks::<LANES>(), d.as_chunks::<LANES>());
    let zeros = [T::default(); LANES];
    let (mut sa, mut sb, mut sc, mut sd) = (zeros, zeros, zeros, zeros);
    for ((((x, a), b), c), d) in x.iter().zip(a).zip(b).zip(c).zip(d) {
        step::<T, FMA>(&mut sa, a, x);
        step::<T, FMA>(&mut sb, b, x);
        step::<T, FMA>(&mut sc, c, x);
        step::<T, FMA>(&mut sd, d, x);
    }
    [
        finish::<T, FMA>(sa, a_rest, x_rest),
        finish::<T, FMA>(sb, b_rest, x_rest),
        finish::<T, FMA>(sc, c_rest, x_rest),
        finish::<T, FMA>(sd, d_rest, x_rest),
    ]
}

#[inline(always)]
fn dots_body<T: Real, const FMA: bool>(a: TensorView<'_, T, 2>, x: &[T], out: &mut [T]) {
    let (fours, rest) = out.as_chunks_mut::<ROWS>();
    let left = ROWS * fours.len();
    for (i, out) in fours.iter_mut().enumerate() {
        let mut rows: [&[T]; ROWS] = [&[]; ROWS];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = a.row_slice(ROWS * i + r).unwrap_or_default();
        }
        *out = dot4::<T, FMA>(rows, x);
    }
    for (i, out) in rest.iter_mut().enumerate() {
        *out = dot::<T, FMA>(a.row_slice(left + i).unwrap_or_default(), x);
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
