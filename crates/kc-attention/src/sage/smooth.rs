//! Means that are taken off before quantising.

use kc_core::{Float, Isa, TensorView};

use super::rows::{self, Rows};

/// Rows whose sums are added to the total at a time: the tree is the same for any number of threads.
const CHUNK: usize = 1024;

/// The mean of each channel over all rows of `x` `[N, D]`, summed in f64.
pub fn channel_mean<E: Float>(isa: Isa, x: TensorView<'_, E, 2>) -> Vec<f32> {
    let [n, d] = x.shape();
    let mut total = vec![0.0f64; d];
    let mut part = vec![0.0f64; d];
    let mut rows = Rows::new(x);
    for range in kc_core::par::chunks(n, CHUNK) {
        part.fill(0.0);
        for row in range {
            rows::add(isa, rows.get(row), &mut part);
        }
        total.iter_mut().zip(&part).for_each(|(t, p)| *t += p);
    }
    total.iter().map(|t| (t / n.max(1) as f64) as f32).collect()
}

/// The mean of each channel over each block of `block` rows of `x` `[N, D]`: `[ceil(N / block), D]`. The last block
/// counts the rows that it has.
pub fn block_means<E: Float>(isa: Isa, x: TensorView<'_, E, 2>, block: usize) -> Vec<f32> {
    let [n, d] = x.shape();
    let mut out = Vec::with_capacity(n.div_ceil(block) * d);
    let mut part = vec![0.0f64; d];
    let mut rows = Rows::new(x);
    for range in kc_core::par::chunks(n, block) {
        let len = range.len() as f64;
        part.fill(0.0);
        for row in range {
            rows::add(isa, rows.get(row), &mut part);
        }
        out.extend(part.iter().map(|p| (p / len) as f32));
    }
    out
}
