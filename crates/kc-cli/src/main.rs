//! The program kc.
fn main() {}
