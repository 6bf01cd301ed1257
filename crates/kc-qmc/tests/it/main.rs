//! Tests of the crate from outside.

mod cases;
mod cubature;
mod lattice;
mod net2;
mod rng;
mod simple;
