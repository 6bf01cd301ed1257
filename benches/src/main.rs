//! Experiments of kc.
fn main() {}
