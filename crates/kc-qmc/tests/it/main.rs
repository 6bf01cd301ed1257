//! Tests of the crate from outside.

mod cases;
mod lattice;
mod net2;
mod rng;
mod simple;
