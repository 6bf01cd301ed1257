//! LUT-GEMM: the format and its solver, conversions, products.

mod golden;
