//! Integration tests of kc-xent.

use kc_testing::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

mod bad_input;
mod extras;
mod golden;
mod gradient;
mod levels;
mod memory;
mod support;
mod training;
mod traps;
