//! Integration tests of kc-features.

use kc_testing::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

mod fourier;
mod positive;
mod projection;
mod random;
mod snnk;
