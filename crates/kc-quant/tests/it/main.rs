//! Integration tests of kc-quant.

use kc_testing::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

mod crossquant;
mod formats;
mod flexq;
mod fireq;
mod fp8;
mod weight_only;
