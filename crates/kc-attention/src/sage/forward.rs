//! Attention over packed keys and values: pieces of queries in parallel, tile by tile of keys.

use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

use kc_core::{Error, Float, Result, TensorView, TensorViewMut, bytemuck};
use rayon::prelude::*;

use super::kernel::{Bias, FEW, Integers, KEYS, Kernel, PerRow, ROWS, State, Turn, WEIGHT};
use super::pack::{KeyPanels, ValuePanels, ValueTile};
use super::quantize::{self, Quantiser, in_head};
use super::rows::{self, Rows};
use super::{PvMode, SageConfig};
use crate::exact::kernels::Scalar;
use crate::{Dims, Mask, Select};

/// Queries of a piece of work without smoothing: whole groups.
const PIECE: usize = 8 * ROWS;

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
    pub(super) fn run(
        &self,
        out: TensorViewMut<'_, E, 4>,
        lse: Option<TensorViewMut<'_, f32, 3>>,
    ) -> Result<()> {
        let pieces = self.pieces();
        let mut tasks = Vec::with_capacity(self.queries.len() * pieces.len());
        for out in out.chunks(0, 1)? {
            for mut rest in out.chunks(1, 1)? {
                let head = tasks.len() / pieces.len();
                for rows in &pieces {
                    let (out, tail) = rest.split_at(2, rows.len())?;
                    rest = tail;
                    tasks.push(Task { head, rows: rows.clone(), out, lse: None });
                }
            }
        }
        if let Some(lse) = lse {
            let mut tasks = tasks.iter_mut();
            for lse in lse.chunks(0, 1)? {
                for mut rest in lse.chunks(1, 1)? {
                    for task in tasks.by_ref().take(pieces.len()) {
                        let (lse, tail) = rest.split_at(2, task.rows.len())?;
                        rest = tail;
                        task.lse = Some(lse);
                    }
                }
            }
        }
        tasks.into_par_iter().for_each_init(Room::default, |room, task| {
            let exact = task.lse.is_some();
            Piece::new(self, task.head, task.rows, exact).run(room, task.out, task.lse);
        });
        Ok(())
    }
}

/// Some queries of a head, with the parts of the results that are theirs: `[1, 1, rows, D]` and `[1, 1, rows]`.
struct Task<'a, E: Float> {
    head: usize,
    rows: Range<usize>,
    out: TensorViewMut<'a, E, 4>,
    lse: Option<TensorViewMut<'a, f32, 3>>,
}

/// Memory that a thread uses again.
#[derive(Default)]
struct Room {
    codes: Vec<i32>,
    words: Vec<i32>,
    q: Vec<i32>,
    keys: Vec<i32>,
    shared: Vec<f32>,
    bias: Vec<f32>,
    scores: Vec<f32>,
    integers: Vec<i16>,
    floats: Vec<f32>,
    sums: Vec<f32>,
    row: Vec<f32>,
}

/// A group of queries: the first in the piece, and how many the kernels take (the last may be empty).
#[derive(Debug, Clone, Copy)]
struct Group {
    first: usize,
    rows: usize,
    scale: PerRow,
    /// See [`Kernel::excess`].
    excess: [i32; 8],
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
    kernel: Kernel,
    source: &'b Source<'a, E>,
    quantiser: &'b Quantiser,
    /// The exact sums of weights are wanted.
    exact: bool,
}

impl<'a, 'b, E: Float> Piece<'a, 'b, E> {
    fn new(job: &'b Job<'a, E>, head: usize, rows: Range<usize>, exact: bool) -> Self {
        let Dims { heads, kv_heads, .. } = job.dims;
        let source = head / heads * kv_heads + job.dims.kv_head(head % heads);
        let kernel = job.kernel.here();
        let (source, quantiser) = (&job.sources[source], &job.queries[head]);
        Piece { job, head, rows, kernel, source, quantiser, exact }
    }

    fn run(&self, room: &mut Room, out: TensorViewMut<'_, E, 4>, lse: Option<TensorViewMut<'_, f32, 3>>) {
        let (kernel, dims) = (self.kernel, &self.job.dims);
        let channels = self.source.values.channels();
        let depth = kernel.depth(dims.channels);
        let mut groups = self.groups();
        let taken: usize = groups.iter().map(|g| g.rows).sum();
        self.pack_queries(&mut groups, depth, room);
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
                    kernel.scores(group.rows, q, &group.excess, keys, bias, &mut scores[..group.rows * KEYS]);
                }
                match values {
                    ValueTile::Integers { words, delta, raised } => {
                        room.integers.resize(GROUPS * ROWS * KEYS, 0);
                        self.integers(
                            some,
                            &room.scores,
                            &mut room.integers,
                            (words, raised),
                            delta,
                            &mut room.sums,
                        );
                    }
                    ValueTile::Floats(values) => {
                        room.floats.resize(GROUPS * ROWS * KEYS, 0.0);
                        self.floats(some, &room.scores, &mut room.floats, values, &mut room.sums);
                    }
                }
            }
        }
        self.finish(&groups, room, out, lse);
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
            Group { first, rows, scale, excess: [0; 8], state, turn, scaled: false, active: false }
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
    fn pack_queries(&self, groups: &mut [Group], depth: usize, room: &mut Room) {
        let kernel = self.kernel;
        let d = self.job.dims.channels;
        room.codes.clear();
        room.codes.resize(d.div_ceil(4), 0);
        room.words.resize(depth, 0);
        room.q.clear();
        room.q.resize(groups.iter().map(|g| g.rows).sum::<usize>() * depth, 0);
        let mut rows = Rows::new(self.view());
        for group in groups {
            let q = &mut room.q[group.first * depth..][..group.rows * depth];
            for r in 0..group.rows.min(self.rows.len() - group.first) {
                let row = self.rows.start + group.first + r;
                let codes: &mut [i8] = bytemuck::cast_slice_mut(&mut room.codes);
                self.quantiser.encode(row, rows.get(row), &mut codes[..d]);
                group.excess[r] = kernel.excess(codes);
                kernel.raise_query(&room.codes, &mut room.words);
                for (out, word) in q.chunks_exact_mut(group.rows).zip(&room.words) {
                    out[r] = *word;
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
            for (eight, out) in out.as_chunks_mut::<{ rows::EIGHT }>().0.iter_mut().enumerate() {
                let from = first + eight * rows::EIGHT;
                *out = rows::eight_dots_without(self.job.config.isa, mean, &rows.eight(from), km);
            }
            out.iter_mut().for_each(|out| *out *= scale);
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

    /// The turns of all groups, one after the other: none waits for another, so the processor overlaps them.
    fn turns(&self, groups: &mut [Group], scores: &[f32], local: bool) {
        let each = groups.iter_mut().zip(scores.chunks_exact(ROWS * KEYS));
        for (group, scores) in each.filter(|(g, _)| g.active) {
            let factor = group.factor();
            let scores = &scores[..group.rows * KEYS];
            self.kernel.turn(group.rows, scores, &factor, local, &mut group.state, &mut group.turn);
        }
    }

    fn integers(
        &self,
        groups: &mut [Group],
        scores: &[f32],
        weights: &mut [i16],
        (words, raised): (&[i32], bool),
        delta: &[f32],
        sums: &mut [f32],
    ) {
        let kernel = self.kernel;
        let local = self.job.config.pv != PvMode::Int8;
        let unit = if local { WEIGHT } else { 255.0 };
        let integers = Integers { unit, local, exact: self.exact };
        self.turns(groups, scores, local);
        let each = scores.chunks_exact(ROWS * KEYS).zip(weights.chunks_exact_mut(ROWS * KEYS));
        for (group, (scores, weights)) in groups.iter_mut().zip(each).filter(|(g, _)| g.active) {
            let size = group.rows * KEYS;
            let (factor, state) = (group.factor(), &mut group.state);
            let (turn, scores, weights) = (&mut group.turn, &scores[..size], &mut weights[..size]);
            kernel.weigh(group.rows, scores, &factor, integers, turn, state, weights);
        }
        let each = groups.iter().zip(weights.chunks_exact(ROWS * KEYS));
        for (group, weights) in each.filter(|(g, _)| g.active) {
            let sums = &mut sums[group.first * delta.len()..][..group.rows * delta.len()];
            group.shrink(kernel, sums, delta.len());
            let weights = &weights[..group.rows * KEYS];
            kernel.values(group.rows, weights, words, raised, delta, &group.turn, sums);
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
        let kernel = self.kernel;
        let channels = values.len() / KEYS;
        let fp8 = matches!(self.job.config.pv, PvMode::Fp8 | PvMode::Fp8F16Acc);
        self.turns(groups, scores, false);
        let each = scores.chunks_exact(ROWS * KEYS).zip(weights.chunks_exact_mut(ROWS * KEYS));
        for (group, (scores, weights)) in groups.iter_mut().zip(each).filter(|(g, _)| g.active) {
            let size = group.rows * KEYS;
            let (factor, state) = (group.factor(), &mut group.state);
            let (turn, scores, weights) = (&group.turn, &scores[..size], &mut weights[..size]);
            kernel.weigh_float(group.rows, scores, &factor, fp8, turn, state, weights);
        }
        let each = groups.iter().zip(weights.chunks_exact(ROWS * KEYS));
        for (group, weights) in each.filter(|(g, _)| g.active) {
            let sums = &mut sums[group.first * channels..][..group.rows * channels];
            group.shrink(kernel, sums, channels);
            kernel.values_float(group.rows, &weights[..group.rows * KEYS], values, sums);
        }
    }

    fn finish(
        &self,
        groups: &[Group],
        room: &mut Room,
        mut out: TensorViewMut<'_, E, 4>,
        mut lse: Option<TensorViewMut<'_, f32, 3>>,
    ) {
        let d = self.job.dims.channels;
        room.row.resize(d, 0.0);
        let channels = self.source.values.channels();
        let km = self.source.keys.quantiser().means().of(0);
        let mut rows = Rows::new(self.view());
        for row in 0..self.rows.len() {
            let group = &groups[row / ROWS];
            let r = row - group.first;
            let visible = group.state.top[r] != f32::NEG_INFINITY;
            match visible {
                true => {
                    let sums = &room.sums[row * channels..][..d];
                    self.source.values.finish(self.kernel.isa(), sums, group.state.sum[r], &mut room.row);
                }
                false => room.row.fill(0.0),
            }
            write(&mut out, row, &room.row);
            let Some(lse) = &mut lse else { continue };
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
            let sum = match visible {
                true => {
                    (group.state.top[r] + (group.state.exact[r] / unit).log2()) * LN_2
                        + self.job.scale * shift
                }
                false => f32::NEG_INFINITY,
            };
            lse.set([0, 0, row], sum);
        }
    }
}

/// Rounds a row to that of `out` `[1, 1, rows, D]`.
fn write<E: Float>(out: &mut TensorViewMut<'_, E, 4>, row: usize, values: &[f32]) {
    let mut head = out.outer_mut(0);
    let mut matrix = head.matrix_mut(0);
    let mut to = matrix.row_mut(row);
    match to.as_mut_slice() {
        Some(to) => f32::narrow(values, to),
        None => values.iter().enumerate().for_each(|(c, x)| to.set([c], E::from_f32(*x))),
    }
}

impl Group {
    /// What scores are multiplied with.
    fn factor(&self) -> PerRow {
        if self.scaled { [1.0; 8] } else { self.scale }
    }

    /// Makes earlier sums relative to the new largest score.
    fn shrink(&self, kernel: Kernel, sums: &mut [f32], channels: usize) {
        for (sums, factor) in sums.chunks_exact_mut(channels).zip(self.turn.shrink) {
            if factor != 1.0 {
                rows::scale(kernel.isa(), sums, factor);
            }
        }
    }
}
