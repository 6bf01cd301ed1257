//! Q4_K and Q6_K: scales by search, in the sense of least squares.
//!
//! Each group first gets the best real scale (and minimum) of a grid, refined by least squares on its codes. Then the
//! block's scale in half precision is tried at a few values; for each the groups choose among the whole multiples next
//! to what they want, judged by the codes that these give. At last the block's scale is refined on the final codes.

use kc_core::f16;

/// Elements of a block.
const BLOCK: usize = 256;

/// Sums that run beside each other, so that vectors can hold them.
const LANES: usize = 8;

/// How far above the smallest possible value the block's scale is tried, in steps of one part of its range.
const STRETCHES: [f32; 5] = [0.0, 1.0, 2.0, 4.0, 8.0];

fn total(lanes: &[f32; LANES]) -> f32 {
    let mut sum = 0.0;
    for lane in lanes {
        sum += lane;
    }
    sum
}

fn half(x: f32) -> f32 {
    // The largest half is close enough to what lies above it: such blocks have no good scale at all.
    f16::from_f32(x.clamp(-65504.0, 65504.0)).to_f32()
}

fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// To a whole number, half to even, by an addition that leaves no place for fractions: without SSE 4.1 the
/// function of that name is a call. Needs numbers below 2^22.
#[inline(always)]
fn round(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// A code of Q6_K with its sign: -32 to 31.
#[inline(always)]
fn signed_code(x: f32, inverse: f32) -> f32 {
    round((x * inverse).clamp(-32.0, 31.0))
}

/// The squared error of codes with this scale.
fn signed_error(x: &[f32], scale: f32) -> f32 {
    let inverse = inverse(scale);
    let mut error = [0.0f32; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for (error, &x) in error.iter_mut().zip(x) {
            let gap = x - scale * signed_code(x, inverse);
            *error += gap * gap;
        }
    }
    total(&error)
}

/// The best scale of a group of Q6_K: the number of the largest magnitude near -32 or near 31, the scale
/// least squares on the codes that follow.
fn signed_scale(x: &[f32]) -> f32 {
    let mut max = 0.0f32;
    for &x in x {
        if x.abs() > max.abs() {
            max = x;
        }
    }
    let (mut best, mut gain) = (0.0, 0.0);
    if max == 0.0 {
        return best;
    }
    for end in [-32.0f32, 31.0] {
        for step in -9i8..=9 {
            let inverse = (end + 0.1 * f32::from(step)) / max;
            let (mut xq, mut qq) = ([0.0f32; LANES], [0.0f32; LANES]);
            for x in x.as_chunks::<LANES>().0 {
                for i in 0..LANES {
                    let q = signed_code(x[i], inverse);
                    xq[i] += x[i] * q;
                    qq[i] += q * q;
                }
            }
            let (xq, qq) = (total(&xq), total(&qq));
            // What the squares of x lose by the best scale for these codes.
            if qq > 0.0 && xq * xq > gain * qq {
                (best, gain) = (xq / qq, xq * xq / qq);
            }
        }
    }
    best
}

/// A block of Q6_K: `d sc (q - 32)`.
pub(super) fn q6_k(x: &[f32], out: &mut [u8]) {
    let mut scales = [0.0f32; 16];
    for (scale, x) in scales.iter_mut().zip(x.chunks_exact(16)) {
        *scale = signed_scale(x);
    }
    let top = scales.iter().fold(0.0f32, |m, &s| if s.abs() > m.abs() { s } else { m });
    let (mut d, mut multiples, mut least) = (0.0, [0i8; 16], f32::INFINITY);
    for stretch in STRETCHES {
        // The largest scale becomes about -128.
        let tried = half(-top / (128.0 - stretch));
        let (chosen, error) = signed_multiples(x, &scales, tried);
        if error < least {
            (d, multiples, least) = (tried, chosen, error);
        }
    }
    // Least squares for d, with codes and multiples as they are.
    let (mut xq, mut qq) = (0.0f32, 0.0f32);
    for (x, &multiple) in x.chunks_exact(16).zip(&multiples) {
        let scale = d * f32::from(multiple);
        for &x in x {
            let q = f32::from(multiple) * signed_code(x, inverse(scale));
            xq += x * q;
            qq += q * q;
        }
    }
    if qq > 0.0 {
        let tried = half(xq / qq);
        let (chosen, error) = signed_multiples(x, &scales, tried);
        if error < least {
            (d, multiples) = (tried, chosen);
        }
    }
    out.fill(0);
    out[208..210].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (group, (x, &multiple)) in x.chunks_exact(16).zip(&multiples).enumerate() {
        out[192 + group] = multiple as u8;
        let inverse = inverse(d * f32::from(multiple));
        for (i, &x) in x.iter().enumerate() {
            let code = (signed_code(x, inverse) + 32.0) as u8;
            // Half of 128, run of 32, place in it.
            let at = 16 * group + i;
            let (upper, run, place) = (at / 128, at / 32 % 4, at % 32);
            out[64 * upper + 32 * (run % 2) + place] |= (code & 15) << (4 * (run / 2));
            out[128 + 32 * upper + place] |= (code >> 4) << (2 * run);
        }
    }
}

/// The best whole multiples of `d` near the wanted scales, and the squared error.
fn signed_multiples(x: &[f32], scales: &[f32; 16], d: f32) -> ([i8; 16], f32) {
    let mut chosen = [0i8; 16];
    let mut total = 0.0;
    for ((x, &wanted), chosen) in x.chunks_exact(16).zip(scales).zip(&mut chosen) {
        let middle = (wanted * inverse(d)).round_ties_even();
        let mut least = f32::INFINITY;
        for step in [0.0, -1.0, 1.0] {
            let multiple = (middle + step).clamp(-128.0, 127.0);
            let error = signed_error(x, d * multiple);
            if error < least {
                (*chosen, least) = (multiple as i8, error);
            }
        }
        total += least;
    }
    (chosen, total)
}

/// A code of Q4_K: 0 to 15 for `scale code - min`.
#[inline(always)]
fn code(x: f32, min: f32, inverse: f32) -> f32 {
    round(((x + min) * inverse).clamp(0.0, 15.0))
}

fn error(x: &[f32], scale: f32, min: f32) -> f32 {
    let inverse = inverse(scale);
    let mut error = [0.0f32; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for (error, &x) in error.iter_mut().zip(x) {
            let gap = x - (scale * code(x, min, inverse) - min);
            *error += gap * gap;
        }
    }
    total(&error)
}

/// Scale and minimum, both at least 0, of least squares on the codes that `min` and `inverse` give.
fn refit(x: &[f32], min: f32, inverse: f32) -> (f32, f32) {
    let mut sums = [[0.0f32; LANES]; 4];
    for x in x.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            let q = code(x[i], min, inverse);
            sums[0][i] += q;
            sums[1][i] += q * q;
            sums[2][i] += x[i];
            sums[3][i] += x[i] * q;
        }
    }
    let [sq, sqq, sx, sxq] = [total(&sums[0]), total(&sums[1]), total(&sums[2]), total(&sums[3])];
    let n = x.len() as f32;
    let determinant = n * sqq - sq * sq;
    if determinant > 0.0 {
        let scale = (n * sxq - sq * sx) / determinant;
        let min = (sq * sxq - sqq * sx) / determinant;
        if min >= 0.0 && scale >= 0.0 {
            return (scale, min);
        }
    }
    let scale = if sqq > 0.0 { (sxq / sqq).max(0.0) } else { 0.0 };
    (scale, 0.0)
}

/// The best scale and minimum of a group of Q4_K.
fn scale_and_min(x: &[f32]) -> (f32, f32) {
    let low = x.iter().fold(0.0f32, |m, &x| m.min(x));
    let high = x.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    if high <= low {
        // All equal, and not above 0.
        return (0.0, -low);
    }
    let mut best = ((high - low) / 15.0, -low);
    let mut least = error(x, best.0, best.1);
    for step in 0u8..=20 {
        let mut fitted = refit(x, -low, (14.0 + 0.1 * f32::from(step)) / (high - low));
        for _ in 0..2 {
            let error = error(x, fitted.0, fitted.1);
            if error < least {
                (best, least) = (fitted, error);
            }
            fitted = refit(x, fitted.1, inverse(fitted.0));
        }
    }
    best
}

/// The numbers of a block of Q4_K beside its codes.
#[derive(Clone, Copy)]
struct Grid {
    d: f32,
    dmin: f32,
    scales: [u8; 8],
    mins: [u8; 8],
    error: f32,
}

/// A block of Q4_K: `d sc q - dmin m`.
pub(super) fn q4_k(x: &[f32], out: &mut [u8]) {
    let mut wanted = [(0.0f32, 0.0f32); 8];
    for (wanted, x) in wanted.iter_mut().zip(x.chunks_exact(32)) {
        *wanted = scale_and_min(x);
    }
    let top = wanted.iter().fold((0.0f32, 0.0f32), |top, w| (top.0.max(w.0), top.1.max(w.1)));
    let mut best = whole_grid(x, &wanted, half(top.0 / 63.0), half(top.1 / 63.0));
    for stretch in &STRETCHES[1..] {
        for (d, dmin) in [(top.0 / (63.0 - stretch), best.dmin), (best.d, top.1 / (63.0 - stretch))] {
            let grid = whole_grid(x, &wanted, half(d), half(dmin));
            if grid.error < best.error {
                best = grid;
            }
        }
    }
    if let Some((d, dmin)) = refit_block(x, &best) {
        let grid = whole_grid(x, &wanted, half(d), half(dmin));
        if grid.error < best.error {
            best = grid;
        }
    }
    out.fill(0);
    out[..2].copy_from_slice(&f16::from_f32(best.d).to_le_bytes());
    out[2..4].copy_from_slice(&f16::from_f32(best.dmin).to_le_bytes());
    for i in 0..8 {
        let (scale, min) = (best.scales[i], best.mins[i]);
        if i < 4 {
            out[4 + i] |= scale;
            out[8 + i] |= min;
        } else {
            // Four low bits beside each other, two high bits above those of the first four.
            out[8 + i] = scale & 15 | (min & 15) << 4;
            out[i] |= scale >> 4 << 6;
            out[4 + i] |= min >> 4 << 6;
        }
    }
    for (i, x) in x.chunks_exact(32).enumerate() {
        let (scale, min) = (best.d * f32::from(best.scales[i]), best.dmin * f32::from(best.mins[i]));
        let inverse = inverse(scale);
        for (j, &x) in x.iter().enumerate() {
            out[16 + 32 * (i / 2) + j] |= (code(x, min, inverse) as u8) << (4 * (i % 2));
        }
    }
}

/// The best whole multiples of `d` and `dmin` near what the groups want.
fn whole_grid(x: &[f32], wanted: &[(f32, f32); 8], d: f32, dmin: f32) -> Grid {
    let mut grid = Grid { d, dmin, scales: [0; 8], mins: [0; 8], error: 0.0 };
    for (i, (x, &(scale, min))) in x.chunks_exact(32).zip(wanted).enumerate() {
        let scale = (scale * inverse(d)).round_ties_even();
        let min = (min * inverse(dmin)).round_ties_even();
        let mut least = f32::INFINITY;
        for scale_step in [0.0, -1.0, 1.0] {
            for min_step in [0.0, -1.0, 1.0] {
                let scale = (scale + scale_step).clamp(0.0, 63.0);
                let min = (min + min_step).clamp(0.0, 63.0);
                let error = error(x, d * scale, dmin * min);
                if error < least {
                    least = error;
                    (grid.scales[i], grid.mins[i]) = (scale as u8, min as u8);
                }
            }
        }
        grid.error += least;
    }
    grid
}

/// `d` and `dmin` of least squares on codes and multiples as they are; none where they are not determined.
fn refit_block(x: &[f32], grid: &Grid) -> Option<(f32, f32)> {
    debug_assert_eq!(x.len(), BLOCK);
    let (mut aa, mut ab, mut bb, mut xa, mut xb) = (0.0f32, 0.0f32, 0.0f32, 0.0f32, 0.0f32);
    for (i, x) in x.chunks_exact(32).enumerate() {
        let (scale, min) = (f32::from(grid.scales[i]), f32::from(grid.mins[i]));
        let inverse = inverse(grid.d * scale);
        for &x in x {
            let a = scale * code(x, grid.dmin * min, inverse);
            aa += a * a;
            ab += a * min;
            bb += min * min;
            xa += x * a;
            xb += x * min;
        }
    }
    // x = d a - dmin b.
    let determinant = aa * bb - ab * ab;
    let (d, dmin) = ((xa * bb - xb * ab) / determinant, (xa * ab - xb * aa) / determinant);
    (determinant > 0.0 && d > 0.0 && dmin >= 0.0).then_some((d, dmin))
}
