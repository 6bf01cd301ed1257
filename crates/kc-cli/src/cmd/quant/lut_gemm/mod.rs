//! The two doors of LUT-GEMM: `kc quant bcq` makes weights, `kc quant lut` multiplies with them.

pub(super) mod bcq;
pub(super) mod lut;
