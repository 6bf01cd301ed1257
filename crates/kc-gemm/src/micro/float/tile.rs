//! The tile of a vector level, the same for every element type and register width.

/// Defines a module with `NR` and the kernel `tile`: `$mr` rows by `$nv` registers of columns, all in registers.
macro_rules! float_tile {
    (
        $t:ident, $features:literal, $lanes:literal, $mr:literal x $nv:literal,
        $zero:ident, $set:ident, $load:ident, $store:ident, $fma:ident, $mul:ident
    ) => {
        pub(super) mod $t {
            use std::arch::x86_64::*;

            pub(in crate::micro::float) const NR: usize = $lanes * $nv;

            /// # Safety
            /// See `Kernel::run`.
            #[target_feature(enable = $features)]
            pub(in crate::micro::float) unsafe fn tile(
                k: usize,
                mut a: *const $t,
                mut b: *const $t,
                c: *mut $t,
                stride: isize,
                alpha: $t,
                add: bool,
            ) {
                let mut sums = [[$zero(); $nv]; $mr];
                for row in 0..$mr {
                    // The tile is wanted at the end of the loop over k. A prefetch touches nothing.
                    _mm_prefetch::<_MM_HINT_T0>(c.wrapping_offset(row * stride).cast());
                    _mm_prefetch::<_MM_HINT_T0>(c.wrapping_offset(row * stride + (NR as isize - 1)).cast());
                }
                macro_rules! step {
                    ($at:expr) => {
                        // SAFETY: step `at` of the panels, by the contract.
                        unsafe {
                            let mut columns = [$zero(); $nv];
                            for v in 0..$nv {
                                columns[v] = $load(b.add($at * NR + v * $lanes));
                            }
                            for r in 0..$mr {
                                let x = $set(*a.add($at * $mr + r));
                                for v in 0..$nv {
                                    sums[r][v] = $fma(x, columns[v], sums[r][v]);
                                }
                            }
                        }
                    };
                }
                for _ in 0..k / 4 {
                    _mm_prefetch::<_MM_HINT_T0>(a.wrapping_add(16 * $mr).cast());
                    step!(0);
                    step!(1);
                    step!(2);
                    step!(3);
                    // SAFETY: at most one past the end of the panels.
                    unsafe {
                        a = a.add(4 * $mr);
                        b = b.add(4 * NR);
                    }
                }
                for _ in 0..k % 4 {
                    step!(0);
                    // SAFETY: at most one past the end of the panels.
                    unsafe {
                        a = a.add($mr);
                        b = b.add(NR);
                    }
                }
                let by = $set(alpha);
                for r in 0..$mr {
                    for v in 0..$nv {
                        // SAFETY: inside of the tile, by the contract.
                        unsafe {
                            let to = c.offset(r as isize * stride + (v * $lanes) as isize);
                            let sum = sums[r][v];
                            $store(to, if add { $fma(by, sum, $load(to)) } else { $mul(by, sum) });
                        }
                    }
                }
            }
        }
    };
}

pub(super) use float_tile;
