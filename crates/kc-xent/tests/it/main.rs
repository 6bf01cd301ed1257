//! Integration tests of kc-xent.

use kc_testing::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

mod golden;
mod support;
