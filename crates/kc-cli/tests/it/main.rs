//! Runs the program `kc` on real files.

mod frame;
mod help;
mod support;
