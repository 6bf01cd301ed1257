//! A cache of keys and values in four bits.

use std::ops::Range;

use kc_core::{AlignedBuf, Error, Result, Tensor, TensorView, bf16};

use super::portable::{CODES, unpack, word_of};
use super::rope::check_finite;
use super::weights::{ScaleType, ZERO};
use crate::fp8;

/// The shape and the numbers of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvConfig {
    /// Key/value heads.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Tokens that fit.
    pub capacity: usize,
    /// Channels that share a scale; at most a head. Published: 128.
    pub group: usize,
    /// The type of the scales. Published: bf16.
    pub scale_type: ScaleType,
    /// True for a ring: when it is full, the oldest tokens make room.
    pub sliding: bool,
}

impl KvConfig {
    /// Groups of 128 channels with bf16 scales, and no sliding window.
    pub fn new(kv_heads: usize, head_dim: usize, capacity: usize) -> Self {
        Self { kv_heads, head_dim, capacity, group: 128, scale_type: ScaleType::Bf16, sliding: false }
    }

    /// The channels of a group.
    fn check(&self) -> Result<usize> {
        for (name, value) in [("kv_heads", self.kv_heads), ("head_dim", self.head_dim), ("group", self.group)]
        {
            if value == 0 {
                return Err(Error::argument(name, "at least 1", value));
            }
        }
        if self.capacity == 0 || u32::try_from(self.capacity).is_err() {
            return Err(Error::argument("capacity", "1 to 2^32 - 1 tokens", self.capacity));
        }
        Ok(self.group.min(self.head_dim))
    }
}

/// Keys or values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Keys.
    Key,
    /// Values.
    Value,
}

/// Consecutive tokens of a head as they are stored.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed<'a> {
    /// `[tokens, words]`
    pub(super) codes: &'a [u32],
    /// `[tokens, groups]`
    pub(super) scales: &'a [f32],
    /// Words of a token.
    pub(super) words: usize,
    /// Words that share a scale.
    pub(super) group: usize,
}

/// Keys and values of a sequence, each channel in four bits, with a scale for each token, head and group of channels.
///
/// 4.125 bits per element with heads of 128 channels. All memory is taken at once; the system provides it when it is
/// first written.
///
/// ```
/// use kc_core::TensorView;
/// use kc_quant::fireq::{KvCache4, KvConfig};
/// let mut cache = KvCache4::new(KvConfig::new(1, 4, 100))?;
/// let k = TensorView::from_slice([1, 1, 4], &[0.7f32, -0.7, 0.1, 0.0])?;
/// cache.append(k, k)?;
/// assert_eq!((cache.len(), cache.positions().collect::<Vec<_>>()), (1, vec![0]));
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug)]
pub struct KvCache4 {
    config: KvConfig,
    /// Channels of a group.
    group: usize,
    /// `[side][head][slot][word]`
    codes: AlignedBuf<u32>,
    /// `[side][head][slot][group]`, each in the bytes of its type.
    scales: AlignedBuf<u8>,
    /// Of each slot.
    positions: AlignedBuf<u32>,
    /// The slot of the oldest token.
    start: usize,
    len: usize,
}

impl KvCache4 {
    /// An empty cache.
    ///
    /// # Errors
    /// `Argument` for a size of 0; `TooLarge` if the memory cannot be had.
    pub fn new(config: KvConfig) -> Result<Self> {
        let group = config.check()?;
        let KvConfig { kv_heads, head_dim, capacity, .. } = config;
        let len = |each: usize| kc_core::shape::checked_len("capacity", &[2, kv_heads, capacity, each]);
        let scale_bytes = head_dim.div_ceil(group) * config.scale_type.bytes();
        Ok(Self {
            config,
            group,
            codes: AlignedBuf::zeroed(len(head_dim.div_ceil(CODES))?)?,
            scales: AlignedBuf::zeroed(len(scale_bytes)?)?,
            positions: AlignedBuf::zeroed(capacity)?,
            start: 0,
            len: 0,
        })
    }

    /// How it was made.
    pub fn config(&self) -> &KvConfig {
        &self.config
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all its memory.
    pub fn bytes(&self) -> usize {
        4 * self.codes.len() + self.scales.len() + 4 * self.positions.len()
    }

    /// The positions of the tokens held, oldest first.
    pub fn positions(&self) -> impl ExactSizeIterator<Item = u32> {
        (0..self.len).map(|i| self.positions[self.slot(i)])
    }

    /// Adds tokens `k` and `v` `[T, KVH, hd]` at the positions that follow the last one.
    ///
    /// # Errors
    /// As [`append_at`](Self::append_at).
    pub fn append(&mut self, k: TensorView<'_, f32, 3>, v: TensorView<'_, f32, 3>) -> Result<()> {
        let first = match self.last_position() {
            None => 0,
            Some(last) => u64::from(last) + 1,
        };
        let end = first + k.shape()[0] as u64;
        if end > u64::from(u32::MAX) {
            return Err(Error::argument("positions", "positions below 2^32 - 1", end));
        }
        let positions: Vec<u32> = (first as u32..end as u32).collect();
        self.append_at(k, v, &positions)
    }

    /// Adds tokens `k` and `v` `[T, KVH, hd]` at increasing `positions`. All or none are added.
    ///
    /// # Errors
    /// `Shape` unless all agree; `NotFinite`; `Argument` for a position that does not increase; `TooLarge` if they do
    /// not fit and the window does not slide.
    pub fn append_at(
        &mut self,
        k: TensorView<'_, f32, 3>,
        v: TensorView<'_, f32, 3>,
        positions: &[u32],
    ) -> Result<()> {
        let KvConfig { kv_heads, head_dim, capacity, sliding, .. } = self.config;
        let t = positions.len();
        for (name, x) in [("k", k), ("v", v)] {
            if x.shape() != [t, kv_heads, head_dim] {
                return Err(Error::shape(name, format!("[{t}, {kv_heads}, {head_dim}]"), &x.shape()));
            }
            check_finite(name, x)?;
        }
        let mut last = self.last_position();
        for &position in positions {
            if last.is_some_and(|last| position <= last) {
                let expected = format!("more than {}", last.unwrap_or(0));
                return Err(Error::argument("position", expected, position));
            }
            last = Some(position);
        }
        if !sliding && self.len + t > capacity {
            return Err(Error::too_large("cache", (self.len + t) as u64, capacity as u64, "tokens"));
        }
        // What a window would push out again at once need not enter.
        for (i, &position) in positions.iter().enumerate().skip(t.saturating_sub(capacity)) {
            if self.len == capacity {
                self.start = (self.start + 1) % capacity;
                self.len -= 1;
            }
            let slot = self.slot(self.len);
            for (side, x) in [(Side::Key, k), (Side::Value, v)] {
                let heads = x.matrix(i);
                for head in 0..kv_heads {
                    let token = heads.row(head).to_cow();
                    self.store(side, head, slot, &token);
                }
            }
            self.positions[slot] = position;
            self.len += 1;
        }
        Ok(())
    }

    /// Forgets all tokens but the oldest `len`, for instance those that speculation added in vain.
    ///
    /// # Errors
    /// `Argument` if there are fewer.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if len > self.len {
            return Err(Error::argument("len", format!("at most {}", self.len), len));
        }
        self.len = len;
        Ok(())
    }

    /// Forgets all tokens.
    pub fn reset(&mut self) {
        (self.start, self.len) = (0, 0);
    }

    /// A cache of its own with the same tokens.
    ///
    /// # Errors
    /// `TooLarge` if the memory cannot be had.
    pub fn fork(&self) -> Result<Self> {
        let mut out = Self::new(self.config)?;
        (out.start, out.len) = (self.start, self.len);
        // Only what is used, so that memory never written stays untouched.
        for i in 0..self.len {
            let slot = self.slot(i);
            out.positions[slot] = self.positions[slot];
            for side in [Side::Key, Side::Value] {
                for head in 0..self.config.kv_heads {
                    let (words, bytes) = (self.words_at(side, head, slot), self.scales_at(side, head, slot));
                    out.codes[words.clone()].copy_from_slice(&self.codes[words]);
                    out.scales[bytes.clone()].copy_from_slice(&self.scales[bytes]);
                }
            }
        }
        Ok(out)
    }

    /// What is held of keys or values, `[T, KVH, hd]`, oldest first.
    pub fn dequantize(&self, side: Side) -> Result<Tensor<f32, 3>> {
        let KvConfig { kv_heads, head_dim, .. } = self.config;
        let mut out = Tensor::zeros([self.len, kv_heads, head_dim])?;
        for (at, row) in out.as_mut_slice().chunks_exact_mut(head_dim).enumerate() {
            self.token(side, at % kv_heads, at / kv_heads, row);
        }
        Ok(out)
    }

    /// The codes, -8 to 7, `[T, KVH, hd]`, and the scales, `[T, KVH, G]`, oldest first.
    pub fn codes(&self, side: Side) -> Result<(Tensor<i8, 3>, Tensor<f32, 3>)> {
        let KvConfig { kv_heads, head_dim, .. } = self.config;
        let codes = Tensor::from_fn([self.len, kv_heads, head_dim], |[i, head, c]| {
            let words = &self.codes[self.words_at(side, head, self.slot(i))];
            ((words[c / CODES] >> (4 * (c % CODES)) & 15) as u8 ^ ZERO) as i8 - ZERO as i8
        })?;
        let groups = head_dim.div_ceil(self.group);
        let scales = Tensor::from_fn([self.len, kv_heads, groups], |[i, head, g]| {
            self.scale(side, head, self.slot(i), g)
        })?;
        Ok((codes, scales))
    }

    /// Writes the keys or values of some tokens (0 is the oldest) of a head, `[tokens, hd]`.
    #[inline(always)]
    pub(super) fn tokens(&self, side: Side, head: usize, tokens: Range<usize>, out: &mut [f32]) {
        for (index, out) in tokens.zip(out.chunks_exact_mut(self.config.head_dim)) {
            self.token(side, head, index, out);
        }
    }

    /// The slots of some tokens: two runs, where a ring ends and begins again.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn slots(&self, tokens: Range<usize>) -> [Range<usize>; 2] {
        let (first, capacity) = (self.start + tokens.start, self.config.capacity);
        let end = first + tokens.len();
        if first >= capacity {
            return [first - capacity..end - capacity, 0..0];
        }
        [first..end.min(capacity), 0..end.saturating_sub(capacity)]
    }

    /// Words and scales `[slots, G]` of some slots; groups that are not whole words are not offered.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn packed<'a>(
        &'a self,
        side: Side,
        head: usize,
        slots: Range<usize>,
        scales: &'a mut Vec<f32>,
    ) -> Option<Packed<'a>> {
        let hd = self.config.head_dim;
        if !hd.is_multiple_of(CODES) || !self.group.is_multiple_of(CODES) {
            return None;
        }
        scales.clear();
        let each = hd.div_ceil(self.group) * self.config.scale_type.bytes();
        let bytes = &self.scales[self.line(side, head, slots.start) * each..][..slots.len() * each];
        match self.config.scale_type {
            ScaleType::Fp8 => scales.extend(bytes.iter().map(|&code| fp8::decode(code))),
            ScaleType::Bf16 => {
                scales.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()));
            }
            ScaleType::F32 => scales.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
        }
        let words = hd / CODES;
        let first = self.line(side, head, slots.start) * words;
        let codes = &self.codes[first..first + slots.len() * words];
        Some(Packed { codes, scales, words, group: self.group / CODES })
    }

    #[inline(always)]
    fn token(&self, side: Side, head: usize, index: usize, out: &mut [f32]) {
        let slot = self.slot(index);
        let words = &self.codes[self.words_at(side, head, slot)];
        for (g, out) in out.chunks_mut(self.group).enumerate() {
            unpack(words, g * self.group, self.scale(side, head, slot, g), out);
        }
    }

    fn last_position(&self) -> Option<u32> {
        self.len.checked_sub(1).map(|i| self.positions[self.slot(i)])
    }

    /// The slot of token `index`, counted from the oldest.
    fn slot(&self, index: usize) -> usize {
        (self.start + index) % self.config.capacity
    }

    fn line(&self, side: Side, head: usize, slot: usize) -> usize {
        (usize::from(side == Side::Value) * self.config.kv_heads + head) * self.config.capacity + slot
    }

    fn words_at(&self, side: Side, head: usize, slot: usize) -> Range<usize> {
        let words = self.config.head_dim.div_ceil(CODES);
        let first = self.line(side, head, slot) * words;
        first..first + words
    }

    fn scales_at(&self, side: Side, head: usize, slot: usize) -> Range<usize> {
        let bytes = self.config.head_dim.div_ceil(self.group) * self.config.scale_type.bytes();
        let first = self.line(side, head, slot) * bytes;
        first..first + bytes
    }

    fn scale(&self, side: Side, head: usize, slot: usize, g: usize) -> f32 {
        let bytes = &self.scales[self.scales_at(side, head, slot)];
        match self.config.scale_type {
            ScaleType::Fp8 => fp8::decode(bytes[g]),
            ScaleType::Bf16 => bf16::from_le_bytes([bytes[2 * g], bytes[2 * g + 1]]).to_f32(),
            ScaleType::F32 => {
                f32::from_le_bytes([bytes[4 * g], bytes[4 * g + 1], bytes[4 * g + 2], bytes[4 * g + 3]])
            }
        }
    }

    fn store(&mut self, side: Side, head: usize, slot: usize, token: &[f32]) {
        let (words, bytes) = (self.words_at(side, head, slot), self.scales_at(side, head, slot));
        let (words, bytes) = (&mut self.codes[words], &mut self.scales[bytes]);
        words.fill(0);
        let scale_type = self.config.scale_type;
        let each = scale_type.bytes();
        for (g, x) in token.chunks(self.group).enumerate() {
            let largest = x.iter().fold(0.0f32, |top, x| if x.abs() > top { x.abs() } else { top });
            let scale = scale_type.scale(largest, 7.0);
            let to = &mut bytes[g * each..][..each];
            match scale_type {
                ScaleType::Fp8 => to.copy_from_slice(&[fp8::encode(scale)]),
                ScaleType::Bf16 => to.copy_from_slice(&bf16::from_f32(scale).to_le_bytes()),
                ScaleType::F32 => to.copy_from_slice(&scale.to_le_bytes()),
            }
            let first = g * self.group;
            if first.is_multiple_of(CODES) {
                let (whole, tail) = x.as_chunks::<CODES>();
                let (to, rest) = words[first / CODES..].split_at_mut(whole.len());
                for (x, word) in whole.iter().zip(to) {
                    *word = word_of(x, scale);
                }
                if !tail.is_empty() {
                    rest[0] |= word_of(tail, scale);
                }
            } else {
                for (c, x) in (first..).zip(x) {
                    words[c / CODES] |= word_of(&[*x], scale) << (4 * (c % CODES));
                }
            }
        }
    }
}
