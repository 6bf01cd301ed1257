//! Rows times a matrix: what turns independent normal numbers into dependent ones.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use kc_core::Isa;
#[cfg(target_arch = "x86_64")]
use kc_core::Level;
use kc_core::math::portable::Plain;

/// Columns of a panel.
const COLUMNS: usize = 8;

/// A square matrix, packed for products with it from the right: panels of 8 columns, each row by row, so that a product
/// reads it from front to back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Panels {
    dim: usize,
    /// Columns beyond the last one are zero.
    data: Vec<f64>,
}

impl Panels {
    /// From a row-major matrix of `dim` rows and columns, `dim > 0`.
    pub(crate) fn new(rows: &[f64], dim: usize) -> Self {
        let mut data = vec![0.0; dim.next_multiple_of(COLUMNS) * dim];
        for (panel, first) in data.chunks_exact_mut(COLUMNS * dim).zip((0..dim).step_by(COLUMNS)) {
            let width = COLUMNS.min(dim - first);
            for (packed, row) in panel.chunks_exact_mut(COLUMNS).zip(rows.chunks_exact(dim)) {
                packed[..width].copy_from_slice(&row[first..first + width]);
            }
        }
        Self { dim, data }
    }

    /// `out[r] = shift + sum_k z[r][k] row_k`. Each entry is summed in the order of `k`, so a row's result does not depend
    /// on its place.
    pub(crate) fn affine(&self, isa: Isa, z: &[f64], shift: &[f64], out: &mut [f64]) {
        debug_assert!(z.len() == out.len() && shift.len() == self.dim);
        #[cfg(target_arch = "x86_64")]
        if isa.level() >= Level::Avx2 {
            x86::affine(isa, &self.data, z, shift, out);
            return;
        }
        let _ = isa;
        portable::affine::<Plain>(&self.data, z, shift, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_definition_on_every_level() {
        for dim in [1usize, 2, 3, 7, 8, 9, 17, 64] {
            for rows in [0usize, 1, 3, 4, 5, 11] {
                let values = |len: usize, seed: u64| -> Vec<f64> {
                    let mut rng = crate::Seed::from(seed).rng();
                    (0..len).map(|_| rng.uniform() - 0.5).collect()
                };
                let (a, z, shift) = (values(dim * dim, 1), values(rows * dim, 2), values(dim, 3));
                let panels = Panels::new(&a, dim);
                for isa in Isa::available() {
                    let mut out = vec![f64::NAN; rows * dim];
                    panels.affine(isa, &z, &shift, &mut out);
                    for (z, out) in z.chunks_exact(dim).zip(out.chunks_exact(dim)) {
                        for j in 0..dim {
                            let terms = z.iter().enumerate().map(|(k, z)| z * a[k * dim + j]);
                            let want = terms.fold(shift[j], |sum, term| sum + term);
                            assert!((out[j] - want).abs() < 1e-13 * dim as f64, "d = {dim}, {rows} rows");
                        }
                        let mut alone = vec![0.0; dim];
                        panels.affine(isa, z, &shift, &mut alone);
                        assert_eq!(alone, out);
                    }
                }
            }
        }
    }
}
