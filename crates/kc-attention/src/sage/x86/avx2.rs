//! The kernels with AVX2: products of words by `vpmaddwd`, of quads by `vpmaddubsw`, of floats by FMA.

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use super::super::kernel::{
    Bias, FEW, Integers, KEYS, KeyTile, Operand, PerRow, ROWS, SIDE, SUM, State, Turn,
};
use super::super::portable::{EXP2, EXP2_FINE, LEAST, MAGIC};

/// Lanes of a register.
const LANES: usize = 8;

/// Calls the function for groups of that many rows.
macro_rules! by_rows {
    ($isa:ident, $rows:ident, $name:ident $(<$generic:tt>)? ($($arg:expr),*)) => {{
        assert!($isa.level() >= Level::Avx2, "the kernel needs AVX2");
        // SAFETY: an Isa of this level was detected, so the processor has AVX2 and FMA; the caller has checked the
        // lengths of all slices.
        unsafe {
            match $rows {
                FEW => $name::<FEW $(, $generic)?>($($arg),*),
                ROWS => $name::<ROWS $(, $generic)?>($($arg),*),
                other => unreachable!("groups of {other} rows"),
            }
        }
    }};
}

pub(in super::super) fn scores(
    isa: Isa,
    operand: Operand,
    rows: usize,
    q: &[i32],
    keys: KeyTile<'_>,
    bias: Option<Bias<'_>>,
    out: &mut [f32],
) {
    match operand {
        Operand::Words => by_rows!(isa, rows, scores_of<false>(q, keys, bias, out)),
        Operand::Quads => by_rows!(isa, rows, scores_of<true>(q, keys, bias, out)),
    }
}

pub(in super::super) fn weigh(
    isa: Isa,
    rows: usize,
    scores: &[f32],
    factor: &PerRow,
    integers: Integers,
    state: &mut State,
    out: &mut [i16],
) -> Turn {
    match integers.exact {
        false => by_rows!(isa, rows, weigh_of<false>(scores, factor, integers, state, out)),
        true => by_rows!(isa, rows, weigh_of<true>(scores, factor, integers, state, out)),
    }
}

pub(in super::super) fn weigh_float(
    isa: Isa,
    rows: usize,
    scores: &[f32],
    factor: &PerRow,
    state: &mut State,
    out: &mut [f32],
) -> Turn {
    by_rows!(isa, rows, weigh_float_of(scores, factor, state, out))
}

pub(in super::super) fn values(
    isa: Isa,
    rows: usize,
    weights: &[i16],
    values: &[i32],
    delta: &[f32],
    turn: &Turn,
    out: &mut [f32],
) {
    by_rows!(isa, rows, values_of(weights, values, delta, turn, out));
}

pub(in super::super) fn values_float(
    isa: Isa,
    rows: usize,
    weights: &[f32],
    values: &[f32],
    out: &mut [f32],
) {
    by_rows!(isa, rows, values_float_of(weights, values, out));
}

/// # Safety
/// `q` holds `depth` times `R` words, `keys.words` `depth` times `KEYS`, `keys.start` and `keys.factor` `KEYS` each, `out`
/// `R` times `KEYS`, and the bias reaches all of them.
#[target_feature(enable = "avx2,fma")]
unsafe fn scores_of<const R: usize, const QUADS: bool>(
    q: &[i32],
    keys: KeyTile<'_>,
    bias: Option<Bias<'_>>,
    out: &mut [f32],
) {
    let depth = q.len() / R;
    let ones = _mm256_set1_epi16(1);
    for side in 0..KEYS / SIDE {
        let first = side * SIDE;
        let mut sums = [[_mm256_setzero_si256(); 2]; R];
        // SAFETY: all offsets are below the lengths of the contract.
        unsafe {
            if QUADS {
                for sums in &mut sums {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm256_loadu_si256(keys.start.as_ptr().add(first + v * LANES).cast());
                    }
                }
            }
            let mut words = keys.words.as_ptr().add(first * depth);
            let mut codes = q.as_ptr();
            for _ in 0..depth {
                let low = _mm256_loadu_si256(words.cast());
                let high = _mm256_loadu_si256(words.add(LANES).cast());
                for (r, [a, b]) in sums.iter_mut().enumerate() {
                    let code = _mm256_set1_epi32(*codes.add(r));
                    if QUADS {
                        *a = _mm256_add_epi16(*a, _mm256_maddubs_epi16(code, low));
                        *b = _mm256_add_epi16(*b, _mm256_maddubs_epi16(code, high));
                    } else {
                        *a = _mm256_add_epi32(*a, _mm256_madd_epi16(code, low));
                        *b = _mm256_add_epi32(*b, _mm256_madd_epi16(code, high));
                    }
                }
                words = words.add(SIDE);
                codes = codes.add(R);
            }
            for v in 0..2 {
                let at = first + v * LANES;
                let factor = _mm256_loadu_ps(keys.factor.as_ptr().add(at));
                for (r, sums) in sums.iter().enumerate() {
                    let sum = if QUADS { _mm256_madd_epi16(sums[v], ones) } else { sums[v] };
                    let mut t = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), factor);
                    if let Some(bias) = &bias {
                        let add = _mm256_loadu_ps(bias.values.as_ptr().add(r * bias.stride + at));
                        t = _mm256_fmadd_ps(t, _mm256_set1_ps(bias.scale[r]), add);
                    }
                    _mm256_storeu_ps(out.as_mut_ptr().add(r * KEYS + at), t);
                }
            }
        }
    }
}

/// `2^x` times what the coefficients were multiplied with, for x in -126 to 0.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp2<const N: usize>(x: __m256, coefficients: &[__m256; N]) -> __m256 {
    let magic = _mm256_set1_ps(MAGIC);
    let sum = _mm256_add_ps(x, magic);
    let f = _mm256_sub_ps(x, _mm256_sub_ps(sum, magic));
    let mut p = coefficients[N - 1];
    for c in coefficients[..N - 1].iter().rev() {
        p = _mm256_fmadd_ps(p, f, *c);
    }
    let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(sum));
    _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent))
}

/// The same, 0 below -126.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp2_or_zero(x: __m256) -> __m256 {
    let mut fine = [_mm256_setzero_ps(); 6];
    for (c, value) in fine.iter_mut().zip(EXP2_FINE) {
        *c = _mm256_set1_ps(value);
    }
    let least = _mm256_set1_ps(LEAST);
    let power = exp2(_mm256_max_ps(x, least), &fine);
    _mm256_and_ps(power, _mm256_cmp_ps::<_CMP_GE_OQ>(x, least))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(row: &PerRow) -> __m256 {
    // SAFETY: a row has the eight lanes of a register.
    unsafe { _mm256_loadu_ps(row.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(row: &mut PerRow, x: __m256) {
    // SAFETY: a row has the eight lanes of a register.
    unsafe { _mm256_storeu_ps(row.as_mut_ptr(), x) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn largest_lane(x: __m256) -> f32 {
    let half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let two = _mm_max_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn sum_lanes(x: __m256) -> f32 {
    let half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let two = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn sum_integers(x: __m256i) -> i32 {
    let half = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    let two = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
}

/// The largest score of each of `R` rows.
///
/// # Safety
/// `scores` holds `R` times `KEYS` numbers.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn largest<const R: usize>(scores: &[f32]) -> PerRow {
    let mut out = [0.0; 8];
    for (r, out) in out.iter_mut().enumerate().take(R) {
        // SAFETY: inside of row `r`, by the contract.
        unsafe {
            let row = scores.as_ptr().add(r * KEYS);
            let mut a = _mm256_max_ps(_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(LANES)));
            let mut b = _mm256_max_ps(_mm256_loadu_ps(row.add(16)), _mm256_loadu_ps(row.add(24)));
            a = _mm256_max_ps(a, _mm256_max_ps(_mm256_loadu_ps(row.add(32)), _mm256_loadu_ps(row.add(40))));
            b = _mm256_max_ps(b, _mm256_max_ps(_mm256_loadu_ps(row.add(48)), _mm256_loadu_ps(row.add(56))));
            *out = largest_lane(_mm256_max_ps(a, b));
        }
    }
    out
}

/// The turn of all rows. `largest` becomes what scores are taken relative to; the result is what is added to their
/// distance from it.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn turn(largest: &mut PerRow, factor: &PerRow, local: bool, state: &mut State, turn: &mut Turn) -> PerRow {
    let nothing = _mm256_set1_ps(f32::NEG_INFINITY);
    let scaled = _mm256_mul_ps(load(largest), load(factor));
    let before = load(&state.top);
    let top = _mm256_max_ps(before, scaled);
    store(&mut state.top, top);
    let top = _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(top, nothing), top);
    let hidden = _mm256_cmp_ps::<_CMP_EQ_OQ>(scaled, nothing);
    let apart = _mm256_andnot_ps(hidden, _mm256_sub_ps(scaled, top));
    store(&mut turn.shrink, exp2_or_zero(_mm256_sub_ps(before, top)));
    store(largest, _mm256_andnot_ps(hidden, load(largest)));
    let mut offset = [0.0; 8];
    if local {
        store(&mut turn.weight, _mm256_andnot_ps(hidden, exp2_or_zero(apart)));
    } else {
        store(&mut turn.weight, _mm256_andnot_ps(hidden, _mm256_set1_ps(1.0)));
        store(&mut offset, apart);
    }
    offset
}

/// # Safety
/// `scores` and `out` hold `R` times `KEYS` numbers.
#[target_feature(enable = "avx2,fma")]
unsafe fn weigh_of<const R: usize, const EXACT: bool>(
    scores: &[f32],
    factor: &PerRow,
    integers: Integers,
    state: &mut State,
    out: &mut [i16],
) -> Turn {
    let mut next = Turn { fits: true, ..Turn::default() };
    // SAFETY: the contract is the same.
    let mut base = unsafe { largest::<R>(scores) };
    let offset = turn(&mut base, factor, integers.local, state, &mut next);
    let mut coefficients = [_mm256_setzero_ps(); 5];
    for (c, value) in coefficients.iter_mut().zip(EXP2) {
        *c = _mm256_set1_ps(value * integers.unit);
    }
    let (least, ones) = (_mm256_set1_ps(-30.0), _mm256_set1_epi16(1));
    let (mut sums, mut exacts) = ([0.0f32; 8], [0.0f32; 8]);
    for r in 0..R {
        let (base, scale) = (_mm256_set1_ps(base[r]), _mm256_set1_ps(factor[r]));
        let offset = _mm256_set1_ps(offset[r]);
        let mut sum = _mm256_setzero_si256();
        let mut exact = _mm256_setzero_ps();
        for at in (0..KEYS).step_by(SIDE) {
            let mut codes = [_mm256_setzero_si256(); 2];
            for (v, code) in codes.iter_mut().enumerate() {
                // SAFETY: inside of row `r`, by the contract.
                let t = unsafe { _mm256_loadu_ps(scores.as_ptr().add(r * KEYS + at + v * LANES)) };
                let x = _mm256_fmadd_ps(_mm256_sub_ps(t, base), scale, offset);
                let power = exp2(_mm256_max_ps(x, least), &coefficients);
                if EXACT {
                    exact = _mm256_add_ps(exact, power);
                }
                *code = _mm256_cvtps_epi32(power);
            }
            let codes = _mm256_packs_epi32(codes[0], codes[1]);
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(codes, ones));
            // SAFETY: inside of row `r`, by the contract.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(r * KEYS + at).cast(), codes) };
        }
        let sum = sum_integers(sum);
        next.fits &= sum <= SUM;
        sums[r] = sum as f32;
        if EXACT {
            exacts[r] = sum_lanes(exact);
        }
    }
    let (shrink, weight) = (load(&next.shrink), load(&next.weight));
    let sum = _mm256_mul_ps(load(&state.sum), shrink);
    store(&mut state.sum, _mm256_fmadd_ps(load(&sums), weight, sum));
    if EXACT {
        let exact = _mm256_mul_ps(load(&state.exact), shrink);
        store(&mut state.exact, _mm256_fmadd_ps(load(&exacts), weight, exact));
    }
    next
}

/// # Safety
/// `scores` and `out` hold `R` times `KEYS` numbers.
#[target_feature(enable = "avx2,fma")]
unsafe fn weigh_float_of<const R: usize>(
    scores: &[f32],
    factor: &PerRow,
    state: &mut State,
    out: &mut [f32],
) -> Turn {
    let mut next = Turn::default();
    // SAFETY: the contract is the same.
    let mut base = unsafe { largest::<R>(scores) };
    let offset = turn(&mut base, factor, false, state, &mut next);
    let mut sums = [0.0f32; 8];
    for r in 0..R {
        let (base, scale) = (_mm256_set1_ps(base[r]), _mm256_set1_ps(factor[r]));
        let offset = _mm256_set1_ps(offset[r]);
        let mut sum = _mm256_setzero_ps();
        for at in (0..KEYS).step_by(LANES) {
            // SAFETY: inside of row `r`, by the contract.
            unsafe {
                let t = _mm256_loadu_ps(scores.as_ptr().add(r * KEYS + at));
                let power = exp2_or_zero(_mm256_fmadd_ps(_mm256_sub_ps(t, base), scale, offset));
                sum = _mm256_add_ps(sum, power);
                _mm256_storeu_ps(out.as_mut_ptr().add(r * KEYS + at), power);
            }
        }
        sums[r] = sum_lanes(sum);
    }
    let sum = _mm256_mul_ps(load(&state.sum), load(&next.shrink));
    store(&mut state.sum, _mm256_add_ps(sum, load(&sums)));
    state.exact = state.sum;
    next
}

/// # Safety
/// `weights` holds `R` times `KEYS` numbers, `values` `KEYS / 2` words for each of the channels that `delta` has, which are
/// a multiple of `SIDE`, and `out` `R` times these channels.
#[target_feature(enable = "avx2,fma")]
unsafe fn values_of<const R: usize>(
    weights: &[i16],
    values: &[i32],
    delta: &[f32],
    turn: &Turn,
    out: &mut [f32],
) {
    let channels = delta.len();
    let pairs = if turn.fits { KEYS / 2 } else { SIDE / 2 };
    let mut words = values.as_ptr();
    for first in (0..channels).step_by(SIDE) {
        for part in (0..KEYS / 2).step_by(pairs) {
            let mut sums = [[_mm256_setzero_si256(); 2]; R];
            // SAFETY: all offsets are below the lengths of the contract. Reading two neighbouring weights as one word
            // needs no alignment.
            unsafe {
                let mut pair = weights.as_ptr().cast::<i32>().add(part);
                for _ in 0..pairs {
                    let low = _mm256_loadu_si256(words.cast());
                    let high = _mm256_loadu_si256(words.add(LANES).cast());
                    for (r, [a, b]) in sums.iter_mut().enumerate() {
                        let weight = _mm256_set1_epi32(pair.add(r * KEYS / 2).read_unaligned());
                        *a = _mm256_add_epi32(*a, _mm256_madd_epi16(weight, low));
                        *b = _mm256_add_epi32(*b, _mm256_madd_epi16(weight, high));
                    }
                    words = words.add(SIDE);
                    pair = pair.add(1);
                }
                for v in 0..2 {
                    let at = first + v * LANES;
                    let delta = _mm256_loadu_ps(delta.as_ptr().add(at));
                    for (r, sums) in sums.iter().enumerate() {
                        let to = out.as_mut_ptr().add(r * channels + at);
                        let factor = _mm256_mul_ps(delta, _mm256_set1_ps(turn.weight[r]));
                        let sum = _mm256_cvtepi32_ps(sums[v]);
                        _mm256_storeu_ps(to, _mm256_fmadd_ps(sum, factor, _mm256_loadu_ps(to)));
                    }
                }
            }
        }
    }
}

/// # Safety
/// `weights` holds `R` times `KEYS` numbers, `values` `KEYS` times a multiple of `SIDE` channels, and `out` `R` times these
/// channels.
#[target_feature(enable = "avx2,fma")]
unsafe fn values_float_of<const R: usize>(weights: &[f32], values: &[f32], out: &mut [f32]) {
    let channels = values.len() / KEYS;
    for first in (0..channels).step_by(SIDE) {
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        // SAFETY: all offsets are below the lengths of the contract.
        unsafe {
            let mut value = values.as_ptr().add(first);
            let mut weight = weights.as_ptr();
            for j in 0..KEYS {
                let (low, high) = (_mm256_loadu_ps(value), _mm256_loadu_ps(value.add(LANES)));
                for (r, [a, b]) in sums.iter_mut().enumerate() {
                    let p = _mm256_set1_ps(*weight.add(r * KEYS));
                    *a = _mm256_fmadd_ps(p, low, *a);
                    *b = _mm256_fmadd_ps(p, high, *b);
                }
                weight = weight.add(1);
                if j + 1 < KEYS {
                    value = value.add(channels);
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    let to = out.as_mut_ptr().add(r * channels + first + v * LANES);
                    _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), *sum));
                }
            }
        }
    }
}
