//! One binary for all integration tests of the crate.

use kc_testing::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

mod decomp;
#[cfg(feature = "faer")]
mod faer;
mod mnn;
mod mnn_exact;
mod mnn_grad;
mod mnn_stream;
mod pairwise;
