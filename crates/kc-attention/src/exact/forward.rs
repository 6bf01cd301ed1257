//! The pass over tiles of queries and keys.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use kc_core::{AlignedBuf, Error, Float, Isa, Result, TensorView, TensorViewMut, par};
use rayon::prelude::*;

use super::kernels::{Kernels, Left, Right, Running, Scalar, Size};
use super::window::{Cover, Window};
use super::{few, pack};
use crate::layout::Dims;
use crate::mask::Mask;

/// Queries of a tile: a multiple of the rows of every level's register tile.
pub(super) const QUERIES: usize = 96;
/// Keys of a tile: a multiple of the columns of every level's register tile.
pub(super) const KEYS: usize = 128;
/// Rows of tiles are this much longer than their content, so that columns do not share sets of the cache.
pub(super) const GAP: usize = 16;
/// Bytes of packed keys and values at a time, if a head's are not more.
const PACKED: usize = 4 << 20;
/// Rows up to which heads of a group share a tile.
const SHARED: usize = 24;
/// Products below which threads cost more than they bring.
const SMALL: usize = 1 << 20;

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
            queries: QUERIES.min(self.dims.queries.max(SHARED).next_multiple_of(rows)),
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
    /// What the rows of a product are a multiple of.
    pub(super) rows: usize,
    /// Most rows of a tile.
    pub(super) queries: usize,
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

    /// Elements of the buffer that packing needs.
    pub(super) fn buffer(&self) -> usize {
        self.panels[0] * self.channels
    }
}

impl<E: Float> Job<'_, E> {
    /// True if one thread is enough.
    pub(super) fn is_small(&self) -> bool {
        let Dims { batch, heads, queries, keys, channels, .. } = self.dims;
        [heads, queries, keys, channels].iter().fold(batch, |all, n| all.saturating_mul(*n)) <= SMALL
    }
}

/// Runs `body` on each item, `small` jobs on this thread.
pub(super) fn each<I: Send>(
    small: bool,
    items: Vec<I>,
    body: impl Fn(I) -> Result<()> + Send + Sync,
) -> Result<()> {
    if small {
        return items.into_iter().try_for_each(body);
    }
    items.into_par_iter().with_max_len(1).try_for_each(body)
}

/// What threads took and gave back.
pub(super) struct Pool<T>(Mutex<Vec<T>>);

impl<T> Pool<T> {
    pub(super) fn new() -> Self {
        Pool(Mutex::new(Vec::new()))
    }

    /// Runs `body` with one that was given back, or a new one.
    pub(super) fn with(&self, new: impl FnOnce() -> Result<T>, body: impl FnOnce(&mut T)) -> Result<()> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut taken = kept.map_or_else(new, Ok)?;
        body(&mut taken);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
        Ok(())
    }
}

/// Output and lse of some queries: of one head, or all of several heads of a group.
struct Target<'a, E: Float, L: Float> {
    batch: usize,
    heads: Range<usize>,
    queries: Range<usize>,
    /// `[1, heads, queries, D]`
    out: TensorViewMut<'a, E, 4>,
    lse: Option<TensorViewMut<'a, L, 3>>,
}

/// Attention into `out` `[B, Hq, Nq, D]` and `lse` `[B, Hq, Nq]`.
pub(super) fn run<E: Float, T: Scalar, L: Float>(
    job: &Job<'_, E>,
    out: TensorViewMut<'_, E, 4>,
    lse: Option<TensorViewMut<'_, L, 3>>,
) -> Result<()> {
    if few::fits(job) {
        return few::run::<E, T, L>(job, out, lse);
    }
    let (dims, plan) = (&job.dims, job.plan::<T>());
    let sizes = [plan.keys.checked_mul(plan.depth), plan.keys.checked_mul(plan.channels)];
    let [Some(keys), Some(values)] = sizes else {
        return Err(Error::too_large("k", u64::MAX, isize::MAX as u64, "bytes"));
    };
    let mut targets = targets(dims, out, lse)?;
    if targets.is_empty() {
        // Nothing reads the keys and values, so that they have to be looked at.
        job.note(false);
        return Ok(());
    }
    let units = dims.batch * dims.kv_heads;
    let tiles = Pool::new();
    let run = |target, packed: Option<(&[T], &[T])>| {
        tiles.with(|| Tile::new(&plan, packed.is_none()), |tile| tile.attend(job, &plan, packed, target))
    };
    if targets.len() <= units {
        // Each packs what only it reads.
        return each(job.is_small(), targets, |target| run(target, None));
    }
    let at_a_time = (PACKED / (keys + values).saturating_mul(size_of::<T>()).max(1)).clamp(1, units);
    // One block, as large blocks get huge pages.
    let mut packed = AlignedBuf::<T>::zeroed(at_a_time.saturating_mul(keys.saturating_add(values)))?;
    let (packed_keys, packed_values) = packed.split_at_mut(at_a_time * keys);
    for units in par::chunks(units, at_a_time) {
        pack::keys_and_values(job, &plan, units.clone(), packed_keys, packed_values);
        let unit = |t: &Target<'_, E, L>| t.batch * dims.kv_heads + dims.kv_head(t.heads.start);
        let rest = targets.split_off(targets.partition_point(|t| unit(t) < units.end));
        let mut tasks = std::mem::replace(&mut targets, rest);
        // The longest first, so that threads end together.
        tasks.sort_by_key(|t| std::cmp::Reverse(job.mask.end(t.queries.end - 1, dims)));
        each(job.is_small(), tasks, |target| {
            let at = unit(&target) - units.start;
            run(target, Some((&packed_keys[at * keys..], &packed_values[at * values..])))
        })?;
    }
    Ok(())
}

/// The parts of the results, head by head.
fn targets<'a, E: Float, L: Float>(
    dims: &Dims,
    out: TensorViewMut<'a, E, 4>,
    lse: Option<TensorViewMut<'a, L, 3>>,
) -> Result<Vec<Target<'a, E, L>>> {
    let group = dims.heads / dims.kv_heads;
    let pieces = group.div_ceil((SHARED / dims.queries.max(1)).max(1));
    let share = group.div_ceil(pieces.max(1)).max(1);
    let mut all = Vec::new();
    for (batch, out) in out.chunks(0, 1)?.into_iter().enumerate() {
        for (unit, out) in out.chunks(1, group.max(1))?.into_iter().enumerate() {
            for (piece, out) in out.chunks(1, share)?.into_iter().enumerate() {
                let head = unit * group + piece * share;
                let heads = head..head + out.shape()[1];
                for (tile, out) in out.chunks(2, QUERIES)?.into_iter().enumerate() {
                    let (heads, first) = (heads.clone(), tile * QUERIES);
                    let queries = first..first + out.shape()[2];
                    all.push(Target { batch, heads, queries, out, lse: None });
                }
            }
        }
    }
    if let Some(lse) = lse {
        let mut rest = all.iter_mut();
        for lse in lse.chunks(0, 1)? {
            for lse in lse.chunks(1, group.max(1))? {
                for lse in lse.chunks(1, share)? {
                    for (lse, target) in lse.chunks(2, QUERIES)?.into_iter().zip(rest.by_ref()) {
                        target.lse = Some(lse);
                    }
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
    /// Keys, values and the buffer to pack them, unless they are packed beforehand.
    room: [AlignedBuf<T>; 3],
    top: Vec<T>,
    sum: Vec<T>,
    window: Window<T>,
}

impl<T: Scalar> Tile<T> {
    fn new(plan: &Plan, packs: bool) -> Result<Self> {
        let keys = if packs { plan.keys.min(KEYS) } else { 0 };
        let room = [keys * plan.depth, keys * plan.channels, plan.buffer()].map(AlignedBuf::zeroed);
        let [keys, values, buffer] = room;
        Ok(Tile {
            q: AlignedBuf::zeroed(plan.queries * plan.depth)?,
            scores: AlignedBuf::zeroed(plan.queries * (KEYS + GAP))?,
            out: AlignedBuf::zeroed(plan.queries * (plan.channels + GAP))?,
            room: [keys?, values?, buffer?],
            top: vec![T::ZERO; plan.queries],
            sum: vec![T::ZERO; plan.queries],
            window: Window::new(),
        })
    }

    fn attend<E: Float, L: Float>(
        &mut self,
        job: &Job<'_, E>,
        plan: &Plan,
        packed: Option<(&[T], &[T])>,
        mut target: Target<'_, E, L>,
    ) {
        let kernels = T::kernels(job.isa);
        let Target { batch, ref heads, ref queries, .. } = target;
        let count = heads.len() * queries.len();
        let rows = count.next_multiple_of(plan.rows);
        let (stride, out_stride) = (KEYS + GAP, plan.channels + GAP);
        for (g, head) in heads.clone().enumerate() {
            let to = &mut self.q[g * queries.len() * plan.depth..];
            let q = job.q.outer(batch).matrix(head);
            job.note(pack::rows(q, queries.clone(), queries.len(), to));
        }
        let factor = job.factor::<T>();
        self.q[..count * plan.depth].iter_mut().for_each(|x| *x = *x * factor);
        self.q[count * plan.depth..rows * plan.depth].fill(T::ZERO);
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
        let [room_keys, room_values, buffer] = &mut self.room;
        for t in 0..end.div_ceil(KEYS) {
            let tile = plan.tile(t);
            let seen = tile.start..end.min(tile.end);
            let padded = seen.len().next_multiple_of(plan.panels[0]).min(tile.len());
            let (keys, values) = match packed {
                Some((keys, values)) => {
                    (&keys[tile.start * plan.depth..], &values[tile.start * plan.channels..])
                }
                None => {
                    let place = [batch, job.dims.kv_head(heads.start), t];
                    pack::tile(job, plan, place, buffer, room_keys, room_values);
                    (&room_keys[..], &room_values[..])
                }
            };
            let cover = self.window.look(&job.mask, &job.dims, batch, heads, queries, &seen);
            if cover == Cover::None {
                continue;
            }
            let left = Left::rows(&self.q, plan.depth);
            let right = Right { data: keys, depth: plan.depth };
            let size = Size { rows, depth: plan.depth, columns: padded };
            (kernels.product)(job.isa, left, right, &mut self.scores, stride, size, false);
            self.window.apply(cover, &mut self.scores, stride, count, padded);
            (kernels.soften)(job.isa, &mut self.scores, stride, padded, &mut state);
            let left = Left::rows(&self.scores, stride);
            let right = Right { data: values, depth: tile.len() };
            let size = Size { rows, depth: padded, columns: plan.channels };
            (kernels.product)(job.isa, left, right, state.out, out_stride, size, true);
        }
        for r in 0..count {
            let (top, sum) = (self.top[r], self.sum[r]);
            let row = &mut self.out[r * out_stride..][..plan.depth];
            if sum > T::ZERO {
                let factor = T::ONE / sum;
                row.iter_mut().for_each(|o| *o = *o * factor);
            }
            let place = [0, r / queries.len(), r % queries.len()];
            write_row(&mut target.out, place, row);
            if let Some(lse) = &mut target.lse {
                let nats = (top.to_f64() + sum.to_f64().log2()) * std::f64::consts::LN_2;
                lse.set(place, L::from_f64(nats));
            }
        }
    }
}

/// Rounds a row of results into that of `out` for a batch entry, a head and a token.
pub(super) fn write_row<E: Float, T: Scalar>(
    out: &mut TensorViewMut<'_, E, 4>,
    [batch, head, token]: [usize; 3],
    row: &[T],
) {
    let mut part = out.outer_mut(batch);
    let mut matrix = part.matrix_mut(head);
    let mut to = matrix.row_mut(token);
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
