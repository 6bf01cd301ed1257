//! Rows of queries, keys and values in the orders that products read.

#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

use std::ops::Range;

use kc_core::math::first_non_finite;
use kc_core::{Float, TensorView};
use rayon::prelude::*;

use super::forward::{Job, KEYS, Plan};
use super::kernels::Scalar;

/// Row `i` of `x`, converted, into the front of `to`; false if something of it is not finite.
pub(super) fn row<E: Float, T: Scalar>(x: TensorView<'_, E, 2>, i: usize, to: &mut [T]) -> bool {
    let to = &mut to[..x.cols()];
    match x.row_slice(i) {
        Some(row) => T::widen(row, to),
        None => {
            for (c, to) in to.iter_mut().enumerate() {
                T::widen(&[x.at([i, c])], std::slice::from_mut(to));
            }
        }
    }
    first_non_finite(to).is_none()
}

/// Some rows one after another, the last of `padded` being 0. False if something is not finite.
pub(super) fn rows<E: Float, T: Scalar>(
    x: TensorView<'_, E, 2>,
    rows: Range<usize>,
    padded: usize,
    to: &mut [T],
) -> bool {
    let (depth, mut finite) = (x.cols(), true);
    for (r, i) in rows.clone().enumerate() {
        finite &= row(x, i, &mut to[r * depth..]);
    }
    to[rows.len() * depth..padded * depth].fill(T::ZERO);
    finite
}

/// The width of the panel of `width` that begins at `at` of `len`: the last is cut to a multiple of `grain`.
fn panel(at: usize, len: usize, [width, grain]: [usize; 2]) -> usize {
    width.min((len - at).next_multiple_of(grain))
}

/// Some rows in panels, `[D][width]` each; rows that are not there are 0. False if something is not finite.
pub(super) fn by_rows<E: Float, T: Scalar>(
    job: &Job<'_, E>,
    plan: &Plan,
    x: TensorView<'_, E, 2>,
    some: Range<usize>,
    buffer: &mut [T],
    to: &mut [T],
) -> bool {
    let turn = T::kernels(job.isa).turn;
    let (mut rest, mut finite) = (to, true);
    for at in some.clone().step_by(plan.panels[0]) {
        let wide = panel(at, some.end, plan.panels);
        let (out, after) = rest.split_at_mut(wide * plan.depth);
        rest = after;
        finite &= rows(x, at..some.end.min(at + wide), wide, buffer);
        turn(job.isa, buffer, plan.depth, wide, out);
    }
    finite
}

/// Some rows in panels of channels, `[padded][width]` each; rows and channels that are not there are 0. False if
/// something is not finite.
pub(super) fn by_channels<E: Float, T: Scalar>(
    plan: &Plan,
    x: TensorView<'_, E, 2>,
    rows: Range<usize>,
    padded: usize,
    buffer: &mut [T],
    to: &mut [T],
) -> bool {
    let mut finite = true;
    let buffer = &mut buffer[..plan.channels];
    buffer[plan.depth..].fill(T::ZERO);
    for r in 0..padded {
        if r < rows.len() {
            finite &= row(x, rows.start + r, buffer);
        } else {
            buffer.fill(T::ZERO);
        }
        for at in (0..plan.channels).step_by(plan.panels[0]) {
            let wide = panel(at, plan.depth, plan.panels);
            to[at * padded + r * wide..][..wide].copy_from_slice(&buffer[at..at + wide]);
        }
    }
    finite
}

/// Packs the keys and values of tile `t` of a key head.
pub(super) fn tile<E: Float, T: Scalar>(
    job: &Job<'_, E>,
    plan: &Plan,
    [batch, head, t]: [usize; 3],
    buffer: &mut [T],
    keys: &mut [T],
    values: &mut [T],
) {
    let tile = plan.tile(t);
    let there = tile.start..tile.end.min(job.dims.keys);
    let (k, v) = (job.k.outer(batch).matrix(head), job.v.outer(batch).matrix(head));
    job.note(by_rows(job, plan, k, there.clone(), buffer, keys));
    job.note(by_channels(plan, v, there, tile.len(), buffer, values));
}

/// Packs the keys and values of some key heads (counted over the batch), tile by tile.
pub(super) fn keys_and_values<E: Float, T: Scalar>(
    job: &Job<'_, E>,
    plan: &Plan,
    units: Range<usize>,
    keys: &mut [T],
    values: &mut [T],
) {
    let heads = keys.chunks_mut(plan.keys * plan.depth).zip(values.chunks_mut(plan.keys * plan.channels));
    let mut tiles = Vec::new();
    for (unit, (keys, values)) in units.zip(heads) {
        let parts = keys.chunks_mut(KEYS * plan.depth).zip(values.chunks_mut(KEYS * plan.channels));
        tiles.extend(parts.enumerate().map(|(t, parts)| (unit, t, parts)));
    }
    tiles.into_par_iter().for_each_init(
        || vec![T::ZERO; plan.buffer()],
        |buffer, (unit, t, (keys, values))| {
            let place = [unit / job.dims.kv_heads, unit % job.dims.kv_heads, t];
            tile(job, plan, place, buffer, keys, values);
        },
    );
}
