//! AVX2 and AVX-512 forms of the steps of [`Vector`], and the functions in which kernels are compiled with
//! these instructions.

#![expect(unsafe_code, reason = "SIMD intrinsics and prefetches")]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use super::portable;
use crate::csr::{Index, Value};
use crate::simd::{Kernel, Vector};

/// Proof of AVX2, BMI and POPCNT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

/// Proof of AVX-512 F, BW, DQ, VL and CD.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

/// Runs `kernel` compiled for AVX2, or plainly if `isa` is lower.
#[inline]
pub(crate) fn avx2<K: Kernel>(isa: Isa, kernel: K) -> K::Out {
    if isa.level() < Level::Avx2 {
        return portable::run(kernel);
    }
    // SAFETY: the isa proves AVX2, BMI1, BMI2 and POPCNT.
    unsafe { run_avx2(kernel) }
}

/// Runs `kernel` compiled for AVX-512, or for AVX2 if `isa` is lower.
#[inline]
pub(crate) fn avx512<K: Kernel>(isa: Isa, kernel: K) -> K::Out {
    if isa.level() < Level::Avx512 {
        return avx2(isa, kernel);
    }
    // SAFETY: the isa proves AVX-512 F, BW, DQ, VL and CD, and all of AVX2's level.
    unsafe { run_avx512(kernel) }
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
#[inline(never)]
fn run_avx2<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Avx2(()))
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512cd")]
#[inline(never)]
fn run_avx512<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Avx512(()))
}

/// Asks for a line into all caches.
#[inline(always)]
fn prefetch<T>(data: &[T], at: usize) {
    if let Some(element) = data.get(at) {
        // SAFETY: a prefetch has no effect but on caches, the pointer is that of an element, and SSE is part
        // of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(element).cast()) }
    }
}

impl Vector for Avx2 {
    #[inline(always)]
    fn prefetch<T>(self, data: &[T], at: usize) {
        prefetch(data, at);
    }

    #[inline(always)]
    fn find<I: Index>(self, keys: &[I], start: usize, key: I) -> usize {
        let at = start & (keys.len() - 1);
        if keys[at] == key || keys[at] == I::MAX {
            return at;
        }
        let (Some(keys32), Some(&[key32])) = (I::as_u32(keys), I::as_u32(&[key])) else {
            return portable::find(keys, at, key);
        };
        // SAFETY: the token proves AVX2.
        unsafe { find8(keys32, at, key32) }
    }

    #[inline(always)]
    fn bits(self, marks: &[u8; 64]) -> u64 {
        // SAFETY: the token proves AVX2.
        unsafe { bits32(marks) }
    }

    #[inline(always)]
    fn emit<T: Value, I: Index>(
        self,
        base: usize,
        bits: u64,
        tile: &mut [T; 64],
        cols: &mut [I],
        vals: &mut [T],
    ) -> usize {
        portable::emit(base, bits, tile, cols, vals)
    }
}

/// [`Vector::bits`], thirty-two marks at a time.
#[inline]
#[target_feature(enable = "avx2")]
fn bits32(marks: &[u8; 64]) -> u64 {
    // SAFETY: both loads lie inside of the 64 marks and have no alignment of their own to keep.
    let (low, high) = unsafe {
        (_mm256_loadu_si256(marks.as_ptr().cast()), _mm256_loadu_si256(marks.as_ptr().add(32).cast()))
    };
    u64::from(_mm256_movemask_epi8(low) as u32) | u64::from(_mm256_movemask_epi8(high) as u32) << 32
}

/// [`Vector::find`], eight keys at a time. The groups are aligned, so a group never crosses the end.
#[inline]
#[target_feature(enable = "avx2")]
fn find8(keys: &[u32], start: usize, key: u32) -> usize {
    let (groups, []) = keys.as_chunks::<8>() else { return portable::find(keys, start, key) };
    let (wanted, empty) = (_mm256_set1_epi32(key as i32), _mm256_set1_epi32(-1));
    let mut group = start / 8;
    let mut live = u32::MAX << (start % 8);
    loop {
        // SAFETY: a group is eight u32; the load has no alignment of its own to keep.
        let found = unsafe { _mm256_loadu_si256(groups[group].as_ptr().cast()) };
        let hit = _mm256_or_si256(_mm256_cmpeq_epi32(found, wanted), _mm256_cmpeq_epi32(found, empty));
        let hits = _mm256_movemask_ps(_mm256_castsi256_ps(hit)) as u32 & live;
        if hits != 0 {
            return group * 8 + hits.trailing_zeros() as usize;
        }
        live = u32::MAX;
        group = if group + 1 == groups.len() { 0 } else { group + 1 };
    }
}

impl Vector for Avx512 {
    #[inline(always)]
    fn prefetch<T>(self, data: &[T], at: usize) {
        prefetch(data, at);
    }

    #[inline(always)]
    fn find<I: Index>(self, keys: &[I], start: usize, key: I) -> usize {
        let at = start & (keys.len() - 1);
        if keys[at] == key || keys[at] == I::MAX {
            return at;
        }
        let (Some(keys32), Some(&[key32])) = (I::as_u32(keys), I::as_u32(&[key])) else {
            return portable::find(keys, at, key);
        };
        // SAFETY: the token proves AVX-512.
        unsafe { find16(keys32, at, key32) }
    }

    #[inline(always)]
    fn bits(self, marks: &[u8; 64]) -> u64 {
        // SAFETY: the token proves AVX-512, and so AVX2.
        unsafe { bits32(marks) }
    }

    #[inline(always)]
    fn emit<T: Value, I: Index>(
        self,
        base: usize,
        bits: u64,
        tile: &mut [T; 64],
        cols: &mut [I],
        vals: &mut [T],
    ) -> usize {
        let n = bits.count_ones() as usize;
        let (cols, vals) = (&mut cols[..n], &mut vals[..n]);
        match I::as_u32_mut(cols) {
            // SAFETY: the token proves AVX-512; T is eight bytes without padding, and both outputs hold
            // exactly as many elements as bits are set.
            Some(cols) if size_of::<T>() == 8 => unsafe {
                emit8(base as u32, bits, tile.as_ptr().cast(), cols, vals.as_mut_ptr().cast());
                *tile = [T::NEUTRAL; 64];
                n
            },
            _ => portable::emit(base, bits, tile, cols, vals),
        }
    }
}

/// [`Vector::find`], sixteen keys at a time. The groups are aligned, so a group never crosses the end.
#[inline]
#[target_feature(enable = "avx512f")]
fn find16(keys: &[u32], start: usize, key: u32) -> usize {
    let (groups, []) = keys.as_chunks::<16>() else { return portable::find(keys, start, key) };
    let (wanted, empty) = (_mm512_set1_epi32(key as i32), _mm512_set1_epi32(-1));
    let mut group = start / 16;
    let mut live = u16::MAX << (start % 16);
    loop {
        // SAFETY: a group is sixteen u32; the load has no alignment of its own to keep.
        let found = unsafe { _mm512_loadu_si512(groups[group].as_ptr().cast()) };
        let hits = (_mm512_cmpeq_epi32_mask(found, wanted) | _mm512_cmpeq_epi32_mask(found, empty)) & live;
        if hits != 0 {
            return group * 16 + hits.trailing_zeros() as usize;
        }
        live = u16::MAX;
        group = if group + 1 == groups.len() { 0 } else { group + 1 };
    }
}

/// [`Vector::emit`] for values of eight bytes: each byte of the bitmap compresses eight columns at once.
///
/// # Safety
/// `tile` points to 64 values of eight bytes; `vals` has room for as many as bits are set, which is the length
/// of `cols`.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,popcnt")]
unsafe fn emit8(base: u32, bits: u64, tile: *const i64, cols: &mut [u32], vals: *mut i64) {
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let out = cols.as_mut_ptr();
    let mut at = 0;
    for byte in 0..8 {
        let mask = (bits >> (8 * byte)) as u8;
        if mask == 0 {
            continue;
        }
        let n = mask.count_ones();
        let full = (0xFFu32 >> (8 - n)) as u8;
        let column = _mm256_add_epi32(lanes, _mm256_set1_epi32(base.wrapping_add(8 * byte as u32) as i32));
        // SAFETY: the load reads values 8 byte .. 8 byte + 8 of the tile's 64. The stores write n elements from
        // `at` on, and all n of all bytes together are the bits set, for which both outputs have room.
        unsafe {
            let value = _mm512_loadu_epi64(tile.add(8 * byte));
            _mm512_mask_storeu_epi64(vals.add(at), full, _mm512_maskz_compress_epi64(mask, value));
            _mm256_mask_storeu_epi32(out.add(at).cast(), full, _mm256_maskz_compress_epi32(mask, column));
        }
        at += n as usize;
    }
}
