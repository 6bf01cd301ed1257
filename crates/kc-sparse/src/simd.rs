//! How one generic kernel body runs at several instruction levels.
//!
//! A [`Kernel`] is compiled once per level: its body is `#[inline(always)]`, so inside of a function with that
//! level's instructions switched on, the compiler vectorises it with them. The few steps that need
//! instructions of their own are methods of [`Vector`].

use kc_core::{Isa, Level};

use crate::csr::{Index, Value};
use crate::smash::portable;
#[cfg(target_arch = "x86_64")]
use crate::smash::x86;

/// A computation that is compiled for every level.
pub(crate) trait Kernel {
    /// Its result.
    type Out;
    /// Runs it. Implementations are `#[inline(always)]`.
    fn run<V: Vector>(self, v: V) -> Self::Out;
}

/// The steps that differ between levels.
pub(crate) trait Vector: Copy {
    /// Asks for the cache line of `data[at]`; nothing happens past the end.
    fn prefetch<T>(self, data: &[T], at: usize);

    /// The first slot, from `start` on and around the end, that holds `key` or is empty ([`Index::MAX`]).
    /// `keys` has a power of two slots, one of them empty.
    fn find<I: Index>(self, keys: &[I], start: usize, key: I) -> usize;

    /// Bit `t` is the lowest bit of `marks[t]`, each of which is all zeros or all ones.
    fn bits(self, marks: &[u8; 64]) -> u64;

    /// Writes the columns `base + t` and values `tile[t]` of the set bits `t`, in order, and leaves
    /// [`Value::NEUTRAL`] in their place; their number is returned. Both outputs have room for them.
    fn emit<T: Value, I: Index>(
        self,
        base: usize,
        bits: u64,
        tile: &mut [T; 64],
        cols: &mut [I],
        vals: &mut [T],
    ) -> usize;
}

/// Runs `kernel` at the level of `isa`.
#[inline]
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Out {
    #[cfg(target_arch = "x86_64")]
    match isa.level() {
        Level::Portable => {}
        Level::Avx2 => return x86::avx2(isa, kernel),
        _ => return x86::avx512(isa, kernel),
    }
    debug_assert!(cfg!(target_arch = "x86_64") || isa.level() == Level::Portable);
    portable::run(kernel)
}
