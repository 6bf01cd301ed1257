//! SEA through the public interface.

mod golden;
mod pieces;
mod properties;
mod support;
mod training;
