//! Tests of the crate from outside.

mod net2;
mod rng;
