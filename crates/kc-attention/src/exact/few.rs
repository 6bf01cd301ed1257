//! A few queries against many keys: keys and values are read once, as they are.
//!
//! The queries of all heads that share a key head are the rows of one problem. Its keys are cut into pieces of a fixed
//! length, whose running softmaxes are merged in order.

use std::ops::Range;

use kc_core::math::first_non_finite;
use kc_core::{AlignedBuf, Error, Float, Result, TensorView, TensorViewMut, par};
use rayon::prelude::*;

use super::forward::{GAP, Job, KEYS, Pool, write_row};
use super::kernels::{BLOCK, Kernels, Running, Scalar};
use super::pack;
use super::window::{Cover, Window};

/// Most rows of a problem; with more, products of packed tiles are faster.
const ROWS: usize = 32;

/// Keys of a piece.
const PIECE: usize = 4 * KEYS;

/// True if a job is one of few queries.
pub(super) fn fits<E: Float>(job: &Job<'_, E>) -> bool {
    let rows = job.dims.queries * (job.dims.heads / job.dims.kv_heads);
    (1..=ROWS).contains(&rows)
}

/// The running softmax of a piece.
#[derive(Debug)]
pub(crate) struct Part<T> {
    top: Vec<T>,
    sum: Vec<T>,
    /// `[rows, padded channels]`
    out: Vec<T>,
    channels: usize,
}

impl<T: Scalar> Part<T> {
    /// No keys yet; `channels` is a multiple of the lanes of every level.
    pub(crate) fn new(rows: usize, channels: usize) -> Self {
        let (top, sum) = (vec![-T::INFINITY; rows], vec![T::ZERO; rows]);
        Part { top, sum, out: vec![T::ZERO; rows * channels], channels }
    }

    /// What a step of the softmax changes.
    pub(crate) fn state(&mut self) -> Running<'_, T> {
        let Part { top, sum, out, channels } = self;
        Running { top, sum, out, stride: *channels, channels: *channels }
    }

    /// The weighted values so far, row after row.
    pub(crate) fn out(&mut self) -> &mut [T] {
        &mut self.out
    }
}

/// Attention into `out` `[B, Hq, Nq, D]` and `lse` `[B, Hq, Nq]`.
pub(super) fn run<E: Float, T: Scalar, L: Float>(
    job: &Job<'_, E>,
    mut out: TensorViewMut<'_, E, 4>,
    mut lse: Option<TensorViewMut<'_, L, 3>>,
) -> Result<()> {
    let dims = &job.dims;
    let group = dims.heads / dims.kv_heads;
    let channels = dims.channels.next_multiple_of(T::kernels(job.isa).columns / 2);
    let pieces: Vec<Range<usize>> = par::chunks(dims.keys, PIECE).collect();
    let tiles = Pool::new();
    let attend = |item: usize| {
        let (unit, piece) = (item / pieces.len(), &pieces[item % pieces.len()]);
        let mut part = Part::new(group * dims.queries, channels);
        let new = || Tile::new(group * dims.queries, channels);
        tiles.with(new, |tile| tile.attend(job, unit, piece.clone(), &mut part))?;
        Ok::<_, Error>(part)
    };
    let work = 0..dims.batch * dims.kv_heads * pieces.len();
    let parts: Result<Vec<Part<T>>> = match job.is_small() {
        true => work.map(attend).collect(),
        false => work.into_par_iter().map(attend).collect(),
    };
    for (unit, parts) in parts?.chunks(pieces.len()).enumerate() {
        let (batch, kv_head) = (unit / dims.kv_heads, unit % dims.kv_heads);
        for r in 0..group * dims.queries {
            let place = [batch, kv_head * group + r / dims.queries, r % dims.queries];
            let (top, sum, row) = merge(parts, r);
            write_row(&mut out, place, &row[..dims.channels]);
            if let Some(lse) = &mut lse {
                let nats = (top.to_f64() + sum.to_f64().log2()) * std::f64::consts::LN_2;
                lse.set(place, L::from_f64(nats));
            }
        }
    }
    Ok(())
}

/// Row `r` of all pieces: largest score (in base 2), sum of weights relative to it, output.
pub(crate) fn merge<T: Scalar>(parts: &[Part<T>], r: usize) -> (T, T, Vec<T>) {
    let channels = parts.first().map_or(0, |p| p.channels);
    let top = parts.iter().fold(-T::INFINITY, |top, p| if p.top[r] > top { p.top[r] } else { top });
    let (mut sum, mut out) = (T::ZERO, vec![T::ZERO; channels]);
    for part in parts {
        if part.top[r] == -T::INFINITY {
            continue;
        }
        let factor = T::from_f64((part.top[r].to_f64() - top.to_f64()).exp2());
        sum += part.sum[r] * factor;
        let row = &part.out[r * channels..][..channels];
        out.iter_mut().zip(row).for_each(|(to, x)| *to += *x * factor);
    }
    if sum > T::ZERO {
        let factor = T::ONE / sum;
        out.iter_mut().for_each(|x| *x = *x * factor);
    }
    (top, sum, out)
}

/// The memory of a thread.
struct Tile<T: Scalar> {
    channels: usize,
    q: AlignedBuf<T>,
    scores: AlignedBuf<T>,
    rows: AlignedBuf<T>,
    window: Window<T>,
}

impl<T: Scalar> Tile<T> {
    fn new(count: usize, channels: usize) -> Result<Self> {
        Ok(Tile {
            channels,
            q: AlignedBuf::zeroed(count * channels)?,
            scores: AlignedBuf::zeroed(count * (KEYS + GAP))?,
            rows: AlignedBuf::zeroed(BLOCK * channels)?,
            window: Window::new(),
        })
    }

    fn attend<E: Float>(&mut self, job: &Job<'_, E>, unit: usize, piece: Range<usize>, part: &mut Part<T>) {
        let (dims, channels, stride) = (&job.dims, self.channels, KEYS + GAP);
        let Kernels { columns, dots, blend, soften, .. } = T::kernels(job.isa);
        let (batch, kv_head) = (unit / dims.kv_heads, unit % dims.kv_heads);
        let group = dims.heads / dims.kv_heads;
        let count = group * dims.queries;
        let factor = job.factor::<T>();
        for (r, to) in self.q.chunks_exact_mut(channels).take(count).enumerate() {
            let q = job.q.outer(batch).matrix(kv_head * group + r / dims.queries);
            job.note(pack::row(q, r % dims.queries, to));
            to[..dims.channels].iter_mut().for_each(|x| *x = *x * factor);
            to[dims.channels..].fill(T::ZERO);
        }
        let heads = kv_head * group..(kv_head + 1) * group;
        let (k, v) = (job.k.outer(batch).matrix(kv_head), job.v.outer(batch).matrix(kv_head));
        for start in piece.clone().step_by(KEYS) {
            let keys = start..piece.end.min(start + KEYS);
            let padded = keys.len().next_multiple_of(BLOCK.max(columns / 2));
            for j in (0..keys.len()).step_by(BLOCK) {
                let block = rows(k, keys.start + j..keys.end, channels, &mut self.rows);
                dots(job.isa, &self.q, count, &block, &mut self.scores[j..], stride);
            }
            for r in 0..count {
                // What is not finite in a key shows in its scores.
                job.note(first_non_finite(&self.scores[r * stride..][..keys.len()]).is_none());
            }
            let cover = self.window.look(&job.mask, dims, batch, &heads, &(0..dims.queries), &keys);
            if cover == Cover::None {
                (0..count).for_each(|r| self.scores[r * stride..][..padded].fill(-T::INFINITY));
            } else {
                self.window.apply(cover, &mut self.scores, stride, count, padded);
            }
            soften(job.isa, &mut self.scores, stride, padded, &mut part.state());
            for j in (0..keys.len()).step_by(BLOCK) {
                let block = rows(v, keys.start + j..keys.end, channels, &mut self.rows);
                blend(job.isa, &self.scores[j..], stride, count, &block, part.out());
            }
        }
        // And what is not finite in a value shows in the output, whatever its weight.
        job.note(first_non_finite(&part.out).is_none());
    }
}

/// The first rows of a range, as they are if they can be read so, else from `buffer`. A block that the range does not fill
/// ends with copies of its last row.
fn rows<'a, E: Float, T: Scalar>(
    x: TensorView<'a, E, 2>,
    range: Range<usize>,
    channels: usize,
    buffer: &'a mut [T],
) -> [&'a [T]; BLOCK] {
    let last = range.len().min(BLOCK) - 1;
    if let (Some(x), true) = (x.as_type::<T>(), x.cols() == channels && x.strides()[1] == 1) {
        let mut block: [&[T]; BLOCK] = [&[]; BLOCK];
        for (i, row) in block.iter_mut().enumerate() {
            *row = x.row_slice(range.start + i.min(last)).unwrap_or(&[]);
        }
        return block;
    }
    for (i, to) in buffer.chunks_exact_mut(channels).enumerate().take(last + 1) {
        pack::row(x, range.start + i, to);
        to[x.cols()..].fill(T::ZERO);
    }
    let mut block: [&[T]; BLOCK] = [&[]; BLOCK];
    for (i, row) in block.iter_mut().enumerate() {
        *row = &buffer[i.min(last) * channels..][..channels];
    }
    block
}
