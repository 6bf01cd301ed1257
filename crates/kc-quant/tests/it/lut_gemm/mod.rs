//! LUT-GEMM: the format and its solver, conversions, products.

mod format;
mod golden;
mod products;
mod solver;
