//! Rows of a head as f32, and what is done to a row: sums, largest magnitude, codes.

use kc_core::{Float, Isa, TensorView};

use super::portable;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// The rows of a `[N, D]` view as f32: borrowed where they are, else converted one at a time.
pub(super) struct Rows<'a, E: Float> {
    view: TensorView<'a, E, 2>,
    buffer: Vec<f32>,
}

impl<'a, E: Float> Rows<'a, E> {
    pub(super) fn new(view: TensorView<'a, E, 2>) -> Self {
        Rows { view, buffer: Vec::new() }
    }

    /// Row `i`; the next call may overwrite it.
    pub(super) fn get(&mut self, i: usize) -> &[f32] {
        if let Some(row) = self.view.as_type::<f32>().and_then(|view| view.row_slice(i)) {
            return row;
        }
        self.buffer.clear();
        match self.view.row_slice(i) {
            Some(row) => self.buffer.extend(row.iter().map(|x| x.to_f32())),
            None => self.buffer.extend(self.view.row(i).iter().map(|x| x.to_f32())),
        }
        &self.buffer
    }
}

/// Runs the loop of that name compiled for the level. Every level gives the same bits.
macro_rules! loops {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub(super) fn $name(isa: Isa, $($arg: $type),*) $(-> $out)? {
            match isa.level() {
                #[cfg(target_arch = "x86_64")]
                level if level >= kc_core::Level::Avx2 => x86::$name(isa, $($arg),*),
                _ => portable::$name($($arg),*),
            }
        }
    )*};
}

loops! {
    /// Adds a row to sums.
    add(row: &[f32], sums: &mut [f64]);
    /// The bits of the largest `|x - mean|`; those of NaN if there is one. No mean, if it is empty.
    largest(row: &[f32], mean: &[f32]) -> u32;
    /// `round((x - mean) * inverse)`, half to even, within `±limit`.
    encode(row: &[f32], mean: &[f32], inverse: f32, limit: f32, out: &mut [i8]);
    /// Raises the bits of the largest `|x - mean|` of each channel.
    widen(row: &[f32], mean: &[f32], top: &mut [u32]);
    /// Codes of 16 bits of the channels of two rows, side by side in one word; 16 channels, then `16 KEYS / 2` words on.
    interleave(a: &[f32], b: &[f32], inverse: &[f32], limit: f32, out: &mut [i32]);
    /// `sum x (y - mean)`; no mean, if it is empty.
    dot_without(x: &[f32], y: &[f32], mean: &[f32]) -> f32;
    /// Two codes of 4 bits in each byte, as bytes.
    expand_bytes(packed: &[u8], out: &mut [i8]);
}
