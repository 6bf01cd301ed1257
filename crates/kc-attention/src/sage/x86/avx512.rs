//! The kernels with AVX-512 and VNNI: products of quads by `vpdpbusd`, of words by `vpdpwssd`.

#![expect(unsafe_code, reason = "AVX-512 intrinsics on packed codes")]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use super::super::kernel::{Bias, FEW, Integers, KEYS, KeyTile, PerRow, ROWS, SIDE, SUM, State, Turn};
use super::super::portable::{EXP2, MAGIC};
use super::avx2::{load, store};

pub(in super::super) fn scores(
    isa: Isa,
    rows: usize,
    q: &[i32],
    keys: KeyTile<'_>,
    bias: Option<Bias<'_>>,
    out: &mut [f32],
) {
    by_rows!(Avx512Icl, isa, rows, scores_of(q, keys, bias, out));
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
    by_rows!(Avx512Icl, isa, rows, weigh_of(scores, factor, integers, turn, state, out));
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
    by_rows!(Avx512Icl, isa, rows, values_of(weights, values, delta, turn, out));
}

/// # Safety
/// `q` holds `depth` times `R` words, `keys.words` `depth` times `KEYS`, `keys.start` and `keys.factor` `KEYS` each, `out`
/// `R` times `KEYS`, and the bias reaches all of them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn scores_of<const R: usize>(q: &[i32], keys: KeyTile<'_>, bias: Option<Bias<'_>>, out: &mut [f32]) {
    const SIDES: usize = KEYS / SIDE;
    let depth = q.len() / R;
    // SAFETY: all offsets are below the lengths of the contract.
    unsafe {
        let mut sums = [[_mm512_setzero_si512(); SIDES]; R];
        for sums in &mut sums {
            for (side, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_si512(keys.start.as_ptr().add(side * SIDE).cast());
            }
        }
        for step in 0..depth {
            let mut words = [_mm512_setzero_si512(); SIDES];
            for (side, words) in words.iter_mut().enumerate() {
                let at = (side * depth + step) * SIDE;
                *words = _mm512_loadu_si512(keys.words.as_ptr().add(at).cast());
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let code = _mm512_set1_epi32(*q.as_ptr().add(step * R + r));
                for (sum, words) in sums.iter_mut().zip(words) {
                    *sum = _mm512_dpbusd_epi32(*sum, code, words);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (side, sum) in sums.iter().enumerate() {
                let at = side * SIDE;
                let factor = _mm512_loadu_ps(keys.factor.as_ptr().add(at));
                let mut t = _mm512_mul_ps(_mm512_cvtepi32_ps(*sum), factor);
                if let Some(bias) = &bias {
                    let add = _mm512_loadu_ps(bias.values.as_ptr().add(r * bias.stride + at));
                    t = _mm512_fmadd_ps(t, _mm512_set1_ps(bias.scale[r]), add);
                }
                _mm512_storeu_ps(out.as_mut_ptr().add(r * KEYS + at), t);
            }
        }
    }
}

/// # Safety
/// `scores` and `out` hold `R` times `KEYS` numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn weigh_of<const R: usize>(
    scores: &[f32],
    factor: &PerRow,
    integers: Integers,
    turn: &mut Turn,
    state: &mut State,
    out: &mut [i16],
) {
    turn.fits = true;
    let mut coefficients = [_mm512_setzero_ps(); 5];
    for (c, value) in coefficients.iter_mut().zip(EXP2) {
        *c = _mm512_set1_ps(value * integers.unit);
    }
    let (least, magic) = (_mm512_set1_ps(-30.0), _mm512_set1_ps(MAGIC));
    let (mut sums, mut exacts) = ([0.0f32; 8], [0.0f32; 8]);
    for r in 0..R {
        let (base, scale) = (_mm512_set1_ps(turn.base[r]), _mm512_set1_ps(factor[r]));
        let offset = _mm512_set1_ps(turn.offset[r]);
        let mut sum = _mm512_setzero_si512();
        let mut exact = _mm512_setzero_ps();
        for at in (0..KEYS).step_by(SIDE) {
            // SAFETY: inside of row `r`, by the contract.
            let t = unsafe { _mm512_loadu_ps(scores.as_ptr().add(r * KEYS + at)) };
            let x = _mm512_max_ps(_mm512_fmadd_ps(_mm512_sub_ps(t, base), scale, offset), least);
            let shifted = _mm512_add_ps(x, magic);
            let f = _mm512_sub_ps(x, _mm512_sub_ps(shifted, magic));
            let mut p = coefficients[4];
            for c in coefficients[..4].iter().rev() {
                p = _mm512_fmadd_ps(p, f, *c);
            }
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            let power = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), exponent));
            exact = _mm512_add_ps(exact, power);
            let codes = _mm512_cvtps_epi32(power);
            sum = _mm512_add_epi32(sum, codes);
            // SAFETY: inside of row `r`, by the contract.
            unsafe {
                _mm256_storeu_si256(
                    out.as_mut_ptr().add(r * KEYS + at).cast(),
                    _mm512_cvtsepi32_epi16(codes),
                );
            }
        }
        turn.sums[r] = _mm512_reduce_add_epi32(sum);
        turn.fits &= turn.sums[r] <= SUM;
        sums[r] = turn.sums[r] as f32;
        if integers.exact {
            exacts[r] = _mm512_reduce_add_ps(exact);
        }
    }
    let (shrink, weight) = (load(&turn.shrink), load(&turn.weight));
    let sum = _mm256_mul_ps(load(&state.sum), shrink);
    store(&mut state.sum, _mm256_fmadd_ps(load(&sums), weight, sum));
    let exact = _mm256_mul_ps(load(&state.exact), shrink);
    store(&mut state.exact, _mm256_fmadd_ps(load(&exacts), weight, exact));
}

/// # Safety
/// `weights` holds `R` times `KEYS` numbers, `values` `KEYS / 2` words for each of the channels that `delta` has, which are
/// a multiple of `SIDE`, and `out` `R` times these channels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn values_of<const R: usize>(
    weights: &[i16],
    values: &[i32],
    delta: &[f32],
    turn: &Turn,
    out: &mut [f32],
) {
    let blocks = delta.len() / SIDE;
    // SAFETY: the contract is the same, and blocks `first..first + B` are there.
    unsafe {
        let mut first = 0;
        while first + 4 <= blocks {
            blocks_of::<R, 4>(first, weights, values, delta, turn, out);
            first += 4;
        }
        if first + 2 <= blocks {
            blocks_of::<R, 2>(first, weights, values, delta, turn, out);
            first += 2;
        }
        if first < blocks {
            blocks_of::<R, 1>(first, weights, values, delta, turn, out);
        }
    }
}

/// `B` blocks of channels.
///
/// # Safety
/// That of [`values_of`]; there are at least `first + B` blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn blocks_of<const R: usize, const B: usize>(
    first: usize,
    weights: &[i16],
    values: &[i32],
    delta: &[f32],
    turn: &Turn,
    out: &mut [f32],
) {
    let channels = delta.len();
    let pairs = if turn.fits { KEYS / 2 } else { SIDE / 2 };
    for part in (0..KEYS / 2).step_by(pairs) {
        let mut sums = [[_mm512_setzero_si512(); B]; R];
        // SAFETY: all offsets are below the lengths of the contract. Reading two neighbouring weights as one word needs
        // no alignment.
        unsafe {
            for pair in part..part + pairs {
                let mut words = [_mm512_setzero_si512(); B];
                for (b, words) in words.iter_mut().enumerate() {
                    let at = ((first + b) * KEYS / 2 + pair) * SIDE;
                    *words = _mm512_loadu_si512(values.as_ptr().add(at).cast());
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let weight = weights.as_ptr().cast::<i32>().add(r * KEYS / 2 + pair).read_unaligned();
                    let weight = _mm512_set1_epi32(weight);
                    for (sum, words) in sums.iter_mut().zip(words) {
                        *sum = _mm512_dpwssd_epi32(*sum, weight, words);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (b, sum) in sums.iter().enumerate() {
                    let at = (first + b) * SIDE;
                    let factor = _mm512_loadu_ps(delta.as_ptr().add(at));
                    let factor = _mm512_mul_ps(factor, _mm512_set1_ps(turn.weight[r]));
                    let to = out.as_mut_ptr().add(r * channels + at);
                    let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(*sum), factor, _mm512_loadu_ps(to));
                    _mm512_storeu_ps(to, sum);
                }
            }
        }
    }
}
