//! What a mask says about a tile.

use std::ops::Range;

use kc_core::TensorView;

use super::forward::{GAP, KEYS, QUERIES};
use super::kernels::Scalar;
use crate::layout::Dims;
use crate::mask::{Mask, Select};

/// How much of a tile is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cover {
    /// Nothing: the tile is skipped.
    None,
    /// Keys `0..end` of each row, which may be fewer than the tile has.
    Ends,
    /// As `Ends`, with something added to each score.
    Added,
    /// All.
    All,
}

/// The view of a tile of queries on a tile of keys. Rows are the queries of the first head, those of the second, ...
#[derive(Debug)]
pub(super) struct Window<T> {
    /// Keys of the tile that each row sees by causality.
    ends: Vec<usize>,
    /// What is added to the scores, `[rows][KEYS + GAP]`; only there once it was needed.
    added: Vec<T>,
}

impl<T: Scalar> Window<T> {
    pub(super) fn new() -> Self {
        Window { ends: vec![0; QUERIES], added: Vec::new() }
    }

    /// Looks at the mask of some queries of some heads and some keys, of which the last query sees the last.
    pub(super) fn look(
        &mut self,
        mask: &Mask<'_>,
        dims: &Dims,
        batch: usize,
        heads: &Range<usize>,
        queries: &Range<usize>,
        keys: &Range<usize>,
    ) -> Cover {
        for (r, end) in self.ends.iter_mut().take(heads.len() * queries.len()).enumerate() {
            let i = queries.start + r % queries.len();
            *end = mask.end(i, dims).clamp(keys.start, keys.end) - keys.start;
        }
        let seen = match mask.select {
            Select::All if self.ends[0] == keys.len() && keys.len().is_multiple_of(KEYS) => {
                return Cover::All;
            }
            Select::All => return Cover::Ends,
            Select::Keep(keep) => {
                let value = |x| if x == 0 { -T::INFINITY } else { T::ZERO };
                self.fill(keep.outer(batch), heads, queries, keys, value)
            }
            Select::Add(add) => {
                let value = |x: f32| T::from_f32(x) * T::LOG2_E;
                self.fill(add.outer(batch), heads, queries, keys, value)
            }
        };
        if seen { Cover::Added } else { Cover::None }
    }

    /// Reads a part of a mask; false if nothing of it is seen.
    fn fill<M: kc_core::Element>(
        &mut self,
        mask: TensorView<'_, M, 3>,
        heads: &Range<usize>,
        queries: &Range<usize>,
        keys: &Range<usize>,
        value: impl Fn(M) -> T,
    ) -> bool {
        self.added.resize(QUERIES * (KEYS + GAP), T::ZERO);
        let mut seen = false;
        let places = heads.clone().flat_map(|head| queries.clone().map(move |i| (head, i)));
        let rows = self.added.chunks_exact_mut(KEYS + GAP).zip(&self.ends);
        for ((head, i), (row, &end)) in places.zip(rows) {
            let mask = mask.matrix(head);
            let keys = keys.start..keys.start + end;
            let row = &mut row[..end];
            match mask.row_slice(i) {
                Some(mask) => row.iter_mut().zip(&mask[keys]).for_each(|(to, x)| *to = value(*x)),
                None => row.iter_mut().zip(keys).for_each(|(to, j)| *to = value(mask.at([i, j]))),
            }
            seen |= row.iter().any(|x| *x > -T::INFINITY);
        }
        seen
    }

    /// Applies what [`look`](Self::look) saw to scores, of which `padded` of each row are read later.
    pub(super) fn apply(&self, cover: Cover, scores: &mut [T], stride: usize, rows: usize, padded: usize) {
        if cover == Cover::All {
            return;
        }
        for r in 0..rows {
            let (seen, hidden) = scores[r * stride..][..padded].split_at_mut(self.ends[r]);
            hidden.fill(-T::INFINITY);
            if cover == Cover::Added {
                let added = &self.added[r * (KEYS + GAP)..];
                seen.iter_mut().zip(added).for_each(|(s, a)| *s += *a);
            }
        }
    }
}
