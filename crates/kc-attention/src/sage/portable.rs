//! The loops in safe code, for any processor.

use super::kernel::{Bias, Integers, KEYS, KeyTile, PerRow, SIDE, SUM, State, Turn};
use super::rows::EIGHT;

/// Adding this to a number below `2^22` leaves the nearest integer, half to even, in the low bits of the sum.
pub(super) const MAGIC: f32 = 12_582_912.0;

#[inline(always)]
pub(super) fn add(row: &[f32], sums: &mut [f64]) {
    for (sum, &x) in sums.iter_mut().zip(row) {
        *sum += f64::from(x);
    }
}

#[inline(always)]
pub(super) fn largest(row: &[f32], mean: &[f32]) -> u32 {
    const ABS: u32 = 0x7fff_ffff;
    let mut top = 0u32;
    if mean.is_empty() {
        for &x in row {
            top = top.max(x.to_bits() & ABS);
        }
    } else {
        for (&x, &mean) in row.iter().zip(mean) {
            top = top.max((x - mean).to_bits() & ABS);
        }
    }
    top
}

/// The nearest integer within `±limit`, half to even.
#[inline(always)]
pub(super) fn round(x: f32, limit: f32) -> i32 {
    let x = if x > limit { limit } else { x };
    let x = if x < -limit { -limit } else { x };
    ((x + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}

#[inline(always)]
pub(super) fn encode(row: &[f32], mean: &[f32], inverse: f32, limit: f32, out: &mut [i8]) {
    if mean.is_empty() {
        for (out, &x) in out.iter_mut().zip(row) {
            *out = round(x * inverse, limit) as i8;
        }
    } else {
        for ((out, &x), &mean) in out.iter_mut().zip(row).zip(mean) {
            *out = round((x - mean) * inverse, limit) as i8;
        }
    }
}

#[inline(always)]
pub(super) fn encode_channels(row: &[f32], inverse: &[f32], limit: f32, out: &mut [i8]) {
    for ((out, &x), &inverse) in out.iter_mut().zip(row).zip(inverse) {
        *out = round(x * inverse, limit) as i8;
    }
}

#[inline(always)]
pub(super) fn widen(row: &[f32], mean: &[f32], top: &mut [u32]) {
    const ABS: u32 = 0x7fff_ffff;
    if mean.is_empty() {
        for (top, &x) in top.iter_mut().zip(row) {
            *top = (*top).max(x.to_bits() & ABS);
        }
    } else {
        for ((top, &x), &mean) in top.iter_mut().zip(row).zip(mean) {
            *top = (*top).max((x - mean).to_bits() & ABS);
        }
    }
}

#[inline(always)]
pub(super) fn interleave(a: &[f32], b: &[f32], inverse: &[f32], limit: f32, raise: i32, out: &mut [i32]) {
    let (a, b, inverse) = (a.as_chunks::<SIDE>().0, b.as_chunks::<SIDE>().0, inverse.as_chunks::<SIDE>().0);
    for (((a, b), inverse), out) in a.iter().zip(b).zip(inverse).zip(out.chunks_mut(KEYS / 2 * SIDE)) {
        let out = &mut out[..SIDE];
        for c in 0..SIDE {
            let (low, high) = (round(a[c] * inverse[c], limit), round(b[c] * inverse[c], limit));
            out[c] = (low + raise) & 0xffff | (high + raise) << 16;
        }
    }
}

#[inline(always)]
pub(super) fn lengthen(codes: &[i8], raise: i16, out: &mut [i16]) {
    for (out, code) in out.iter_mut().zip(codes) {
        *out = i16::from(*code) + raise;
    }
}

#[inline(always)]
pub(super) fn total(codes: &[i8]) -> i32 {
    let mut sum = 0;
    for code in codes {
        sum += i32::from(*code);
    }
    sum
}

#[inline(always)]
pub(super) fn sum_halves(words: &[i32], sums: &mut [i32; SIDE]) {
    let mut all = [0; SIDE];
    for words in words.as_chunks::<SIDE>().0 {
        for (sum, word) in all.iter_mut().zip(words) {
            *sum += (word & 0xffff) + (word >> 16);
        }
    }
    *sums = all;
}

#[inline(always)]
pub(super) fn sum_bytes(words: &[i32], sums: &mut [[i32; SIDE]; 2]) {
    let (mut low, mut high) = ([0; SIDE], [0; SIDE]);
    for words in words.as_chunks::<SIDE>().0 {
        for j in 0..SIDE {
            low[j] += (words[j] << 24 >> 24) + (words[j] << 16 >> 24);
            high[j] += (words[j] << 8 >> 24) + (words[j] >> 24);
        }
    }
    *sums = [low, high];
}

#[inline(always)]
pub(super) fn scaled(x: &[f32], factor: f32, out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = x * factor;
    }
}

#[inline(always)]
pub(super) fn scale(row: &mut [f32], factor: f32) {
    for x in row {
        *x *= factor;
    }
}

/// In 16 partial sums, added in a fixed tree.
#[inline(always)]
pub(super) fn dot_without(x: &[f32], y: &[f32], mean: &[f32]) -> f32 {
    let mut sums = [0.0f32; SIDE];
    let ((xs, x), (ys, y)) = (x.as_chunks::<SIDE>(), y.as_chunks::<SIDE>());
    let (means, mean) = mean.as_chunks::<SIDE>();
    let zero = [0.0; SIDE];
    for (i, (x, y)) in xs.iter().zip(ys).enumerate() {
        let mean = if means.is_empty() { &zero } else { &means[i] };
        for l in 0..SIDE {
            sums[l] += x[l] * (y[l] - mean[l]);
        }
    }
    for (l, (x, y)) in x.iter().zip(y).enumerate() {
        sums[l] += x * (y - mean.get(l).copied().unwrap_or(0.0));
    }
    let mut half = SIDE / 2;
    while half > 0 {
        for l in 0..half {
            sums[l] += sums[l + half];
        }
        half /= 2;
    }
    sums[0]
}

/// Each in 8 partial sums.
#[inline(always)]
pub(super) fn eight_dots_without(x: &[f32], y: &[&[f32]; EIGHT], mean: &[f32]) -> [f32; EIGHT] {
    const LANES: usize = 8;
    let (xs, rest) = x.as_chunks::<LANES>();
    let means = mean.as_chunks::<LANES>().0;
    let y = y.map(|y| &y[..x.len()]);
    let mut sums = [[0.0f32; LANES]; EIGHT];
    for (i, x) in xs.iter().enumerate() {
        let mean = if means.is_empty() { &[0.0; LANES] } else { &means[i] };
        for r in 0..EIGHT {
            let y = &y[r][i * LANES..][..LANES];
            for l in 0..LANES {
                sums[r][l] += x[l] * (y[l] - mean[l]);
            }
        }
    }
    let from = x.len() - rest.len();
    let mut out = [0.0; EIGHT];
    for r in 0..EIGHT {
        for (l, x) in rest.iter().enumerate() {
            sums[r][l] += x * (y[r][from + l] - mean.get(from + l).copied().unwrap_or(0.0));
        }
        let [a, b, c, d, e, f, g, h] = sums[r];
        out[r] = ((a + e) + (c + g)) + ((b + f) + (d + h));
    }
    out
}

#[inline(always)]
pub(super) fn expand_bytes(packed: &[u8], out: &mut [i8]) {
    for (byte, out) in packed.iter().zip(out.as_chunks_mut::<2>().0) {
        *out = [(byte << 4) as i8 >> 4, *byte as i8 >> 4];
    }
}

/// Two codes of a word.
#[inline(always)]
fn pair(word: i32) -> [i32; 2] {
    [i32::from(word as i16), word >> 16]
}

pub(super) fn scores(rows: usize, q: &[i32], keys: KeyTile<'_>, bias: Option<Bias<'_>>, out: &mut [f32]) {
    let depth = q.len() / rows;
    for (side, words) in keys.words.chunks_exact(depth * SIDE).enumerate() {
        for r in 0..rows {
            let mut sums = [0i32; SIDE];
            for (step, words) in words.as_chunks::<SIDE>().0.iter().enumerate() {
                let [a, b] = pair(q[step * rows + r]);
                for j in 0..SIDE {
                    let [x, y] = pair(words[j]);
                    sums[j] += a * x + b * y;
                }
            }
            let first = side * SIDE;
            let out = &mut out[r * KEYS + first..][..SIDE];
            for (j, out) in out.iter_mut().enumerate() {
                *out = sums[j] as f32 * keys.factor[first + j];
                if let Some(bias) = bias {
                    *out = *out * bias.scale[r] + bias.values[r * bias.stride + first + j];
                }
            }
        }
    }
}

/// `2^x` for x in -126 to 0, within `3e-6` of it, or `3e-7` if `FINE`.
#[inline(always)]
fn exp2<const FINE: bool>(x: f32) -> f32 {
    let sum = x + MAGIC;
    let f = x - (sum - MAGIC);
    let mut p = 0.0;
    if FINE {
        for c in EXP2_FINE.iter().rev() {
            p = p * f + c;
        }
    } else {
        for c in EXP2.iter().rev() {
            p = p * f + c;
        }
    }
    f32::from_bits(p.to_bits().wrapping_add(sum.to_bits() << 23))
}

/// Coefficients of `2^f` for f in ±1/2, with the least relative error.
pub(super) const EXP2: [f32; 5] = [0.999_999_3, 0.693_121_8, 0.240_247_44, 0.055_917_86, 0.009_570_101];
/// The same with one term more, and `2^0` exact: what need not shrink stays as it is.
pub(super) const EXP2_FINE: [f32; 6] =
    [1.0, std::f32::consts::LN_2, 0.240_222_42, 0.055_507_336, 0.009_671_513, 0.001_326_472_7];

/// The powers of 2 below which a weight is nothing.
pub(super) const LEAST: f32 = -126.0;

pub(super) fn turn(
    rows: usize,
    scores: &[f32],
    factor: &PerRow,
    local: bool,
    state: &mut State,
    turn: &mut Turn,
) {
    let power = |x: f32| if x < LEAST { 0.0 } else { exp2::<true>(x) };
    *turn = Turn::default();
    for (r, scores) in scores.as_chunks::<KEYS>().0.iter().take(rows).enumerate() {
        let largest = scores.iter().fold(f32::NEG_INFINITY, |m, t| if *t > m { *t } else { m });
        let scaled = largest * factor[r];
        let before = state.top[r];
        let top = before.max(scaled);
        state.top[r] = top;
        if scaled == f32::NEG_INFINITY {
            turn.shrink[r] = 1.0;
            continue;
        }
        turn.shrink[r] = power(before - top);
        turn.base[r] = largest;
        (turn.weight[r], turn.offset[r]) =
            if local { (power(scaled - top), 0.0) } else { (1.0, scaled - top) };
    }
}

pub(super) fn weigh(
    rows: usize,
    scores: &[f32],
    factor: &PerRow,
    integers: Integers,
    turn: &mut Turn,
    state: &mut State,
    out: &mut [i16],
) {
    turn.fits = true;
    for (r, (scores, out)) in
        scores.as_chunks::<KEYS>().0.iter().zip(out.as_chunks_mut::<KEYS>().0).take(rows).enumerate()
    {
        let mut powers = [0.0f32; KEYS];
        for (power, t) in powers.iter_mut().zip(scores) {
            let x = (t - turn.base[r]) * factor[r] + turn.offset[r];
            *power = integers.unit * exp2::<false>(if x > -30.0 { x } else { -30.0 });
        }
        let mut sum = 0i32;
        for (out, power) in out.iter_mut().zip(&powers) {
            *out = round(*power, 32767.0) as i16;
            sum += i32::from(*out);
        }
        turn.fits &= sum <= SUM;
        turn.sums[r] = sum;
        state.sum[r] = state.sum[r] * turn.shrink[r] + sum as f32 * turn.weight[r];
        if integers.exact {
            state.exact[r] = state.exact[r] * turn.shrink[r] + powers.iter().sum::<f32>() * turn.weight[r];
        }
    }
}

pub(super) fn weigh_float(
    rows: usize,
    scores: &[f32],
    factor: &PerRow,
    turn: &Turn,
    state: &mut State,
    out: &mut [f32],
) {
    for (r, (scores, out)) in
        scores.as_chunks::<KEYS>().0.iter().zip(out.as_chunks_mut::<KEYS>().0).take(rows).enumerate()
    {
        for (out, t) in out.iter_mut().zip(scores) {
            let x = (t - turn.base[r]) * factor[r] + turn.offset[r];
            *out = if x > LEAST { exp2::<true>(x) } else { 0.0 };
        }
        let sum: f32 = out.iter().sum();
        state.sum[r] = state.sum[r] * turn.shrink[r] + sum;
        state.exact[r] = state.sum[r];
    }
}

pub(super) fn values(
    rows: usize,
    weights: &[i16],
    values: &[i32],
    delta: &[f32],
    turn: &Turn,
    out: &mut [f32],
) {
    let channels = delta.len();
    let pairs = if turn.fits { KEYS / 2 } else { SIDE / 2 };
    for (block, values) in values.chunks_exact(KEYS / 2 * SIDE).enumerate() {
        for r in 0..rows {
            let out = &mut out[r * channels + block * SIDE..][..SIDE];
            let delta = &delta[block * SIDE..][..SIDE];
            let weights = weights[r * KEYS..][..KEYS].as_chunks::<2>().0;
            for (values, weights) in values.chunks_exact(pairs * SIDE).zip(weights.chunks_exact(pairs)) {
                let mut sums = [0i32; SIDE];
                for (values, [a, b]) in values.as_chunks::<SIDE>().0.iter().zip(weights) {
                    for c in 0..SIDE {
                        let [x, y] = pair(values[c]);
                        sums[c] += i32::from(*a) * x + i32::from(*b) * y;
                    }
                }
                for c in 0..SIDE {
                    out[c] += sums[c] as f32 * (turn.weight[r] * delta[c]);
                }
            }
        }
    }
}

pub(super) fn values_float(rows: usize, weights: &[f32], values: &[f32], out: &mut [f32]) {
    let channels = values.len() / KEYS;
    for r in 0..rows {
        for first in (0..channels).step_by(SIDE) {
            let mut sums = [0.0f32; SIDE];
            for (p, values) in weights[r * KEYS..][..KEYS].iter().zip(values.chunks_exact(channels)) {
                for (sum, v) in sums.iter_mut().zip(&values[first..first + SIDE]) {
                    *sum += p * v;
                }
            }
            for (out, sum) in out[r * channels + first..][..SIDE].iter_mut().zip(&sums) {
                *out += sum;
            }
        }
    }
}
