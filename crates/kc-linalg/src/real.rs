//! The element types that can be factored.

mod sealed {
    /// What the decompositions need of a type; its methods are faer's and not part of the interface.
    pub trait Sealed: faer::traits::RealField + Copy {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A type that matrices can be factored in: `f32` or `f64`. Sealed.
pub trait Real: kc_gemm::Operand<Sum = Self> + kc_gemm::Real + sealed::Sealed {
    /// The distance from 1 to the next number.
    const EPS: f64;
}

impl Real for f32 {
    const EPS: f64 = f32::EPSILON as f64;
}

impl Real for f64 {
    const EPS: f64 = f64::EPSILON;
}
