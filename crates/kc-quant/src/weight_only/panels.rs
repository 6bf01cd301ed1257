//! Products of many rows: panels of `kc_gemm` filled from the codes.

use std::ops::Range;

use kc_core::{Isa, Result, Tensor};
use kc_gemm::PanelSource;

use super::{LANES, Lane, WeightOnly, portable};
use crate::interleaved::BLOCK;
use crate::rows::Rows;

/// The columns of `x` in the order of the codes.
pub(super) fn gathered(rows: &Rows<'_, f32>, m: usize, order: &[u32]) -> Result<Tensor<f32, 2>> {
    let mut out = Tensor::zeros([m, order.len()])?;
    for (i, to) in out.as_mut_slice().chunks_exact_mut(order.len().max(1)).enumerate() {
        let row = rows.row(i);
        for (to, &column) in to.iter_mut().zip(order) {
            *to = row[column as usize];
        }
    }
    Ok(out)
}

/// The weights as an operand, dequantised at a level while panels are filled. Columns are in the order of the codes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dequantized<'a> {
    pub(crate) weights: &'a WeightOnly,
    pub(crate) isa: Isa,
}

impl PanelSource<f32> for Dequantized<'_> {
    fn lines(&self) -> usize {
        self.weights.shape()[0]
    }

    fn depth(&self) -> usize {
        self.weights.shape()[1]
    }

    fn fill(&self, lines: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [f32]) {
        let (isa, layout) = (self.isa, self.weights.layout());
        let group = self.weights.packed.group();
        let mut columns = [[0.0; LANES]; BLOCK];
        let mut first = lines.start;
        while first < lines.end {
            // Panels of a product start at a multiple of their width, which need not be one of ours.
            let (index, lane) = (first / LANES, first % LANES);
            let count = (LANES - lane).min(lines.end - first);
            let (source, to) = (self.weights.panel(index), first - lines.start);
            let mut k = depth.start;
            while k < depth.end {
                let (g, inside) = (k / group, k % group);
                let (b, c) = (inside / BLOCK, inside % BLOCK);
                let run = (BLOCK - c).min(group - inside).min(depth.end - k);
                dequantize(isa, layout, source, g, b, &mut columns);
                let places = panel[(k - depth.start) * width..].chunks_mut(width);
                for (column, place) in columns[c..c + run].iter().zip(places) {
                    place[to..to + count].copy_from_slice(&column[lane..lane + count]);
                }
                k += run;
            }
            first += count;
        }
    }
}

/// What a block stands for, column by column.
fn dequantize(
    isa: Isa,
    layout: super::Layout,
    panel: super::Panel<'_>,
    g: usize,
    b: usize,
    out: &mut [Lane; BLOCK],
) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        level if level > kc_core::Level::Portable => super::x86::dequantize(isa, layout, panel, g, b, out),
        _ => portable::dequantize(layout, panel, g, b, out),
    }
}
