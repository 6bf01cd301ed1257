//! Shapes of queries, keys and values.

use kc_core::{Element, Error, Result, TensorView, TensorViewMut};

/// The order of the middle axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Layout {
    /// `[B, H, N, D]`: a head's tokens lie together.
    #[default]
    Hnd,
    /// `[B, N, H, D]`: a token's heads lie together.
    Nhd,
}

impl Layout {
    /// The view as `[B, H, N, D]`.
    pub fn heads_first<'a, E: Element>(self, x: TensorView<'a, E, 4>) -> Result<TensorView<'a, E, 4>> {
        match self {
            Layout::Hnd => Ok(x),
            Layout::Nhd => x.permuted([0, 2, 1, 3]),
        }
    }

    /// The view as `[B, H, N, D]`.
    pub(crate) fn heads_first_mut<E: Element>(
        self,
        x: TensorViewMut<'_, E, 4>,
    ) -> Result<TensorViewMut<'_, E, 4>> {
        match self {
            Layout::Hnd => Ok(x),
            Layout::Nhd => x.permuted([0, 2, 1, 3]),
        }
    }

    /// The shape of a tensor of this layout.
    pub fn shape(self, [b, h, n, d]: [usize; 4]) -> [usize; 4] {
        match self {
            Layout::Hnd => [b, h, n, d],
            Layout::Nhd => [b, n, h, d],
        }
    }
}

/// What the shapes of queries, keys and values say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    /// Batch entries.
    pub batch: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values; divides `heads`.
    pub kv_heads: usize,
    /// Queries.
    pub queries: usize,
    /// Keys; at least 1.
    pub keys: usize,
    /// Channels; at least 1.
    pub channels: usize,
}

impl Dims {
    /// Checks `[B, H, N, D]` shapes against each other.
    ///
    /// # Errors
    /// Shapes that do not fit each other, heads that do not divide, no keys or no channels.
    pub fn of(q: [usize; 4], k: [usize; 4], v: [usize; 4]) -> Result<Self> {
        let [batch, heads, queries, channels] = q;
        let [_, kv_heads, keys, _] = k;
        if k[0] != batch || k[3] != channels {
            return Err(Error::shape("k", format!("[{batch}, Hkv, Nk, {channels}] to match q {q:?}"), &k));
        }
        if v != k {
            return Err(Error::shape("v", format!("{k:?} to match k"), &v));
        }
        if keys == 0 {
            return Err(Error::empty("k"));
        }
        if channels == 0 {
            return Err(Error::empty("q"));
        }
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(Error::shape("k", format!("a number of heads that divides the {heads} of q"), &k));
        }
        Ok(Dims { batch, heads, kv_heads, queries, keys, channels })
    }

    /// The key head that query head `head` reads.
    pub fn kv_head(&self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked_against_each_other() {
        let dims = Dims::of([2, 6, 5, 8], [2, 3, 7, 8], [2, 3, 7, 8]).unwrap();
        assert_eq!((dims.kv_head(0), dims.kv_head(1), dims.kv_head(5)), (0, 0, 2));
        let bad = [
            ([2, 6, 5, 8], [1, 3, 7, 8], [1, 3, 7, 8]),
            ([2, 6, 5, 8], [2, 3, 7, 9], [2, 3, 7, 9]),
            ([2, 6, 5, 8], [2, 3, 7, 8], [2, 3, 6, 8]),
            ([2, 6, 5, 8], [2, 4, 7, 8], [2, 4, 7, 8]),
            ([2, 6, 5, 8], [2, 0, 7, 8], [2, 0, 7, 8]),
            ([2, 6, 5, 8], [2, 3, 0, 8], [2, 3, 0, 8]),
            ([2, 6, 5, 0], [2, 3, 7, 0], [2, 3, 7, 0]),
        ];
        for (q, k, v) in bad {
            assert!(Dims::of(q, k, v).is_err(), "{q:?} {k:?} {v:?}");
        }
        assert!(Dims::of([0, 6, 0, 8], [0, 3, 7, 8], [0, 3, 7, 8]).is_ok());
    }
}
