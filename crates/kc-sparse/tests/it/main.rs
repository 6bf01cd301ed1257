//! Integration tests of kc-sparse.

mod flat;
mod matrices;
mod model;
mod plan;
mod properties;
mod smash;
mod support;

use kc_testing::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
