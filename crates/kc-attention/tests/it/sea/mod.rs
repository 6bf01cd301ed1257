//! SEA through the public interface.

mod golden;
mod properties;
mod support;
mod training;
