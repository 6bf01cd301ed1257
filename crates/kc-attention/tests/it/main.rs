//! Tests through the public interface.

mod sea;
