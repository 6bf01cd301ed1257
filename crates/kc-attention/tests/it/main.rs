//! Tests through the public interface.

mod soft;
