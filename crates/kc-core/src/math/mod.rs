//! Vector mathematics on slices.
