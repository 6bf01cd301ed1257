//! Kernels for AVX2 and AVX-512 VNNI, and the quantiser of activations compiled for them.
//!
//! AVX2: `vpmaddubsw` multiplies unsigned weights with signed activations and sums pairs in 16 bits. Up to
//! [`Depth`] of its results are added in 16 bits, then `vpmaddwd` with ones widens them. VNNI: `vpdpbusd` does it
//! at once.

#![expect(unsafe_code, reason = "vector loads and stores, and functions compiled for a detected level")]

use std::arch::x86_64::*;
use std::ops::Range;

use kc_core::{Isa, Level, Result};

use super::QuantSpec;
use super::activations::{self, Activations, Parts};
use super::linear::Weights;
use super::planes::Planes;
use super::portable::{self, Depth, Kernel, PANELS, QUADS, Scratch, Tokens, Unpacked};
use crate::interleaved::BLOCK;

/// [`activations::line_of`] on a level.
pub(super) fn line(isa: Isa, x: &[f32], spec: &QuantSpec, parts: Parts<'_>) -> Result<()> {
    #[target_feature(enable = "avx2")]
    fn avx2(x: &[f32], spec: &QuantSpec, parts: Parts<'_>) -> Result<()> {
        activations::line_of(x, spec, parts)
    }
    match isa.level() {
        Level::Portable => activations::line_of(x, spec, parts),
        // SAFETY: every level from Avx2 on has AVX2.
        _ => unsafe { avx2(x, spec, parts) },
    }
}

/// [`portable::strip`] with AVX2, if `isa` has it and panels have 8 rows.
pub(super) fn strip_avx2(
    isa: Isa,
    w: &Weights,
    x: &Activations,
    index: usize,
    depth: Depth,
    scratch: &mut Scratch,
    out: impl FnMut(Range<usize>, &[f32]),
) {
    #[target_feature(enable = "avx2")]
    fn avx2(
        w: &Weights,
        x: &Activations,
        index: usize,
        depth: Depth,
        scratch: &mut Scratch,
        out: impl FnMut(Range<usize>, &[f32]),
    ) {
        portable::strip::<Avx2>(w, x, index, depth, scratch, out);
    }
    assert!(isa.level() >= Level::Avx2 && w.codes.lanes() == 8, "AVX2 and panels of 8 rows");
    // SAFETY: the level was checked.
    unsafe { avx2(w, x, index, depth, scratch, out) }
}

/// [`portable::strip`] with AVX-512 VNNI, if `isa` has it and panels have 16 rows.
pub(super) fn strip_vnni(
    isa: Isa,
    w: &Weights,
    x: &Activations,
    index: usize,
    depth: Depth,
    scratch: &mut Scratch,
    out: impl FnMut(Range<usize>, &[f32]),
) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn vnni(
        w: &Weights,
        x: &Activations,
        index: usize,
        depth: Depth,
        scratch: &mut Scratch,
        out: impl FnMut(Range<usize>, &[f32]),
    ) {
        portable::strip::<Vnni>(w, x, index, depth, scratch, out);
    }
    assert!(isa.level() >= Level::Avx512Icl && w.codes.lanes() == 16, "VNNI and panels of 16 rows");
    // SAFETY: the level was checked.
    unsafe { vnni(w, x, index, depth, scratch, out) }
}

/// [`Planes::multiply_rows`] on a level.
pub(super) fn multiply_planes(
    isa: Isa,
    w: &Planes,
    x: &Activations,
    rows: Range<usize>,
    store: impl FnMut(usize, usize, f32),
) {
    #[target_feature(enable = "avx2,popcnt")]
    fn avx2(w: &Planes, x: &Activations, rows: Range<usize>, store: impl FnMut(usize, usize, f32)) {
        w.multiply_rows(x, rows, store);
    }
    match isa.level() {
        Level::Portable => w.multiply_rows(x, rows, store),
        // SAFETY: every level from Avx2 on has AVX2 and POPCNT.
        _ => unsafe { avx2(w, x, rows, store) },
    }
}

/// A register of bytes, and what the kernels do with it.
///
/// # Safety
/// All functions need the instructions of the type; pointers must be good for a register.
trait Bytes: Copy {
    const LANES: usize;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    unsafe fn load_sums(from: *const i32) -> Self;
    unsafe fn store_sums(self, to: *mut i32);
    unsafe fn and(self, mask: u8) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    /// 16-bit lanes to the right.
    unsafe fn right<const N: u32>(self) -> Self;
    /// Adds the products of `D` quads of `V` panels with those of `T` tokens.
    unsafe fn dot<const T: usize, const D: usize>(
        w: *const u8,
        x: *const i8,
        stride: usize,
        sums: &mut [[Self; PANELS]; T],
    );
    /// As `dot`, for codes of which not even two products fit 16 bits.
    unsafe fn dot_split<const T: usize, const D: usize>(
        w: *const u8,
        x: *const i8,
        stride: usize,
        sums: &mut [[Self; PANELS]; T],
    );
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
        x: *const i8,
        stride: usize,
        sums: &mut [[Self; PANELS]; T],
    ) {
        // SAFETY: as above; D quads of two registers, and 4 D activations of T tokens.
        unsafe {
            let mut pairs = [[_mm256_setzero_si256(); PANELS]; T];
            for d in 0..D {
                let (a, b) = (Self::load(w.add(64 * d)), Self::load(w.add(64 * d + 32)));
                for t in 0..T {
                    let x = _mm256_set1_epi32(word(x.add(t * stride + 4 * d)));
                    pairs[t][0] = _mm256_add_epi16(pairs[t][0], _mm256_maddubs_epi16(a, x));
                    pairs[t][1] = _mm256_add_epi16(pairs[t][1], _mm256_maddubs_epi16(b, x));
                }
            }
            let ones = _mm256_set1_epi16(1);
            for t in 0..T {
                for v in 0..PANELS {
                    sums[t][v] = _mm256_add_epi32(sums[t][v], _mm256_madd_epi16(pairs[t][v], ones));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn dot_split<const T: usize, const D: usize>(
        w: *const u8,
        x: *const i8,
        stride: usize,
        sums: &mut [[Self; PANELS]; T],
    ) {
        // SAFETY: as for dot.
        unsafe {
            let (ones, sixteens) = (_mm256_set1_epi16(1), _mm256_set1_epi16(16));
            for v in 0..PANELS {
                let mut low = [_mm256_setzero_si256(); T];
                let mut high = [_mm256_setzero_si256(); T];
                for d in 0..D {
                    let codes = Self::load(w.add(64 * d + 32 * v));
                    let (l, h) = (codes.and(15), codes.right::<4>().and(15));
                    for t in 0..T {
                        let x = _mm256_set1_epi32(word(x.add(t * stride + 4 * d)));
                        low[t] = _mm256_add_epi16(low[t], _mm256_maddubs_epi16(l, x));
                        high[t] = _mm256_add_epi16(high[t], _mm256_maddubs_epi16(h, x));
                    }
                }
                for t in 0..T {
                    let both = _mm256_add_epi32(
                        _mm256_madd_epi16(low[t], ones),
                        _mm256_madd_epi16(high[t], sixteens),
                    );
                    sums[t][v] = _mm256_add_epi32(sums[t][v], both);
                }
            }
        }
    }
}

impl Bytes for __m512i {
    const LANES: usize = 16;

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
        x: *const i8,
        stride: usize,
        sums: &mut [[Self; PANELS]; T],
    ) {
        // SAFETY: as above; D quads of two registers, and 4 D activations of T tokens.
        unsafe {
            for d in 0..D {
                let (a, b) = (Self::load(w.add(128 * d)), Self::load(w.add(128 * d + 64)));
                for t in 0..T {
                    let x = _mm512_set1_epi32(word(x.add(t * stride + 4 * d)));
                    sums[t][0] = _mm512_dpbusd_epi32(sums[t][0], a, x);
                    sums[t][1] = _mm512_dpbusd_epi32(sums[t][1], b, x);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn dot_split<const T: usize, const D: usize>(
        w: *const u8,
        x: *const i8,
        stride: usize,
        sums: &mut [[Self; PANELS]; T],
    ) {
        // SAFETY: as above. The products need no splitting.
        unsafe { Self::dot::<T, D>(w, x, stride, sums) }
    }
}

/// # Safety
/// The instructions of `B`; `codes` holds `blocks` blocks of `B::LANES` rows, `out` has room for their quads.
#[inline(always)]
unsafe fn unpack<B: Bytes>(codes: *const u8, width: u8, blocks: usize, out: *mut u8) {
    let register = 4 * B::LANES;
    let step = PANELS * register;
    let registers = usize::from(width) / 2;
    for block in 0..blocks {
        // SAFETY: inside of what the contract grants.
        unsafe {
            let (from, to) = (codes.add(block * registers * register), out.add(block * QUADS * step));
            let a = B::load(from);
            match width {
                2 => {
                    a.and(3).store(to);
                    a.right::<2>().and(3).store(to.add(step));
                    a.right::<4>().and(3).store(to.add(2 * step));
                    a.right::<6>().and(3).store(to.add(3 * step));
                }
                4 => {
                    let b = B::load(from.add(register));
                    a.and(15).store(to);
                    a.right::<4>().and(15).store(to.add(step));
                    b.and(15).store(to.add(2 * step));
                    b.right::<4>().and(15).store(to.add(3 * step));
                }
                6 => {
                    let (b, c) = (B::load(from.add(register)), B::load(from.add(2 * register)));
                    a.and(63).store(to);
                    b.and(63).store(to.add(step));
                    c.and(63).store(to.add(2 * step));
                    let top = a.right::<2>().and(0x30).or(b.right::<4>().and(0x0c)).or(c.right::<6>().and(3));
                    top.store(to.add(3 * step));
                }
                _ => {
                    a.store(to);
                    for q in 1..QUADS {
                        B::load(from.add(q * register)).store(to.add(q * step));
                    }
                }
            }
        }
    }
}

/// The products of `T` tokens.
///
/// # Safety
/// The instructions of `B`; `w` holds `quads` quads of two panels, `x` as many activations of `T` tokens, `sums`
/// two registers for each token.
#[inline(always)]
unsafe fn tile<B: Bytes, const T: usize, const D: usize, const SPLIT: bool>(
    w: *const u8,
    quads: usize,
    x: *const i8,
    stride: usize,
    sums: *mut i32,
) {
    let row = PANELS * B::LANES;
    // SAFETY: inside of what the contract grants.
    unsafe {
        let mut acc = [[B::load_sums(sums); PANELS]; T];
        for t in 0..T {
            for v in 0..PANELS {
                acc[t][v] = B::load_sums(sums.add(t * row + v * B::LANES));
            }
        }
        let mut q = 0;
        while q + D <= quads {
            let (w, x) = (w.add(q * 4 * row), x.add(4 * q));
            if SPLIT {
                B::dot_split::<T, D>(w, x, stride, &mut acc);
            } else {
                B::dot::<T, D>(w, x, stride, &mut acc);
            }
            q += D;
        }
        for t in 0..T {
            for v in 0..PANELS {
                acc[t][v].store_sums(sums.add(t * row + v * B::LANES));
            }
        }
    }
}

/// All tokens in tiles of at most four.
///
/// # Safety
/// As [`tile`], for `x.count` tokens.
#[inline(always)]
unsafe fn tiles<B: Bytes, const D: usize, const SPLIT: bool>(
    w: *const u8,
    quads: usize,
    x: Tokens<'_>,
    sums: &mut [i32],
) {
    let row = PANELS * B::LANES;
    let mut t = 0;
    while t < x.count {
        let (codes, sums) = (x.codes[t * x.stride..].as_ptr(), sums[t * row..].as_mut_ptr());
        // SAFETY: by the contract, for the tokens from t on.
        unsafe {
            match x.count - t {
                1 => tile::<B, 1, D, SPLIT>(w, quads, codes, x.stride, sums),
                2 => tile::<B, 2, D, SPLIT>(w, quads, codes, x.stride, sums),
                3 => tile::<B, 3, D, SPLIT>(w, quads, codes, x.stride, sums),
                _ => tile::<B, 4, D, SPLIT>(w, quads, codes, x.stride, sums),
            }
        }
        t += 4;
    }
}

/// # Safety
/// The instructions of `B`.
#[inline(always)]
unsafe fn multiply<B: Bytes>(w: &Unpacked, quads: usize, x: Tokens<'_>, depth: Depth, sums: &mut [i32]) {
    let row = PANELS * B::LANES;
    assert!(quads * 4 * row <= w.0.len() && sums.len() >= x.count * row, "room for all quads and tokens");
    assert!(
        x.count == 0 || x.codes.len() >= (x.count - 1) * x.stride + 4 * quads,
        "activations of all tokens"
    );
    let codes = w.0.as_ptr();
    // SAFETY: the lengths were checked.
    unsafe {
        match depth {
            Depth::Sums(1) => tiles::<B, 1, false>(codes, quads, x, sums),
            Depth::Sums(2) => tiles::<B, 2, false>(codes, quads, x, sums),
            Depth::Sums(_) => eights::<B, false>(codes, quads, x, sums),
            Depth::Split => eights::<B, true>(codes, quads, x, sums),
        }
    }
}

/// Eight quads at a time, and the four that a block may leave.
///
/// # Safety
/// As [`tile`], for `x.count` tokens.
#[inline(always)]
unsafe fn eights<B: Bytes, const SPLIT: bool>(w: *const u8, quads: usize, x: Tokens<'_>, sums: &mut [i32]) {
    let whole = quads / 8 * 8;
    // SAFETY: by the contract.
    unsafe {
        tiles::<B, 8, SPLIT>(w, whole, x, sums);
        if whole < quads {
            let rest = Tokens { codes: &x.codes[4 * whole..], ..x };
            tiles::<B, 4, SPLIT>(w.add(whole * 4 * PANELS * B::LANES), quads - whole, rest, sums);
        }
    }
}

/// # Safety
/// The instructions of `B`.
#[inline(always)]
unsafe fn unpack_strip<B: Bytes>(a: &[u8], b: &[u8], width: u8, blocks: usize, out: &mut Unpacked) {
    let bytes = blocks * B::LANES * BLOCK * usize::from(width) / 8;
    let register = 4 * B::LANES;
    assert!(blocks * QUADS * PANELS * register <= out.0.len() && a.len() >= bytes, "room for all blocks");
    // SAFETY: the lengths were checked; the second panel is written one register further on.
    unsafe {
        unpack::<B>(a.as_ptr(), width, blocks, out.0.as_mut_ptr());
        if b.len() >= bytes {
            unpack::<B>(b.as_ptr(), width, blocks, out.0.as_mut_ptr().add(register));
        }
    }
}

macro_rules! kernels {
    ($($name:ident: $register:ty;)*) => {$(
        /// Only called by the function of this level above.
        struct $name;

        impl Kernel for $name {
            #[inline(always)]
            fn unpack(a: &[u8], b: &[u8], width: u8, blocks: usize, _: usize, out: &mut Unpacked) {
                // SAFETY: the type is private, and its one user has checked the level.
                unsafe { unpack_strip::<$register>(a, b, width, blocks, out) }
            }

            #[inline(always)]
            fn multiply(
                w: &Unpacked,
                quads: usize,
                x: Tokens<'_>,
                depth: Depth,
                _: usize,
                sums: &mut [i32],
            ) {
                // SAFETY: as above.
                unsafe { multiply::<$register>(w, quads, x, depth, sums) }
            }
        }
    )*};
}

kernels! {
    Avx2: __m256i;
    Vnni: __m512i;
}
