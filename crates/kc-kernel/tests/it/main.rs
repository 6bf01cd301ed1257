//! Tests of the crate from outside.

mod golden;
mod gp;
mod kernels;
mod multitask;
mod structure;
mod support;

use kc_testing::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
