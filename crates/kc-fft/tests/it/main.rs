//! Tests of the crate from outside.

mod bitrev;
mod fwht;
