//! Flips from a keyed hash: without state, for any point at once.
//!
//! The digits are taken six at a time. For each prefix of 6 k digits a hash of 64 bits holds the 63 flips of the subtree
//! of the next six levels: the node at level l of the subtree with local prefix q (l digits) has bit
//! `64 - 2^(l+1) + q`. So the six flips on the way to a leaf are those bits that a mask of six bits, one of 64, picks out
//! in order of level. The hash of a longer prefix comes from that of the shorter one and the six digits between: their
//! number is spread to 64 bits by a table, added without carry, and multiplied by a key; low and high half of the product
//! are added without carry (as in W. Yi's wyhash).
//!
//! With m columns, m + 8 levels are treated so; points that agree longer are too rare to matter, and the levels below take
//! their flips from one hash of the prefix.

use kc_core::Isa;

use crate::rng::Seed;

/// Levels of a subtree.
pub(in crate::net2) const LEVELS: u32 = 6;

/// Levels beyond the number of columns that have flips of their own.
pub(in crate::net2) const MARGIN: u32 = 8;

/// For each six digits: the mask of the flips on their way, and their number spread to 64 bits.
pub(super) static PATHS: [Path; 64] = paths();

/// An entry of [`PATHS`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    pub(super) mask: u64,
    pub(super) spread: u64,
}

const fn paths() -> [Path; 64] {
    let mut paths = [Path { mask: 0, spread: 0 }; 64];
    let mut digits = 0;
    while digits < 64 {
        let mut level = 0;
        while level < LEVELS {
            paths[digits].mask |= 1 << (64 - (2 << level) + (digits >> (LEVELS - level)));
            level += 1;
        }
        paths[digits].spread = spread(digits as u64);
        digits += 1;
    }
    paths
}

/// A number's 64 bits of its own: output `digits` of G. Steele's SplitMix64 from state 0.
pub(in crate::net2) const fn spread(digits: u64) -> u64 {
    let z = (digits + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

/// The keys of one coordinate.
#[derive(Debug, Clone, Copy)]
pub(in crate::net2) struct Key {
    /// The hash of the empty prefix.
    pub(in crate::net2) start: u64,
    /// An odd factor above 2^63.
    pub(in crate::net2) factor: u64,
}

impl Key {
    /// From a coordinate's seed, by its first child: the seed's own numbers are the trie's.
    pub(in crate::net2) fn new(mut seed: Seed) -> Self {
        let [child] = &seed.spawn(1)[..] else { return Self { start: 0, factor: 1 } };
        let mut rng = child.rng();
        Self { start: rng.next_u64(), factor: rng.next_u64() | 1 << 63 | 1 }
    }

    pub(super) fn word(&self) -> u64 {
        self.start ^ self.factor.rotate_left(1)
    }
}

/// How points of some form are scrambled.
#[derive(Debug, Clone, Copy)]
pub(in crate::net2) struct Hash {
    bits: u32,
    /// Subtrees on the way down.
    subtrees: u32,
}

impl Hash {
    pub(super) fn new(columns: usize, bits: u32) -> Self {
        let levels = bits.min(columns as u32 + MARGIN);
        Self { bits, subtrees: levels.div_ceil(LEVELS).min(64 / LEVELS) }
    }

    /// Scrambles rows of as many values as there are keys.
    pub(super) fn scramble(self, isa: Isa, keys: &[Key], rows: &mut [u64]) {
        #[cfg(target_arch = "x86_64")]
        crate::net2::x86::hash(isa, self, keys, rows);
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = isa;
            self.scramble_with(keys, rows, pick);
        }
    }

    /// [`scramble`](Self::scramble) with a function that gathers the bits under a mask of [`PATHS`].
    #[inline(always)]
    pub(in crate::net2) fn scramble_with(
        self,
        keys: &[Key],
        rows: &mut [u64],
        pick: impl Fn(u64, u64) -> u64,
    ) {
        for row in rows.chunks_exact_mut(keys.len()) {
            // A point's hashes wait for each other; those of other coordinates need not.
            let (fours, rest) = row.as_chunks_mut::<4>();
            let (four_keys, rest_keys) = keys.as_chunks::<4>();
            for (x, keys) in fours.iter_mut().zip(four_keys) {
                self.flip(keys, x, &pick);
            }
            for (x, key) in rest.iter_mut().zip(rest_keys) {
                self.flip(std::array::from_ref(key), std::array::from_mut(x), &pick);
            }
        }
    }

    /// Flips the digits of some coordinates.
    #[inline(always)]
    fn flip<const N: usize>(self, keys: &[Key; N], x: &mut [u64; N], pick: impl Fn(u64, u64) -> u64) {
        let unused = 64 - self.bits;
        let known = self.subtrees * LEVELS;
        let mut rest = x.map(|x| x << unused);
        let mut state = keys.map(|key| key.start);
        let mut flips = [0; N];
        for _ in 0..self.subtrees {
            for v in 0..N {
                let path = &PATHS[(rest[v] >> (64 - LEVELS)) as usize];
                rest[v] <<= LEVELS;
                flips[v] = flips[v] << LEVELS | pick(state[v], path.mask);
                let product = u128::from(state[v] ^ path.spread) * u128::from(keys[v].factor);
                state[v] = product as u64 ^ (product >> 64) as u64;
            }
        }
        for v in 0..N {
            x[v] ^= (flips[v] << (64 - known) | state[v] >> known) >> unused;
        }
    }
}

/// The bits of `word` under `mask`, a mask of [`PATHS`], moved together.
pub(in crate::net2) fn pick(word: u64, mut mask: u64) -> u64 {
    let mut sum = 0;
    for at in 0..LEVELS {
        sum |= (word >> mask.trailing_zeros() & 1) << at;
        mask &= mask - 1;
    }
    sum
}
