//! Runs the program `kc` on real files.

mod frame;
mod help;
mod mnn;
mod support;
