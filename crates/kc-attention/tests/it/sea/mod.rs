//! SEA through the public interface.

mod golden;
mod support;
