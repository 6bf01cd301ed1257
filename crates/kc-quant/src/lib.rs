//! Quantised matrix products: low-bit weights and activations on the CPU
