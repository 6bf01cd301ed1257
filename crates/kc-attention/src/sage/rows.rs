//! Rows of a head as f32, and what is done to a row: sums, largest magnitude, codes.

use kc_core::{Float, Isa, TensorView};

use super::kernel::SIDE;
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// The rows of a `[N, D]` view as f32: borrowed where they are, else converted one at a time.
pub(super) struct Rows<'a, E: Float> {
    view: TensorView<'a, E, 2>,
    plain: Option<TensorView<'a, f32, 2>>,
    buffer: Vec<f32>,
}

/// Rows that [`Rows::eight`] gives.
pub(super) const EIGHT: usize = 8;

impl<'a, E: Float> Rows<'a, E> {
    pub(super) fn new(view: TensorView<'a, E, 2>) -> Self {
        Rows { view, plain: view.as_type(), buffer: Vec::new() }
    }

    /// Row `i`, if it lies in memory as it is.
    #[inline]
    pub(super) fn direct(&self, i: usize) -> Option<&'a [f32]> {
        self.plain.and_then(|view| view.row_slice(i))
    }

    /// Row `i`; the next call may overwrite it.
    #[inline]
    pub(super) fn get(&mut self, i: usize) -> &[f32] {
        if let Some(row) = self.direct(i) {
            return row;
        }
        self.buffer.clear();
        self.convert(i);
        &self.buffer
    }

    /// Rows `first..first + 8`, the last row in place of those that are not there; the next call may overwrite them.
    pub(super) fn eight(&mut self, first: usize) -> [&[f32]; EIGHT] {
        let (last, d) = (self.view.rows() - 1, self.view.cols());
        let at: [usize; EIGHT] = std::array::from_fn(|r| (first + r).min(last));
        if let Some(row) = self.direct(at[0]) {
            return at.map(|i| self.direct(i).unwrap_or(row));
        }
        self.buffer.clear();
        for i in at {
            self.convert(i);
        }
        std::array::from_fn(|r| &self.buffer[r * d..][..d])
    }

    fn convert(&mut self, i: usize) {
        match self.view.row_slice(i) {
            Some(row) => self.buffer.extend(row.iter().map(|x| x.to_f32())),
            None => self.buffer.extend(self.view.row(i).iter().map(|x| x.to_f32())),
        }
    }
}

/// Hands the loops that `portable` has for any processor, and `x86` compiles for AVX2, to a macro.
macro_rules! each_loop {
    ($define:ident) => {
        $define! {
            /// Adds a row to sums.
            add(row: &[f32], sums: &mut [f64]);
            /// The bits of the largest `|x - mean|`; those of NaN if there is one. No mean, if it is empty.
            largest(row: &[f32], mean: &[f32]) -> u32;
            /// `round((x - mean) * inverse)`, half to even, within `±limit`.
            encode(row: &[f32], mean: &[f32], inverse: f32, limit: f32, out: &mut [i8]);
            /// `round(x * inverse)`, half to even, within `±limit`, with an inverse for each channel.
            encode_channels(row: &[f32], inverse: &[f32], limit: f32, out: &mut [i8]);
            /// Raises the bits of the largest `|x - mean|` of each channel.
            widen(row: &[f32], mean: &[f32], top: &mut [u32]);
            /// Codes of 16 bits of the channels of two rows, side by side in one word; 16 channels, then `16 KEYS / 2` words on.
            interleave(a: &[f32], b: &[f32], inverse: &[f32], limit: f32, raise: i32, out: &mut [i32]);
            /// Codes as 16 bits, raised.
            lengthen(codes: &[i8], raise: i16, out: &mut [i16]);
            /// The sum of codes.
            total(codes: &[i8]) -> i32;
            /// For each of the keys of a side, the sums of the unsigned halves of its words.
            sum_halves(words: &[i32], sums: &mut [i32; SIDE]);
            /// For each of the keys of a side, the sums of the first and of the last two signed bytes of its words.
            sum_bytes(words: &[i32], sums: &mut [[i32; SIDE]; 2]);
            /// Multiplies all elements.
            scale(row: &mut [f32], factor: f32);
            /// `x * factor`.
            scaled(x: &[f32], factor: f32, out: &mut [f32]);
            /// `sum x (y - mean)`; no mean, if it is empty.
            dot_without(x: &[f32], y: &[f32], mean: &[f32]) -> f32;
            /// The same of eight `y`.
            eight_dots_without(x: &[f32], y: &[&[f32]; EIGHT], mean: &[f32]) -> [f32; EIGHT];
            /// Two codes of 4 bits in each byte, as bytes.
            expand_bytes(packed: &[u8], out: &mut [i8]);
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use each_loop;

/// Defines the entry of each loop: the body compiled for the level. Every level gives the same bits.
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

each_loop!(loops);
