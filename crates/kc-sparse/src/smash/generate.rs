//! Seeded test matrices: R-MAT graphs, uniform random matrices, bands and graphs with power-law degrees.
//!
//! Values are multiples of 1/8 from 1/8 to 2, so that sums of their products are exact for a long time. Repeated
//! edges are merged (the first value stays). Same arguments, same matrix, on every machine.
//!
//! ```
//! use kc_sparse::smash::generate;
//! let a = generate::rmat(8, 8, generate::GRAPH500, 1)?;
//! assert_eq!((a.nrows(), a.ncols()), (256, 256));
//! assert!(a.nnz() > 1000 && a.nnz() <= 2048);
//! # Ok::<(), kc_core::Error>(())
//! ```

use kc_core::{Error, KcRng, Result};

use crate::convert::Triplets;
use crate::csr::Csr;
use crate::semiring::AnyPair;

/// The quadrant probabilities (a, b, c, d) that are commonly called R-MAT.
pub const GRAPH500: [f64; 4] = [0.57, 0.19, 0.19, 0.05];
/// A milder skew.
pub const MILD: [f64; 4] = [0.45, 0.22, 0.22, 0.11];
/// No skew: an Erdos-Renyi graph.
pub const UNIFORM: [f64; 4] = [0.25; 4];

/// The most edges that are drawn.
const MOST: usize = 1 << 31;

fn edges(scale: u32, edge_factor: usize) -> Result<(usize, usize)> {
    if scale > 31 {
        return Err(Error::argument("scale", "at most 31", scale));
    }
    let n = 1usize << scale;
    match n.checked_mul(edge_factor) {
        Some(edges) if edges <= MOST => Ok((n, edges)),
        _ => {
            let need = (n as u64).saturating_mul(edge_factor as u64);
            Err(Error::too_large("edge_factor", need, MOST as u64, "edges"))
        }
    }
}

fn value(rng: &mut KcRng) -> f64 {
    (rng.below(16) + 1) as f64 / 8.0
}

fn matrix(n: usize, mut edges: Vec<(usize, usize, f64)>) -> Result<Csr<f64>> {
    edges.sort_by_key(|e| (e.0, e.1));
    let rows: Vec<usize> = edges.iter().map(|e| e.0).collect();
    let cols: Vec<usize> = edges.iter().map(|e| e.1).collect();
    let values: Vec<f64> = edges.iter().map(|e| e.2).collect();
    let all: Csr<f64> =
        Triplets { nrows: n, ncols: n, rows: &rows, cols: &cols, values: &values }.to_csr()?;
    Ok(all.sum_duplicates(AnyPair::new()))
}

/// A graph of `2^scale` vertices and `edge_factor 2^scale` drawn edges: each edge descends `scale` times into one
/// of four quadrants with these probabilities (scaled to sum to 1).
pub fn rmat(scale: u32, edge_factor: usize, quadrants: [f64; 4], seed: u64) -> Result<Csr<f64>> {
    let (n, count) = edges(scale, edge_factor)?;
    let total: f64 = quadrants.iter().sum();
    if !(total > 0.0 && total.is_finite()) || quadrants.iter().any(|&q| q < 0.0) {
        return Err(Error::argument("quadrants", "four probabilities", format!("{quadrants:?}")));
    }
    let [a, b, c, _] = quadrants.map(|q| q / total);
    let mut rng = KcRng::new(seed, 0);
    let mut edge = |_| {
        let (mut i, mut j) = (0, 0);
        for _ in 0..scale {
            let u = rng.uniform();
            let (down, right) = (u >= a + b, u >= a && (u < a + b || u >= a + b + c));
            (i, j) = (2 * i + usize::from(down), 2 * j + usize::from(right));
        }
        (i, j, value(&mut rng))
    };
    let drawn = (0..count).map(&mut edge).collect();
    matrix(n, drawn)
}

/// A uniform random matrix of `2^scale` rows and `edge_factor 2^scale` drawn entries.
pub fn er(scale: u32, edge_factor: usize, seed: u64) -> Result<Csr<f64>> {
    let (n, count) = edges(scale, edge_factor)?;
    let mut rng = KcRng::new(seed, 0);
    let mut place = || rng.below(n as u64) as usize;
    let places: Vec<(usize, usize)> = (0..count).map(|_| (place(), place())).collect();
    matrix(n, places.into_iter().map(|(i, j)| (i, j, value(&mut rng))).collect())
}

/// A band matrix of `n` rows: entries at `|i - j| <= half_width`.
pub fn band(n: usize, half_width: usize, seed: u64) -> Result<Csr<f64>> {
    let most = (n as u64).saturating_mul(2 * half_width as u64 + 1);
    if n >= u32::MAX as usize || most > MOST as u64 {
        return Err(Error::too_large("band", most, MOST as u64, "entries"));
    }
    let mut rng = KcRng::new(seed, 0);
    let (mut indptr, mut indices, mut values) = (vec![0], Vec::new(), Vec::new());
    for i in 0..n {
        for j in i.saturating_sub(half_width)..(i + half_width + 1).min(n) {
            indices.push(j as u32);
            values.push(value(&mut rng));
        }
        indptr.push(indices.len() as i64);
    }
    Csr::new(n, n, indptr, indices, values)
}

/// A symmetric graph of `n` vertices whose degrees follow a power law: both ends of each of `edges` drawn edges are
/// vertex `i` with a probability in proportion to `(i + 1)^(-1 / (exponent - 1))`. Loops are left out.
///
/// The graph of the internet's autonomous systems has an exponent of about 2.1.
pub fn power_law(n: usize, edges: usize, exponent: f64, seed: u64) -> Result<Csr<f64>> {
    if !(exponent > 1.0 && exponent.is_finite()) {
        return Err(Error::argument("exponent", "a number above 1", exponent));
    }
    if n >= u32::MAX as usize || edges > MOST / 2 {
        return Err(Error::too_large("power_law", edges as u64, MOST as u64 / 2, "edges"));
    }
    let mut sum = 0.0;
    let weight = |i: usize| ((i + 1) as f64).powf(-1.0 / (exponent - 1.0));
    let sums: Vec<f64> = (0..n)
        .map(|i| {
            sum += weight(i);
            sum
        })
        .collect();
    let mut rng = KcRng::new(seed, 0);
    let mut drawn = Vec::with_capacity(2 * edges);
    for _ in 0..if n < 2 { 0 } else { edges } {
        let mut end = || {
            let u = rng.uniform() * sum;
            sums.partition_point(|&s| s <= u).min(n - 1)
        };
        let (i, j) = (end(), end());
        let x = value(&mut rng);
        if i != j {
            drawn.extend([(i, j, x), (j, i, x)]);
        }
    }
    matrix(n, drawn)
}
