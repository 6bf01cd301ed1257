//! Weights as sums of scaled sign matrices, and products that look sums of activations up instead of multiplying.
//!
//! ```text
//! W[n, k] ~ sum_(b < q) alpha[n, g, b] B[b, n, k] + z[n, g]        B in {-1, +1}, g = k / group, q = 1..8
//! y[n]    = sum_g ( sum_b alpha[n, g, b] sum_(k in g) B[b, n, k] x_k + z[n, g] sum_(k in g) x_k ) + bias[n]
//! ```
//!
//! The `2^q` levels of a group need not be equally spaced, and with an offset `z` every uniform format is such a sum,
//! exactly. The inner sums have signs only: those of four (or eight) activations are tabulated once per token, and all
//! rows look them up. Activations keep their precision or, in the integer modes, only sums lose some.
//!
//! | Item | What it does |
//! |---|---|
//! | [`BcqMatrix::quantize`], [`BcqMatrix::fit`] | scales and signs for weights: greedy, alternating, offsets, importance |
//! | [`BcqMatrix::from_uniform`], [`rtn`] | exact conversion of codes of GPTQ, AWQ, GGUF..., and plain rounding |
//! | [`BcqMatrix::to_tensors`], [`BcqMatrix::to_reference`] | files, the arrays of the published program, and back |
//! | [`LutLinear`] | `X W^T + bias` |
//! | [`table8`] | the tables of the published algorithm |
//!
//! ```
//! use kc_core::TensorView;
//! use kc_quant::lut_gemm::*;
//!
//! let w: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32 - 31.5) / 32.0).collect();
//! let w = TensorView::from_slice([2, 32], &w)?;
//! let spec = BcqSpec { bits: 3, offset: Offset::Joint, init: Init::Best, ..BcqSpec::default() };
//! let fit = BcqMatrix::fit(w, &spec, None)?;
//! assert!(fit.rel_sq_error < 0.02 && fit.matrix.bits() == 3);
//!
//! let layer = LutLinear::new(&fit.matrix, None, LutMode::I16, KernelChoice::Auto)?;
//! let x = TensorView::from_slice([1, 32], &[0.5f32; 32])?;
//! let (y, exact) = (layer.forward(x)?, kc_gemm::gemm(x, w.transposed())?);
//! assert!((y[[0, 0]] - exact[[0, 0]]).abs() < 0.5);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! # The solver
//! The start takes each scale as the mean magnitude of what the scales before it left ([`Init::Greedy`]). Rounds follow:
//! least squares for the scales (the shortest solution where sign columns are equal, as in groups of constants), then each
//! value takes the nearest of the `2^q` levels, the upper one in the middle. The best state is kept, so the error never
//! rises. [`Init::Best`] also starts at equal steps and is never worse than plain rounding, which the published solver is
//! at 4 bits. Sums run in f64 and have no scale of their own: weights of 1e-6 are solved as well as those of 1. Cost:
//! `O(rounds N K q)`; rows run in parallel.
//!
//! # Products
//! | Mode | Tables | Error | AVX2 kernel |
//! |---|---|---|---|
//! | [`LutMode::F32`] | none | below `4e-6 sum abs(terms)` | the eight levels of three planes in a register, chosen by code, times activations |
//! | [`LutMode::I16`] | 13 bits for 4 activations | about 2e-4 | byte shuffles for 32 rows, low and high parts |
//! | [`LutMode::I8`] | 7 bits for 4 activations | about 1.6 % | byte shuffles for 32 rows |
//!
//! From [`LutLinear::crossover`] tokens on, all modes reconstruct panels of f32 weights inside of a dense product. The kernel
//! `literal` is the published algorithm, tables of 256 entries. Results do not depend on the number of threads. A
//! product of few tokens reads `q N K / 8` bytes and the scales once; on one core of a Zen 3 processor, 4096 x 4096, 3
//! bits, group 128, one token: 0.84 ms in f32, 0.35 ms in I16 and 0.24 ms in I8, against 2.5 ms for f32 weights.
//!
//! # When not to use it
//! For many tokens at a time it saves memory, not time. With 6 bits and more, integer products of 8-bit activations are
//! faster. I8 is too coarse for most uses. Solving for signs ignores that errors of different columns add up in a
//! product: give an importance (the mean of `x_k^2`) where activations are known.
//!
//! # Source
//! "LUT-GEMM: Quantized Matrix Multiplication based on LUTs for Efficient Inference in Large-Scale Generative Language
//! Models" (ICLR 2024): format, greedy and alternating solvers, tables of eight. Joint offsets, starts at equal steps, tables
//! of integers and products in registers are additions of this crate.

mod bcq;
mod matmul;
mod pack;
mod portable;
mod reconstruct;
pub mod reference;
mod table;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use bcq::{BcqFit, BcqMatrix, FileParts, ReferenceArrays, RtnSpec, rtn};
pub use matmul::{KernelChoice, LutLinear, LutMode, LutScratch};
pub use table::table8;

#[cfg(not(target_arch = "x86_64"))]
use fallback::{build_tables, reconstruct};
#[cfg(target_arch = "x86_64")]
use x86::{build_tables, reconstruct};

use crate::group::{Group, ScaleDtype};

/// How the scales and signs of a group are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// The start alone: each scale is the mean magnitude of what the scales before it left.
    Greedy,
    /// Then rounds of least squares and assignment.
    #[default]
    Alternating,
}

/// How a value finds its signs when the scales are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Assign {
    /// The nearest of all `2^q` levels.
    #[default]
    Nearest,
    /// The signs of successive residuals.
    Greedy,
}

/// The offset of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Offset {
    /// None, as published.
    #[default]
    None,
    /// The mean of the group.
    Mean,
    /// Solved together with the scales.
    Joint,
}

/// Where the rounds start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Init {
    /// At the greedy scales, as published.
    #[default]
    Greedy,
    /// At plain rounding to equal steps. Needs [`Offset::Joint`].
    Uniform,
    /// At both; the better one is kept for each group, and it is never worse than plain rounding. Needs
    /// [`Offset::Joint`].
    Best,
}

macro_rules! names {
    ($type:ident: $($variant:ident = $name:literal),*) => {
        impl $type {
            /// The name on the command line and in reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $($type::$variant => $name,)*
                }
            }
        }
    };
}

names!(Method: Greedy = "greedy", Alternating = "alternating");
names!(Assign: Nearest = "nearest", Greedy = "greedy");
names!(Offset: None = "none", Mean = "mean", Joint = "joint");
names!(Init: Greedy = "greedy", Uniform = "uniform", Best = "best");

/// How [`BcqMatrix::quantize`] works. The default is the paper's setting: 3 bits, groups of 128, 15 rounds, no offset.
#[derive(Debug, Clone, PartialEq)]
pub struct BcqSpec {
    /// Sign matrices, 1 to 8.
    pub bits: u8,
    /// Columns that share their scales.
    pub group: Group,
    /// The solver.
    pub method: Method,
    /// Rounds of the alternating solver, at most 1000. 0 leaves the start.
    pub rounds: u32,
    /// How signs follow scales.
    pub assign: Assign,
    /// The offset.
    pub offset: Offset,
    /// The start.
    pub init: Init,
    /// The type in which scales and offsets are stored.
    pub scale_dtype: ScaleDtype,
    /// The error of a value weighs `min(|w| / t, 1)^exponent` with `t` the [`clipping`](Self::clipping) quantile of
    /// all magnitudes, times the given importance. At least 0; 0 weighs all alike.
    pub exponent: f64,
    /// See [`exponent`](Self::exponent). Above 0, at most 1.
    pub clipping: f64,
    /// Values whose magnitude is below this quantile of all magnitudes are taken for zeros of no importance. At least
    /// 0, below 1. They come back as whatever level their signs stand for.
    pub pruning: f64,
}

impl Default for BcqSpec {
    fn default() -> Self {
        Self {
            bits: 3,
            group: Group::default(),
            method: Method::default(),
            rounds: 15,
            assign: Assign::default(),
            offset: Offset::default(),
            init: Init::default(),
            scale_dtype: ScaleDtype::F32,
            exponent: 0.0,
            clipping: 1.0,
            pruning: 0.0,
        }
    }
}

/// The level's functions where there is one level only.
#[cfg(not(target_arch = "x86_64"))]
mod fallback {
    use kc_core::Isa;

    use super::portable::{self, Block};
    use super::table::{self, Entries};

    pub(super) fn build_tables<E: Entries>(_: Isa, x: &[f32], out: &mut [u8]) -> f32 {
        table::build::<E>(x, out)
    }

    pub(super) fn reconstruct(
        _: Isa,
        block: &Block,
        bits: usize,
        first: u32,
        width: usize,
        panel: &mut [f32],
    ) {
        portable::reconstruct(block, bits, first, width, panel);
    }
}
