//! From cells of the estimate to columns of the matrix.
//!
//! In a row of `width` columns cell `b` covers `f(b) .. f(b + 1)` with `f(x) = floor((2 x width + t_m) / (2 t_m))`: `x
//! width / t_m` rounded half up, in exact integers. A cell longer than the span keeps `span` columns spread over it,
//! counted from its end.

use kc_core::{Error, KcRng, Result};
use kc_sparse::FlatCsr;
use rayon::prelude::*;

use super::SeaConfig;
use super::topk::Kept;

/// The first column of cell `x`.
#[inline]
pub(super) fn edge(x: usize, width: usize, t_m: usize) -> usize {
    (2 * x * width + t_m) / (2 * t_m)
}

/// The cell that covers column `j`.
#[inline]
pub(super) fn cell_of(j: usize, width: usize, t_m: usize) -> usize {
    ((2 * j + 1) * t_m).div_ceil(2 * width) - 1
}

/// Appends the columns of a cell that runs from `start` to `end`, at most `span` of them, rising, each plus `base`.
#[inline]
pub(super) fn open(start: usize, end: usize, span: usize, base: usize, cols: &mut Vec<u32>) {
    let len = end.saturating_sub(start);
    if len <= span {
        cols.extend((start..end).map(|j| (base + j) as u32));
    } else {
        cols.extend((0..span).rev().map(|i| (base + end - 1 - i * len / span) as u32));
    }
}

/// Appends the columns of a row: `cells` are flat ids `head * t_m + cell`, rising.
pub(super) fn stretch_row(
    cells: impl Iterator<Item = usize>,
    width: usize,
    keys: usize,
    config: &SeaConfig,
    cols: &mut Vec<u32>,
) {
    let (t_m, span) = (config.t_m, config.span());
    for id in cells {
        let (head, b) = (id / t_m, id % t_m);
        open(edge(b, width, t_m), edge(b + 1, width, t_m), span, head * keys, cols);
    }
}

/// The mask over tokens of the kept cells: one row per query and batch entry, all heads in it.
///
/// `lengths` are the valid tokens of each batch entry; `jitter` moves the edges of each row's cells by up to 0.75 tokens,
/// as the reference does in a tenth of the causal training steps.
///
/// # Errors
/// If the matrix would be too large for 32-bit column ids.
pub fn stretch_mask(
    kept: &Kept,
    lengths: &[usize],
    config: &SeaConfig,
    jitter: Option<u64>,
) -> Result<FlatCsr<f32>> {
    let [batch, heads, rows, t_m] = kept.shape();
    if lengths.len() != batch || lengths.iter().any(|&len| len > rows) {
        return Err(Error::argument("lengths", format!("{batch} lengths of at most {rows}"), lengths.len()));
    }
    if heads.checked_mul(rows).is_none_or(|columns| columns > u32::MAX as usize) {
        return Err(Error::too_large("mask", u64::MAX, u64::from(u32::MAX), "columns"));
    }
    let found: Vec<Vec<u32>> = (0..batch * rows)
        .into_par_iter()
        .map(|at| {
            let (n, t) = (at / rows, at % rows);
            let width = if config.causal { t + 1 } else { lengths[n] };
            let mut cols = Vec::new();
            if t >= lengths[n] {
                return cols;
            }
            let cells = (0..heads * t_m).filter(|&id| kept.get([n, id / t_m, t, id % t_m]));
            match jitter {
                None => stretch_row(cells, width, rows, config, &mut cols),
                Some(seed) => {
                    let shift = (KcRng::new(seed, at as u64).uniform() * 2.0 - 1.0) * 0.75;
                    let edge = |x: usize| match x {
                        0 => 0,
                        x if x == t_m => width,
                        x => {
                            let exact = x as f64 * width as f64 / t_m as f64;
                            ((exact + 0.5 + shift).max(0.0) as usize).min(width)
                        }
                    };
                    for id in cells {
                        let b = id % t_m;
                        open(edge(b), edge(b + 1), config.span(), id / t_m * rows, &mut cols);
                    }
                }
            }
            cols
        })
        .collect();
    let lengths: Vec<u32> = found.iter().map(|row| row.len() as u32).collect();
    FlatCsr::from_rows([batch, heads, rows, rows], &lengths, found.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cover_every_column_once() {
        for t_m in [4, 16, 32] {
            for width in 1..150 {
                let mut next = 0;
                for b in 0..t_m {
                    assert_eq!(edge(b, width, t_m), next);
                    next = edge(b + 1, width, t_m);
                    for j in edge(b, width, t_m)..next {
                        assert_eq!(cell_of(j, width, t_m), b);
                    }
                }
                assert_eq!(next, width);
            }
        }
    }

    #[test]
    fn long_cells_keep_columns_from_the_end() {
        let mut cols = Vec::new();
        open(10, 20, 3, 100, &mut cols);
        assert_eq!(cols, [113, 116, 119]);
        cols.clear();
        open(5, 7, 3, 0, &mut cols);
        assert_eq!(cols, [5, 6]);
    }
}
