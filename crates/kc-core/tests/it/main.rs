//! Tests of kc-core against its references and on every level.

mod math;
#[cfg(feature = "ndarray")]
mod ndarray;
mod reductions;
mod tensors;
