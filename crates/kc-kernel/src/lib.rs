//! Kernel methods on lattices and digital nets.

#![forbid(unsafe_code)]
