//! Short vectors that the kernels are written in: arrays everywhere, registers where the processor has them.

pub(crate) mod portable;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

/// `L` numbers that are worked on together. All operations are element by element.
pub(crate) trait Lanes<T, const L: usize>: Copy {
    fn load(from: &[T; L]) -> Self;
    fn store(self, to: &mut [T; L]);
    fn splat(x: T) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * by + plus`, rounded once where the processor can.
    fn fma(self, by: Self, plus: Self) -> Self;
    /// `less - self * by`.
    fn fnma(self, by: Self, from: Self) -> Self;
    /// Lane `l` becomes what lane `l ^ step` was; `step` is 1, 2 or 4 and below `L`.
    fn swap(self, step: usize) -> Self;
    /// `L` complex numbers, stored one after the other, as real and imaginary parts.
    fn split(from: &[[T; L]; 2]) -> [Self; 2];
    /// The opposite of [`split`](Self::split).
    fn join(parts: [Self; 2], to: &mut [[T; L]; 2]);
}
