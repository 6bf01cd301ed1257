//! NumPy's `Generator(SFC64(SeedSequence(seed)))`, bit for bit: what makes a seed mean the same points as in
//! QMCPy.
//!
//! Sources: M. O'Neill's seed sequence as in NumPy's `SeedSequence`; C. Doty-Humphrey's SFC64; D. Lemire, *Fast
//! random integer generation in an interval* (2019).

use std::str::FromStr;

use kc_core::{Error, Result};

/// The state of a NumPy `SeedSequence`: any non-negative integer, and the path of spawned children.
///
/// ```
/// use kc_qmc::rng::Seed;
/// let big: Seed = "340282366920938463463374607431768211456".parse()?; // 2^128
/// assert_eq!(big.rng().next_u64(), big.rng().next_u64());
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// 32-bit words, least significant first.
    words: Vec<u32>,
    path: Vec<u32>,
    children: u32,
}

impl From<u64> for Seed {
    fn from(seed: u64) -> Self {
        u128::from(seed).into()
    }
}

impl From<u128> for Seed {
    fn from(mut seed: u128) -> Self {
        let mut words = vec![seed as u32];
        seed >>= 32;
        while seed > 0 {
            words.push(seed as u32);
            seed >>= 32;
        }
        Self { words, path: Vec::new(), children: 0 }
    }
}

impl FromStr for Seed {
    type Err = Error;

    /// A decimal number of any size (up to 10 000 digits).
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() || text.len() > 10_000 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::argument("seed", "a non-negative decimal integer", text));
        }
        let mut words = vec![0u32];
        for digit in text.bytes() {
            let mut carry = u64::from(digit - b'0');
            for word in &mut words {
                let wide = u64::from(*word) * 10 + carry;
                *word = wide as u32;
                carry = wide >> 32;
            }
            if carry > 0 {
                words.push(carry as u32);
            }
        }
        Ok(Self { words, path: Vec::new(), children: 0 })
    }
}

impl Seed {
    /// A seed from the operating system's entropy.
    pub fn from_entropy() -> Self {
        use std::hash::{BuildHasher, RandomState};
        let word = || u128::from(RandomState::new().hash_one(0u8));
        (word() | word() << 64).into()
    }

    /// The integer, if it has at most 64 bits and is nobody's child.
    pub fn as_u64(&self) -> Option<u64> {
        let [low, rest @ ..] = self.words.as_slice() else { return Some(0) };
        match rest {
            _ if !self.path.is_empty() => None,
            [] => Some(u64::from(*low)),
            [high] => Some(u64::from(*low) | u64::from(*high) << 32),
            _ => None,
        }
    }

    /// The next `count` children, in order. Children of later calls go on where this one stopped.
    pub fn spawn(&mut self, count: usize) -> Vec<Seed> {
        let first = self.children;
        self.children += count as u32;
        (first..self.children)
            .map(|child| {
                let mut path = self.path.clone();
                path.push(child);
                Seed { words: self.words.clone(), path, children: 0 }
            })
            .collect()
    }

    /// A fresh generator of this seed.
    pub fn rng(&self) -> Sfc64 {
        let [a, b, c] = self.state();
        let mut rng = Sfc64 { a, b, c, counter: 1, high: None };
        for _ in 0..12 {
            rng.next_u64();
        }
        rng
    }

    /// The decimal digits of the integer, then `/child` for each step of the path: names a seed in messages and
    /// state files.
    pub fn name(&self) -> String {
        let mut words = self.words.clone();
        let mut groups = Vec::new();
        while words.iter().any(|&w| w > 0) {
            let mut rest = 0u64;
            for word in words.iter_mut().rev() {
                let wide = rest << 32 | u64::from(*word);
                *word = (wide / 1_000_000_000) as u32;
                rest = wide % 1_000_000_000;
            }
            groups.push(rest);
        }
        let mut name = groups.pop().unwrap_or(0).to_string();
        for group in groups.iter().rev() {
            name += &format!("{group:09}");
        }
        for child in &self.path {
            name += &format!("/{child}");
        }
        name
    }

    /// The mixed pool of four words (NumPy's `SeedSequence.pool`).
    pub fn pool(&self) -> [u32; 4] {
        let mut words = self.words.clone();
        if !self.path.is_empty() {
            words.resize(words.len().max(4), 0);
            words.extend(&self.path);
        }
        let mut h = 0x43B0_D7E5u32;
        let mut hashmix = |v: u32| {
            let v = v ^ h;
            h = h.wrapping_mul(0x931E_8875);
            let v = v.wrapping_mul(h);
            v ^ v >> 16
        };
        let mix = |x: u32, y: u32| {
            let v = x.wrapping_mul(0xCA01_F9DD).wrapping_sub(y.wrapping_mul(0x4973_F715));
            v ^ v >> 16
        };
        let mut pool = [0u32; 4];
        for (i, slot) in pool.iter_mut().enumerate() {
            *slot = hashmix(words.get(i).copied().unwrap_or(0));
        }
        for source in 0..4 {
            for target in 0..4 {
                if source != target {
                    pool[target] = mix(pool[target], hashmix(pool[source]));
                }
            }
        }
        for &word in words.iter().skip(4) {
            for slot in &mut pool {
                *slot = mix(*slot, hashmix(word));
            }
        }
        pool
    }

    fn state(&self) -> [u64; 3] {
        let pool = self.pool();
        let mut h = 0x8B51_F9DDu32;
        let mut word = |i: usize| {
            let v = pool[i % 4] ^ h;
            h = h.wrapping_mul(0x58F3_8DED);
            let v = v.wrapping_mul(h);
            u64::from(v ^ v >> 16)
        };
        let mut state = [0u64; 3];
        for (i, slot) in state.iter_mut().enumerate() {
            let low = word(2 * i);
            *slot = low | word(2 * i + 1) << 32;
        }
        state
    }
}

/// NumPy's SFC64 generator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sfc64 {
    a: u64,
    b: u64,
    c: u64,
    counter: u64,
    /// The unused high half of the last word that 32-bit draws took.
    high: Option<u32>,
}

impl Sfc64 {
    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let t = self.a.wrapping_add(self.b).wrapping_add(self.counter);
        self.counter = self.counter.wrapping_add(1);
        self.a = self.b ^ self.b >> 11;
        self.b = self.c.wrapping_add(self.c << 3);
        self.c = self.c.rotate_left(24).wrapping_add(t);
        t
    }

    /// 32 random bits: the low half of a word, then its high half.
    pub fn next_u32(&mut self) -> u32 {
        match self.high.take() {
            Some(high) => high,
            None => {
                let word = self.next_u64();
                self.high = Some((word >> 32) as u32);
                word as u32
            }
        }
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `0..bound`, as NumPy's `integers(0, bound)`; `bound` may be up to 2^64. 0 if `bound` is 0 or 1,
    /// which draws nothing.
    pub fn below(&mut self, bound: u128) -> u64 {
        const WORD32: u128 = 1 << 32;
        const WORD64: u128 = 1 << 64;
        match bound {
            0 | 1 => 0,
            WORD32 => u64::from(self.next_u32()),
            bound if bound >= WORD64 => self.next_u64(),
            bound if bound < WORD32 => {
                let bound = bound as u32;
                let mut wide = u64::from(self.next_u32()) * u64::from(bound);
                if (wide as u32) < bound {
                    let threshold = bound.wrapping_neg() % bound;
                    while (wide as u32) < threshold {
                        wide = u64::from(self.next_u32()) * u64::from(bound);
                    }
                }
                wide >> 32
            }
            bound => {
                let short = bound as u64;
                let mut wide = u128::from(self.next_u64()) * bound;
                if (wide as u64) < short {
                    let threshold = short.wrapping_neg() % short;
                    while (wide as u64) < threshold {
                        wide = u128::from(self.next_u64()) * bound;
                    }
                }
                (wide >> 64) as u64
            }
        }
    }

    /// A uniform integer of `bits` bits (at most 64).
    ///
    /// The same draws as [`below`](Self::below)`(2^bits)`, which for powers of 2 never rejects.
    pub fn bits(&mut self, bits: u32) -> u64 {
        match bits {
            0 => 0,
            1..=32 => u64::from(self.next_u32() >> (32 - bits)),
            _ => self.next_u64() >> (64 - bits.min(64)),
        }
    }

    /// A random permutation of `0..len`, as NumPy's `permutation(len)`.
    pub fn permutation(&mut self, len: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len as u32).collect();
        self.shuffle(&mut order);
        order
    }

    /// Permutes `values` (fewer than 2^32), as NumPy's `shuffle`.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for i in (1..values.len()).rev() {
            let mask = u32::MAX >> (i as u32).leading_zeros();
            let j = loop {
                let draw = self.next_u32() & mask;
                if draw <= i as u32 {
                    break draw as usize;
                }
            };
            values.swap(i, j);
        }
    }
}
