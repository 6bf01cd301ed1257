//! Keys and values of a head, packed once for all the queries that read them.

use std::ops::Range;

use kc_core::{AlignedBuf, Error, Float, Isa, Result, TensorView, bytemuck};
use kc_quant::fp8;
use rayon::prelude::*;

use super::kernel::{KEYS, Kernel, KeyTile, Operand, RAISE, SIDE, VALUE};
use super::quantize::{self, Quantiser};
use super::rows::{self, Rows};
use super::{PvMode, QkBits, SageConfig, smooth};

/// Tiles that are packed by one piece of work.
const TILES: usize = 8;

/// The keys of a head.
pub(super) struct KeyPanels {
    kernel: Kernel,
    depth: usize,
    quantiser: Quantiser,
    /// Codes, tile by tile: words as the kernel reads them, or for 4 bits two codes to a byte in the same order.
    data: AlignedBuf<i32>,
    /// See [`KeyTile`].
    start: Vec<i32>,
    factor: Vec<f32>,
}

impl KeyPanels {
    /// Packs `k` `[N, D]`. `scale` is what integers times steps are multiplied with.
    pub(super) fn pack<E: Float>(
        kernel: Kernel,
        k: TensorView<'_, E, 2>,
        scale: f32,
        config: &SageConfig,
    ) -> Result<Self> {
        let quantiser = quantize::of_keys(k, config)?;
        let [n, d] = k.shape();
        let (tiles, depth) = (n.div_ceil(KEYS), kernel.depth(d));
        let size = stored(kernel, depth);
        let mut data = AlignedBuf::zeroed(tiles * size)?;
        let mut start = vec![0; tiles * KEYS];
        let mut factor: Vec<f32> = (0..n).map(|j| quantiser.scale(j) * scale).collect();
        factor.resize(tiles * KEYS, 0.0);
        let parts = data.par_chunks_mut(TILES * size).zip(start.par_chunks_mut(TILES * KEYS)).enumerate();
        parts.for_each(|(part, (data, start))| {
            let mut rows = Rows::new(k);
            let mut codes = vec![0i32; d.div_ceil(4)];
            let mut words = vec![0i32; 2 * codes.len()];
            let mut quads = vec![0i32; if kernel.bits == QkBits::Int4 { SIDE * codes.len() } else { 0 }];
            let sides = data.chunks_exact_mut(size / (KEYS / SIDE)).zip(start.as_chunks_mut::<SIDE>().0);
            for (side, (data, start)) in sides.enumerate() {
                let first = part * TILES * KEYS + side * SIDE;
                let four = kernel.bits == QkBits::Int4;
                let panel = if four { &mut quads[..] } else { &mut *data };
                for j in 0..SIDE {
                    let bytes: &mut [i8] = bytemuck::cast_slice_mut(&mut codes);
                    match first + j < n {
                        true => quantiser.encode(first + j, rows.get(first + j), &mut bytes[..d]),
                        false => bytes.fill(0),
                    }
                    let from = if four || kernel.operand == Operand::Quads {
                        &codes
                    } else {
                        kernel.lengthen(&codes, &mut words);
                        &words
                    };
                    for (out, word) in panel.as_chunks_mut::<SIDE>().0.iter_mut().zip(from) {
                        out[j] = *word;
                    }
                }
                kernel.starts(panel, start);
                if four {
                    nibbles(&quads, bytemuck::cast_slice_mut(data));
                }
            }
        });
        Ok(KeyPanels { kernel, depth, quantiser, data, start, factor })
    }

    /// Bytes that the codes take.
    pub(super) fn bytes(&self) -> usize {
        4 * (self.data.len() + self.start.len() + self.factor.len())
    }

    /// How the keys became codes.
    pub(super) fn quantiser(&self) -> &Quantiser {
        &self.quantiser
    }

    /// Tile `tile`; codes of 4 bits are expanded into `room`.
    pub(super) fn tile<'a>(&'a self, tile: usize, room: &'a mut Vec<i32>) -> KeyTile<'a> {
        let size = stored(self.kernel, self.depth);
        let data = &self.data[tile * size..][..size];
        let range = tile * KEYS..(tile + 1) * KEYS;
        let (start, factor) = (&self.start[range.clone()], &self.factor[range]);
        if self.kernel.bits == QkBits::Int8 {
            return KeyTile { words: data, start, factor };
        }
        room.resize(self.depth * KEYS, 0);
        let packed: &[u8] = bytemuck::cast_slice(data);
        match self.kernel.operand {
            Operand::Quads => {
                rows::expand_bytes(self.kernel.isa(), packed, bytemuck::cast_slice_mut(room));
            }
            _ => {
                // The two words of a quad lie `SIDE` words apart.
                for (packed, room) in packed.chunks_exact(2 * SIDE).zip(room.chunks_exact_mut(2 * SIDE)) {
                    for j in 0..SIDE {
                        let word = |byte: u8| {
                            let (low, high) = (i32::from((byte << 4) as i8 >> 4), i32::from(byte as i8 >> 4));
                            low & 0xffff | high << 16
                        };
                        room[j] = word(packed[2 * j]);
                        room[SIDE + j] = word(packed[2 * j + 1]);
                    }
                }
            }
        }
        KeyTile { words: room, start, factor }
    }
}

/// Words that a tile is stored in.
fn stored(kernel: Kernel, depth: usize) -> usize {
    match (kernel.bits, kernel.operand) {
        (QkBits::Int8, _) => KEYS * depth,
        (QkBits::Int4, Operand::Quads) => KEYS * depth / 2,
        (QkBits::Int4, _) => KEYS * depth / 4,
    }
}

/// Codes in 4 bytes of each word as 4 nibbles: the first lowest.
fn nibbles(quads: &[i32], out: &mut [u16]) {
    for (out, quad) in out.iter_mut().zip(quads) {
        let at = |shift: u32, mask: i32| (quad >> shift) & mask;
        *out = (at(0, 0xf) | at(4, 0xf0) | at(8, 0xf00) | at(12, 0xf000)) as u16;
    }
}

/// The values of a head.
pub(super) struct ValuePanels {
    /// Channels, rounded up to whole sides.
    channels: usize,
    data: Data,
    /// What is added to the result; empty for nothing.
    mean: Vec<f32>,
}

enum Data {
    /// Integers, tile by tile, and the step of each channel: of each tile, or (if there is one row) of all.
    Integers { words: AlignedBuf<i32>, delta: Vec<f32>, raised: bool },
    /// `[KEYS, channels]` for each tile, and what sums of a channel are multiplied with.
    Floats { values: AlignedBuf<f32>, factor: Vec<f32> },
}

/// The values of a tile.
pub(super) enum ValueTile<'a> {
    Integers { words: &'a [i32], delta: &'a [f32], raised: bool },
    Floats(&'a [f32]),
}

impl ValuePanels {
    /// Packs `v` `[N, D]`.
    pub(super) fn pack<E: Float>(
        kernel: Kernel,
        v: TensorView<'_, E, 2>,
        config: &SageConfig,
    ) -> Result<Self> {
        let [n, d] = v.shape();
        let isa = config.isa;
        let tiles = n.div_ceil(KEYS);
        let channels = d.next_multiple_of(SIDE);
        let mean = if config.smooth_v { smooth::channel_mean(isa, v) } else { Vec::new() };
        // The largest magnitude of each channel, of all tiles; what is not finite shows here.
        let largest: Vec<Result<Vec<u32>>> = (0..tiles)
            .into_par_iter()
            .map(|tile| {
                let mut rows = Rows::new(v);
                let mut top = vec![0u32; channels];
                for j in keys_of(tile, n) {
                    rows::widen(isa, rows.get(j), &mean, &mut top);
                }
                if config.check_finite && top.iter().any(|bits| *bits >= f32::INFINITY.to_bits()) {
                    check(&mut rows, keys_of(tile, n))?;
                }
                Ok(top)
            })
            .collect();
        let largest = largest.into_iter().collect::<Result<Vec<_>>>()?;
        let step = |bits: u32, range: f32| {
            let delta = f32::from_bits(bits).min(f32::MAX) / range;
            // A channel without anything, or nearly so.
            if delta < f32::MIN_POSITIVE { 1.0 } else { delta }
        };
        let whole = |range: f32| -> Vec<f32> {
            let top = |c: usize| largest.iter().fold(0, |m, top| m.max(top[c]));
            (0..channels).map(|c| step(top(c), range)).collect()
        };
        let data = match config.pv {
            PvMode::F16 { .. } => {
                let delta = largest.iter().flatten().map(|bits| step(*bits, VALUE)).collect();
                integers(kernel, v, &mean, delta, (VALUE, false))?
            }
            PvMode::Int8 => integers(kernel, v, &mean, whole(127.0), (127.0, kernel.raises_values()))?,
            PvMode::F32 => floats(isa, v, &mean, vec![1.0; channels], false)?,
            PvMode::Fp8 => floats(isa, v, &mean, whole(448.0), true)?,
            PvMode::Fp8F16Acc => floats(isa, v, &mean, whole(2.25), true)?,
        };
        Ok(ValuePanels { channels, data, mean })
    }

    /// Bytes that the values take.
    pub(super) fn bytes(&self) -> usize {
        4 * match &self.data {
            Data::Integers { words, delta, .. } => words.len() + delta.len(),
            Data::Floats { values, factor } => values.len() + factor.len(),
        }
    }

    /// Channels with those that fill the last side.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Tile `tile`.
    pub(super) fn tile(&self, tile: usize) -> ValueTile<'_> {
        match &self.data {
            Data::Integers { words, delta, raised } => {
                let size = KEYS / 2 * self.channels;
                let step = if delta.len() == self.channels { 0 } else { tile * self.channels };
                ValueTile::Integers {
                    words: &words[tile * size..][..size],
                    delta: &delta[step..step + self.channels],
                    raised: *raised,
                }
            }
            Data::Floats { values, .. } => {
                let size = KEYS * self.channels;
                ValueTile::Floats(&values[tile * size..][..size])
            }
        }
    }

    /// The result of one query from its sums.
    pub(super) fn finish(&self, isa: Isa, sums: &[f32], weight: f32, out: &mut [f32]) {
        rows::scaled(isa, sums, 1.0 / weight, out);
        if let Data::Floats { factor, .. } = &self.data {
            out.iter_mut().zip(factor).for_each(|(out, factor)| *out *= factor);
        }
        out.iter_mut().zip(&self.mean).for_each(|(out, mean)| *out += mean);
    }
}

fn keys_of(tile: usize, n: usize) -> Range<usize> {
    tile * KEYS..n.min((tile + 1) * KEYS)
}

/// The first value that is not finite is an error.
fn check<E: Float>(rows: &mut Rows<'_, E>, range: Range<usize>) -> Result<()> {
    for j in range {
        let row = rows.get(j);
        if let Some(at) = kc_core::math::first_non_finite(row) {
            return Err(Error::not_finite("v", &[j, at], f64::from(row[at])));
        }
    }
    Ok(())
}

fn integers<E: Float>(
    kernel: Kernel,
    v: TensorView<'_, E, 2>,
    mean: &[f32],
    delta: Vec<f32>,
    (limit, raised): (f32, bool),
) -> Result<Data> {
    let [n, d] = v.shape();
    let channels = d.next_multiple_of(SIDE);
    let raise = if raised { RAISE } else { 0 };
    let tiles = n.div_ceil(KEYS);
    let size = KEYS / 2 * channels;
    let isa = kernel.isa();
    let order = kernel.order();
    let as_they_are = mean.is_empty() && d == channels;
    let mut words = AlignedBuf::zeroed(tiles * size)?;
    words.par_chunks_mut(size).enumerate().for_each(|(tile, words)| {
        let first = if delta.len() == channels { 0 } else { tile * channels };
        let inverse: Vec<f32> = delta[first..first + channels].iter().map(|d| 1.0 / d).collect();
        let mut rows = Rows::new(v);
        let mut pair = [vec![0.0f32; channels], vec![0.0; channels]];
        for p in 0..KEYS / 2 {
            let keys = [2 * p, 2 * p + 1].map(|at| tile * KEYS + at / SIDE * SIDE + order[at % SIDE]);
            let words = &mut words[p * SIDE..];
            if let [Some(a), Some(b)] = keys.map(|j| (j < n && as_they_are).then(|| rows.direct(j)).flatten())
            {
                rows::interleave(isa, a, b, &inverse, limit, raise, words);
                continue;
            }
            for (j, pair) in keys.into_iter().zip(&mut pair) {
                if j < n {
                    pair[..d].copy_from_slice(rows.get(j));
                    pair.iter_mut().zip(mean).for_each(|(x, mean)| *x -= mean);
                } else {
                    pair.fill(0.0);
                }
            }
            rows::interleave(isa, &pair[0], &pair[1], &inverse, limit, raise, words);
        }
    });
    Ok(Data::Integers { words, delta, raised })
}

fn floats<E: Float>(
    isa: Isa,
    v: TensorView<'_, E, 2>,
    mean: &[f32],
    delta: Vec<f32>,
    rounded: bool,
) -> Result<Data> {
    let (d, channels) = (v.cols(), delta.len());
    let size = KEYS * channels;
    let mut values = AlignedBuf::zeroed(v.rows().div_ceil(KEYS) * size)?;
    values.par_chunks_mut(size).enumerate().for_each(|(tile, values)| {
        let mut rows = Rows::new(v);
        for (j, out) in keys_of(tile, v.rows()).zip(values.chunks_exact_mut(channels)) {
            out[..d].copy_from_slice(rows.get(j));
            out.iter_mut().zip(mean).for_each(|(x, mean)| *x -= mean);
            if rounded {
                out.iter_mut().zip(&delta).for_each(|(x, delta)| *x /= delta);
                fp8::round_slice_with(isa, out);
            }
        }
    });
    // Weights of FP8 are multiplied by the largest number.
    let unit = if rounded { fp8::MAX } else { 1.0 };
    Ok(Data::Floats { values, factor: delta.iter().map(|d| d / unit).collect() })
}
