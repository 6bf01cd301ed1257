//! Flips from a keyed hash: without state, for any point at once.
//!
//! The digits are taken six at a time. For each prefix of 6 k digits a hash of 64 bits holds the 63 flips of the
//! subtree of the next six levels: the node at level l of the subtree with local prefix q (l digits) has bit `64 -
//! 2^(l+1) + q`. So the six flips on the way to a leaf are those bits that a mask of six bits, one of 64, picks
//! out in order of level. The hash of a longer prefix comes from that of the shorter one and the six digits
//! between: their number is spread to 64 bits by a table, added without carry, and multiplied by a key; low and
//! high half of the product are added without carry (as in W. Yi's wyhash).
//!
//! With m columns, m + 8 levels are treated so; points that agree longer are too rare to matter, and the levels
//! below take their flips from one hash of the prefix.

use kc_core::Isa;

use crate::rng::Seed;

/// Levels of a subtree.
pub(in crate::net2) const LEVELS: u32 = 6;

/// Coordinates whose hashes are computed side by side: each waits for its own last multiplication.
const ABREAST: usize = 8;

/// Levels beyond the number of columns that have flips of their own.
pub(in crate::net2) const MARGIN: u32 = 8;

/// What six digits lead to.
#[derive(Debug)]
struct Paths {
    /// The mask of the flips on their way.
    masks: [u64; 64],
    /// Their number, spread to 64 bits.
    spreads: [u64; 64],
}

static PATHS: Paths = {
    let mut paths = Paths { masks: [0; 64], spreads: [0; 64] };
    let mut digits = 0;
    while digits < 64 {
        let mut level = 0;
        while level < LEVELS {
            paths.masks[digits] |= 1 << (64 - (2 << level) + (digits >> (LEVELS - level)));
            level += 1;
        }
        paths.spreads[digits] = spread(digits as u64);
        digits += 1;
    }
    paths
};

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
    paths: &'static Paths,
}

impl Hash {
    pub(super) fn new(columns: usize, bits: u32) -> Self {
        let levels = bits.min(columns as u32 + MARGIN);
        Self { bits, subtrees: levels.div_ceil(LEVELS).min(64 / LEVELS), paths: &PATHS }
    }

    /// Scrambles rows of as many values as there are keys.
    pub(super) fn scramble(self, isa: Isa, keys: &[Key], rows: &mut [u64]) {
        // Short rows are taken several at a time.
        let copies = if keys.len() < 8 * ABREAST { ABREAST >> keys.len().trailing_zeros().min(3) } else { 1 };
        let keys = keys.repeat(copies);
        #[cfg(target_arch = "x86_64")]
        crate::net2::x86::hash(isa, self, &keys, rows);
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = isa;
            self.scramble_with(&keys, rows, pick);
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
        for row in rows.chunks_mut(keys.len()) {
            let (groups, rest) = row.as_chunks_mut::<ABREAST>();
            let rest_keys = &keys[groups.len() * ABREAST..];
            for (x, keys) in groups.iter_mut().zip(keys.as_chunks::<ABREAST>().0) {
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
        // The digits left, first on top, and below them the flips so far.
        let mut tape = x.map(|x| x << unused);
        let mut state = keys.map(|key| key.start);
        for _ in 0..self.subtrees {
            for v in 0..N {
                let digits = (tape[v] >> (64 - LEVELS)) as usize;
                tape[v] = tape[v] << LEVELS | pick(state[v], self.paths.masks[digits]);
                let product = u128::from(state[v] ^ self.paths.spreads[digits]) * u128::from(keys[v].factor);
                state[v] = product as u64 ^ (product >> 64) as u64;
            }
        }
        for v in 0..N {
            x[v] ^= (tape[v] << (64 - known) | state[v] >> known) >> unused;
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
