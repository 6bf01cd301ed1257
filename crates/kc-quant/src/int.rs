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

/// Calls `$name::<BITS>` for the width that is known at run time. Widths outside of 1 to 8 count as 8.
macro_rules! with_bits {
    ($bits:expr, $name:ident($($arg:expr),*)) => {
        match $bits {
            1 => $name::<1>($($arg),*),
            2 => $name::<2>($($arg),*),
            3 => $name::<3>($($arg),*),
            4 => $name::<4>($($arg),*),
            5 => $name::<5>($($arg),*),
            6 => $name::<6>($($arg),*),
            7 => $name::<7>($($arg),*),
            _ => $name::<8>($($arg),*),
        }
    };
}
pub(crate) use with_bits;

/// Unpacks as many codes of `bits` (1 to 8) bits as `codes` holds.
///
/// # Panics
/// If `words` is shorter than [`stream_words`], which is a mistake in the calling code.
pub fn unpack_stream(words: &[u32], bits: u8, codes: &mut [u8]) {
    let words = &words[..stream_words(codes.len(), bits)];
    with_bits!(bits, unpack_words(words, codes));
}

fn unpack_words<const B: usize>(words: &[u32], codes: &mut [u8]) {
    let (blocks, rest) = codes.as_chunks_mut::<32>();
    let (full, _) = words.as_chunks::<B>();
    for (block, words) in blocks.iter_mut().zip(full) {
        *block = unpack_block::<B>(words);
    }
    let last = &words[blocks.len() * B..];
    if !rest.is_empty() {
        let mut padded = [0; B];
        padded[..last.len()].copy_from_slice(last);
        rest.copy_from_slice(&unpack_block::<B>(&padded)[..rest.len()]);
    }
}

/// The 32 codes of a stream's block of `B` words: eight codes at a time are `8 B` bits, which fit 64.
#[inline(always)]
pub(crate) fn unpack_block<const B: usize>(words: &[u32; B]) -> [u8; 32] {
    let mut codes = [0; 32];
    for i in 0..4 {
        let (word, shift) = (8 * B * i / 32, 8 * B * i % 32);
        let mut bits = u64::from(words[word]) >> shift;
        if shift + 8 * B > 32 {
            bits |= u64::from(words[word + 1]) << (32 - shift);
        }
        if shift + 8 * B > 64 {
            bits |= u64::from(words[word + 2]) << (64 - shift);
        }
        codes[8 * i..8 * i + 8].copy_from_slice(&spread::<B>(bits).to_le_bytes());
    }
    codes
}

/// Eight codes of `B` bits, dense from bit 0 (what lies above them is ignored), to one code in each byte.
#[inline(always)]
pub(crate) fn spread<const B: usize>(bits: u64) -> u64 {
    // Each step halves the runs of codes and moves the upper halves to the middle of their lanes.
    let four = low(4 * B, 64);
    let two = low(2 * B, 32);
    let one = low(B, 16);
    let x = (bits & four) | ((bits >> (4 * B)) & four) << 32;
    let x = (x & two) | ((x >> (2 * B)) & two) << 16;
    (x & one) | ((x >> B) & one) << 8
}

/// The low `count` bits of each lane of `lane` bits.
const fn low(count: usize, lane: usize) -> u64 {
    let mut mask = 0;
    let mut at = 0;
    while at < 64 {
        mask |= ((1u64 << count) - 1) << at;
        at += lane;
    }
    mask
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
