//! Matrix products with user-supplied packers and epilogues: f32, f64, f16, bf16 and u8 x i8

pub mod int8;
mod micro;
pub mod reference;

pub use int8::{
    Affine, PackedI8, gemm_i8, gemm_i8_packed, gemm_i8_packed_into_with, gemm_i8_scaled, gemm_i8_scaled_with,
    gemm_u8i8, gemm_u8i8_dequant, gemm_u8i8_dequant_with, gemm_u8i8_packed, gemm_u8i8_packed_into_with,
};
