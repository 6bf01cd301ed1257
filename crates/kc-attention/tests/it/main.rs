//! Tests through the public interface.

use kc_testing::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

mod exact;
mod sage;
mod sea;
mod soft;
