//! Integration tests of kc-xent.

use kc_testing::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

mod bad_input;
mod cut_cross_entropy;
mod extras;
mod gradient;
mod levels;
mod memory;
mod properties;
mod support;
mod training;
mod traps;
