//! [`Bytes`]: what the kernels do with a register of bytes, for AVX2 and for AVX-512 VNNI.

#![expect(unsafe_code, reason = "vector loads and stores")]
#![expect(clippy::needless_range_loop, reason = "registers of several arrays share an index")]

use std::arch::x86_64::*;

use super::super::portable::{PANELS, QUADS};

/// A register of bytes, and what the kernels do with it.
///
/// # Safety
/// All functions need the instructions of the type; pointers must be good for a register.
pub(super) trait Bytes: Copy {
    const LANES: usize;
    type Floats: Copy;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    unsafe fn load_sums(from: *const i32) -> Self;
    unsafe fn store_sums(self, to: *mut i32);
    unsafe fn and(self, mask: u8) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    /// 16-bit lanes to the right.
    unsafe fn right<const N: u32>(self) -> Self;
    /// Adds the products of `quads` quads of two panels with `T` tokens; `D` quads fit 16 bits, or none and codes are
    /// split, if it is 0.
    unsafe fn dot<const T: usize, const D: usize>(
        w: *const u8,
        quads: usize,
        x: *const i8,
        stride: usize,
        sums: &mut [[Self; PANELS]; T],
    );
    /// `acc` and the products of a block with one token. `D` is as for `dot`.
    unsafe fn dot_block<const D: usize>(acc: Self, quads: [Self; QUADS], x: *const i8) -> Self;
    /// `total` and one register of [`Kernel::add_scaled`](super::Kernel::add_scaled).
    unsafe fn add_scaled(
        total: Self::Floats,
        sums: Self,
        zeros: Lane,
        scales: *const f32,
        by: f32,
    ) -> Self::Floats;
    unsafe fn load_floats(from: *const f32) -> Self::Floats;
    unsafe fn store_floats(floats: Self::Floats, to: *mut f32);
}

/// A [`Correction`](super::Correction) for one register.
#[derive(Clone, Copy)]
pub(super) enum Lane {
    Constant(i32),
    Zeros(*const i32, i32),
    Offsets(*const f32, f32),
}

/// Four activations of a token, as one word.
///
/// # Safety
/// `x` is good for four bytes.
#[inline(always)]
unsafe fn word(x: *const i8) -> i32 {
    // SAFETY: by the contract; no alignment is needed.
    unsafe { x.cast::<i32>().read_unaligned() }
}

impl Bytes for __m256i {
    const LANES: usize = 8;
    type Floats = __m256;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: by the contract of the trait, here and below.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(to.cast(), self) }
    }
    #[inline(always)]
    unsafe fn load_sums(from: *const i32) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_sums(self, to: *mut i32) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(to.cast(), self) }
    }
    #[inline(always)]
    unsafe fn and(self, mask: u8) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_and_si256(self, _mm256_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_or_si256(self, other) }
    }
    #[inline(always)]
    unsafe fn right<const N: u32>(self) -> Self {
        // SAFETY: as above.
        unsafe {
            match N {
                2 => _mm256_srli_epi16::<2>(self),
                4 => _mm256_srli_epi16::<4>(self),
                _ => _mm256_srli_epi16::<6>(self),
            }
        }
    }

    #[inline(always)]
    unsafe fn dot<const T: usize, const D: usize>(
        w: *const u8,
        quads: usize,
        x: *const i8,
        stride: usize,
        sums: &mut [[Self; PANELS]; T],
    ) {
        if D == 0 {
            // SAFETY: as above.
            unsafe { split_dot::<T>(w, quads, x, stride, sums) };
            return;
        }
        if D <= 2 {
            // SAFETY: as above.
            unsafe { shallow_dot::<T, D>(w, quads, x, stride, sums) };
            return;
        }
        // SAFETY: as above; two registers of every quad, and four activations of T tokens.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            for start in (0..quads).step_by(D) {
                // A count that is not known in advance keeps the loop a loop, and its sums in registers.
                let end = quads.min(start + D);
                let mut pairs = [[_mm256_setzero_si256(); PANELS]; T];
                let (a, b) = (Self::load(w.add(64 * start)), Self::load(w.add(64 * start + 32)));
                for t in 0..T {
                    let x = _mm256_set1_epi32(word(x.add(t * stride + 4 * start)));
                    pairs[t] = [_mm256_maddubs_epi16(a, x), _mm256_maddubs_epi16(b, x)];
                }
                for q in start + 1..end {
                    let (a, b) = (Self::load(w.add(64 * q)), Self::load(w.add(64 * q + 32)));
                    for t in 0..T {
                        let x = _mm256_set1_epi32(word(x.add(t * stride + 4 * q)));
                        pairs[t][0] = _mm256_add_epi16(pairs[t][0], _mm256_maddubs_epi16(a, x));
                        pairs[t][1] = _mm256_add_epi16(pairs[t][1], _mm256_maddubs_epi16(b, x));
                    }
                }
                for t in 0..T {
                    for v in 0..PANELS {
                        sums[t][v] = _mm256_add_epi32(sums[t][v], _mm256_madd_epi16(pairs[t][v], ones));
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn dot_block<const D: usize>(acc: Self, quads: [Self; QUADS], x: *const i8) -> Self {
        // SAFETY: as above; sixteen activations.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let mut pairs = [_mm256_setzero_si256(); QUADS];
            if D == 0 {
                let (mut low, mut high) = (pairs[0], pairs[0]);
                for q in 0..QUADS {
                    let x = _mm256_set1_epi32(word(x.add(4 * q)));
                    low = _mm256_add_epi16(low, _mm256_maddubs_epi16(quads[q].and(15), x));
                    high = _mm256_add_epi16(high, _mm256_maddubs_epi16(quads[q].right::<4>().and(15), x));
                }
                let high = _mm256_madd_epi16(high, _mm256_set1_epi16(16));
                return _mm256_add_epi32(acc, _mm256_add_epi32(_mm256_madd_epi16(low, ones), high));
            }
            for q in 0..QUADS {
                pairs[q] = _mm256_maddubs_epi16(quads[q], _mm256_set1_epi32(word(x.add(4 * q))));
            }
            let mut acc = acc;
            for pairs in pairs.chunks(D) {
                let mut sum = pairs[0];
                for &pair in &pairs[1..] {
                    sum = _mm256_add_epi16(sum, pair);
                }
                acc = _mm256_add_epi32(acc, _mm256_madd_epi16(sum, ones));
            }
            acc
        }
    }

    #[inline(always)]
    unsafe fn add_scaled(total: __m256, sums: Self, zeros: Lane, scales: *const f32, by: f32) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let (scales, by) = (_mm256_loadu_ps(scales), _mm256_set1_ps(by));
            let term = match zeros {
                Lane::Constant(shift) => {
                    let exact = _mm256_sub_epi32(sums, _mm256_set1_epi32(shift));
                    _mm256_mul_ps(_mm256_cvtepi32_ps(exact), _mm256_mul_ps(scales, by))
                }
                Lane::Zeros(zeros, centred) => {
                    let shift = _mm256_mullo_epi32(Self::load_sums(zeros), _mm256_set1_epi32(centred));
                    let exact = _mm256_sub_epi32(sums, shift);
                    _mm256_mul_ps(_mm256_cvtepi32_ps(exact), _mm256_mul_ps(scales, by))
                }
                Lane::Offsets(offsets, centred) => {
                    let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), scales);
                    let offset = _mm256_mul_ps(_mm256_loadu_ps(offsets), _mm256_set1_ps(centred));
                    _mm256_mul_ps(_mm256_add_ps(scaled, offset), by)
                }
            };
            _mm256_add_ps(total, term)
        }
    }

    #[inline(always)]
    unsafe fn load_floats(from: *const f32) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_floats(floats: __m256, to: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(to, floats) }
    }
}

/// [`Bytes::dot`] where sums of 16 bits are widened after every quad or two.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn shallow_dot<const T: usize, const D: usize>(
    w: *const u8,
    quads: usize,
    x: *const i8,
    stride: usize,
    sums: &mut [[__m256i; PANELS]; T],
) {
    // SAFETY: by the contract.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        for q in (0..quads).step_by(D) {
            let mut codes = [[_mm256_setzero_si256(); PANELS]; D];
            for d in 0..D {
                codes[d] = [__m256i::load(w.add(64 * (q + d))), __m256i::load(w.add(64 * (q + d) + 32))];
            }
            for t in 0..T {
                for v in 0..PANELS {
                    let mut pairs = _mm256_setzero_si256();
                    for d in 0..D {
                        let x = _mm256_set1_epi32(word(x.add(t * stride + 4 * (q + d))));
                        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(codes[d][v], x));
                    }
                    sums[t][v] = _mm256_add_epi32(sums[t][v], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
    }
}

/// Quads whose halves fit 16 bits: `2 * 15 * 128` is 3840.
const HALVES: usize = 8;

/// [`Bytes::dot`] for codes of 8 x 8 bits, as `16 * high + low`.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn split_dot<const T: usize>(
    w: *const u8,
    quads: usize,
    x: *const i8,
    stride: usize,
    sums: &mut [[__m256i; PANELS]; T],
) {
    // SAFETY: by the contract.
    unsafe {
        let (ones, sixteens) = (_mm256_set1_epi16(1), _mm256_set1_epi16(16));
        for start in (0..quads).step_by(HALVES) {
            let end = quads.min(start + HALVES);
            for v in 0..PANELS {
                let (mut low, mut high) = ([_mm256_setzero_si256(); T], [_mm256_setzero_si256(); T]);
                let mut q = start;
                while q < end {
                    let codes = __m256i::load(w.add(64 * q + 32 * v));
                    let (l, h) = (codes.and(15), codes.right::<4>().and(15));
                    for t in 0..T {
                        let x = _mm256_set1_epi32(word(x.add(t * stride + 4 * q)));
                        low[t] = _mm256_add_epi16(low[t], _mm256_maddubs_epi16(l, x));
                        high[t] = _mm256_add_epi16(high[t], _mm256_maddubs_epi16(h, x));
                    }
                    q += 1;
                }
                for t in 0..T {
                    let (low, high) = (_mm256_madd_epi16(low[t], ones), _mm256_madd_epi16(high[t], sixteens));
                    sums[t][v] = _mm256_add_epi32(sums[t][v], _mm256_add_epi32(low, high));
                }
            }
        }
    }
}

impl Bytes for __m512i {
    const LANES: usize = 16;
    type Floats = __m512;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: by the contract of the trait, here and below.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(to.cast(), self) }
    }
    #[inline(always)]
    unsafe fn load_sums(from: *const i32) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_sums(self, to: *mut i32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(to.cast(), self) }
    }
    #[inline(always)]
    unsafe fn and(self, mask: u8) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_and_si512(self, _mm512_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_or_si512(self, other) }
    }
    #[inline(always)]
    unsafe fn right<const N: u32>(self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_srli_epi16::<N>(self) }
    }

    #[inline(always)]
    unsafe fn dot<const T: usize, const D: usize>(
        w: *const u8,
        quads: usize,
        x: *const i8,
        stride: usize,
        sums: &mut [[Self; PANELS]; T],
    ) {
        // SAFETY: as above; two registers of every quad, and four activations of T tokens.
        unsafe {
            for q in 0..quads {
                let (a, b) = (Self::load(w.add(128 * q)), Self::load(w.add(128 * q + 64)));
                for t in 0..T {
                    let x = _mm512_set1_epi32(word(x.add(t * stride + 4 * q)));
                    sums[t][0] = _mm512_dpbusd_epi32(sums[t][0], a, x);
                    sums[t][1] = _mm512_dpbusd_epi32(sums[t][1], b, x);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn dot_block<const D: usize>(acc: Self, quads: [Self; QUADS], x: *const i8) -> Self {
        // SAFETY: as above; sixteen activations. Two chains, for one would wait for itself.
        unsafe {
            let x = [word(x), word(x.add(4)), word(x.add(8)), word(x.add(12))];
            let zero = _mm512_setzero_si512();
            let mut even = _mm512_dpbusd_epi32(zero, quads[0], _mm512_set1_epi32(x[0]));
            let mut odd = _mm512_dpbusd_epi32(zero, quads[1], _mm512_set1_epi32(x[1]));
            even = _mm512_dpbusd_epi32(even, quads[2], _mm512_set1_epi32(x[2]));
            odd = _mm512_dpbusd_epi32(odd, quads[3], _mm512_set1_epi32(x[3]));
            _mm512_add_epi32(acc, _mm512_add_epi32(even, odd))
        }
    }

    #[inline(always)]
    unsafe fn add_scaled(total: __m512, sums: Self, zeros: Lane, scales: *const f32, by: f32) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let (scales, by) = (_mm512_loadu_ps(scales), _mm512_set1_ps(by));
            let term = match zeros {
                Lane::Constant(shift) => {
                    let exact = _mm512_sub_epi32(sums, _mm512_set1_epi32(shift));
                    _mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_mul_ps(scales, by))
                }
                Lane::Zeros(zeros, centred) => {
                    let shift = _mm512_mullo_epi32(Self::load_sums(zeros), _mm512_set1_epi32(centred));
                    let exact = _mm512_sub_epi32(sums, shift);
                    _mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_mul_ps(scales, by))
                }
                Lane::Offsets(offsets, centred) => {
                    let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scales);
                    let offset = _mm512_mul_ps(_mm512_loadu_ps(offsets), _mm512_set1_ps(centred));
                    _mm512_mul_ps(_mm512_add_ps(scaled, offset), by)
                }
            };
            _mm512_add_ps(total, term)
        }
    }

    #[inline(always)]
    unsafe fn load_floats(from: *const f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_floats(floats: __m512, to: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to, floats) }
    }
}
