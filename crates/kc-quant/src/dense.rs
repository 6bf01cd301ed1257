//! Products of many tokens: f32 panels are filled from codes and multiplied by kc-gemm.

use std::ops::Range;

use kc_core::{Isa, Result, TensorView, TensorViewMut};
use kc_gemm::{Epilogue, FinishedTile, Lines, PanelSource, gemm_fused_with};

/// Rows of weights of one piece of work, at least. Each piece packs the activations for itself.
const LEAST: usize = 1024;
/// Products with fewer multiplications stay on the calling thread.
const SERIAL: usize = 1 << 18;

/// `x W^T + bias` into `out` `[M, N]`, for weights that `weights` fills into panels; bits do not depend on the number of
/// threads.
pub(crate) fn product<P: PanelSource<f32>>(
    isa: Isa,
    x: TensorView<'_, f32, 2>,
    weights: &P,
    bias: Option<&[f32]>,
    out: TensorViewMut<'_, f32, 2>,
) -> Result<()> {
    let work = x.rows().saturating_mul(x.cols()).saturating_mul(weights.lines());
    let parallel = work >= SERIAL && kc_core::par::threads() > 1;
    halves(isa, x, Part { weights, lines: 0..weights.lines() }, bias, out, parallel)
}

/// Halves the columns of the result for idle threads.
fn halves<P: PanelSource<f32>>(
    isa: Isa,
    x: TensorView<'_, f32, 2>,
    part: Part<'_, P>,
    bias: Option<&[f32]>,
    out: TensorViewMut<'_, f32, 2>,
    parallel: bool,
) -> Result<()> {
    let Range { start, end } = part.lines;
    if !parallel || end - start < 2 * LEAST {
        let bias = bias.map(|bias| &bias[start..end]);
        return gemm_fused_with(isa, &Lines::rows(x), &part, Write { out, bias });
    }
    // Panels begin at multiples of every register.
    let half = ((end - start) / 2).next_multiple_of(64);
    let (head, tail) = out.split_at(1, half)?;
    let part = |lines| Part { weights: part.weights, lines };
    let (a, b) = rayon::join(
        || halves(isa, x, part(start..start + half), bias, head, true),
        || halves(isa, x, part(start + half..end), bias, tail, true),
    );
    a.and(b)
}

/// Some of the rows of the weights.
struct Part<'a, P> {
    weights: &'a P,
    lines: Range<usize>,
}

impl<P: PanelSource<f32>> PanelSource<f32> for Part<'_, P> {
    fn lines(&self) -> usize {
        self.lines.len()
    }

    fn depth(&self) -> usize {
        self.weights.depth()
    }

    fn fill(&self, lines: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [f32]) {
        let first = self.lines.start;
        self.weights.fill(first + lines.start..first + lines.end, depth, width, panel);
    }
}

/// Stores sums plus bias.
struct Write<'a> {
    out: TensorViewMut<'a, f32, 2>,
    bias: Option<&'a [f32]>,
}

impl Epilogue<f32> for Write<'_> {
    fn split_rows(self, at: usize) -> (Self, Self) {
        let at = at.min(self.out.shape()[0]);
        let bias = self.bias;
        match self.out.split_at(0, at) {
            Ok((head, tail)) => (Write { out: head, bias }, Write { out: tail, bias }),
            Err(_) => unreachable!("at is at most the number of rows"),
        }
    }

    fn finish(&mut self, first_row: usize, mut tile: FinishedTile<'_, f32>) {
        let columns = tile.columns.clone();
        for (i, values) in tile.each_row() {
            if let Some(bias) = self.bias {
                values.iter_mut().zip(&bias[columns.clone()]).for_each(|(y, b)| *y += b);
            }
            let mut row = self.out.row_mut(i - first_row);
            match row.as_mut_slice() {
                Some(row) => row[columns.clone()].copy_from_slice(values),
                None => columns.clone().zip(values).for_each(|(j, y)| row.set([j], *y)),
            }
        }
    }
}
