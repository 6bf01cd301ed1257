//! The k largest elements.

use std::cmp::Ordering;

#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{Real, dispatch, portable};
use crate::{Error, Isa, Level, Result};

/// Elements that are compared with the threshold together.
const BLOCK: usize = 256;

/// The `k` largest elements, largest first, and their positions. Equal elements come in the order of their
/// positions; a NaN counts as greater than every number.
///
/// O(n) comparisons in vector code plus O(c log k) for the c candidates that pass the running threshold.
pub fn top_k<T: Real>(x: &[T], k: usize) -> Result<(Vec<T>, Vec<usize>)> {
    top_k_with(Isa::best(), x, k)
}

/// [`top_k`] at the level of `isa`.
pub fn top_k_with<T: Real>(isa: Isa, x: &[T], k: usize) -> Result<(Vec<T>, Vec<usize>)> {
    if k > x.len() {
        return Err(Error::argument("k", format!("at most the {} elements", x.len()), k));
    }
    if k == 0 {
        return Ok((Vec::new(), Vec::new()));
    }
    let before = |a: &(T, usize), b: &(T, usize)| descending(a.0, b.0).then(a.1.cmp(&b.1));
    let room = 2 * k.max(BLOCK);
    let mut kept: Vec<(T, usize)> = Vec::with_capacity(room.min(x.len()) + BLOCK);
    // Once k elements are kept, none below the worst of them can enter.
    let mut threshold: Option<T> = None;
    for (i, block) in x.chunks(BLOCK).enumerate() {
        match threshold {
            Some(t) => {
                if t.is_nan() || !dispatch!(isa, any_above(block, t)) {
                    continue;
                }
                let candidates = block.iter().enumerate().filter(|(_, v)| portable::above_or_nan(**v, t));
                kept.extend(candidates.map(|(j, &v)| (v, i * BLOCK + j)));
            }
            None => kept.extend(block.iter().enumerate().map(|(j, &v)| (v, i * BLOCK + j))),
        }
        if kept.len() >= room {
            kept.select_nth_unstable_by(k - 1, before);
            kept.truncate(k);
            threshold = Some(kept[k - 1].0);
        }
    }
    if kept.len() > k {
        kept.select_nth_unstable_by(k - 1, before);
        kept.truncate(k);
    }
    kept.sort_unstable_by(before);
    Ok(kept.into_iter().unzip())
}

/// NaN first, then from large to small.
fn descending<T: Real>(a: T, b: T) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
    }
}
