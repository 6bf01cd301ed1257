//! Random features of kernels: maps whose dot products are, on average, a kernel or a layer of a neural network.
//!
//! | Module | What it holds |
//! |---|---|

#![deny(unsafe_code)]

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
