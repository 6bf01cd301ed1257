//! What surrounds the innermost loop of an integer tile, the same at every level: groups, scales, rows left over.

/// Defines `scaled` and `sums` of a level. The calling file has `group::<R, V>(words, weights, quads)`, the sums
/// of one group for `R` rows and `V` registers of columns, taken with `128 + w` in place of `w`.
macro_rules! integer_tiles {
    (
        features: $features:literal, level: $level:ident, lanes: $lanes:literal, words: $words:literal,
        rows: [$($r:literal => $v:literal),*],
        int: { $set:ident, $sub:ident, $store_int:ident },
        float: { $zero:ident, $convert:ident, $load:ident, $mul:ident, $add:ident, $store:ident },
    ) => {
        /// # Safety
        /// As checked by `super::check`, for `R` rows; `scales` holds `NR` values per group.
        #[target_feature(enable = $features)]
        unsafe fn scaled_rows<const R: usize, const V: usize>(
            rows: $crate::micro::int8::Rows<'_>,
            panel: &[u8],
            scales: &[f32],
            result: &mut [[f32; NR]; $crate::micro::int8::MAX_ROWS],
        ) {
            for column in (0..NR).step_by($lanes * V) {
                let mut total = [[$zero(); V]; R];
                let mut quad = 0;
                for (g, scales) in scales.chunks_exact(NR).enumerate() {
                    let count = rows.group_quads.min(rows.quads - quad);
                    // SAFETY: quad + count <= rows.quads, for which the lengths were checked.
                    let sums = unsafe {
                        group::<R, V>(
                            rows.words.as_ptr().add(quad * R * $words),
                            panel.as_ptr().add(quad * NR * 4 + column * 4),
                            count,
                        )
                    };
                    quad += count;
                    for r in 0..R {
                        let surplus = $set(rows.sums[g * R + r].wrapping_mul(128));
                        for v in 0..V {
                            let sum = $convert($sub(sums[r][v], surplus));
                            // SAFETY: column + lanes (v + 1) <= NR, the length of scales.
                            let scale = unsafe { $load(scales.as_ptr().add(column + $lanes * v)) };
                            total[r][v] = $add(total[r][v], $mul(sum, scale));
                        }
                    }
                }
                for (total, out) in total.iter().zip(result.iter_mut()) {
                    for (v, &value) in total.iter().enumerate() {
                        // SAFETY: column + lanes (v + 1) <= NR, the length of out.
                        unsafe { $store(out.as_mut_ptr().add(column + $lanes * v), value) };
                    }
                }
            }
        }

        /// # Safety
        /// As checked by `super::check`, for `R` rows.
        #[target_feature(enable = $features)]
        unsafe fn sums_rows<const R: usize, const V: usize>(
            rows: $crate::micro::int8::Rows<'_>,
            panel: &[u8],
            result: &mut [[i32; NR]; $crate::micro::int8::MAX_ROWS],
        ) {
            for column in (0..NR).step_by($lanes * V) {
                // SAFETY: the lengths were checked for rows.quads quads.
                let sums = unsafe {
                    group::<R, V>(rows.words.as_ptr(), panel.as_ptr().add(column * 4), rows.quads)
                };
                for (r, (sums, out)) in sums.iter().zip(result.iter_mut()).enumerate() {
                    // An empty sum has no group.
                    let surplus = $set(rows.sums.get(r).map_or(0, |s| s.wrapping_mul(128)));
                    for (v, &sum) in sums.iter().enumerate() {
                        // SAFETY: column + lanes (v + 1) <= NR, the length of out.
                        unsafe {
                            $store_int(out.as_mut_ptr().add(column + $lanes * v).cast(), $sub(sum, surplus));
                        }
                    }
                }
            }
        }

        pub(super) fn scaled(
            isa: kc_core::Isa,
            rows: $crate::micro::int8::Rows<'_>,
            panel: &[u8],
            scales: &[f32],
            result: &mut [[f32; NR]; $crate::micro::int8::MAX_ROWS],
        ) {
            assert!(isa.level() >= kc_core::Level::$level, "the level is there");
            // SAFETY: isa proves the instructions; the caller has checked the lengths for rows.count rows.
            unsafe {
                match rows.count {
                    $($r => scaled_rows::<$r, $v>(rows, panel, scales, result),)*
                    _ => unreachable!("the caller has checked the number of rows"),
                }
            }
        }

        pub(super) fn sums(
            isa: kc_core::Isa,
            rows: $crate::micro::int8::Rows<'_>,
            panel: &[u8],
            result: &mut [[i32; NR]; $crate::micro::int8::MAX_ROWS],
        ) {
            assert!(isa.level() >= kc_core::Level::$level, "the level is there");
            // SAFETY: isa proves the instructions; the caller has checked the lengths for rows.count rows.
            unsafe {
                match rows.count {
                    $($r => sums_rows::<$r, $v>(rows, panel, result),)*
                    _ => unreachable!("the caller has checked the number of rows"),
                }
            }
        }
    };
}

pub(super) use integer_tiles;
