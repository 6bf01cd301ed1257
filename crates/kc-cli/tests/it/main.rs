//! Runs the program `kc` on real files.

mod attention;
mod crossquant;
mod cut_cross_entropy;
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
mod sea;
mod smash;
mod snnk;
mod soft;
mod support;
