//! The definition, point by point.

use crate::sequence::Order;

/// The fraction that multiplies the vector in point `i` of `n` (which only linear order needs). Exact for `i < 2^53`.
pub fn phi(order: Order, i: u64, n: u64) -> f64 {
    const SCALE: f64 = 1.0 / (1u64 << 53) as f64;
    let inverse = |i: u64| (i.reverse_bits() >> 11) as f64 * SCALE;
    match order {
        Order::Natural => inverse(i),
        Order::Gray => inverse(i ^ i >> 1),
        Order::Linear => i as f64 / n as f64,
    }
}

/// Point `i` of the lattice of vector `z`, shifted.
pub fn point(order: Order, i: u64, n: u64, z: &[f64], shift: &[f64]) -> Vec<f64> {
    let phi = phi(order, i, n);
    z.iter().zip(shift).map(|(z, shift)| ((z * phi) % 1.0 + shift) % 1.0).collect()
}
