//! Tests of the crate from outside.

mod cases;
mod lattice;
mod netb;
mod rng;
mod simple;
