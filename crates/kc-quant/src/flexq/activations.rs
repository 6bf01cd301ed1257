//! Activations as the kernels read them.

use kc_core::{Error, Isa, Result, TensorView};
use rayon::prelude::*;

use super::quantize::{self, half};
use super::{QuantSpec, Scheme};
use crate::interleaved::BLOCK;
use crate::rows::Rows;

/// Values below which one thread quantises all rows.
const SERIAL: usize = 1 << 15;

/// Quantised activations `[M, K]`, and the memory for the next ones.
///
/// Codes are signed bytes, `[G][M][stride]` with the columns of a group padded by zeros, so that the rows of one
/// group lie close together.
#[derive(Debug, Clone, Default)]
pub struct Activations {
    pub(super) rows: usize,
    pub(super) stride: usize,
    /// `[G][M][stride]`, code less `2^(bits-1)` where codes are unsigned.
    pub(super) codes: Vec<i8>,
    /// `[G][M]`
    pub(super) scales: Vec<f32>,
    /// `[G][M]`, for the signed codes; empty if all are 0.
    pub(super) zeros: Vec<i32>,
    /// `[G][M]`: sums of code less zero.
    pub(super) sums: Vec<i32>,
    shape: [usize; 2],
    group: usize,
    bits: u8,
    scheme: Scheme,
}

/// What one row of one group becomes.
struct Line<'a> {
    codes: &'a mut [i8],
    scale: &'a mut f32,
    zero: Option<&'a mut i32>,
    sum: &'a mut i32,
}

impl Activations {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Quantises `x` in groups of `group` columns; `order[j]` is the column of x that becomes column `j`.
    pub(super) fn quantize(
        &mut self,
        isa: Isa,
        x: TensorView<'_, f32, 2>,
        spec: &QuantSpec,
        group: usize,
        order: Option<&[u32]>,
    ) -> Result<()> {
        let [m, k] = x.shape();
        let groups = k.div_ceil(group);
        *self = Self {
            rows: m,
            stride: group.next_multiple_of(BLOCK),
            shape: [m, k],
            group,
            bits: spec.bits,
            scheme: spec.scheme,
            ..std::mem::take(self)
        };
        // What is behind the last column of a group stays 0 only if it was written by nobody else.
        self.codes.clear();
        self.codes.resize(groups * m * self.stride, 0);
        self.scales.resize(groups * m, 0.0);
        self.sums.resize(groups * m, 0);
        self.zeros.resize(if spec.scheme == Scheme::Sym { 0 } else { groups * m }, 0);
        if m == 0 {
            return Ok(());
        }
        let rows = Rows::of(x)?;
        let mut lines = self.lines(m);
        let quantize = |(i, lines): (usize, &mut Vec<Line<'_>>)| {
            let gathered: Vec<f32>;
            let mut row = rows.row(i);
            if let Some(j) = quantize::not_finite(row) {
                return Err(Error::not_finite("x", &[i, j], f64::from(row[j])));
            }
            if let Some(order) = order {
                gathered = order.iter().map(|&j| row[j as usize]).collect();
                row = &gathered;
            }
            row.chunks(group).zip(lines).try_for_each(|(x, line)| {
                #[cfg(target_arch = "x86_64")]
                return super::x86::line(isa, x, spec, line.parts());
                #[cfg(not(target_arch = "x86_64"))]
                line_of(x, spec, line.parts())
            })
        };
        #[cfg(not(target_arch = "x86_64"))]
        let _ = isa;
        if m * k <= SERIAL {
            lines.iter_mut().enumerate().try_for_each(quantize)
        } else {
            lines.par_iter_mut().enumerate().try_for_each(quantize)
        }
    }

    /// The places of each row, group by group.
    fn lines(&mut self, m: usize) -> Vec<Vec<Line<'_>>> {
        let mut lines: Vec<Vec<Line<'_>>> = (0..m).map(|_| Vec::new()).collect();
        let mut zeros = self.zeros.iter_mut();
        let places = self.codes.chunks_mut(self.stride).zip(&mut self.scales).zip(&mut self.sums);
        for (i, ((codes, scale), sum)) in places.enumerate() {
            lines[i % m].push(Line { codes, scale, zero: zeros.next(), sum });
        }
        lines
    }

    /// `[M, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Bits of a code.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// The codes as the definition has them: signed if symmetric, else unsigned. Row by row, in the stored order of
    /// columns.
    pub fn codes(&self) -> Vec<i16> {
        let [m, k] = self.shape;
        let shift = if self.scheme == Scheme::Sym { 0 } else { half(self.bits) as i16 };
        let code = |i: usize| {
            let (row, column) = (i / k, i % k);
            let (g, within) = (column / self.group, column % self.group);
            i16::from(self.codes[(g * m + row) * self.stride + within]) + shift
        };
        (0..m * k).map(code).collect()
    }

    /// The scales, `[M, G]`.
    pub fn scales(&self) -> Vec<f32> {
        let (m, groups) = (self.rows, self.shape[1].div_ceil(self.group.max(1)));
        (0..m * groups).map(|i| self.scales[i % groups * m + i / groups]).collect()
    }

    /// The zeros of the codes that [`codes`](Self::codes) returns, `[M, G]`.
    pub fn zeros(&self) -> Vec<i32> {
        let (m, groups) = (self.rows, self.shape[1].div_ceil(self.group.max(1)));
        let zero =
            |i: usize| self.zeros.get(i % groups * m + i / groups).map_or(0, |zero| zero + half(self.bits));
        (0..m * groups).map(zero).collect()
    }
}

/// The places of a [`Line`].
pub(super) type Parts<'a> = (&'a mut [i8], &'a mut f32, Option<&'a mut i32>, &'a mut i32);

impl Line<'_> {
    fn parts(&mut self) -> Parts<'_> {
        (self.codes, self.scale, self.zero.as_deref_mut(), self.sum)
    }
}

/// Quantises one row of one group.
#[inline(always)]
pub(super) fn line_of(x: &[f32], spec: &QuantSpec, (codes, scale, zero, sum): Parts<'_>) -> Result<()> {
    let affine = quantize::fit(x, spec)?;
    let shift = half(spec.bits) as u8;
    let codes: &mut [u8] = kc_core::bytemuck::cast_slice_mut(&mut codes[..x.len()]);
    quantize::encode(x, affine, spec.bits, codes);
    let mut total = 0i32;
    for code in codes.iter_mut() {
        *code = code.wrapping_sub(shift);
        total += i32::from(*code as i8);
    }
    let offset = affine.zero - i32::from(shift);
    *scale = affine.scale;
    *sum = total.wrapping_sub(offset.wrapping_mul(x.len() as i32));
    if let Some(zero) = zero {
        *zero = offset;
    }
    Ok(())
}
