//! Tests of the crate from outside.

mod cases;
mod integrand;
mod lattice;
mod measure;
mod net2;
mod periodize;
mod rng;
mod simple;
mod special;
