//! Work on the caller's rayon pool with results that do not depend on the number of threads.
//!
//! Work is cut by its size alone, never by the number of threads, and partial results are combined in a
//! fixed tree. One thread and many therefore give the same bits.

use std::ops::Range;

use rayon::prelude::*;

/// The ranges `0..chunk`, `chunk..2*chunk`, ... that cover `0..len`. The last may be shorter.
///
/// # Panics
/// If `chunk` is 0, which is a mistake in the calling code.
pub fn chunks(len: usize, chunk: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    assert!(chunk > 0, "a chunk has at least one element");
    (0..len.div_ceil(chunk)).map(move |i| i * chunk..(i * chunk + chunk).min(len))
}

/// Runs `body` on each chunk of `0..len`, in parallel when there is more than one.
pub fn for_each_chunk(len: usize, chunk: usize, body: impl Fn(Range<usize>) + Sync) {
    if len <= chunk {
        if len > 0 {
            body(0..len);
        }
        return;
    }
    let count = chunks(len, chunk).len();
    (0..count).into_par_iter().for_each(|i| body(i * chunk..(i * chunk + chunk).min(len)));
}

/// Maps each chunk of `0..len` in parallel; results in order.
pub fn map_chunks<R: Send>(len: usize, chunk: usize, map: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
    if len <= chunk {
        return chunks(len, chunk).map(map).collect();
    }
    let count = chunks(len, chunk).len();
    (0..count).into_par_iter().map(|i| map(i * chunk..(i * chunk + chunk).min(len))).collect()
}

/// Maps each chunk of `0..len` in parallel and combines the results in a fixed binary tree:
/// `((0 1) (2 3)) ((4 5) 6)`. `None` if `len` is 0.
pub fn map_reduce<R: Send>(
    len: usize,
    chunk: usize,
    map: impl Fn(Range<usize>) -> R + Sync,
    reduce: impl Fn(R, R) -> R,
) -> Option<R> {
    tree_reduce(map_chunks(len, chunk, map), reduce)
}

/// Combines neighbours until one is left. The tree depends on the number of parts only.
pub fn tree_reduce<R>(mut parts: Vec<R>, reduce: impl Fn(R, R) -> R) -> Option<R> {
    while parts.len() > 1 {
        let mut next = Vec::with_capacity(parts.len().div_ceil(2));
        let mut rest = parts.into_iter();
        while let Some(left) = rest.next() {
            next.push(match rest.next() {
                Some(right) => reduce(left, right),
                None => left,
            });
        }
        parts = next;
    }
    parts.pop()
}

/// The number of threads of the caller's pool.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_once() {
        let all: Vec<_> = chunks(10, 4).collect();
        assert_eq!(all, [0..4, 4..8, 8..10]);
        assert_eq!(chunks(0, 4).len(), 0);
    }

    #[test]
    fn the_tree_is_fixed() {
        let parts: Vec<String> = (0..7).map(|i| i.to_string()).collect();
        let tree = tree_reduce(parts, |a, b| format!("({a} {b})"));
        assert_eq!(tree.as_deref(), Some("(((0 1) (2 3)) ((4 5) 6))"));
        assert_eq!(tree_reduce(Vec::<u8>::new(), |a, _| a), None);
    }

    #[test]
    fn sums_have_the_same_bits_on_any_pool() {
        let values: Vec<f32> = (0..10_007).map(|i| ((i * 37) % 101) as f32 * 0.1 - 3.0).collect();
        let sum = || map_reduce(values.len(), 64, |r| values[r].iter().sum::<f32>(), |a, b| a + b);
        let on = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(sum);
        assert_eq!(on(1).unwrap().to_bits(), on(3).unwrap().to_bits());
    }
}
