//! Matrix products, with the two seams that fused systems need: who fills a packed panel, and what happens to a
//! finished tile.
//!
//! | Room | What it holds |
//! |---|---|
//! | [`gemm`](mod@gemm) | [`gemm()`], [`gemm_into`], [`gemm_fused`], [`gemv`]: f32, f64, f16 and bf16, any strides |
//! | [`panel`] | [`PanelSource`]: operands that are generated while they are packed |
//! | [`epilogue`] | [`Epilogue`]: finished tiles stored with bias and activation, folded, or dropped |
//! | [`packed`] | [`PackedB`]: pack once, multiply often |
//! | [`batched`] | [`gemm_batched`], [`gemm_block_diagonal`] |
//! | [`int8`] | [`PackedI8`], [`gemm_i8`], [`gemm_u8i8`], [`gemm_i8_scaled`]: bytes with exact 32-bit sums |
//! | [`mod@reference`] | the definitions in plain loops |
//!
//! A product with softplus applied to every finished tile, and an operand that is never stored:
//!
//! ```
//! use kc_core::{Tensor, TensorView};
//! use kc_gemm::{FromFn, Lines, Store, gemm_fused};
//!
//! let a = TensorView::from_slice([1, 3], &[1.0f32, 2.0, 3.0])?;
//! let b = FromFn { lines: 2, depth: 3, element: |n, k| (n as f32 - k as f32) * 0.5 };
//! let mut out = Tensor::<f32, 2>::zeros([1, 2])?;
//! let softplus = |x: f32| x.exp().ln_1p();
//! gemm_fused(
//!     &Lines::rows(a),
//!     &b,
//!     Store { out: out.view_mut(), alpha: 1.0, column_bias: None, map: softplus },
//! )?;
//! assert!((out[[0, 0]] - softplus(-4.0)).abs() < 1e-6 && (out[[0, 1]] - softplus(-1.0)).abs() < 1e-6);
//! # Ok::<(), kc_core::Error>(())
//! ```

pub mod batched;
mod blocking;
pub mod epilogue;
pub mod gemm;
pub mod int8;
mod micro;
pub mod packed;
pub mod panel;
pub mod reference;

pub use batched::{gemm_batched, gemm_block_diagonal};
pub use epilogue::{Epilogue, FinishedTile, FoldRows, Store};
pub use gemm::{
    Operand, gemm, gemm_fused, gemm_fused_with, gemm_into, gemm_into_with, gemm_packed_into, gemv, gemv_t,
};
pub use int8::{
    Affine, PackedI8, gemm_i8, gemm_i8_packed, gemm_i8_packed_into_with, gemm_i8_scaled, gemm_i8_scaled_with,
    gemm_u8i8, gemm_u8i8_dequant, gemm_u8i8_dequant_with, gemm_u8i8_packed, gemm_u8i8_packed_into_with,
};
pub use micro::float::Real;
pub use packed::PackedB;
pub use panel::{FromFn, Lines, PanelSource};

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
