//! Filling points of shape (replications, points, dimensions): checks of ranges, and blocks of rows that threads
//! fill independently.

use std::ops::Range;

use kc_core::{Error, Isa, Result};
use rayon::prelude::*;

/// Values of one tile: what a kernel works on at a time; half of the first-level cache.
const TILE: usize = 1 << 11;

/// Tiles of one task of a thread.
const TILES: usize = 32;

/// Outputs of so many values no longer fit the caches: they are written past them.
const STREAMED: usize = 1 << 20;

/// A set has an end where the sequence has none: the index of a point must be an exact f64.
pub(crate) const ENDLESS: u128 = 1 << 53;

/// The number of rows, if they are in order and below `limit`.
pub(crate) fn count_rows(rows: &Range<u64>, limit: u128) -> Result<usize> {
    if rows.end < rows.start {
        return Err(Error::argument(
            "rows",
            "a first row up to the last",
            format!("{}..{}", rows.start, rows.end),
        ));
    }
    if u128::from(rows.end) > limit {
        return Err(Error::too_large("rows", rows.end, u64::try_from(limit).unwrap_or(u64::MAX), "points"));
    }
    usize::try_from(rows.end - rows.start)
        .map_err(|_| Error::too_large("rows", rows.end - rows.start, usize::MAX as u64, "points"))
}

/// That `out` has the shape (replications, rows, dimensions).
pub(crate) fn check_out(out: &[f64], shape: [usize; 3]) -> Result<()> {
    let want = shape[0].checked_mul(shape[1]).and_then(|n| n.checked_mul(shape[2]));
    if want == Some(out.len()) {
        return Ok(());
    }
    Err(Error::shape(
        "out",
        format!("the values of {shape:?} (replications, rows, dimensions)"),
        &[out.len()],
    ))
}

/// That there is at least one replication, and not more than their random numbers have room for.
pub(crate) fn check_replications(replications: usize, dims: usize) -> Result<()> {
    const MOST: usize = 1 << 28;
    if replications == 0 {
        return Err(Error::argument("replications", "at least 1", replications));
    }
    if replications.saturating_mul(dims) > MOST {
        let need = replications.saturating_mul(dims) as u64;
        return Err(Error::too_large("replications", need, MOST as u64, "coordinates of all replications"));
    }
    Ok(())
}

/// The error of a set that is asked for equal replications.
pub(crate) fn replications_need_randomization(replications: usize) -> Error {
    let got = format!("{replications} equal replications of one table");
    Error::argument("replications", "1 without randomization", got)
}

/// That a closed set is asked for as a whole.
pub(crate) fn check_closed(rows: &Range<u64>) -> Result<()> {
    if rows.start == 0 {
        return Ok(());
    }
    Err(Error::argument(
        "rows",
        "0..n: the points of a closed set depend on n",
        format!("{}..{}", rows.start, rows.end),
    ))
}

/// That natural order of base 2 is asked for whole generations of points.
pub(crate) fn check_powers_of_two(rows: &Range<u64>) -> Result<()> {
    for (which, at) in [("first", rows.start), ("last", rows.end)] {
        if at & at.wrapping_sub(1) != 0 && at != 0 {
            let expected =
                format!("0 or a power of 2 as the {which} row in natural order (gray order takes any)");
            return Err(Error::argument("rows", expected, at));
        }
    }
    Ok(())
}

/// Calls `body(replication, rows, values)` for tiles of `tile_rows` rows that together are `out`, in parallel. The cut
/// depends on the shape only.
pub(crate) fn for_each_tile(
    out: &mut [f64],
    rows: Range<u64>,
    dim: usize,
    tile_rows: usize,
    body: impl Fn(usize, Range<u64>, &mut [f64]) + Sync,
) {
    let len = (rows.end - rows.start) as usize * dim;
    if len == 0 {
        return;
    }
    let tile = |replication: usize, at: usize, values: &mut [f64]| {
        let first = rows.start + (at * tile_rows) as u64;
        body(replication, first..first + (values.len() / dim) as u64, values);
    };
    if out.len() <= tile_rows * dim {
        return out.chunks_mut(len).enumerate().for_each(|(l, values)| tile(l, 0, values));
    }
    out.par_chunks_mut(len).enumerate().for_each(|(l, set)| {
        set.par_chunks_mut(tile_rows * dim).enumerate().for_each(|(at, values)| tile(l, at, values));
    });
}

/// [`for_each_tile`] with tiles that fit the first-level cache, unless a single row does not, and are written past
/// the caches if they are many.
pub(crate) fn fill_blocks(
    isa: Isa,
    out: &mut [f64],
    rows: Range<u64>,
    dim: usize,
    body: impl Fn(usize, Range<u64>, &mut [f64]) + Sync,
) {
    // A power of two keeps tiles aligned with the groups of rows that lattices repeat.
    let tile_rows = 1 << (TILE / dim.max(1)).max(1).ilog2();
    let streamed = out.len() >= STREAMED;
    for_each_tile(out, rows, dim, tile_rows * TILES, |replication, rows, values| {
        let mut buffer = vec![0.0; if streamed { tile_rows * dim } else { 0 }];
        for (first, part) in rows.step_by(tile_rows).zip(values.chunks_mut(tile_rows * dim)) {
            let rows = first..first + (part.len() / dim) as u64;
            if streamed {
                let buffer = &mut buffer[..part.len()];
                body(replication, rows, buffer);
                stream(isa, buffer, part);
            } else {
                body(replication, rows, part);
            }
        }
    });
}

/// Copies values that nobody reads soon.
pub(crate) fn stream(isa: Isa, from: &[f64], to: &mut [f64]) {
    #[cfg(target_arch = "x86_64")]
    if x86::stream(isa, from, to) {
        return;
    }
    let _ = isa;
    to.copy_from_slice(from);
}

#[cfg(target_arch = "x86_64")]
mod x86;
