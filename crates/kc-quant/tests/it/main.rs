//! Integration tests of kc-quant.

use kc_testing::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

mod crossquant;
mod flexq;
mod formats;
