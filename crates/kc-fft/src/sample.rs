//! The element types of the transforms.

use kc_core::Float;

use crate::{bitrev, fwht};

/// f64 or f32. Sealed.
#[expect(private_bounds, reason = "seals the trait: the kernels of a type are the crate's own affair")]
pub trait Sample: Float + fwht::Kernels + bitrev::Kernels {}

impl Sample for f64 {}
impl Sample for f32 {}
