//! Tests of the file readers and writers.

mod atomic;
mod corpus;
mod csv;
mod fasta;
mod golden;
mod hostile;
mod json;
mod mtx;
mod npy;
mod npz;
mod safetensors;
mod support;

use kc_testing::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
