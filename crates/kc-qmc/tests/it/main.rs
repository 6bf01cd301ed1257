//! Tests of the crate from outside.

mod integrand;
mod measure;
mod periodize;
mod rng;
mod special;
