//! A panel of tokens, packed for the products; rows of the classifier as the kernels read them.

use std::ops::Range;

use kc_core::{AlignedBuf, Isa, Result};

use crate::input::{ELSEWHERE, Embedding, Token, XentInput, row_into};
use crate::kernel::{CHUNK, DEPTH, Scalar};

/// Every width of a strip is a multiple of this.
const QUANTUM: usize = 16;
/// Rows of C that are widened at a time.
const WIDENED: usize = 32;

/// Up to `r` tokens.
pub(crate) struct Panel<S: Scalar> {
    pub(crate) isa: Isa,
    /// Tokens with padding.
    pub(crate) r: usize,
    /// Columns of a strip: the width of a packed panel.
    pub(crate) width: usize,
    /// For logits: blocks of depth, in each `width` tokens side by side.
    by_depth: AlignedBuf<S>,
    /// For the gradient of C: strips of `width` columns, token by token.
    by_columns: AlignedBuf<S>,
    /// 1 for a token, 0 for padding.
    pub(crate) mask: Vec<S>,
    /// Targets, sorted: (word, token of the panel).
    targets: Vec<(u32, u32)>,
}

impl<S: Scalar> Panel<S> {
    /// Memory for panels of up to `tokens` tokens; `backward` if their gradients are wanted.
    pub(crate) fn new(isa: Isa, tokens: usize, d: usize, backward: bool) -> Result<Self> {
        let (width, r) = (S::width(isa), tokens.next_multiple_of(S::grain(isa)));
        let columns = if backward { d.next_multiple_of(width) * r } else { 0 };
        Ok(Self {
            isa,
            r,
            width,
            by_depth: AlignedBuf::zeroed(d * r)?,
            by_columns: AlignedBuf::zeroed(columns)?,
            mask: vec![S::ZERO; r],
            targets: Vec::with_capacity(r),
        })
    }

    /// Gives back the memory of what the logits need.
    pub(crate) fn without_logits(mut self) -> Result<Self> {
        self.by_depth = AlignedBuf::zeroed(0)?;
        Ok(self)
    }

    /// Fills the panel with at most as many tokens as it was made for.
    pub(crate) fn load<T: Embedding<Sum = S>>(&mut self, input: &XentInput<'_, T>, tokens: &[Token]) {
        let (d, width, isa) = (input.dim(), self.width, self.isa);
        self.r = tokens.len().next_multiple_of(S::grain(isa));
        let r = self.r;
        let mut row = vec![S::ZERO; d];
        self.targets.clear();
        self.mask.clear();
        for i in 0..r {
            let token = tokens.get(i);
            self.mask.push(if token.is_some() { S::from_f32(1.0) } else { S::ZERO });
            match token {
                Some(token) => input.token_into(token.row as usize, 0, &mut row),
                None => row.fill(S::ZERO),
            }
            if let Some(token) = token.filter(|token| token.target != ELSEWHERE) {
                self.targets.push((token.target, i as u32));
            }
            let first = i / width * width;
            let across = width.min(r - first);
            for start in (0..d).step_by(DEPTH) {
                let block = start..d.min(start + DEPTH);
                let at = start * r + first * block.len() + (i - first);
                for (to, &x) in self.by_depth[at..].iter_mut().step_by(across).zip(&row[block]) {
                    *to = x;
                }
            }
            if !self.by_columns.is_empty() {
                for (p, part) in row.chunks(width).enumerate() {
                    self.by_columns[p * width * r + i * width..][..part.len()].copy_from_slice(part);
                }
            }
        }
        self.targets.sort_unstable();
    }

    /// Logits of a chunk: `z [words, r]`, with bias and softcap.
    pub(crate) fn logits<T: Embedding<Sum = S>>(
        &self,
        input: &XentInput<'_, T>,
        words: &Words<'_>,
        cap: Option<f64>,
        z: &mut [S],
    ) {
        let r = self.r;
        words.with_rows(input, |first, rows| {
            S::logits(self.isa, rows, &self.by_depth, r, &mut z[first * r..(first + rows.len()) * r]);
        });
        if let Some(bias) = input.bias {
            for (j, z) in z.chunks_mut(r).enumerate() {
                let b = bias[words.at(j)];
                for z in z {
                    *z += b;
                }
            }
        }
        if let Some(cap) = cap {
            let (cap, inverse) = (S::from_f64(cap), S::from_f64(1.0 / cap));
            for z in z.iter_mut() {
                *z = *z * inverse;
            }
            kc_core::math::apply_in_place(self.isa, kc_core::math::Function::Tanh, z);
            for z in z.iter_mut() {
                *z = *z * cap;
            }
        }
    }

    /// The gradient of C of the rows `keep` of a chunk.
    pub(crate) fn grad_c(&self, g: &[S], keep: &[u16], dc: &mut [S], d: usize) {
        S::grad_c(self.isa, g, self.r, keep, &self.by_columns, dc, d);
    }

    /// Moves the rows `keep` of a chunk together, for the gradient of E: tiles of tokens, in each word by word.
    pub(crate) fn pack_tiles(&self, g: &mut [S], keep: &[u16]) {
        let (r, rows) = (self.r, S::rows(self.isa));
        let source = g.to_vec();
        for first in (0..r).step_by(rows) {
            let width = rows.min(r - first);
            let tile = g[first * keep.len()..].chunks_exact_mut(width);
            for (to, &word) in tile.zip(keep) {
                let from = &source[usize::from(word) * r + first..][..width];
                for (to, &x) in to.iter_mut().zip(from) {
                    *to = x;
                }
            }
        }
    }

    /// (place in the chunk, token) of every target in words `range`.
    pub(crate) fn targets_in(&self, range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let first = self.targets.partition_point(|t| (t.0 as usize) < range.start);
        let start = range.start;
        let inside = self.targets[first..].iter().take_while(move |t| (t.0 as usize) < range.end);
        inside.map(move |&(word, token)| (word as usize - start, token as usize))
    }
}

/// Up to [`CHUNK`] words: neighbours, or as a permutation lists them.
#[derive(Debug, Clone)]
pub(crate) enum Words<'a> {
    Range(Range<usize>),
    Listed(&'a [u32]),
}

impl<'a> Words<'a> {
    /// Words `range` of the order.
    pub(crate) fn of(order: Option<&'a [u32]>, range: Range<usize>) -> Self {
        order.map_or(Words::Range(range.clone()), |order| Words::Listed(&order[range.clone()]))
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Words::Range(range) => range.len(),
            Words::Listed(list) => list.len(),
        }
    }

    /// The word at place `j`.
    #[inline]
    pub(crate) fn at(&self, j: usize) -> usize {
        match self {
            Words::Range(range) => range.start + j,
            Words::Listed(list) => list[j] as usize,
        }
    }

    /// Calls `body(place of the first, rows)` for groups of rows that cover all words.
    fn with_rows<T: Embedding>(&self, input: &XentInput<'_, T>, mut body: impl FnMut(usize, &[&[T::Sum]])) {
        let (c, d) = (&input.c, input.dim());
        let direct = |j: usize| c.row_slice(self.at(j)).and_then(T::as_wide);
        if self.len() > 0 && direct(0).is_some() {
            for first in (0..self.len()).step_by(CHUNK) {
                let mut rows: [&[T::Sum]; CHUNK] = [&[]; CHUNK];
                let count = CHUNK.min(self.len() - first);
                for (j, row) in rows[..count].iter_mut().enumerate() {
                    *row = direct(first + j).unwrap_or_default();
                }
                body(first, &rows[..count]);
            }
            return;
        }
        let mut wide = vec![T::Sum::default(); WIDENED.min(self.len()) * d];
        for first in (0..self.len()).step_by(WIDENED) {
            let count = WIDENED.min(self.len() - first);
            for (j, row) in wide.chunks_exact_mut(d).take(count).enumerate() {
                row_into(c.row(self.at(first + j)), 0, row);
            }
            let mut rows: [&[T::Sum]; WIDENED] = [&[]; WIDENED];
            for (to, row) in rows.iter_mut().zip(wide.chunks_exact(d)) {
                *to = row;
            }
            body(first, &rows[..count]);
        }
    }

    /// Columns `columns` of the words at `keep` where they lie; nothing if they must be widened first.
    pub(crate) fn pieces<T: Embedding>(
        &self,
        input: &XentInput<'a, T>,
        keep: &[u16],
        columns: Range<usize>,
    ) -> Vec<&'a [T::Sum]> {
        let piece = |&j: &u16| {
            let row = input.c.row_slice(self.at(usize::from(j))).and_then(T::as_wide)?;
            Some(&row[columns.clone()])
        };
        keep.iter().map(piece).collect::<Option<_>>().unwrap_or_default()
    }

    /// Columns `columns` of the words at `keep`, widened, row by row.
    pub(crate) fn widened<T: Embedding>(
        &self,
        input: &XentInput<'_, T>,
        keep: &[u16],
        columns: Range<usize>,
        to: &mut [T::Sum],
    ) {
        for (&j, to) in keep.iter().zip(to.chunks_exact_mut(columns.len())) {
            row_into(input.c.row(self.at(usize::from(j))), columns.start, to);
        }
    }
}

/// Packs columns from `first` on of some rows, `width` each. What is beyond the rows' end is left as it is.
pub(crate) fn pack_strip<S: Scalar>(rows: &[&[S]], first: usize, width: usize, to: &mut [S]) {
    for (row, to) in rows.iter().zip(to.chunks_exact_mut(width)) {
        let strip = &row[first..row.len().min(first + width)];
        if strip.len() < width {
            to[..strip.len()].copy_from_slice(strip);
            continue;
        }
        // Pieces of a length that the compiler knows: a copy of a few registers, not a call.
        let pieces = strip.as_chunks::<QUANTUM>().0.iter();
        for (piece, to) in pieces.zip(to.as_chunks_mut::<QUANTUM>().0) {
            *to = *piece;
        }
    }
}
