//! Runs the program `kc` on real files.

mod crossquant;
mod fireq;
mod frame;
mod help;
mod mnn;
mod smash;
mod support;
