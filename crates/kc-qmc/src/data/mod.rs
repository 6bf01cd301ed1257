//! Published tables, as bytes inside of the program.

pub(crate) mod net2;
