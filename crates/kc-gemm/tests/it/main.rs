//! Tests of kc-gemm: every level against the plain loops of `kc_gemm::reference`.

mod gemm;
mod int8;

#[global_allocator]
static ALLOCATOR: kc_testing::alloc::Counting = kc_testing::alloc::Counting;
