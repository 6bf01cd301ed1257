//! Tests of the crate from outside.

mod cases;
mod cubature;
mod discrepancy;
mod integrand;
mod lattice;
mod leap;
mod measure;
mod net2;
mod netb;
mod periodize;
mod rng;
mod simple;
mod special;
mod table;
