//! Rows of queries, keys and values in the orders that products read.

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

/// The width of the panel of `width` that begins at `at` of `len`: the last is cut to a multiple of `grain`.
pub(super) fn panel(at: usize, len: usize, width: usize, grain: usize) -> usize {
    width.min((len - at).next_multiple_of(grain))
}

/// Some rows, times `factor`, in panels of `width` rows, `[D][width]` each. The last panel is cut to a multiple of
/// `grain`; rows that are not there are 0. False if something is not finite.
pub(super) fn by_rows<E: Float, T: Scalar>(
    x: TensorView<'_, E, 2>,
    rows: Range<usize>,
    [width, grain]: [usize; 2],
    factor: T,
    buffer: &mut [T],
    to: &mut [T],
) -> bool {
    let (depth, count) = (x.cols(), rows.len());
    let (mut rest, mut finite) = (to, true);
    for at in (0..count).step_by(width) {
        let wide = panel(at, count, width, grain);
        let (out, after) = rest.split_at_mut(wide * depth);
        rest = after;
        let filled = wide.min(count - at);
        for r in 0..filled {
            finite &= row(x, rows.start + at + r, &mut buffer[r * depth..]);
        }
        buffer[filled * depth..wide * depth].fill(T::ZERO);
        for (c, out) in out.chunks_exact_mut(wide).enumerate() {
            for (r, out) in out.iter_mut().enumerate() {
                *out = buffer[r * depth + c] * factor;
            }
        }
    }
    finite
}

/// Some rows in panels of `width` channels, `[padded rows][width]` each. The last panel is cut to a multiple of
/// `grain`; rows and channels that are not there are 0. False if something is not finite.
pub(super) fn by_channels<E: Float, T: Scalar>(
    x: TensorView<'_, E, 2>,
    rows: Range<usize>,
    padded: usize,
    [width, grain]: [usize; 2],
    buffer: &mut [T],
    to: &mut [T],
) -> bool {
    let channels = x.cols();
    let mut finite = true;
    let all = channels.next_multiple_of(grain);
    buffer[channels..all].fill(T::ZERO);
    for r in 0..padded {
        if r < rows.len() {
            finite &= row(x, rows.start + r, buffer);
        } else {
            buffer[..all].fill(T::ZERO);
        }
        for at in (0..all).step_by(width) {
            let wide = panel(at, channels, width, grain);
            to[at * padded + r * wide..][..wide].copy_from_slice(&buffer[at..at + wide]);
        }
    }
    finite
}

/// Packs the keys and values of some heads (counted over the batch), tile by tile.
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
    let [width, grain] = plan.panels;
    tiles.into_par_iter().for_each_init(
        || vec![T::ZERO; width * plan.channels],
        |buffer, (unit, t, (keys, values))| {
            let (batch, head) = (unit / job.dims.kv_heads, unit % job.dims.kv_heads);
            let tile = plan.tile(t);
            let there = tile.start..tile.end.min(job.dims.keys);
            let k = job.k.outer(batch).matrix(head);
            job.note(by_rows(k, there.clone(), [width, grain], T::ONE, buffer, keys));
            let v = job.v.outer(batch).matrix(head);
            job.note(by_channels(v, there, tile.len(), [width, grain], buffer, values));
        },
    );
}
