//! Weights as sums of scaled sign matrices, and products that look sums of activations up instead of multiplying.
//!
//! PAGE

mod bcq;
mod dense;
mod matmul;
mod pack;
mod portable;
pub mod reference;
mod table;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use bcq::{BcqFit, BcqMatrix, ReferenceArrays, RtnSpec, rtn};
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
    /// Rounds of the alternating solver. 0 leaves the start.
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
