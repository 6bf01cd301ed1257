//! The kernels with AVX2: products of words by `vpmaddwd`, of quads by `vpmaddubsw`, of floats by FMA.

#![expect(unsafe_code, reason = "AVX2 intrinsics on packed codes")]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use super::super::kernel::{
    Bias, FEW, Integers, KEYS, KeyTile, Operand, PerRow, RAISE, ROWS, SIDE, SUM, State, Turn,
};
use super::super::portable::{EXP2, EXP2_FINE, LEAST, MAGIC};

/// Lanes of a register.
const LANES: usize = 8;

/// How products of words are summed: as integers or as floats; or those of quads.
const WORDS: u8 = 0;
const FLOATS: u8 = 1;
const QUADS: u8 = 2;

pub(in super::super) fn scores(
    isa: Isa,
    operand: (Operand, bool),
    rows: usize,
    q: &[i32],
    excess: &[i32; 8],
    keys: KeyTile<'_>,
    bias: Option<Bias<'_>>,
    out: &mut [f32],
) {
    match operand {
        (Operand::Quads, _) => by_rows!(Avx2, isa, rows, scores_of<QUADS>(q, excess, keys, bias, out)),
        (Operand::Raised, true) => by_rows!(Avx2, isa, rows, scores_of<FLOATS>(q, excess, keys, bias, out)),
        _ => by_rows!(Avx2, isa, rows, scores_of<WORDS>(q, excess, keys, bias, out)),
    }
}

pub(in super::super) fn turn(
    isa: Isa,
    rows: usize,
    scores: &[f32],
    factor: &PerRow,
    local: bool,
    state: &mut State,
    turn: &mut Turn,
) {
    by_rows!(Avx2, isa, rows, turn_of(scores, factor, local, state, turn));
}

pub(in super::super) fn weigh(
    isa: Isa,
    rows: usize,
    scores: &[f32],
    factor: &PerRow,
    integers: Integers,
    turn: &mut Turn,
    state: &mut State,
    out: &mut [i16],
) {
    let Integers { unit, local, exact } = integers;
    match (local, exact) {
        (true, false) => by_rows!(Avx2, isa, rows, weigh_of<0>(scores, factor, unit, turn, state, out)),
        (true, true) => by_rows!(Avx2, isa, rows, weigh_of<1>(scores, factor, unit, turn, state, out)),
        (false, false) => by_rows!(Avx2, isa, rows, weigh_of<2>(scores, factor, unit, turn, state, out)),
        (false, true) => by_rows!(Avx2, isa, rows, weigh_of<3>(scores, factor, unit, turn, state, out)),
    }
}

pub(in super::super) fn weigh_float(
    isa: Isa,
    rows: usize,
    scores: &[f32],
    factor: &PerRow,
    turn: &Turn,
    state: &mut State,
    out: &mut [f32],
) {
    by_rows!(Avx2, isa, rows, weigh_float_of(scores, factor, turn, state, out));
}

pub(in super::super) fn values(
    isa: Isa,
    (raised, as_floats): (bool, bool),
    rows: usize,
    weights: &[i16],
    values: &[i32],
    delta: &[f32],
    turn: &Turn,
    out: &mut [f32],
) {
    let excess = if raised { RAISE } else { 0 };
    if raised && as_floats {
        by_rows!(Avx2, isa, rows, values_of<true>(weights, values, excess, delta, turn, out));
    } else {
        by_rows!(Avx2, isa, rows, values_of<false>(weights, values, excess, delta, turn, out));
    }
}

pub(in super::super) fn values_float(
    isa: Isa,
    rows: usize,
    weights: &[f32],
    values: &[f32],
    out: &mut [f32],
) {
    by_rows!(Avx2, isa, rows, values_float_of(weights, values, out));
}

/// # Safety
/// `q` holds `depth` times `R` words, `keys.words` `depth` times `KEYS`, `keys.start` and `keys.factor` `KEYS` each, `out`
/// `R` times `KEYS`, and the bias reaches all of them.
#[target_feature(enable = "avx2,fma")]
unsafe fn scores_of<const R: usize, const HOW: u8>(
    q: &[i32],
    excess: &[i32; 8],
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
            for sums in &mut sums {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_loadu_si256(keys.start.as_ptr().add(first + v * LANES).cast());
                }
            }
            let mut words = keys.words.as_ptr().add(first * depth);
            let mut codes = q.as_ptr();
            for _ in 0..depth {
                let low = _mm256_loadu_si256(words.cast());
                let high = _mm256_loadu_si256(words.add(LANES).cast());
                for (r, [a, b]) in sums.iter_mut().enumerate() {
                    let code = _mm256_set1_epi32(*codes.add(r));
                    match HOW {
                        QUADS => {
                            *a = _mm256_add_epi16(*a, _mm256_maddubs_epi16(code, low));
                            *b = _mm256_add_epi16(*b, _mm256_maddubs_epi16(code, high));
                        }
                        FLOATS => {
                            *a = add_as_floats(*a, _mm256_madd_epi16(code, low));
                            *b = add_as_floats(*b, _mm256_madd_epi16(code, high));
                        }
                        _ => {
                            *a = _mm256_add_epi32(*a, _mm256_madd_epi16(code, low));
                            *b = _mm256_add_epi32(*b, _mm256_madd_epi16(code, high));
                        }
                    }
                }
                words = words.add(SIDE);
                codes = codes.add(R);
            }
            for v in 0..2 {
                let at = first + v * LANES;
                let factor = _mm256_loadu_ps(keys.factor.as_ptr().add(at));
                for (r, sums) in sums.iter().enumerate() {
                    let sum = match HOW {
                        QUADS => _mm256_madd_epi16(sums[v], ones),
                        _ => _mm256_sub_epi32(sums[v], _mm256_set1_epi32(excess[r])),
                    };
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

/// The sum of whole numbers from 0 that stays below `2^24`: see [`kernel`](super::super::kernel).
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_as_floats(a: __m256i, b: __m256i) -> __m256i {
    _mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)))
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
pub(super) fn load(row: &PerRow) -> __m256 {
    // SAFETY: a row has the eight lanes of a register.
    unsafe { _mm256_loadu_ps(row.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn store(row: &mut PerRow, x: __m256) {
    // SAFETY: a row has the eight lanes of a register.
    unsafe { _mm256_storeu_ps(row.as_mut_ptr(), x) }
}

/// Combines the lanes of each register: lane `r` of the result is that of register `r`. Three steps halve the number of
/// registers, where each register by itself would take three steps too.
macro_rules! lanes {
    ($name:ident, $combine:ident) => {
        #[inline]
        #[target_feature(enable = "avx2,fma")]
        fn $name(x: &[__m256; 8]) -> __m256 {
            let mut four = [_mm256_setzero_ps(); 4];
            for (i, four) in four.iter_mut().enumerate() {
                let (a, b) = (x[2 * i], x[2 * i + 1]);
                *four = $combine(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            }
            let mut two = [_mm256_setzero_ps(); 2];
            for (i, two) in two.iter_mut().enumerate() {
                let (a, b) = (four[2 * i], four[2 * i + 1]);
                let low = _mm256_shuffle_ps::<0b01_00_01_00>(a, b);
                *two = $combine(low, _mm256_shuffle_ps::<0b11_10_11_10>(a, b));
            }
            let low = _mm256_permute2f128_ps::<0x20>(two[0], two[1]);
            $combine(low, _mm256_permute2f128_ps::<0x31>(two[0], two[1]))
        }
    };
}

lanes!(sum_each, _mm256_add_ps);
lanes!(largest_each, _mm256_max_ps);
lanes!(sum_integers_each, add_integers);

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_integers(a: __m256, b: __m256) -> __m256 {
    _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)))
}

/// The largest score of each of `R` rows.
///
/// # Safety
/// `scores` holds `R` times `KEYS` numbers.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn largest<const R: usize>(scores: &[f32]) -> __m256 {
    let mut each = [_mm256_setzero_ps(); 8];
    for (r, each) in each.iter_mut().enumerate().take(R) {
        // SAFETY: inside of row `r`, by the contract.
        unsafe {
            let row = scores.as_ptr().add(r * KEYS);
            let mut a = _mm256_max_ps(_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(LANES)));
            let mut b = _mm256_max_ps(_mm256_loadu_ps(row.add(16)), _mm256_loadu_ps(row.add(24)));
            a = _mm256_max_ps(a, _mm256_max_ps(_mm256_loadu_ps(row.add(32)), _mm256_loadu_ps(row.add(40))));
            b = _mm256_max_ps(b, _mm256_max_ps(_mm256_loadu_ps(row.add(48)), _mm256_loadu_ps(row.add(56))));
            *each = _mm256_max_ps(a, b);
        }
    }
    largest_each(&each)
}

/// # Safety
/// `scores` holds `R` times `KEYS` numbers.
#[target_feature(enable = "avx2,fma")]
unsafe fn turn_of<const R: usize>(
    scores: &[f32],
    factor: &PerRow,
    local: bool,
    state: &mut State,
    turn: &mut Turn,
) {
    // SAFETY: the contract is the same.
    let largest = unsafe { largest::<R>(scores) };
    let nothing = _mm256_set1_ps(f32::NEG_INFINITY);
    let scaled = _mm256_mul_ps(largest, load(factor));
    let hidden = _mm256_cmp_ps::<_CMP_EQ_OQ>(scaled, nothing);
    store(&mut turn.base, _mm256_andnot_ps(hidden, largest));
    let before = load(&state.top);
    let top = _mm256_max_ps(before, scaled);
    store(&mut state.top, top);
    let top = _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(top, nothing), top);
    let apart = _mm256_andnot_ps(hidden, _mm256_sub_ps(scaled, top));
    store(&mut turn.shrink, exp2_or_zero(_mm256_sub_ps(before, top)));
    if local {
        store(&mut turn.weight, _mm256_andnot_ps(hidden, exp2_or_zero(apart)));
        store(&mut turn.offset, _mm256_setzero_ps());
    } else {
        store(&mut turn.weight, _mm256_andnot_ps(hidden, _mm256_set1_ps(1.0)));
        store(&mut turn.offset, apart);
    }
}

/// Weights are found with so many bits more, and all but one shifted out.
const FINER: i32 = 16;

/// The first bit of `HOW` is [`Integers::exact`], the second is not [`Integers::local`].
///
/// # Safety
/// `scores` and `out` hold `R` times `KEYS` numbers.
#[target_feature(enable = "avx2,fma")]
unsafe fn weigh_of<const R: usize, const HOW: u8>(
    scores: &[f32],
    factor: &PerRow,
    unit: f32,
    turn: &mut Turn,
    state: &mut State,
    out: &mut [i16],
) {
    let mut coefficients = [_mm256_setzero_ps(); 5];
    for (c, value) in coefficients.iter_mut().zip(EXP2) {
        *c = _mm256_set1_ps(value * unit * (1 << FINER) as f32);
    }
    let (local, exact_too) = (HOW & 2 == 0, HOW & 1 == 1);
    let (magic, least) = (_mm256_set1_ps(MAGIC), _mm256_set1_ps(MAGIC + LEAST));
    let shift = _mm256_set1_epi32(MAGIC.to_bits() as i32 + FINER - 1);
    let ones = _mm256_set1_epi16(1);
    let (mut sums, mut exacts) = ([_mm256_setzero_ps(); 8], [_mm256_setzero_ps(); 8]);
    // Bounds that the compiler does not know: unrolled, these loops would need more registers than there are.
    let (rows, keys) = (out.len() / KEYS, out.len() / R);
    for r in 0..rows.min(R) {
        let (base, scale) = (_mm256_set1_ps(turn.base[r]), _mm256_set1_ps(factor[r]));
        let offset = _mm256_set1_ps(turn.offset[r]);
        let mut sum = _mm256_setzero_si256();
        let mut exact = _mm256_setzero_ps();
        for at in (0..keys).step_by(SIDE) {
            let mut codes = [_mm256_setzero_si256(); 2];
            for (v, code) in codes.iter_mut().enumerate() {
                // SAFETY: inside of row `r`, by the contract.
                let t = unsafe { _mm256_loadu_ps(scores.as_ptr().add(r * KEYS + at + v * LANES)) };
                let d = _mm256_sub_ps(t, base);
                let (whole, f) = if local {
                    let whole = _mm256_fmadd_ps(d, scale, magic);
                    (whole, _mm256_fmsub_ps(d, scale, _mm256_sub_ps(whole, magic)))
                } else {
                    let x = _mm256_fmadd_ps(d, scale, offset);
                    let whole = _mm256_add_ps(x, magic);
                    (whole, _mm256_sub_ps(x, _mm256_sub_ps(whole, magic)))
                };
                let mut p = coefficients[4];
                for c in coefficients[..4].iter().rev() {
                    p = _mm256_fmadd_ps(p, f, *c);
                }
                let whole_bits = _mm256_castps_si256(whole);
                if exact_too {
                    let bits = _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32::<23>(whole_bits));
                    let seen = _mm256_cmp_ps::<_CMP_GE_OQ>(whole, least);
                    exact = _mm256_add_ps(exact, _mm256_and_ps(_mm256_castsi256_ps(bits), seen));
                }
                // Shifted by 32 bits and more, nothing is left.
                *code = _mm256_srlv_epi32(_mm256_cvtps_epi32(p), _mm256_sub_epi32(shift, whole_bits));
            }
            // One bit more than wanted, so that the mean with 0 rounds.
            let codes = _mm256_avg_epu16(_mm256_packus_epi32(codes[0], codes[1]), _mm256_setzero_si256());
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(codes, ones));
            // SAFETY: inside of row `r`, by the contract.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(r * KEYS + at).cast(), codes) };
        }
        sums[r] = _mm256_castsi256_ps(sum);
        exacts[r] = exact;
    }
    let sums = _mm256_castps_si256(sum_integers_each(&sums));
    let many = _mm256_cmpgt_epi32(sums, _mm256_set1_epi32(SUM));
    turn.fits = _mm256_testz_si256(many, many) == 1;
    // SAFETY: the array has the eight lanes of a register.
    unsafe { _mm256_storeu_si256(turn.sums.as_mut_ptr().cast(), sums) };
    let (shrink, weight) = (load(&turn.shrink), load(&turn.weight));
    let sum = _mm256_mul_ps(load(&state.sum), shrink);
    store(&mut state.sum, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), weight, sum));
    if exact_too {
        let exact = _mm256_mul_ps(load(&state.exact), shrink);
        let weight = _mm256_mul_ps(weight, _mm256_set1_ps(1.0 / (1 << FINER) as f32));
        store(&mut state.exact, _mm256_fmadd_ps(sum_each(&exacts), weight, exact));
    }
}

/// # Safety
/// `scores` and `out` hold `R` times `KEYS` numbers.
#[target_feature(enable = "avx2,fma")]
unsafe fn weigh_float_of<const R: usize>(
    scores: &[f32],
    factor: &PerRow,
    turn: &Turn,
    state: &mut State,
    out: &mut [f32],
) {
    let mut sums = [_mm256_setzero_ps(); 8];
    let (rows, keys) = (out.len() / KEYS, out.len() / R);
    for r in 0..rows.min(R) {
        let (base, scale) = (_mm256_set1_ps(turn.base[r]), _mm256_set1_ps(factor[r]));
        let offset = _mm256_set1_ps(turn.offset[r]);
        let mut sum = _mm256_setzero_ps();
        for at in (0..keys).step_by(LANES) {
            // SAFETY: inside of row `r`, by the contract.
            unsafe {
                let t = _mm256_loadu_ps(scores.as_ptr().add(r * KEYS + at));
                let power = exp2_or_zero(_mm256_fmadd_ps(_mm256_sub_ps(t, base), scale, offset));
                sum = _mm256_add_ps(sum, power);
                _mm256_storeu_ps(out.as_mut_ptr().add(r * KEYS + at), power);
            }
        }
        sums[r] = sum;
    }
    let sum = _mm256_mul_ps(load(&state.sum), load(&turn.shrink));
    store(&mut state.sum, _mm256_add_ps(sum, sum_each(&sums)));
    state.exact = state.sum;
}

/// # Safety
/// `weights` holds `R` times `KEYS` numbers, `values` `KEYS / 2` words for each of the channels that `delta` has, which are
/// a multiple of `SIDE`, and `out` `R` times these channels.
#[target_feature(enable = "avx2,fma")]
unsafe fn values_of<const R: usize, const FLOATS: bool>(
    weights: &[i16],
    values: &[i32],
    excess: i32,
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
                for _ in 0..pairs / 2 {
                    for _ in 0..2 {
                        let low = _mm256_loadu_si256(words.cast());
                        let high = _mm256_loadu_si256(words.add(LANES).cast());
                        for (r, [a, b]) in sums.iter_mut().enumerate() {
                            let weight = _mm256_set1_epi32(pair.add(r * KEYS / 2).read_unaligned());
                            if FLOATS {
                                *a = add_as_floats(*a, _mm256_madd_epi16(weight, low));
                                *b = add_as_floats(*b, _mm256_madd_epi16(weight, high));
                            } else {
                                *a = _mm256_add_epi32(*a, _mm256_madd_epi16(weight, low));
                                *b = _mm256_add_epi32(*b, _mm256_madd_epi16(weight, high));
                            }
                        }
                        words = words.add(SIDE);
                        pair = pair.add(1);
                    }
                }
                for v in 0..2 {
                    let at = first + v * LANES;
                    let delta = _mm256_loadu_ps(delta.as_ptr().add(at));
                    for (r, sums) in sums.iter().enumerate() {
                        let to = out.as_mut_ptr().add(r * channels + at);
                        let factor = _mm256_mul_ps(delta, _mm256_set1_ps(turn.weight[r]));
                        let above = _mm256_set1_epi32(excess * turn.sums[r]);
                        let sum = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums[v], above));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums as floats have the bits of sums as integers up to the largest codes of the most channels.
    #[test]
    fn sums_as_floats_are_exact() {
        let Some(isa) = Isa::detect(Level::Avx2) else { return };
        let word = |a: i32, b: i32| (a + RAISE) | (b + RAISE) << 16;
        for depth in [1, 2, 33, 128] {
            for (a, b) in [(127, 127), (-127, 127), (127, -127), (-127, -127), (3, -100)] {
                let q = vec![word(a, a - a.signum()); ROWS * depth];
                let words: Vec<i32> =
                    (0..KEYS * depth).map(|i| word(b, b - i as i32 % 3 * b.signum())).collect();
                let factor: Vec<f32> = (0..KEYS).map(|j| 1.0 + j as f32).collect();
                let start = vec![if b > 0 { 0 } else { 64 * depth as i32 }; KEYS];
                let keys = KeyTile { words: &words, start: &start, factor: &factor };
                let run = |as_floats| {
                    let mut out = vec![0.0; ROWS * KEYS];
                    let operand = (Operand::Raised, as_floats);
                    scores(isa, operand, ROWS, &q, &[1234; 8], keys, None, &mut out);
                    out.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
                };
                assert_eq!(run(true), run(false), "{depth} {a} {b}");
            }
        }
        let weights: Vec<i16> =
            (0..ROWS * KEYS).map(|i| if i % 7 == 0 { i as i16 % 256 } else { 255 }).collect();
        let values: Vec<i32> = (0..KEYS / 2 * SIDE).map(|i| word(127, 127 - i as i32 % 255)).collect();
        let turn = Turn { weight: [0.5; 8], fits: true, sums: [77; 8], ..Turn::default() };
        let run = |as_floats| {
            let mut out = vec![1.0; ROWS * SIDE];
            super::values(isa, (true, as_floats), ROWS, &weights, &values, &[0.1; SIDE], &turn, &mut out);
            out.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
        };
        assert_eq!(run(true), run(false));
    }
}
