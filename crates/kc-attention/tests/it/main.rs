//! Tests through the public interface.

mod sage;
