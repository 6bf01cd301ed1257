//! Exact gradients of many tokens at a time, by large products.
//!
//! The logits of up to D tokens fit into the memory of `dC`, as long as nothing has been added to it. From the last word
//! to the first, a block of them is copied, turned into gradients and multiplied, and its rows of `dC` are written:
//! the rows `j D ..` never reach the logits at `.. j r` that still wait, because `r <= D`. C is read twice for all
//! of these tokens. Tokens beyond those can have the same large products if their logits are computed twice.

use std::ops::Range;

use kc_core::{AlignedBuf, Result, TensorView, TensorViewMut};
use kc_gemm::{PackedB, PanelSource, gemm_into_with, gemm_packed_into};
use rayon::prelude::*;

use crate::backward::{Pass, Terms, XentGrads, pieces};
use crate::filter::Kept;
use crate::input::{Embedding, Token, XentInput, row_into};
use crate::kernel::{CHUNK, Scalar};
use crate::panel::Panel;

/// Words of a block.
const BLOCK: usize = 2 * CHUNK;
/// Columns of C that are packed at a time.
const COLUMNS: usize = 1024;
/// Most memory of a panel, a block of its gradients and one of C, in bytes.
const BYTES: usize = 11 << 19;
/// Of that, what the running softmax of a token takes, in elements: a share for each span of words, and its terms.
const PER_TOKEN: usize = 128;

/// Most tokens of a panel whose logits are `stored` in `dC`, or computed twice.
pub(crate) fn most_tokens<T: Embedding>(input: &XentInput<'_, T>, grain: usize, stored: bool) -> usize {
    let d = input.dim();
    let block = BLOCK.min(input.vocabulary());
    let wide = if input.c.as_type::<T::Sum>().is_some() { 0 } else { block * d };
    let left = (BYTES / size_of::<T::Sum>()).saturating_sub(wide);
    // Logits that are computed twice are scanned a chunk at a time.
    let each = PER_TOKEN + block + if stored { d } else { 2 * d + CHUNK };
    let fits = (left / each).max(grain);
    (if stored { fits.min(d) } else { fits }) / grain * grain
}

/// Adds the gradients of a panel. With `stored`, its logits `[V, r]` stand at the beginning of `dC`, which is
/// overwritten. `dE` takes the tokens at its rows from `row` on.
pub(crate) fn gradients<T: Embedding>(
    pass: &Pass<'_, '_, T>,
    panel: &Panel<T::Sum>,
    tokens: &[Token],
    row: usize,
    terms: &Terms<T::Sum>,
    stored: bool,
    grads: &mut XentGrads<T::Sum>,
) -> Result<()> {
    let (input, isa) = (pass.input, pass.config.isa);
    let (v, d, r, n) = (input.vocabulary(), input.dim(), panel.r, tokens.len());
    let block = BLOCK.min(v);
    let e = PackedB::from_source(isa, &Columns { input, tokens })?;
    let mut g = AlignedBuf::zeroed(block * r)?;
    let mut wide = AlignedBuf::zeroed(if input.c.as_type::<T::Sum>().is_some() { 0 } else { block * d })?;
    let (zero, one) = (T::Sum::default(), <T::Sum as kc_gemm::Real>::ONE);
    for first in (0..v).step_by(block).rev() {
        let words = first..v.min(first + block);
        let g = &mut g[..words.len() * r];
        if let Some(dc) = grads.dc.as_ref().filter(|_| stored) {
            g.copy_from_slice(&dc.as_slice()[words.start * r..words.end * r]);
        }
        let dbias = grads.dbias.as_mut().map(|dbias| &mut dbias.as_mut_slice()[words.clone()]);
        let dbias = pieces(dbias, CHUNK, words.len().div_ceil(CHUNK));
        g.par_chunks_mut(CHUNK * r).zip(dbias).enumerate().for_each(|(i, (g, dbias))| {
            let at = first + i * CHUNK;
            let words = at..at + g.len() / r;
            pass.gradients(panel, terms, stored, words, g, dbias, &mut Kept::default());
        });
        grads.blocks_kept += words.len();
        grads.blocks_total += words.len();
        let g = TensorView::from_slice([words.len(), r], g)?.slice(1, 0..n)?;
        if let Some(de) = &mut grads.de {
            let c = input.c.slice(0, words.clone())?;
            let c = match c.as_type::<T::Sum>() {
                Some(c) => c,
                None => {
                    let rows = wide.par_chunks_exact_mut(d).take(words.len()).enumerate();
                    rows.for_each(|(j, to)| row_into(c.row(j), 0, to));
                    TensorView::from_slice(c.shape(), &wide[..words.len() * d])?
                }
            };
            let to = TensorViewMut::from_slice([n, d], &mut de.as_mut_slice()[row * d..(row + n) * d])?;
            let old = if words.end == v { zero } else { one };
            for (i, to) in to.chunks(1, COLUMNS)?.into_iter().enumerate() {
                let c = c.slice(1, i * COLUMNS..d.min((i + 1) * COLUMNS))?;
                gemm_into_with(isa, one, g.transposed(), c, old, to)?;
            }
        }
        if let Some(dc) = &mut grads.dc {
            let rows = &mut dc.as_mut_slice()[words.start * d..words.end * d];
            let to = TensorViewMut::from_slice([words.len(), d], rows)?;
            gemm_packed_into(one, g, &e, if stored { zero } else { one }, to)?;
        }
    }
    Ok(())
}

/// The columns of the embeddings of some tokens.
struct Columns<'a, 'b, T: Embedding> {
    input: &'a XentInput<'b, T>,
    tokens: &'a [Token],
}

impl<T: Embedding> PanelSource<T::Sum> for Columns<'_, '_, T> {
    fn lines(&self) -> usize {
        self.input.dim()
    }

    fn depth(&self) -> usize {
        self.tokens.len()
    }

    fn fill(&self, lines: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [T::Sum]) {
        for (token, panel) in self.tokens[depth].iter().zip(panel.chunks_exact_mut(width)) {
            self.input.token_into(token.row as usize, lines.start, &mut panel[..lines.len()]);
        }
    }
}

/// Moves row `i` to the row of token `i`, which is no earlier; rows without a token become 0.
pub(crate) fn spread_rows<S: Scalar>(rows: &mut [S], d: usize, tokens: &[Token]) {
    for (i, token) in tokens.iter().enumerate().rev() {
        let to = token.row as usize;
        if to > i {
            rows.copy_within(i * d..(i + 1) * d, to * d);
            rows[i * d..(i + 1) * d].fill(S::ZERO);
        }
    }
}
