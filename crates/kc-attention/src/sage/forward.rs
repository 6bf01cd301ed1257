//! Attention over packed keys and values: pieces of queries in parallel, tile by tile of keys.

use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

use kc_core::{Error, Float, Result, Tensor, TensorView};
use rayon::prelude::*;

use super::kernel::{Bias, FEW, Integers, KEYS, Kernel, Operand, PerRow, ROWS, State, Turn, WEIGHT};
use super::pack::{KeyPanels, ValuePanels, ValueTile};
use super::quantize::{self, Quantiser, in_head};
use super::rows::{self, Rows};
use super::{PvMode, SageConfig};
use crate::{Dims, Mask, Select};

/// Queries of a piece of work without smoothing: whole groups.
const PIECE: usize = 16 * ROWS;

/// Groups that go through one step after the other, so that a tile of keys or of values stays in the first cache.
const GROUPS: usize = 4;

/// A head of keys and values.
struct Source<'a, E: Float> {
    k: TensorView<'a, E, 2>,
    keys: KeyPanels,
    values: ValuePanels,
}

/// All that pieces share.
pub(super) struct Job<'a, E: Float> {
    config: &'a SageConfig,
    dims: Dims,
    mask: Mask<'a>,
    kernel: Kernel,
    scale: f32,
    q: TensorView<'a, E, 4>,
    sources: Vec<Source<'a, E>>,
    queries: Vec<Quantiser>,
}

impl<'a, E: Float> Job<'a, E> {
    /// Quantises and packs. All views have heads first, the mask is broadcast.
    pub(super) fn new(
        q: TensorView<'a, E, 4>,
        k: TensorView<'a, E, 4>,
        v: TensorView<'a, E, 4>,
        mask: Mask<'a>,
        dims: Dims,
        config: &'a SageConfig,
    ) -> Result<Self> {
        let kernel = Kernel::new(config.isa, config.bits, dims.channels);
        let scale = config.scale.unwrap_or_else(|| 1.0 / (dims.channels as f32).sqrt());
        let source = |head: usize| {
            let at = [head / dims.kv_heads, head % dims.kv_heads];
            let (k, v) = (k.outer(at[0]).matrix(at[1]), v.outer(at[0]).matrix(at[1]));
            let keys = KeyPanels::pack(kernel, k, scale * LOG2_E, config);
            let keys = keys.map_err(|error| in_head(error, &at, config))?;
            let values = ValuePanels::pack(kernel, v, config).map_err(|error| in_head(error, &at, config))?;
            Ok(Source { k, keys, values })
        };
        let query = |head: usize| {
            let at = [head / dims.heads, head % dims.heads];
            let quantiser = quantize::of_queries(q.outer(at[0]).matrix(at[1]), config);
            quantiser.map_err(|error| in_head(error, &at, config))
        };
        let sources: Result<Vec<_>> = (0..dims.batch * dims.kv_heads).into_par_iter().map(source).collect();
        let queries: Result<Vec<_>> = (0..dims.batch * dims.heads).into_par_iter().map(query).collect();
        let job = Job { config, dims, mask, kernel, scale, q, sources: sources?, queries: queries? };
        job.check_range()?;
        Ok(job)
    }

    /// Scores must stay within f32.
    fn check_range(&self) -> Result<()> {
        let largest = |scales: &[f32]| scales.iter().fold(0.0f64, |m, s| m.max(f64::from(*s)));
        let limit = f64::from(self.config.bits.limit());
        let q = self.queries.iter().fold(0.0, |m: f64, q| m.max(largest(q.scales())));
        let k = self.sources.iter().fold(0.0, |m: f64, s| m.max(largest(s.keys.quantiser().scales())));
        let score = q * k * limit * limit * self.dims.channels as f64 * f64::from(self.scale.abs());
        if score > 1e37 {
            return Err(Error::argument("scale", "one with which scores stay below 1e37", self.scale));
        }
        Ok(())
    }

    /// Bytes of the packed keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.sources.iter().map(|source| source.keys.bytes() + source.values.bytes()).sum()
    }

    /// The queries of each piece of a head. A piece lies within one block if blocks are smoothed.
    fn pieces(&self) -> Vec<Range<usize>> {
        let n = self.dims.queries;
        if !self.config.smooths_q() {
            return kc_core::par::chunks(n, PIECE).collect();
        }
        let block = self.config.blkq;
        let within = |b: Range<usize>| {
            kc_core::par::chunks(b.len(), PIECE.max(128)).map(move |p| b.start + p.start..b.start + p.end)
        };
        kc_core::par::chunks(n, block).flat_map(within).collect()
    }

    /// Writes the result, `[B, Hq, Nq, D]`, and the logarithms of the sums, `[B, Hq, Nq]` if they are wanted.
    pub(super) fn run(&self, out: &mut Tensor<f32, 4>, lse: Option<&mut Tensor<f32, 3>>) -> Result<()> {
        let Dims { heads, queries, channels, .. } = self.dims;
        let pieces = self.pieces();
        let mut lse = match lse {
            Some(lse) => lse.as_mut_slice(),
            None => &mut [],
        };
        let mut rest = out.as_mut_slice();
        let mut work = Vec::with_capacity(self.queries.len() * pieces.len());
        for head in 0..self.queries.len() {
            for piece in &pieces {
                let (part, tail) = rest.split_at_mut(piece.len() * channels);
                let (sums, others) = lse.split_at_mut(piece.len().min(lse.len()));
                (rest, lse) = (tail, others);
                work.push((head, piece.clone(), part, sums));
            }
        }
        debug_assert!(queries == 0 || heads == 0 || rest.is_empty());
        work.into_par_iter().for_each_init(Room::default, |room, (head, rows, out, lse)| {
            Piece::new(self, head, rows).run(room, out, lse);
        });
        Ok(())
    }
}

/// Memory that a thread uses again.
#[derive(Default)]
struct Room {
    codes: Vec<i8>,
    q: Vec<i32>,
    keys: Vec<i32>,
    shared: Vec<f32>,
    bias: Vec<f32>,
    scores: Vec<f32>,
    integers: Vec<i16>,
    floats: Vec<f32>,
    sums: Vec<f32>,
}

/// A group of queries: the first in the piece, and how many the kernels take (the last may be empty).
#[derive(Debug, Clone, Copy)]
struct Group {
    first: usize,
    rows: usize,
    scale: PerRow,
    state: State,
    turn: Turn,
    /// Scores of this tile have their scale already.
    scaled: bool,
    /// Some query sees a key of this tile.
    active: bool,
}

/// Some queries of a head.
struct Piece<'a, 'b, E: Float> {
    job: &'b Job<'a, E>,
    head: usize,
    rows: Range<usize>,
    source: &'b Source<'a, E>,
    quantiser: &'b Quantiser,
}

impl<'a, 'b, E: Float> Piece<'a, 'b, E> {
    fn new(job: &'b Job<'a, E>, head: usize, rows: Range<usize>) -> Self {
        let Dims { heads, kv_heads, .. } = job.dims;
        let source = head / heads * kv_heads + job.dims.kv_head(head % heads);
        Piece { job, head, rows, source: &job.sources[source], quantiser: &job.queries[head] }
    }

    fn run(&self, room: &mut Room, out: &mut [f32], lse: &mut [f32]) {
        let (kernel, dims) = (self.job.kernel, &self.job.dims);
        let channels = self.source.values.channels();
        let depth = kernel.depth(dims.channels);
        let mut groups = self.groups();
        let taken: usize = groups.iter().map(|g| g.rows).sum();
        self.pack_queries(&groups, depth, room);
        room.sums.clear();
        room.sums.resize(taken * channels, 0.0);
        room.scores.resize(GROUPS * ROWS * KEYS, 0.0);
        let last = self.limit(self.rows.len() - 1);
        for tile in 0..last.div_ceil(KEYS) {
            let shared = self.shared_bias(tile, &mut room.shared);
            let keys = self.source.keys.tile(tile, &mut room.keys);
            let values = self.source.values.tile(tile);
            for some in groups.chunks_mut(GROUPS) {
                for (group, scores) in some.iter_mut().zip(room.scores.chunks_exact_mut(ROWS * KEYS)) {
                    group.active = self.limit(self.last(group)) > tile * KEYS;
                    if !group.active {
                        continue;
                    }
                    let bias = self.bias(group, tile, shared, &room.shared, &mut room.bias);
                    group.scaled = bias.is_some();
                    let q = &room.q[group.first * depth..][..group.rows * depth];
                    kernel.scores(group.rows, q, keys, bias, &mut scores[..group.rows * KEYS]);
                }
                match values {
                    ValueTile::Integers { words, delta } => {
                        room.integers.resize(GROUPS * ROWS * KEYS, 0);
                        self.integers(some, &room.scores, &mut room.integers, words, delta, &mut room.sums);
                    }
                    ValueTile::Floats(values) => {
                        room.floats.resize(GROUPS * ROWS * KEYS, 0.0);
                        self.floats(some, &room.scores, &mut room.floats, values, &mut room.sums);
                    }
                }
            }
        }
        self.finish(&groups, &room.sums, out, lse);
    }

    fn groups(&self) -> Vec<Group> {
        let count = self.rows.len();
        let group = |first: usize| {
            let left = count - first;
            let rows = if left <= FEW { FEW } else { ROWS };
            let mut scale = [0.0; 8];
            for (r, scale) in scale.iter_mut().enumerate().take(left.min(rows)) {
                *scale = self.quantiser.scale(self.rows.start + first + r);
            }
            let (state, turn) = (State::NEW, Turn::default());
            Group { first, rows, scale, state, turn, scaled: false, active: false }
        };
        (0..count).step_by(ROWS).map(group).collect()
    }

    /// The last query of a group, in the piece.
    fn last(&self, group: &Group) -> usize {
        (group.first + group.rows).min(self.rows.len()) - 1
    }

    /// Keys `0..limit` are those that causality lets a query of the piece see.
    fn limit(&self, row: usize) -> usize {
        self.job.mask.end(self.rows.start + row, &self.job.dims).min(self.job.dims.keys)
    }

    fn view(&self) -> TensorView<'a, E, 2> {
        let heads = self.job.dims.heads;
        self.job.q.outer(self.head / heads).matrix(self.head % heads)
    }

    /// Codes of all groups, `[depth, rows]` words each.
    fn pack_queries(&self, groups: &[Group], depth: usize, room: &mut Room) {
        let kernel = self.job.kernel;
        let d = self.job.dims.channels;
        let width = d.next_multiple_of(4);
        room.codes.clear();
        room.codes.resize(width, 0);
        room.q.clear();
        room.q.resize(groups.iter().map(|g| g.rows).sum::<usize>() * depth, 0);
        let mut rows = Rows::new(self.view());
        for group in groups {
            let q = &mut room.q[group.first * depth..][..group.rows * depth];
            for r in 0..group.rows.min(self.rows.len() - group.first) {
                let row = self.rows.start + group.first + r;
                self.quantiser.encode(row, rows.get(row), &mut room.codes[..d]);
                let words = q.iter_mut().skip(r).step_by(group.rows);
                match kernel.operand {
                    Operand::Words => {
                        for (word, [a, b]) in words.zip(room.codes.as_chunks::<2>().0) {
                            *word = i32::from(*a) & 0xffff | i32::from(*b) << 16;
                        }
                    }
                    Operand::Quads => {
                        for (word, quad) in words.zip(room.codes.as_chunks::<4>().0) {
                            let raised = quad.map(|c| (i32::from(c) + kernel.raise()) as u8);
                            *word = i32::from_le_bytes(raised);
                        }
                    }
                }
            }
        }
    }

    /// What all queries of the piece add to the scores of a tile, if there is anything: smoothing's lost part, and what
    /// hides keys beyond the last.
    fn shared_bias(&self, tile: usize, out: &mut Vec<f32>) -> bool {
        let keys = self.job.dims.keys;
        let mean = self.quantiser.means().of(self.rows.start);
        let first = tile * KEYS;
        if mean.is_empty() && first + KEYS <= keys {
            return false;
        }
        out.clear();
        out.resize(KEYS, 0.0);
        let present = KEYS.min(keys - first);
        if !mean.is_empty() {
            let km = self.source.keys.quantiser().means().of(0);
            let mut rows = Rows::new(self.source.k);
            let scale = self.job.scale * LOG2_E;
            for (j, out) in out.iter_mut().enumerate().take(present) {
                *out = scale * rows::dot_without(self.job.config.isa, mean, rows.get(first + j), km);
            }
        }
        out[present..].fill(f32::NEG_INFINITY);
        true
    }

    /// What is added to the scores of a group.
    fn bias<'r>(
        &self,
        group: &Group,
        tile: usize,
        shared: bool,
        common: &'r [f32],
        own: &'r mut Vec<f32>,
    ) -> Option<Bias<'r>> {
        let first = tile * KEYS;
        let end = (first + KEYS).min(self.job.dims.keys);
        let hides = self.limit(group.first) < end;
        if !hides && matches!(self.job.mask.select, Select::All) {
            return shared.then_some(Bias { values: common, stride: 0, scale: group.scale });
        }
        own.clear();
        let heads = self.job.dims.heads;
        for r in 0..group.rows {
            let from = own.len();
            match shared {
                true => own.extend_from_slice(common),
                false => own.resize(from + KEYS, 0.0),
            }
            let row = (group.first + r).min(self.rows.len() - 1);
            let index = |j: usize| [self.head / heads, self.head % heads, self.rows.start + row, first + j];
            let own = &mut own[from..];
            match self.job.mask.select {
                Select::All => {}
                Select::Keep(keep) => {
                    for (j, own) in own.iter_mut().enumerate().take(end - first) {
                        if keep.at(index(j)) == 0 {
                            *own = f32::NEG_INFINITY;
                        }
                    }
                }
                Select::Add(add) => {
                    for (j, own) in own.iter_mut().enumerate().take(end - first) {
                        *own += add.at(index(j)) * LOG2_E;
                    }
                }
            }
            own[self.limit(row).clamp(first, first + KEYS) - first..].fill(f32::NEG_INFINITY);
        }
        Some(Bias { values: own, stride: KEYS, scale: group.scale })
    }

    fn integers(
        &self,
        groups: &mut [Group],
        scores: &[f32],
        weights: &mut [i16],
        words: &[i32],
        delta: &[f32],
        sums: &mut [f32],
    ) {
        let kernel = self.job.kernel;
        let exact = self.job.config.lse;
        let integers = match self.job.config.pv {
            PvMode::Int8 => Integers { unit: 255.0, local: false, exact },
            _ => Integers { unit: WEIGHT, local: true, exact },
        };
        let each = scores.chunks_exact(ROWS * KEYS).zip(weights.chunks_exact_mut(ROWS * KEYS));
        for (group, (scores, weights)) in groups.iter_mut().zip(each).filter(|(g, _)| g.active) {
            let size = group.rows * KEYS;
            let (factor, state) = (group.factor(), &mut group.state);
            let turn =
                kernel.weigh(group.rows, &scores[..size], &factor, integers, state, &mut weights[..size]);
            group.turn = turn;
        }
        let each = groups.iter().zip(weights.chunks_exact(ROWS * KEYS));
        for (group, weights) in each.filter(|(g, _)| g.active) {
            let sums = &mut sums[group.first * delta.len()..][..group.rows * delta.len()];
            group.shrink(sums, delta.len());
            let weights = &weights[..group.rows * KEYS];
            kernel.values(group.rows, weights, words, delta, &group.turn, sums);
        }
    }

    fn floats(
        &self,
        groups: &mut [Group],
        scores: &[f32],
        weights: &mut [f32],
        values: &[f32],
        sums: &mut [f32],
    ) {
        let kernel = self.job.kernel;
        let channels = values.len() / KEYS;
        let fp8 = matches!(self.job.config.pv, PvMode::Fp8 | PvMode::Fp8F16Acc);
        let each = scores.chunks_exact(ROWS * KEYS).zip(weights.chunks_exact_mut(ROWS * KEYS));
        for (group, (scores, weights)) in groups.iter_mut().zip(each).filter(|(g, _)| g.active) {
            let size = group.rows * KEYS;
            let (factor, state) = (group.factor(), &mut group.state);
            let turn =
                kernel.weigh_float(group.rows, &scores[..size], &factor, fp8, state, &mut weights[..size]);
            group.turn = turn;
        }
        let each = groups.iter().zip(weights.chunks_exact(ROWS * KEYS));
        for (group, weights) in each.filter(|(g, _)| g.active) {
            let sums = &mut sums[group.first * channels..][..group.rows * channels];
            group.shrink(sums, channels);
            kernel.values_float(group.rows, &weights[..group.rows * KEYS], values, sums);
        }
    }

    fn finish(&self, groups: &[Group], sums: &[f32], out: &mut [f32], lse: &mut [f32]) {
        let d = self.job.dims.channels;
        let channels = self.source.values.channels();
        let km = self.source.keys.quantiser().means().of(0);
        let mut rows = Rows::new(self.view());
        for (row, out) in out.chunks_exact_mut(d).enumerate() {
            let group = &groups[row / ROWS];
            let r = row - group.first;
            let visible = group.state.top[r] != f32::NEG_INFINITY;
            match visible {
                true => self.source.values.finish(&sums[row * channels..][..d], group.state.sum[r], out),
                false => out.fill(0.0),
            }
            let Some(lse) = lse.get_mut(row) else { continue };
            let unit = match self.job.config.pv {
                PvMode::F16 { .. } => WEIGHT,
                PvMode::Int8 => 255.0,
                _ => 1.0,
            };
            // Smoothing the keys took this from all scores.
            let shift = match km.is_empty() {
                true => 0.0,
                false => rows::dot_without(self.job.config.isa, km, rows.get(self.rows.start + row), &[]),
            };
            *lse = match visible {
                true => {
                    (group.state.top[r] + (group.state.exact[r] / unit).log2()) * LN_2
                        + self.job.scale * shift
                }
                false => f32::NEG_INFINITY,
            };
        }
    }
}

impl Group {
    /// What scores are multiplied with.
    fn factor(&self) -> PerRow {
        if self.scaled { [1.0; 8] } else { self.scale }
    }

    /// Makes earlier sums relative to the new largest score.
    fn shrink(&self, sums: &mut [f32], channels: usize) {
        for (sums, factor) in sums.chunks_exact_mut(channels).zip(self.turn.shrink) {
            if factor != 1.0 {
                sums.iter_mut().for_each(|x| *x *= factor);
            }
        }
    }
}
