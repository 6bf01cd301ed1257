//! Views to and from ndarray.
