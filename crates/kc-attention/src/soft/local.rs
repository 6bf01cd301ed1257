//! The local branch: a depthwise convolution of V on the grid, one kernel per head, zeros around.

use kc_core::{Error, Result, Tensor, TensorView, TensorViewMut, math, par};
use rayon::prelude::*;

use super::kernel::Inputs;
use super::landmark::{add_row, read_row};
use super::portable::at_level;
use super::{Grid, Scalar, check_finite, head_of};

/// Rows of the grid that one piece of work makes.
const STRIP: usize = 8;

/// Checks local kernels `[h, k, k]`.
pub(super) fn check<T: Scalar>(
    kernels: Option<TensorView<'_, T, 3>>,
    heads: usize,
    grid: Grid,
) -> Result<()> {
    let Some(kernels) = kernels else { return Ok(()) };
    let [count, rows, columns] = kernels.shape();
    if count != heads {
        return Err(Error::shape("local", format!("[{heads}, k, k], one per head"), &kernels.shape()));
    }
    if rows % 2 == 0 || columns % 2 == 0 {
        return Err(Error::argument("local", "kernels with odd sides", format!("{rows} x {columns}")));
    }
    if rows != columns && !matches!(grid, Grid::Seq(_)) {
        return Err(Error::shape("local", format!("[{heads}, k, k]"), &kernels.shape()));
    }
    check_finite("local", kernels)
}

/// Some rows of the grid with `k / 2` rows and columns of zeros around them.
struct Padded<T> {
    rows: Vec<T>,
    /// Elements of a row.
    step: usize,
}

impl<T: Scalar> Padded<T> {
    /// Rows `first..first + count` of `x`, a head of batch entry `entry`, with those around them.
    fn of(
        inputs: &Inputs<'_, T>,
        x: TensorView<'_, T, 2>,
        entry: usize,
        [first, count]: [usize; 2],
        [tall, wide]: [usize; 2],
    ) -> Self {
        let ([height, width], d) = (inputs.shape.sides, inputs.shape.channels);
        let step = (width + wide - 1) * d;
        let mut rows = vec![T::ZERO; (count + tall - 1) * step];
        for (i, row) in rows.chunks_exact_mut(step).enumerate() {
            let Some(y) = (first + i).checked_sub(tall / 2).filter(|y| *y < height) else { continue };
            for (column, to) in row[wide / 2 * d..].chunks_exact_mut(d).take(width).enumerate() {
                if inputs.counts(entry, y * width + column) {
                    read_row(x, y * width + column, to);
                }
            }
        }
        Padded { rows, step }
    }

    fn row(&self, i: usize) -> &[T] {
        &self.rows[i * self.step..(i + 1) * self.step]
    }
}

/// Adds the convolution of `inputs.v` to `out` `[B, h, N, d]`.
pub(super) fn add<T: Scalar>(
    inputs: &Inputs<'_, T>,
    kernels: TensorView<'_, T, 3>,
    out: TensorViewMut<'_, T, 4>,
) -> Result<()> {
    let (shape, [_, tall, wide]) = (inputs.shape, kernels.shape());
    let ([height, width], d) = (shape.sides, shape.channels);
    let mut work = Vec::new();
    for (entry, out) in out.chunks(0, 1)?.into_iter().enumerate() {
        for (head, out) in out.chunks(1, 1)?.into_iter().enumerate() {
            for (strip, out) in out.chunks(2, STRIP * width)?.into_iter().enumerate() {
                work.push(([entry, head], strip * STRIP, out));
            }
        }
    }
    work.into_par_iter().for_each(|([entry, head], first, mut out)| {
        let count = STRIP.min(height - first);
        let x = Padded::of(inputs, head_of(inputs.v, entry, head), entry, [first, count], [tall, wide]);
        let taps = kernels.matrix(head).to_vec();
        let mut out = out.outer_mut(0);
        let mut out = out.matrix_mut(0);
        let mut sums = vec![T::ZERO; width * d];
        for y in 0..count {
            sums.fill(T::ZERO);
            for (a, taps) in taps.chunks_exact(wide).enumerate() {
                at_level!(inputs.isa, slide(x.row(y + a), taps, d, &mut sums));
            }
            for (column, sum) in sums.chunks_exact(d).enumerate() {
                if inputs.counts(entry, (first + y) * width + column) {
                    add_row(&mut out, y * width + column, T::ONE, sum);
                }
            }
        }
    });
    Ok(())
}

/// Adds the gradient by V to `dv` and writes that by the kernels, `[h, k, k]`, from the gradient `dx` by the result.
pub(super) fn backward<T: Scalar>(
    inputs: &Inputs<'_, T>,
    kernels: TensorView<'_, T, 3>,
    dx: TensorView<'_, T, 4>,
    dv: TensorViewMut<'_, T, 4>,
    d_kernels: &mut Tensor<T, 3>,
) -> Result<()> {
    let (shape, [heads, tall, wide]) = (inputs.shape, kernels.shape());
    let turned = kernels.step(1, -1)?.step(2, -1)?;
    add(&Inputs { v: dx, ..*inputs }, turned, dv)?;
    let ([height, width], d) = (shape.sides, shape.channels);
    let strips = height.div_ceil(STRIP);
    let parts = par::map_chunks(shape.all_heads() * strips, 1, |one| {
        let (at, strip) = (one.start / strips, one.start % strips);
        let (entry, head, first) = (at / shape.heads, at % shape.heads, strip * STRIP);
        let count = STRIP.min(height - first);
        let x = Padded::of(inputs, head_of(inputs.v, entry, head), entry, [first, count], [tall, wide]);
        let slope = Padded::of(inputs, head_of(dx, entry, head), entry, [first, count], [1, 1]);
        let mut sums = vec![0.0f64; tall * wide];
        for y in 0..count {
            for (t, sum) in sums.iter_mut().enumerate() {
                let from = &x.row(y + t / wide)[t % wide * d..][..width * d];
                // Both have `width d` elements.
                *sum += math::dot_with(inputs.isa, slope.row(y), from).map_or(0.0, |dot| dot.to_f64());
            }
        }
        sums
    });
    let mut out = vec![0.0f64; heads * tall * wide];
    for (at, part) in parts.chunks(strips).enumerate() {
        let to = &mut out[at % heads * tall * wide..][..tall * wide];
        for part in part {
            to.iter_mut().zip(part).for_each(|(to, x)| *to += x);
        }
    }
    d_kernels.as_mut_slice().iter_mut().zip(out).for_each(|(to, x)| *to = T::from_f64(x));
    Ok(())
}
