//! The bodies of `portable.rs` for AVX2 and AVX-512, and register tiles of products.

#![expect(unsafe_code, reason = "enters functions compiled for a detected level; vector loads and stores")]

use std::arch::x86_64::*;

use kc_core::math::Real;
use kc_core::math::portable::Fused;
use kc_core::{Isa, Level};

use super::portable::{self, LANES, Product};

/// For each body, a function per instruction set and the safe entry that picks by the level of the `Isa`.
macro_rules! levels {
    ($($name:ident ( $($arg:ident : $type:ty),* );)*) => {$(
        pub(super) fn $name<T: Real>(isa: Isa, $($arg: $type),*) {
            #[target_feature(enable = "avx2,fma")]
            fn avx2<T: Real>($($arg: $type),*) {
                portable::$name::<T, Fused>($($arg),*)
            }

            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma")]
            fn avx512<T: Real>($($arg: $type),*) {
                portable::$name::<T, Fused>($($arg),*)
            }

            assert!(isa.level() >= Level::Avx2, "a level above the portable one");
            if isa.level() >= Level::Avx512 {
                // SAFETY: an Isa of this level proves AVX-512 F, BW, DQ, VL, CD and all of AVX2's level.
                unsafe { avx512($($arg),*) }
            } else {
                // SAFETY: the level is at least Avx2, so the processor has AVX2 and FMA.
                unsafe { avx2($($arg),*) }
            }
        }
    )*};
}

levels! {
    centre(from: &[T], rows: &mut [T], scale: T, centre: &[T], bias: &mut [T]);
    gaussian(k: &mut [T], row_bias: &[T], column_bias: &[T]);
    gate(k: &[T], dk: &mut [T], row_sums: &mut [T], column_sums: &mut [T]);
    pull(products: &mut [T], sums: &[T], rows: &[T], width: usize);
    apart(point: &[T], rows: &[T], out: &mut [T]);
    largest(x: &[T], most: &mut [T; LANES]);
    slide(x: &[T], taps: &[T], step: usize, out: &mut [T]);
}

/// [`portable::product`] for a type of which there are tiles.
macro_rules! products {
    ($($name:ident: $real:ty, $avx2:ident, $avx512:ident;)*) => {$(
        pub(super) fn $name(isa: Isa, p: Product<'_, $real>, c: &mut [$real]) {
            assert!(p.fits(c), "a product inside of its slices");
            assert!(isa.level() >= Level::Avx2, "a level above the portable one");
            if isa.level() >= Level::Avx512 {
                // SAFETY: an Isa of this level proves AVX-512 F and VL; `fits` proves the bounds.
                unsafe { $avx512::product(&p, c.as_mut_ptr()) }
            } else {
                // SAFETY: an Isa of this level proves AVX2 and FMA; `fits` proves the bounds.
                unsafe { $avx2::product(&p, c.as_mut_ptr()) }
            }
        }
    )*};
}

products! {
    product_f32: f32, avx2, avx512;
    product_f64: f64, avx2_f64, avx512_f64;
}

/// Tiles of `rows x (vectors * lanes)` sums in registers. `$lanes` columns are one vector; what is left of the columns goes
/// to `$narrow`.
macro_rules! tiles {
    ($real:ty, $features:literal, $rows:literal, $vector:ty, $lanes:literal, $zero:ident, $load:ident, $store:ident, $set:ident,
     $fma:ident, $add:ident, |$p:ident, $c:ident, $column:ident| $narrow:expr) => {
        /// Rows of a tile.
        const ROWS: usize = $rows;
        /// Elements of a vector.
        const VECTOR: usize = $lanes;

        /// Columns `column..` of a product.
        ///
        /// # Safety
        /// The product fits its slices, and `c` is the start of the slice that it fits.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn product_from($p: &Product<'_, $real>, $c: *mut $real, first: usize) {
            let mut $column = first;
            while $p.columns - $column >= 2 * VECTOR {
                // SAFETY: the columns are inside of the product.
                unsafe { stripe::<2>($p, $c, $column) };
                $column += 2 * VECTOR;
            }
            if $p.columns - $column >= VECTOR {
                // SAFETY: the columns are inside of the product.
                unsafe { stripe::<1>($p, $c, $column) };
                $column += VECTOR;
            }
            $narrow
        }

        /// All columns.
        ///
        /// # Safety
        /// As [`product_from`].
        #[target_feature(enable = $features)]
        pub(super) unsafe fn product(p: &Product<'_, $real>, c: *mut $real) {
            // SAFETY: by the caller's promise.
            unsafe { product_from(p, c, 0) }
        }

        /// All rows of `V` vectors of columns.
        #[target_feature(enable = $features)]
        unsafe fn stripe<const V: usize>(p: &Product<'_, $real>, c: *mut $real, column: usize) {
            let mut row = 0;
            while p.rows - row >= ROWS + 3 || p.rows - row == ROWS {
                // SAFETY: rows and columns are inside of the product.
                unsafe { tile::<ROWS, V>(p, row, column, c) };
                row += ROWS;
            }
            // A tile of one or two rows waits for its sums most of the time: 7 rows are 4 and 3, 8 are 4 and 4.
            if p.rows - row > ROWS {
                // SAFETY: as above.
                unsafe { tile::<4, V>(p, row, column, c) };
                row += 4;
            }
            // SAFETY: as above.
            unsafe {
                match p.rows - row {
                    5 => tile::<5, V>(p, row, column, c),
                    4 => tile::<4, V>(p, row, column, c),
                    3 => tile::<3, V>(p, row, column, c),
                    2 => tile::<2, V>(p, row, column, c),
                    1 => tile::<1, V>(p, row, column, c),
                    _ => {}
                }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn tile<const R: usize, const V: usize>(
            p: &Product<'_, $real>,
            row: usize,
            column: usize,
            c: *mut $real,
        ) {
            let mut sums = [[$zero(); V]; R];
            // SAFETY: `fits` has proven every element of these rows and columns, and a depth of 0 reads nothing.
            unsafe {
                // A pointer for each row: one that wandered from row to row would be a chain as long as the sums'.
                let mut rows = [p.a.as_ptr(); R];
                for r in 0..R {
                    rows[r] = p.a.as_ptr().wrapping_add((row + r) * p.row_step);
                }
                let (mut at, mut b) = (0, p.b.as_ptr().wrapping_add(column));
                for _ in 0..p.depth {
                    let mut line: [$vector; V] = [$zero(); V];
                    for v in 0..V {
                        line[v] = $load(b.add(v * VECTOR));
                    }
                    for r in 0..R {
                        let x = $set(*rows[r].add(at));
                        for v in 0..V {
                            sums[r][v] = $fma(x, line[v], sums[r][v]);
                        }
                    }
                    at += p.depth_step;
                    b = b.wrapping_add(p.b_step);
                }
                for r in 0..R {
                    for v in 0..V {
                        let to = c.add((row + r) * p.c_step + column + v * VECTOR);
                        let sum = if p.add { $add(sums[r][v], $load(to)) } else { sums[r][v] };
                        $store(to, sum);
                    }
                }
            }
        }
    };
}

mod avx2 {
    use super::*;

    tiles!(
        f32,
        "avx2,fma",
        6,
        __m256,
        8,
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        |p, _c, column| debug_assert_eq!(column, p.columns)
    );
}

mod avx512 {
    use super::*;

    tiles!(
        f32,
        "avx512f,avx512vl,avx2,fma",
        6,
        __m512,
        16,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        |p, c, column| if column < p.columns {
            // SAFETY: by the caller's promise; this level has all that AVX2's has.
            unsafe { avx2::product_from(p, c, column) }
        }
    );
}

mod avx2_f64 {
    use super::*;

    tiles!(
        f64,
        "avx2,fma",
        6,
        __m256d,
        4,
        _mm256_setzero_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_set1_pd,
        _mm256_fmadd_pd,
        _mm256_add_pd,
        |p, _c, column| debug_assert_eq!(column, p.columns)
    );
}

mod avx512_f64 {
    use super::*;

    tiles!(
        f64,
        "avx512f,avx512vl,avx2,fma",
        6,
        __m512d,
        8,
        _mm512_setzero_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_set1_pd,
        _mm512_fmadd_pd,
        _mm512_add_pd,
        |p, _c, column| debug_assert_eq!(column, p.columns)
    );
}
