//! Runs the program `kc` on real files.

mod crossquant;
mod frame;
mod help;
mod lut_gemm;
mod mnn;
mod quant_formats;
mod smash;
mod support;
