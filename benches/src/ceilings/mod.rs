//! What the machine can do at most: the denominators of every "fraction of the limit".
//!
//! Arithmetic is measured on registers only, memory on blocks far larger than any cache, both with one
//! thread, as the best of several tries.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::hint::black_box;
use std::time::Instant;

use kc_core::Isa;
use serde::Serialize;

/// One thread's limits, per second.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ceilings {
    /// Bytes read and written while copying memory.
    pub(crate) copy_bytes: f64,
    /// Bytes read while summing memory.
    pub(crate) read_bytes: f64,
    /// Bytes written around the caches, and through them where the level has no such stores.
    pub(crate) store_bytes: f64,
    /// Operations of f32 multiply-adds (two each) at the best level.
    pub(crate) f32_flops: f64,
    /// Operations of u8 x i8 multiply-adds into i32 (two each) at the best level.
    pub(crate) byte_ops: f64,
}

/// Larger than the shared caches of common processors.
const BLOCK: usize = 256 << 20;
const TRIES: usize = 5;

/// Measures; takes about a second.
pub(crate) fn measure(isa: Isa) -> Ceilings {
    // Zero pages until they are written, so that the advice comes in time.
    let (mut words, mut target) = (vec![0u64; BLOCK / 8], vec![0u64; BLOCK / 8]);
    kc_core::advise_huge_pages(&mut words);
    kc_core::advise_huge_pages(&mut target);
    words.fill(1);
    let copy = best_of(|| {
        target.copy_from_slice(black_box(&words));
        black_box(&mut target);
    });
    let read = best_of(|| {
        black_box(sum(isa, black_box(&words)));
    });
    let store = best_of(|| {
        store(isa, &mut target, black_box(3));
        black_box(&mut target);
    });
    let bytes = BLOCK as f64;
    Ceilings {
        copy_bytes: 2.0 * bytes / copy,
        read_bytes: bytes / read,
        store_bytes: bytes / store,
        f32_flops: rate(|rounds| f32_multiply_adds(isa, rounds)),
        byte_ops: rate(|rounds| byte_multiply_adds(isa, rounds)),
    }
}

fn best_of(mut body: impl FnMut()) -> f64 {
    let once = |body: &mut dyn FnMut()| {
        let start = Instant::now();
        body();
        start.elapsed().as_secs_f64()
    };
    (0..TRIES).map(|_| once(&mut body)).fold(f64::INFINITY, f64::min)
}

/// Operations per second of a loop that returns how many operations its rounds took.
fn rate(body: impl Fn(u32) -> f64) -> f64 {
    let mut operations = 0.0;
    let seconds = best_of(|| operations = body(black_box(1 << 21)));
    operations / seconds
}

fn sum(isa: Isa, words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if let Some(sum) = x86::sum(isa, words) {
        return sum;
    }
    let _ = isa;
    sum_of(words)
}

fn store(isa: Isa, words: &mut [u64], value: u64) {
    #[cfg(target_arch = "x86_64")]
    if x86::store(isa, words, value) {
        return;
    }
    let _ = isa;
    words.fill(value);
}

#[inline(always)]
fn sum_of(words: &[u64]) -> u64 {
    let (blocks, rest) = words.as_chunks::<16>();
    let mut sums = [0u64; 16];
    for block in blocks {
        for (sum, word) in sums.iter_mut().zip(block) {
            *sum = sum.wrapping_add(*word);
        }
    }
    let mut total = 0u64;
    for word in sums.iter().chain(rest) {
        total = total.wrapping_add(*word);
    }
    total
}

fn f32_multiply_adds(isa: Isa, rounds: u32) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if let Some(operations) = x86::f32_multiply_adds(isa, rounds) {
        return operations;
    }
    let _ = isa;
    let (scale, shift) = (black_box(0.999f32), black_box(0.5f32));
    let mut sums = [0.0f32; 32];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = *sum * scale + shift;
        }
    }
    black_box(sums);
    f64::from(rounds) * 64.0
}

fn byte_multiply_adds(isa: Isa, rounds: u32) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if let Some(operations) = x86::byte_multiply_adds(isa, rounds) {
        return operations;
    }
    let _ = isa;
    let (codes, weights) = (black_box([3u8; 32]), black_box([-5i8; 32]));
    let mut sums = [0i32; 32];
    for _ in 0..rounds {
        for ((sum, code), weight) in sums.iter_mut().zip(&codes).zip(&weights) {
            *sum = sum.wrapping_add(i32::from(*code) * i32::from(*weight));
        }
        black_box(&mut sums);
    }
    f64::from(rounds) * 64.0
}
