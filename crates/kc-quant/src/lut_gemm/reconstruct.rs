//! Products of many tokens: the weights are reconstructed while a dense product packs them.

use std::ops::Range;

use kc_core::Isa;
use kc_gemm::PanelSource;

use super::bcq::BcqMatrix;
use super::portable::{Block, LINES};

/// The matrix as the right operand of a dense product, columns in stored order.
#[derive(Debug)]
pub(super) struct Reconstruct<'a> {
    pub(super) w: &'a BcqMatrix,
    pub(super) isa: Isa,
}

impl PanelSource<f32> for Reconstruct<'_> {
    fn lines(&self) -> usize {
        self.w.shape()[0]
    }

    fn depth(&self) -> usize {
        self.w.shape()[1]
    }

    fn fill(&self, lines: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [f32]) {
        let (bits, group) = (usize::from(self.w.bits()), self.w.group());
        let mut block = Block { offsets: [0.0; LINES], scales: [[0; LINES]; 8], signs: [[0; LINES]; 8] };
        for first in lines.clone().step_by(LINES) {
            let rows = first..lines.end.min(first + LINES);
            let aside = first - lines.start;
            let mut column = depth.start;
            while column < depth.end {
                let g = column / group;
                for (l, row) in rows.clone().enumerate() {
                    block.offsets[l] = self.w.offset(row, g);
                    for (b, scale) in self.w.group_scales(row, g).iter().enumerate() {
                        block.scales[b][l] = (-scale).to_bits();
                    }
                }
                let group_end = depth.end.min((g + 1) * group);
                while column < group_end {
                    let end = group_end.min(column / 32 * 32 + 32);
                    for b in 0..bits {
                        for (l, row) in rows.clone().enumerate() {
                            block.signs[b][l] = word(self.w.plane_row(b, row), column / 32);
                        }
                    }
                    let to = (column - depth.start) * width + aside..(end - depth.start) * width;
                    super::reconstruct(self.isa, &block, bits, (column % 32) as u32, width, &mut panel[to]);
                    column = end;
                }
            }
        }
    }
}

/// Columns `32 at..` of a row of signs, those behind its end 0.
#[inline(always)]
fn word(row: &[u8], at: usize) -> u32 {
    let rest = &row[4 * at..];
    if let Some(bytes) = rest.first_chunk::<4>() {
        return u32::from_le_bytes(*bytes);
    }
    rest.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}
