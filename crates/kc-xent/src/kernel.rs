//! [`Scalar`]: f32 and f64 with the kernels of each level, behind checked slices.
//!
//! A *panel* is a group of up to `r` tokens (a multiple of [`Scalar::grain`]); logits of a panel lie word by word,
//! `z[j * r + i]` for word `j` and token `i`, so that everything that is done per token runs over adjacent lanes and
//! no sum crosses them. Three products read the classifier as it lies:
//!
//! ```text
//! logits   z[j][i]  = sum_k c[j][k] e[i][k]      rows of C times the packed panel
//! grad_c   dc[j][d] += sum_i g[j][i] e[i][d]     rows of G times the panel, packed by columns
//! grad_e   de[i][d] += sum_j g[j][i] c[j][d]     columns of G times a packed strip of C
//! ```

use kc_core::{Isa, Level, math};

use crate::portable;
#[cfg(target_arch = "x86_64")]
use crate::x86;

/// Words of a chunk: what one call of a kernel handles.
pub(crate) const CHUNK: usize = 128;
/// Depth of a block of the packed panel.
pub(crate) const DEPTH: usize = 256;

/// What turns a row of logits into a row of gradients: `exp(z - hi - lo) * scale`, per token.
#[derive(Debug, Clone, Copy)]
#[doc(hidden)]
pub struct RowTerms<'a, S> {
    /// The log-sum-exp, rounded.
    pub(crate) hi: &'a [S],
    /// What rounding left.
    pub(crate) lo: &'a [S],
    /// Factor of the probability.
    pub(crate) scale: &'a [S],
    /// Subtracted, times `weight` (label smoothing).
    pub(crate) spread: Option<(&'a [S], S)>,
    /// 1 / softcap.
    pub(crate) inverse_cap: Option<S>,
}

/// f32 or f64: the type of sums.
pub trait Scalar: math::Real + kc_gemm::Operand<Sum = Self> + kc_gemm::Real {
    /// Columns of a packed panel at this level.
    #[doc(hidden)]
    fn width(isa: Isa) -> usize;
    /// Tokens of a panel are a multiple of this.
    #[doc(hidden)]
    fn grain(isa: Isa) -> usize;
    /// Tokens of a tile of the gradient of E.
    #[doc(hidden)]
    fn rows(isa: Isa) -> usize;
    /// `z[j][i] = rows[j] . e[i]` for a panel of `r` tokens packed by `pack_depth`.
    #[doc(hidden)]
    fn logits(isa: Isa, rows: &[&[Self]], e: &[Self], r: usize, z: &mut [Self]);
    /// `dc[j] += g[j] e` for the rows `keep` of a chunk; the panel packed by `pack_columns`, `d` columns.
    #[doc(hidden)]
    fn grad_c(isa: Isa, g: &[Self], r: usize, keep: &[u16], e: &[Self], dc: &mut [Self], d: usize);
    /// `de[i] += sum_j g[j][i] c[j]` for a strip of `width` columns, `c` packed row by row, `g` in tiles of `rows` tokens.
    /// `soon` will be read by the next calls.
    #[doc(hidden)]
    fn grad_e(isa: Isa, g: &[Self], c: &[Self], de: &mut [Self], soon: &[&[Self]]);
    /// Takes the rows of `z` into the running maximum and sum of exponentials of each token.
    #[doc(hidden)]
    fn absorb(isa: Isa, z: &[Self], max: &mut [Self], sum: &mut [f64]);
    /// Sum of a row over the tokens that `mask` marks by 1.
    #[doc(hidden)]
    fn masked_sum(isa: Isa, row: &[Self], mask: &[Self]) -> Self;
    /// Whether a logit of the row reaches `limit` above its log-sum-exp (or is NaN).
    #[doc(hidden)]
    fn reaches(isa: Isa, row: &[Self], hi: &[Self], limit: Self) -> bool;
    /// Turns a row of logits into gradients; returns their sum.
    #[doc(hidden)]
    fn gradient(isa: Isa, row: &mut [Self], terms: &RowTerms<'_, Self>) -> Self;
}

impl Scalar for f64 {
    fn width(_: Isa) -> usize {
        portable::WIDTH
    }
    fn grain(_: Isa) -> usize {
        portable::GRAIN
    }
    fn rows(_: Isa) -> usize {
        portable::ROWS
    }
    fn logits(_: Isa, rows: &[&[f64]], e: &[f64], r: usize, z: &mut [f64]) {
        portable::logits(rows, e, r, z);
    }
    fn grad_c(_: Isa, g: &[f64], r: usize, keep: &[u16], e: &[f64], dc: &mut [f64], d: usize) {
        portable::grad_c(g, r, keep, e, dc, d);
    }
    fn grad_e(_: Isa, g: &[f64], c: &[f64], de: &mut [f64], soon: &[&[f64]]) {
        portable::grad_e(g, c, de, soon);
    }
    fn absorb(_: Isa, z: &[f64], max: &mut [f64], sum: &mut [f64]) {
        portable::absorb(z, max, sum);
    }
    fn masked_sum(_: Isa, row: &[f64], mask: &[f64]) -> f64 {
        portable::masked_sum(row, mask)
    }
    fn reaches(_: Isa, row: &[f64], hi: &[f64], limit: f64) -> bool {
        portable::reaches(row, hi, limit)
    }
    fn gradient(_: Isa, row: &mut [f64], terms: &RowTerms<'_, f64>) -> f64 {
        portable::gradient(row, terms)
    }
}

/// The portable body below AVX2, else that of `x86.rs`.
macro_rules! by_level {
    ($isa:ident, $name:ident($($arg:expr),*)) => {
        match $isa.level() {
            #[cfg(target_arch = "x86_64")]
            level if level > Level::Portable => x86::$name($isa, $($arg),*),
            _ => portable::$name($($arg),*),
        }
    };
}

impl Scalar for f32 {
    fn width(isa: Isa) -> usize {
        if isa.level() >= Level::Avx512 { 32 } else { portable::WIDTH }
    }
    fn grain(isa: Isa) -> usize {
        if isa.level() >= Level::Avx512 { 16 } else { portable::GRAIN }
    }
    fn rows(isa: Isa) -> usize {
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            level if level > Level::Portable => x86::rows(isa),
            _ => portable::ROWS,
        }
    }
    fn logits(isa: Isa, rows: &[&[f32]], e: &[f32], r: usize, z: &mut [f32]) {
        by_level!(isa, logits(rows, e, r, z));
    }
    fn grad_c(isa: Isa, g: &[f32], r: usize, keep: &[u16], e: &[f32], dc: &mut [f32], d: usize) {
        by_level!(isa, grad_c(g, r, keep, e, dc, d));
    }
    fn grad_e(isa: Isa, g: &[f32], c: &[f32], de: &mut [f32], soon: &[&[f32]]) {
        by_level!(isa, grad_e(g, c, de, soon));
    }
    fn absorb(isa: Isa, z: &[f32], max: &mut [f32], sum: &mut [f64]) {
        by_level!(isa, absorb(z, max, sum));
    }
    fn masked_sum(isa: Isa, row: &[f32], mask: &[f32]) -> f32 {
        by_level!(isa, masked_sum(row, mask))
    }
    fn reaches(isa: Isa, row: &[f32], hi: &[f32], limit: f32) -> bool {
        by_level!(isa, reaches(row, hi, limit))
    }
    fn gradient(isa: Isa, row: &mut [f32], terms: &RowTerms<'_, f32>) -> f32 {
        by_level!(isa, gradient(row, terms))
    }
}
