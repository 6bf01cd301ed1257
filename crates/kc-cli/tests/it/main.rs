//! Runs the program `kc` on real files.

mod attention;
mod crossquant;
mod fireq;
mod flexq;
mod frame;
mod gp;
mod help;
mod kernel;
mod lut_gemm;
mod mnn;
mod qmc_integrate;
mod qmc_points;
mod qmc_transform;
mod quant_formats;
mod quant_matmul;
mod quantize;
mod smash;
mod soft;
mod support;
