//! Register tiles: the innermost loops, one file per instruction set; and what is needed to drive them.

pub(crate) mod float;
pub(crate) mod int8;
pub(crate) mod vector;
