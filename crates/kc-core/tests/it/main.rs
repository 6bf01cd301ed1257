//! Tests of kc-core against its references and on every level.

mod math;
mod reductions;
mod tensors;
