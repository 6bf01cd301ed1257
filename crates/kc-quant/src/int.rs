//! Dense streams of codes of 1 to 8 bits: little-endian, least significant bit first, as most weight files hold
//! them.
//!
//! Code `i` of a stream occupies its bits `b i .. b i + b`; a stream starts at a word of its own.
//!
//! ```
//! use kc_quant::int::{pack_stream, stream_words, unpack_stream};
//! let codes = [1u8, 2, 3, 62, 63, 0];
//! let mut words = vec![0u32; stream_words(codes.len(), 6)];
//! pack_stream(&codes, 6, &mut words);
//! assert_eq!(words[0], 1 | 2 << 6 | 3 << 12 | 62 << 18 | 63 << 24);
//! let mut back = [0u8; 6];
//! unpack_stream(&words, 6, &mut back);
//! assert_eq!(back, codes);
//! ```

/// Words of 32 bits that `count` codes of `bits` bits take.
pub fn stream_words(count: usize, bits: u8) -> usize {
    // In two parts, so that no count overflows.
    count / 32 * usize::from(bits) + (count % 32 * usize::from(bits)).div_ceil(32)
}

/// Packs `codes`, of which only the low `bits` (1 to 8) bits count. Bits behind the last code become 0.
///
/// # Panics
/// If `words` is shorter than [`stream_words`], which is a mistake in the calling code.
pub fn pack_stream(codes: &[u8], bits: u8, words: &mut [u32]) {
    let words = &mut words[..stream_words(codes.len(), bits)];
    let mask = (1u64 << bits) - 1;
    let (mut hold, mut held) = (0u64, 0u32);
    let mut words = words.iter_mut();
    for &code in codes {
        hold |= (u64::from(code) & mask) << held;
        held += u32::from(bits);
        if held >= 32 {
            if let Some(word) = words.next() {
                *word = hold as u32;
            }
            hold >>= 32;
            held -= 32;
        }
    }
    if let Some(word) = words.next() {
        *word = hold as u32;
    }
}

/// Unpacks as many codes of `bits` (1 to 8) bits as `codes` holds.
///
/// # Panics
/// If `words` is shorter than [`stream_words`], which is a mistake in the calling code.
pub fn unpack_stream(words: &[u32], bits: u8, codes: &mut [u8]) {
    let mut words = words[..stream_words(codes.len(), bits)].iter();
    let mask = (1u64 << bits) - 1;
    let (mut hold, mut held) = (0u64, 0u32);
    for code in codes {
        if held < u32::from(bits) {
            hold |= u64::from(words.next().copied().unwrap_or(0)) << held;
            held += 32;
        }
        *code = (hold & mask) as u8;
        hold >>= bits;
        held -= u32::from(bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_and_length_round_trips() {
        for bits in 1..=8u8 {
            for len in [0usize, 1, 3, 31, 32, 33, 128, 200] {
                let codes: Vec<u8> =
                    (0..len).map(|i| ((i * 37 + 11) % 256) as u8 & (0xff >> (8 - bits))).collect();
                let mut words = vec![u32::MAX; stream_words(len, bits)];
                assert_eq!(words.len(), (len * usize::from(bits)).div_ceil(32));
                pack_stream(&codes, bits, &mut words);
                for (i, &code) in codes.iter().enumerate() {
                    for b in 0..usize::from(bits) {
                        let at = i * usize::from(bits) + b;
                        assert_eq!(words[at / 32] >> (at % 32) & 1, u32::from(code) >> b & 1);
                    }
                }
                let mut back = vec![0xff; len];
                unpack_stream(&words, bits, &mut back);
                assert_eq!(back, codes);
            }
        }
    }
}
