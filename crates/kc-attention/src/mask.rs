//! Which keys a query may see.

use kc_core::{Error, Result, TensorView};

use crate::layout::Dims;

/// Which keys a query may see: with both parts, both apply.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mask<'a> {
    /// Key `j` is visible to query `i` only if `j <= i + Nk - Nq` (the last query sees all keys).
    pub causal: bool,
    /// A further choice by the caller.
    pub select: Select<'a>,
}

/// A choice of keys by the caller. The views broadcast to `[B, Hq, Nq, Nk]`.
#[derive(Debug, Clone, Copy, Default)]
pub enum Select<'a> {
    /// All keys.
    #[default]
    All,
    /// Those where the value is not 0.
    Keep(TensorView<'a, u8, 4>),
    /// Those where the value is not minus infinity; it is added to the scaled score.
    Add(TensorView<'a, f32, 4>),
}

impl<'a> Mask<'a> {
    /// Every query sees every key.
    pub const NONE: Mask<'static> = Mask { causal: false, select: Select::All };
    /// The last query sees all keys, the one before it all but one, and so on.
    pub const CAUSAL: Mask<'static> = Mask { causal: true, select: Select::All };

    /// The same mask with its view broadcast to `[B, Hq, Nq, Nk]`.
    ///
    /// # Errors
    /// If the view does not broadcast.
    pub fn broadcast(&self, dims: &Dims) -> Result<Mask<'a>> {
        let full = [dims.batch, dims.heads, dims.queries, dims.keys];
        let wrong = |got: [usize; 4]| Error::shape("mask", format!("one that broadcasts to {full:?}"), &got);
        let select = match self.select {
            Select::All => Select::All,
            Select::Keep(keep) => Select::Keep(keep.broadcast_to(full).map_err(|_| wrong(keep.shape()))?),
            Select::Add(add) => Select::Add(add.broadcast_to(full).map_err(|_| wrong(add.shape()))?),
        };
        Ok(Mask { causal: self.causal, select })
    }

    /// Keys `0..end` are those that causality lets query `i` see.
    pub fn end(&self, i: usize, dims: &Dims) -> usize {
        if self.causal { (i + 1 + dims.keys).saturating_sub(dims.queries) } else { dims.keys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causality_is_aligned_at_the_last_key() {
        let dims = |queries, keys| Dims { batch: 1, heads: 1, kv_heads: 1, queries, keys, channels: 1 };
        let ends = |d: Dims| (0..d.queries).map(|i| Mask::CAUSAL.end(i, &d)).collect::<Vec<_>>();
        assert_eq!(ends(dims(3, 3)), [1, 2, 3]);
        assert_eq!(ends(dims(2, 5)), [4, 5]);
        assert_eq!(ends(dims(4, 2)), [0, 0, 1, 2]);
        assert_eq!(Mask::NONE.end(0, &dims(4, 2)), 2);
    }

    #[test]
    fn views_broadcast_or_are_refused() {
        let dims = Dims { batch: 2, heads: 3, kv_heads: 1, queries: 4, keys: 5, channels: 1 };
        let keep = [1u8; 20];
        let mask = |shape| Mask {
            causal: false,
            select: Select::Keep(TensorView::from_slice(shape, &keep).unwrap()),
        };
        assert!(mask([1, 1, 4, 5]).broadcast(&dims).is_ok());
        assert!(mask([1, 1, 5, 4]).broadcast(&dims).is_err());
    }
}
