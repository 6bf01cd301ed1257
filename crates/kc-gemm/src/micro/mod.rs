//! Register tiles: the innermost loops, one file per instruction set.

pub(crate) mod int8;
