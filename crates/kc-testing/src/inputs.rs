//! Inputs that find mistakes: sizes around block boundaries, patterns that swapped lanes cannot survive,
//! views with odd strides.

use kc_core::{Element, KcRng, TensorView};

/// Lengths around the boundaries of `lanes` and `block`: 0, 1, lanes-1, lanes, lanes+1, 2 lanes + 1,
/// block-1, block, block+1.
pub fn sizes(lanes: usize, block: usize) -> Vec<usize> {
    let mut all = vec![0, 1, 2, lanes.saturating_sub(1), lanes, lanes + 1, 2 * lanes + 1];
    all.extend([block.saturating_sub(1), block, block + 1]);
    all.sort_unstable();
    all.dedup();
    all
}

/// A pattern of period 251, which no power-of-two lane width divides, in `[-1, 1]`.
pub fn cycle_251(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect()
}

/// A pattern of period 251 over the whole of i8 (-128 to 122).
pub fn cycle_i8(len: usize) -> Vec<i8> {
    (0..len).map(|i| ((i % 251) as i16 - 128) as i8).collect()
}

/// Standard normals.
pub fn normals(len: usize, seed: u64) -> Vec<f32> {
    let mut out = vec![0.0; len];
    KcRng::new(seed, 0).fill_normal(&mut out);
    out
}

/// Uniform in `[low, high)`.
pub fn uniforms(len: usize, low: f32, high: f32, seed: u64) -> Vec<f32> {
    let mut out = vec![0.0; len];
    KcRng::new(seed, 0).fill_uniform(&mut out, low, high);
    out
}

/// A matrix stored with odd strides and offset inside of a larger buffer of `poison`.
#[derive(Debug)]
pub struct Strided<T: Element> {
    data: Vec<T>,
    shape: [usize; 2],
    strides: [isize; 2],
    offset: usize,
}

impl<T: Element> Strided<T> {
    /// The matrix.
    ///
    /// # Panics
    /// Never: the buffer was made for it.
    pub fn view(&self) -> TensorView<'_, T, 2> {
        TensorView::from_slice_strided(self.shape, self.strides, self.offset, &self.data)
            .unwrap_or_else(|e| panic!("{e}"))
    }
}

/// The same matrix in every awkward layout: plain, padded rows at an odd offset, transposed storage, columns
/// apart, rows backwards. The gaps hold `poison`, which must never reach a result.
pub fn strided<T: Element>(rows: usize, cols: usize, values: &[T], poison: T) -> Vec<Strided<T>> {
    assert_eq!(values.len(), rows * cols);
    let place = |strides: [isize; 2], offset: usize, len: usize| {
        let mut data = vec![poison; len];
        for i in 0..rows {
            for j in 0..cols {
                let at = offset as isize + i as isize * strides[0] + j as isize * strides[1];
                data[at as usize] = values[i * cols + j];
            }
        }
        Strided { data, shape: [rows, cols], strides, offset }
    };
    let (r, c) = (rows as isize, cols as isize);
    let back = rows.saturating_sub(1) * cols;
    vec![
        place([c, 1], 0, rows * cols),
        place([c + 3, 1], 5, rows * (cols + 3) + 5),
        place([1, r], 0, rows * cols),
        place([2 * c + 1, 2], 3, rows * (2 * cols + 1) + 3),
        place([-c, 1], back, rows * cols),
    ]
}
