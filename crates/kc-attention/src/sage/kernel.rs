//! The steps on a tile of keys and a group of queries, and which kernel takes them.
//!
//! | Level | Codes of the keys | 8 bits | 4 bits | Weights times values |
//! |---|---|---|---|---|
//! | portable | words | loops | loops | loops |
//! | AVX2, AVX-512 | raised words; quads for 4 bits | `vpmaddwd` | `vpmaddubsw`, sums in 16 bits | `vpmaddwd`, FMA |
//! | AVX-512 with VNNI | quads | `vpdpbusd` | `vpdpbusd` | `vpdpwssd`, FMA |
//!
//! A *word* is 32 bits: two codes of 16 bits that belong to neighbouring channels, or four of 8 bits.
//!
//! # Integers summed as floats
//! Integer additions may go to any of the four vector pipes of Zen and so get into the way of the products, which only
//! two take; additions of floats go to the other two. The bits of a whole number below `2^24` are, read as f32, that
//! number times `2^-149`, and adding such floats is exact: their bits are the bits of the sum. So where no product is
//! negative and no sum reaches `2^24`, products are summed as floats, 1.24 times as fast. *Raised* codes are not
//! negative: 128 is added to each, and what that adds to the sum is subtracted again. A thread that flushes such small
//! floats to zero adds integers; the bits are the same.

use kc_core::{Isa, Level, bytemuck};

#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{QkBits, portable, rows};

/// Keys of a tile.
pub(super) const KEYS: usize = 64;

/// Queries of a group: what the kernels hold in registers at a time.
pub(super) const ROWS: usize = 6;

/// A group of at most so many queries has a kernel of its own.
pub(super) const FEW: usize = 2;

/// Keys, and channels of the values, that stand side by side in a panel.
pub(super) const SIDE: usize = 16;

/// Room for a number of each query of a group.
pub(super) type PerRow = [f32; 8];

/// The largest code of a value in 16 bits, and the weight 1 in 16 bits. Products of 16 keys fit 32 bits whatever the
/// weights, and those of 64 keys if the weights sum to at most [`SUM`].
pub(super) const VALUE: f32 = 8191.0;
pub(super) const WEIGHT: f32 = 16384.0;
pub(super) const SUM: i32 = 16 * 16384;

/// What is multiplied with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operand {
    /// Two codes of 16 bits.
    Words,
    /// The same of codes raised by 128.
    #[cfg(target_arch = "x86_64")]
    Raised,
    /// Four codes of 8 bits; those of the queries are unsigned, raised by [`Kernel::raise`].
    Quads,
}

/// Which kernel works, on which operands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    isa: Isa,
    family: Family,
    pub(super) bits: QkBits,
    pub(super) operand: Operand,
    /// This thread keeps small floats.
    gradual: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

/// Channels up to which sums of 4-bit products stay within 16 bits: `80 D <= 32767`.
#[cfg(target_arch = "x86_64")]
const NARROW: usize = 400;

/// Channels up to which sums of raised products stay below `2^24`: `255^2 D <= 2^24`.
#[cfg(target_arch = "x86_64")]
const EXACT: usize = 256;

/// What raised codes of 8 bits are raised by.
pub(super) const RAISE: i32 = 128;

impl Kernel {
    pub(super) fn new(isa: Isa, bits: QkBits, channels: usize) -> Self {
        let (family, operand) = match isa.level() {
            #[cfg(target_arch = "x86_64")]
            level if level >= Level::Avx512Icl => (Family::Vnni, Operand::Quads),
            #[cfg(target_arch = "x86_64")]
            level if level >= Level::Avx2 && bits == QkBits::Int4 && channels <= NARROW => {
                (Family::Avx2, Operand::Quads)
            }
            #[cfg(target_arch = "x86_64")]
            level if level >= Level::Avx2 && bits == QkBits::Int8 && channels <= EXACT => {
                (Family::Avx2, Operand::Raised)
            }
            #[cfg(target_arch = "x86_64")]
            level if level >= Level::Avx2 => (Family::Avx2, Operand::Words),
            _ => (Family::Portable, Operand::Words),
        };
        Kernel { isa, family, bits, operand, gradual: false }
    }

    /// The level of the loops.
    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// The kernel as the calling thread runs it.
    pub(super) fn here(self) -> Self {
        match self.family {
            Family::Portable => self,
            #[cfg(target_arch = "x86_64")]
            _ => Kernel { gradual: x86::keeps_small_floats(), ..self },
        }
    }

    /// Whether values of 8 bits are raised too.
    pub(super) fn raises_values(&self) -> bool {
        match self.family {
            Family::Portable => false,
            #[cfg(target_arch = "x86_64")]
            Family::Avx2 => true,
            #[cfg(target_arch = "x86_64")]
            Family::Vnni => false,
        }
    }

    /// Words of a row of `channels` codes.
    pub(super) fn depth(&self, channels: usize) -> usize {
        match self.operand {
            Operand::Quads => channels.div_ceil(4),
            _ => channels.div_ceil(4) * 2,
        }
    }

    /// What is added to the codes of queries in quads, so that they are not negative.
    pub(super) fn raise(&self) -> i32 {
        match self.bits {
            QkBits::Int8 => RAISE,
            QkBits::Int4 => 8,
        }
    }

    /// Codes of 8 bits, four to a word, as words of two codes for the operand.
    pub(super) fn lengthen(&self, codes: &[i32], out: &mut [i32]) {
        let raise = if self.operand == Operand::Words { 0 } else { RAISE as i16 };
        rows::lengthen(self.isa, bytemuck::cast_slice(codes), raise, bytemuck::cast_slice_mut(out));
    }

    /// The words of a query for the operand; `codes` are four to a word.
    pub(super) fn raise_query(&self, codes: &[i32], out: &mut [i32]) {
        if self.operand != Operand::Quads {
            return self.lengthen(codes, out);
        }
        let (codes, out): (&[u8], &mut [u8]) = (bytemuck::cast_slice(codes), bytemuck::cast_slice_mut(out));
        let raise = self.raise() as u8;
        out.iter_mut().zip(codes).for_each(|(out, code)| *out = code.wrapping_add(raise));
    }

    /// What the sums of a query with these codes are too large by.
    pub(super) fn excess(&self, codes: &[i8]) -> i32 {
        match self.operand {
            #[cfg(target_arch = "x86_64")]
            Operand::Raised => RAISE * (rows::total(self.isa, codes) + 255 * codes.len() as i32),
            _ => 0,
        }
    }

    /// What the sums of the keys of a side start from, so that raising the queries changes nothing. `words` are theirs,
    /// `[depth, SIDE]`.
    pub(super) fn starts(&self, words: &[i32], out: &mut [i32; SIDE]) {
        match self.operand {
            Operand::Words => out.fill(0),
            #[cfg(target_arch = "x86_64")]
            Operand::Raised => {
                rows::sum_halves(self.isa, words, out);
                // Not negative, as no code exceeds 127: see `excess`.
                let most = 2 * 255 * (words.len() / SIDE) as i32;
                out.iter_mut().for_each(|sum| *sum = RAISE * (most - *sum));
            }
            Operand::Quads => {
                let mut sums = [[0; SIDE]; 2];
                rows::sum_bytes(self.isa, words, &mut sums);
                let raise = self.raise();
                for (out, (low, high)) in out.iter_mut().zip(sums[0].iter().zip(&sums[1])) {
                    *out = match self.family {
                        // Sums of 16 bits, side by side.
                        #[cfg(target_arch = "x86_64")]
                        Family::Avx2 => (-raise * low) & 0xffff | (-raise * high) << 16,
                        _ => -raise * (low + high),
                    };
                }
            }
        }
    }

    /// The keys of 16 in the order in which [`weigh`](Self::weigh) leaves their weights.
    pub(super) fn order(&self) -> [usize; SIDE] {
        match self.family {
            #[cfg(target_arch = "x86_64")]
            Family::Avx2 => [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15],
            _ => std::array::from_fn(|i| i),
        }
    }
}

/// The keys of a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyTile<'a> {
    /// `[KEYS / SIDE, depth, SIDE]` words.
    pub(super) words: &'a [i32],
    /// What the sums of each key start from.
    pub(super) start: &'a [i32],
    /// What the sums of each key are multiplied with.
    pub(super) factor: &'a [f32],
}

/// What is added to scores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bias<'a> {
    /// Of query `r` and key `j` of the tile: `values[r * stride + j]`.
    pub(super) values: &'a [f32],
    /// 0 if it is the same for all queries.
    pub(super) stride: usize,
    /// The scale of each query.
    pub(super) scale: PerRow,
}

/// What is known of a group's queries after some tiles.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    /// The largest score, in powers of 2.
    pub(super) top: PerRow,
    /// The sum of the weights as they are multiplied.
    pub(super) sum: PerRow,
    /// The sum of the weights before they are rounded.
    pub(super) exact: PerRow,
}

impl State {
    pub(super) const NEW: State = State { top: [f32::NEG_INFINITY; 8], sum: [0.0; 8], exact: [0.0; 8] };
}

/// What a tile does to what is there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Turn {
    /// What earlier sums of each query are multiplied with.
    pub(super) shrink: PerRow,
    /// What the sums of this tile are multiplied with.
    pub(super) weight: PerRow,
    /// Whether the sums of all keys of the tile fit 32 bits.
    pub(super) fits: bool,
    /// The sum of each query's weights in this tile.
    pub(super) sums: [i32; 8],
    /// What scores are taken relative to, before they are multiplied with their factor.
    pub(super) base: PerRow,
    /// What is added to them then.
    pub(super) offset: PerRow,
}

/// How weights become integers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Integers {
    /// The weight 1.
    pub(super) unit: f32,
    /// See [`Kernel::turn`].
    pub(super) local: bool,
    /// The exact sum is wanted.
    pub(super) exact: bool,
}

impl Kernel {
    /// `out[r][j] = (sum of products - excess[r]) factor[j]`, or with a bias `that * scale[r] + bias`.
    pub(super) fn scores(
        &self,
        rows: usize,
        q: &[i32],
        excess: &[i32; 8],
        keys: KeyTile<'_>,
        bias: Option<Bias<'_>>,
        out: &mut [f32],
    ) {
        let depth = keys.words.len() / KEYS;
        assert!(q.len() == depth * rows && keys.words.len() == depth * KEYS && out.len() == rows * KEYS);
        assert!(keys.start.len() == KEYS && keys.factor.len() == KEYS);
        assert!(bias.is_none_or(|b| b.values.len() >= (rows - 1) * b.stride + KEYS));
        match self.family {
            Family::Portable => portable::scores(rows, q, keys, bias, out),
            #[cfg(target_arch = "x86_64")]
            Family::Avx2 => {
                let as_floats = self.gradual;
                x86::avx2::scores(self.isa, (self.operand, as_floats), rows, q, excess, keys, bias, out);
            }
            #[cfg(target_arch = "x86_64")]
            Family::Vnni => x86::avx512::scores(self.isa, rows, q, keys, bias, out),
        }
    }

    /// What scores `t` of a tile, times `factor[r]`, do to the largest so far. Weights will be relative to the largest of
    /// the tile if they are `local`, else to the largest so far.
    pub(super) fn turn(
        &self,
        rows: usize,
        scores: &[f32],
        factor: &PerRow,
        local: bool,
        state: &mut State,
        turn: &mut Turn,
    ) {
        assert!(scores.len() == rows * KEYS && rows <= ROWS);
        match self.family {
            Family::Portable => portable::turn(rows, scores, factor, local, state, turn),
            #[cfg(target_arch = "x86_64")]
            _ => x86::avx2::turn(self.isa, rows, scores, factor, local, state, turn),
        }
    }

    /// Weights `unit 2^(factor[r] t - top)` of scores `t`, rounded to integers.
    pub(super) fn weigh(
        &self,
        rows: usize,
        scores: &[f32],
        factor: &PerRow,
        integers: Integers,
        turn: &mut Turn,
        state: &mut State,
        out: &mut [i16],
    ) {
        assert!(scores.len() == rows * KEYS && out.len() == rows * KEYS && rows <= ROWS);
        match self.family {
            Family::Portable => portable::weigh(rows, scores, factor, integers, turn, state, out),
            #[cfg(target_arch = "x86_64")]
            Family::Avx2 => x86::avx2::weigh(self.isa, rows, scores, factor, integers, turn, state, out),
            #[cfg(target_arch = "x86_64")]
            Family::Vnni => x86::avx512::weigh(self.isa, rows, scores, factor, integers, turn, state, out),
        }
    }

    /// Weights `2^(factor[r] t - top)` of scores `t`; with `fp8` those of 448 times that, rounded.
    pub(super) fn weigh_float(
        &self,
        rows: usize,
        scores: &[f32],
        factor: &PerRow,
        fp8: bool,
        turn: &Turn,
        state: &mut State,
        out: &mut [f32],
    ) {
        assert!(scores.len() == rows * KEYS && out.len() == rows * KEYS && rows <= ROWS);
        match self.family {
            Family::Portable => portable::weigh_float(rows, scores, factor, turn, state, out),
            #[cfg(target_arch = "x86_64")]
            _ => x86::avx2::weigh_float(self.isa, rows, scores, factor, turn, state, out),
        }
        if fp8 {
            out.iter_mut().for_each(|p| *p *= kc_quant::fp8::MAX);
            kc_quant::fp8::round_slice_with(self.isa, out);
        }
    }

    /// Adds weights times values to the result of each query. `raised` values are 128 too large. `values` are `[D / SIDE, KEYS / 2, SIDE]` words, `delta` the
    /// step of each channel.
    pub(super) fn values(
        &self,
        rows: usize,
        weights: &[i16],
        values: &[i32],
        raised: bool,
        delta: &[f32],
        turn: &Turn,
        out: &mut [f32],
    ) {
        let channels = delta.len();
        assert!(weights.len() == rows * KEYS && out.len() == rows * channels && rows <= ROWS);
        assert!(channels.is_multiple_of(SIDE) && values.len() == KEYS / 2 * channels);
        match self.family {
            Family::Portable => portable::values(rows, weights, values, delta, turn, out),
            #[cfg(target_arch = "x86_64")]
            Family::Avx2 => {
                let sums = (raised, self.gradual);
                x86::avx2::values(self.isa, sums, rows, weights, values, delta, turn, out);
            }
            #[cfg(target_arch = "x86_64")]
            Family::Vnni => x86::avx512::values(self.isa, rows, weights, values, delta, turn, out),
        }
    }

    /// Adds weights times values `[KEYS, channels]` to the result of each query.
    pub(super) fn values_float(&self, rows: usize, weights: &[f32], values: &[f32], out: &mut [f32]) {
        let channels = values.len() / KEYS;
        assert!(weights.len() == rows * KEYS && out.len() == rows * channels && rows <= ROWS);
        assert!(channels.is_multiple_of(SIDE) && values.len() == KEYS * channels);
        match self.family {
            Family::Portable => portable::values_float(rows, weights, values, out),
            #[cfg(target_arch = "x86_64")]
            _ => x86::avx2::values_float(self.isa, rows, weights, values, out),
        }
    }
}
