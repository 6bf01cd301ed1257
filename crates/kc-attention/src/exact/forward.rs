//! The pass over tiles of queries and keys.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use kc_core::{AlignedBuf, Error, Float, Isa, Result, TensorView, TensorViewMut, par};
use rayon::prelude::*;

use super::kernels::{Kernels, Left, Right, Running, Scalar, Size};
use super::window::{Cover, Window};
use super::{few, pack};
use crate::layout::{Dims, Layout};
use crate::mask::Mask;

/// Queries of a tile: a multiple of the rows of every level's register tile.
pub(super) const QUERIES: usize = 96;
/// Keys of a tile: a multiple of the columns of every level's register tile.
pub(super) const KEYS: usize = 128;
/// Rows of tiles are this much longer than their content, so that columns do not share sets of the cache.
pub(super) const GAP: usize = 16;
/// Bytes of packed keys and values at a time, if a head's are not more.
const PACKED: usize = 4 << 20;

/// Valid shapes and settings. Views are `[B, H, N, D]`.
#[derive(Debug)]
pub(super) struct Job<'a, E: Float> {
    pub(super) q: TensorView<'a, E, 4>,
    pub(super) k: TensorView<'a, E, 4>,
    pub(super) v: TensorView<'a, E, 4>,
    pub(super) dims: Dims,
    /// Broadcast.
    pub(super) mask: Mask<'a>,
    pub(super) scale: f64,
    pub(super) isa: Isa,
    /// Whether something came by that is not finite.
    pub(super) suspect: AtomicBool,
}

impl<E: Float> Job<'_, E> {
    /// Takes note of what was seen in passing.
    pub(super) fn note(&self, finite: bool) {
        if !finite {
            self.suspect.store(true, Ordering::Relaxed);
        }
    }

    /// The factor that makes products to scores in base 2.
    pub(super) fn factor<T: Scalar>(&self) -> T {
        T::from_f64(self.scale * std::f64::consts::LOG2_E)
    }

    /// How keys and values of this level are packed.
    pub(super) fn plan<T: Scalar>(&self) -> Plan {
        let Kernels { rows, columns, .. } = T::kernels(self.isa);
        let grain = columns / 2;
        Plan {
            panels: [columns, grain],
            rows,
            depth: self.dims.channels,
            channels: self.dims.channels.next_multiple_of(grain),
            keys: self.dims.keys.next_multiple_of(grain),
        }
    }
}

/// Sizes of what is packed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Columns of a panel, and what the last is a multiple of.
    pub(super) panels: [usize; 2],
    /// Rows of a group of a left factor.
    pub(super) rows: usize,
    /// Channels.
    pub(super) depth: usize,
    /// Channels, padded.
    pub(super) channels: usize,
    /// Keys, padded.
    pub(super) keys: usize,
}

impl Plan {
    /// The keys of tile `t` with their padding.
    pub(super) fn tile(&self, t: usize) -> Range<usize> {
        t * KEYS..self.keys.min((t + 1) * KEYS)
    }
}

/// Output and lse of some queries of a head.
struct Target<'a, E: Float, L: Float> {
    batch: usize,
    head: usize,
    first: usize,
    out: TensorViewMut<'a, E, 4>,
    lse: Option<TensorViewMut<'a, L, 3>>,
}

/// Attention into `out` (in `layout`) and `lse` `[B, Hq, Nq]`.
pub(super) fn run<E: Float, T: Scalar, L: Float>(
    job: &Job<'_, E>,
    layout: Layout,
    out: TensorViewMut<'_, E, 4>,
    lse: Option<TensorViewMut<'_, L, 3>>,
) -> Result<()> {
    if few::fits(job) {
        return few::run::<E, T, L>(job, layout, out, lse);
    }
    let (dims, plan) = (&job.dims, job.plan::<T>());
    let units = dims.batch * dims.kv_heads;
    let sizes = [plan.keys.checked_mul(plan.depth), plan.keys.checked_mul(plan.channels)];
    let [Some(keys), Some(values)] = sizes else {
        return Err(Error::too_large("k", u64::MAX, isize::MAX as u64, "bytes"));
    };
    let at_a_time = (PACKED / (keys + values).saturating_mul(size_of::<T>()).max(1)).clamp(1, units.max(1));
    let mut packed_keys = AlignedBuf::<T>::zeroed(at_a_time.saturating_mul(keys))?;
    let mut packed_values = AlignedBuf::<T>::zeroed(at_a_time.saturating_mul(values))?;
    let mut targets = targets(dims, layout, out, lse)?.into_iter().peekable();
    for units in par::chunks(units, at_a_time) {
        let first = units.start;
        pack::keys_and_values(job, &plan, units.clone(), &mut packed_keys, &mut packed_values);
        let mut tasks = Vec::new();
        let unit = |t: &Target<'_, E, L>| t.batch * dims.kv_heads + dims.kv_head(t.head);
        while let Some(task) = targets.next_if(|t| unit(t) < units.end) {
            tasks.push(task);
        }
        // The longest first, so that threads end together.
        tasks.sort_by_key(|t| std::cmp::Reverse(job.mask.end(t.first + QUERIES, dims)));
        let (packed_keys, packed_values) = (&packed_keys, &packed_values);
        tasks.into_par_iter().with_max_len(1).try_for_each_init(
            || Tile::new(&plan),
            |tile, target| {
                let tile = tile.as_mut().map_err(|e| e.clone())?;
                let at = unit(&target) - first;
                tile.attend(job, &plan, &packed_keys[at * keys..], &packed_values[at * values..], target);
                Ok::<(), Error>(())
            },
        )?;
    }
    Ok(())
}

/// The parts of the results, head by head.
fn targets<'a, E: Float, L: Float>(
    dims: &Dims,
    layout: Layout,
    out: TensorViewMut<'a, E, 4>,
    lse: Option<TensorViewMut<'a, L, 3>>,
) -> Result<Vec<Target<'a, E, L>>> {
    let (heads, queries) = match layout {
        Layout::Hnd => (1, 2),
        Layout::Nhd => (2, 1),
    };
    let tiles = dims.queries.div_ceil(QUERIES);
    let mut all = Vec::with_capacity(dims.batch * dims.heads * tiles);
    for (batch, out) in out.chunks(0, 1)?.into_iter().enumerate() {
        for (head, out) in out.chunks(heads, 1)?.into_iter().enumerate() {
            for (tile, out) in out.chunks(queries, QUERIES)?.into_iter().enumerate() {
                all.push(Target { batch, head, first: tile * QUERIES, out, lse: None });
            }
        }
    }
    if let Some(lse) = lse {
        let mut rest = all.iter_mut();
        for lse in lse.chunks(0, 1)? {
            for lse in lse.chunks(1, 1)? {
                for (lse, target) in lse.chunks(2, QUERIES)?.into_iter().zip(rest.by_ref()) {
                    target.lse = Some(lse);
                }
            }
        }
    }
    Ok(all)
}

/// The memory of a thread.
struct Tile<T: Scalar> {
    q: AlignedBuf<T>,
    scores: AlignedBuf<T>,
    out: AlignedBuf<T>,
    buffer: AlignedBuf<T>,
    top: Vec<T>,
    sum: Vec<T>,
    window: Window<T>,
}

impl<T: Scalar> Tile<T> {
    fn new(plan: &Plan) -> Result<Self> {
        Ok(Tile {
            q: AlignedBuf::zeroed(QUERIES * plan.depth)?,
            scores: AlignedBuf::zeroed(QUERIES * (KEYS + GAP))?,
            out: AlignedBuf::zeroed(QUERIES * (plan.channels + GAP))?,
            buffer: AlignedBuf::zeroed(plan.rows * plan.channels)?,
            top: vec![T::ZERO; QUERIES],
            sum: vec![T::ZERO; QUERIES],
            window: Window::new(),
        })
    }

    fn attend<E: Float, L: Float>(
        &mut self,
        job: &Job<'_, E>,
        plan: &Plan,
        keys: &[T],
        values: &[T],
        mut target: Target<'_, E, L>,
    ) {
        let kernels = T::kernels(job.isa);
        let queries = target.first..job.dims.queries.min(target.first + QUERIES);
        let rows = queries.len().next_multiple_of(plan.rows);
        let (stride, out_stride) = (KEYS + GAP, plan.channels + GAP);
        let q = job.q.outer(target.batch).matrix(target.head);
        let groups = [plan.rows, plan.rows];
        job.note(pack::by_rows(q, queries.clone(), groups, job.factor(), &mut self.buffer, &mut self.q));
        self.top[..rows].fill(-T::INFINITY);
        self.sum[..rows].fill(T::ZERO);
        self.out[..rows * out_stride].fill(T::ZERO);
        let mut state = Running {
            top: &mut self.top[..rows],
            sum: &mut self.sum[..rows],
            out: &mut self.out,
            stride: out_stride,
            channels: plan.channels,
        };
        let end = job.mask.end(queries.end - 1, &job.dims);
        for t in 0..end.div_ceil(KEYS) {
            let tile = plan.tile(t);
            let seen = tile.start..end.min(tile.end);
            let padded = seen.len().next_multiple_of(plan.panels[0]).min(tile.len());
            let cover = self.window.look(&job.mask, &job.dims, [target.batch, target.head], &queries, &seen);
            if cover == Cover::None {
                continue;
            }
            let left = Left::packed(&self.q, plan.rows, plan.depth);
            let right = Right { data: &keys[tile.start * plan.depth..], depth: plan.depth };
            let size = Size { rows, depth: plan.depth, columns: padded };
            (kernels.product)(job.isa, left, right, &mut self.scores, stride, size, false);
            self.window.apply(cover, &mut self.scores, stride, queries.len(), padded);
            (kernels.soften)(job.isa, &mut self.scores, stride, padded, &mut state);
            let left = Left::rows(&self.scores, stride);
            let right = Right { data: &values[tile.start * plan.channels..], depth: tile.len() };
            let size = Size { rows, depth: padded, columns: plan.channels };
            (kernels.product)(job.isa, left, right, state.out, out_stride, size, true);
        }
        for r in 0..queries.len() {
            let (top, sum) = (self.top[r], self.sum[r]);
            let row = &mut self.out[r * out_stride..][..plan.depth];
            if sum > T::ZERO {
                let factor = T::ONE / sum;
                row.iter_mut().for_each(|o| *o = *o * factor);
            }
            write_row(&mut target.out, r, row);
            if let Some(lse) = &mut target.lse {
                let nats = (top.to_f64() + sum.to_f64().log2()) * std::f64::consts::LN_2;
                lse.set([0, 0, r], L::from_f64(nats));
            }
        }
    }
}

/// Rounds a row of results into row `r` of a part `[1, 1, rows, D]` or `[1, rows, 1, D]`.
pub(super) fn write_row<E: Float, T: Scalar>(out: &mut TensorViewMut<'_, E, 4>, r: usize, row: &[T]) {
    let heads_first = out.shape()[1] == 1;
    let mut part = out.outer_mut(0);
    let mut matrix = part.matrix_mut(if heads_first { 0 } else { r });
    let mut to = matrix.row_mut(if heads_first { r } else { 0 });
    if let Some(to) = to.as_mut_slice() {
        T::narrow(row, to);
        return;
    }
    for (c, x) in row.iter().enumerate() {
        let mut rounded = [E::default()];
        T::narrow(std::slice::from_ref(x), &mut rounded);
        to.set([c], rounded[0]);
    }
}
