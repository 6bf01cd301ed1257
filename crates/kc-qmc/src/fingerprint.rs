//! Names that are equal only for equal things.

use std::fmt::{Display, Write};

/// A text of named fields; long lists enter as a digest of 128 bits.
#[derive(Debug)]
pub(crate) struct Fingerprint(String);

impl Fingerprint {
    /// Begins with what it is.
    pub(crate) fn new(kind: &str) -> Self {
        Self(kind.to_owned())
    }

    /// Adds a field.
    pub(crate) fn field(mut self, name: &str, value: impl Display) -> Self {
        // Writing to a String cannot fail.
        let _ = write!(self.0, " {name}={value}");
        self
    }

    /// Adds a list of integers.
    pub(crate) fn integers(self, name: &str, values: impl IntoIterator<Item = u64>) -> Self {
        let (mut low, mut high, mut len) = (0x243F_6A88_85A3_08D3u64, 0x1319_8A2E_0370_7344u64, 0u64);
        for value in values {
            low = mix(low ^ value);
            high = mix(high.wrapping_add(value)).rotate_left(23) ^ low;
            len += 1;
        }
        self.field(name, format_args!("{len}:{low:016x}{high:016x}"))
    }

    /// Adds a list of numbers, by their bits.
    pub(crate) fn floats(self, name: &str, values: &[f64]) -> Self {
        self.integers(name, values.iter().map(|value| value.to_bits()))
    }

    /// The text.
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// A one-to-one scrambling of 64 bits (S. Vigna's SplitMix64).
fn mix(value: u64) -> u64 {
    let mut x = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}
