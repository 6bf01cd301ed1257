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

/// The view of a tile of queries on a tile of keys.
#[derive(Debug)]
pub(super) struct Window<T> {
    /// Keys of the tile that each row sees by causality.
    ends: Vec<usize>,
    /// What is added to the scores, `[QUERIES][KEYS + GAP]`; only there once it was needed.
    added: Vec<T>,
}

impl<T: Scalar> Window<T> {
    pub(super) fn new() -> Self {
        Window { ends: vec![0; QUERIES], added: Vec::new() }
    }

    /// Looks at the mask of some queries and keys, of which the last query sees the last.
    pub(super) fn look(
        &mut self,
        mask: &Mask<'_>,
        dims: &Dims,
        [batch, head]: [usize; 2],
        queries: &Range<usize>,
        keys: &Range<usize>,
    ) -> Cover {
        for (end, i) in self.ends.iter_mut().zip(queries.clone()) {
            *end = mask.end(i, dims).clamp(keys.start, keys.end) - keys.start;
        }
        let added = match mask.select {
            Select::All => None,
            Select::Keep(keep) => {
                let keep = keep.outer(batch).matrix(head);
                Some(self.fill(keep, queries, keys, |x| if x == 0 { -T::INFINITY } else { T::ZERO }))
            }
            Select::Add(add) => {
                let add = add.outer(batch).matrix(head);
                let factor = T::LOG2_E;
                Some(self.fill(add, queries, keys, |x: f32| T::from_f32(x) * factor))
            }
        };
        match added {
            Some(false) => Cover::None,
            Some(true) => Cover::Added,
            None if self.ends[0] == keys.len() && keys.len().is_multiple_of(KEYS) => Cover::All,
            None => Cover::Ends,
        }
    }

    /// Reads a part of a mask; false if nothing of it is seen.
    fn fill<M: kc_core::Element>(
        &mut self,
        mask: TensorView<'_, M, 2>,
        queries: &Range<usize>,
        keys: &Range<usize>,
        value: impl Fn(M) -> T,
    ) -> bool {
        self.added.resize(QUERIES * (KEYS + GAP), T::ZERO);
        let mut seen = false;
        for ((i, row), &end) in queries.clone().zip(self.added.chunks_exact_mut(KEYS + GAP)).zip(&self.ends) {
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
