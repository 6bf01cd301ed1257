//! The hot loops in safe code that autovectorises; [`super::x86`] compiles those of the cache for AVX2.

use super::weights::ZERO;

/// Codes in a word.
pub(super) const CODES: usize = 8;

/// `w / s`, half to even, -8 to 7.
#[inline(always)]
pub(super) fn code_of(w: f32, s: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds a small number half to even, on processors without an instruction for it too.
    const MAGIC: f32 = 12_582_912.0;
    let q = w / s;
    let q = if q > -8.0 { q } else { -8.0 };
    let q = if q < 7.0 { q } else { 7.0 };
    (q + MAGIC) - MAGIC
}

/// The squared error of a group.
pub(super) fn group_error(w: &[f32], sigma: f32, s: f32) -> f64 {
    let mut lanes = [0.0f64; 8];
    for w in w.chunks(8) {
        for (lane, w) in lanes.iter_mut().zip(w) {
            let gap = f64::from(*w) - f64::from(code_of(w * sigma, s) * s / sigma);
            *lane += gap * gap;
        }
    }
    lanes.iter().sum()
}

/// Up to eight codes, the first in the lowest bits.
#[inline(always)]
pub(super) fn word_of(x: &[f32], scale: f32) -> u32 {
    let mut padded = [0.0; CODES];
    padded[..x.len()].copy_from_slice(x);
    let mut codes = [0u32; CODES];
    for l in 0..CODES {
        codes[l] = (code_of(padded[l], scale) as i32 as u32 & 15) << (4 * l);
    }
    codes.iter().fold(0, |word, code| word | code)
}

/// Channels `first..` of a token: codes times their scale.
#[inline(always)]
pub(super) fn unpack(words: &[u32], first: usize, scale: f32, out: &mut [f32]) {
    if first.is_multiple_of(CODES) {
        let (whole, tail) = out.as_chunks_mut::<CODES>();
        let words = &words[first / CODES..];
        for (out, word) in whole.iter_mut().zip(words) {
            for (l, out) in out.iter_mut().enumerate() {
                *out = number(*word, l) * scale;
            }
        }
        if let Some(word) = words.get(whole.len()) {
            for (l, out) in tail.iter_mut().enumerate() {
                *out = number(*word, l) * scale;
            }
        }
        return;
    }
    for (c, out) in (first..).zip(out) {
        *out = number(words[c / CODES], c % CODES) * scale;
    }
}

/// Code `l` of a word, as a number.
#[inline(always)]
fn number(word: u32, l: usize) -> f32 {
    ((word >> (4 * l) & 15) ^ u32::from(ZERO)) as i32 as f32 - f32::from(ZERO)
}
