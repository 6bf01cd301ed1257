//! Integration tests of kc-quant.

use kc_testing::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

mod crossquant;
mod fireq;
mod flexq;
mod formats;
mod fp8;
mod layers;
mod lut_gemm;
mod weight_only;
