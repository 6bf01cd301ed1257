//! Tests of the crate from outside.

mod cases;
mod lattice;
mod rng;
mod simple;
