//! The gradient of the sum of column norms, through row normalisation and centring.
//!
//! ```text
//! d raw / dZ_ij = Z_ij / c_j            for the D largest columns, 0 for the others and where c_j = 0
//! dC_i = (g_i - (g_i . Z_i) Z_i) / |C_i|
//! dX   = dC - column means of dC
//! ```
//!
//! Columns of equal norm: the lower index counts as larger.

use kc_core::{Error, Float, Isa, Result, Tensor, TensorView, TensorViewMut, par};
use rayon::prelude::*;

use super::norm::{self, Hidden, with_hidden};
use super::normalised::Normalised;
use super::{MnnConfig, check, is_undefined, norms_of, squares_of};

/// Rows that one task writes.
const CHUNK: usize = 64;

/// The gradient of `raw` (see [`MnnScore`](super::MnnScore)) with respect to `x`, times `upstream`: pass the
/// derivative of your loss by `raw`, or 1 / N for the gradient of the score. All NaN where `raw` is; under
/// [`ZeroRows::Drop`](super::ZeroRows::Drop) a zero row gets only its part through the means.
pub fn mnn_backward<T: Float>(
    x: TensorView<'_, T, 2>,
    upstream: f64,
    config: &MnnConfig,
) -> Result<Tensor<T, 2>> {
    let mut out = Tensor::zeros(x.shape())?;
    mnn_backward_into(x, upstream, out.view_mut(), config)?;
    Ok(out)
}

/// [`mnn_backward`] into the caller's contiguous memory, of the shape of `x`.
pub fn mnn_backward_into<T: Float>(
    x: TensorView<'_, T, 2>,
    upstream: f64,
    mut out: TensorViewMut<'_, T, 2>,
    config: &MnnConfig,
) -> Result<()> {
    let [rows, dim] = x.shape();
    check(rows, dim, config)?;
    if out.shape() != [rows, dim] {
        return Err(Error::shape("out", format!("[{rows}, {dim}], the shape of x"), &out.shape()));
    }
    let Some(out) = out.as_mut_slice() else {
        return Err(Error::unsupported("out", "the gradient is written to contiguous memory only"));
    };
    let row = with_hidden!(x, |x| rows_of(x, upstream, config))?;
    // Two rounds over the rows: the parts of dC are summed by columns before their mean can be taken off.
    // Computing a row again is cheaper than keeping it in f64.
    let mean = if config.center {
        let part = |range: std::ops::Range<usize>| {
            let (mut sums, mut g) = (vec![0.0; dim], vec![0.0; dim]);
            for i in range {
                row(i, &mut g);
                sums.iter_mut().zip(&g).for_each(|(s, g)| *s += g);
            }
            sums
        };
        let sums = par::map_reduce(rows, CHUNK, part, |mut a, b| {
            a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
            a
        });
        sums.unwrap_or_default().iter().map(|s| s / rows as f64).collect()
    } else {
        vec![0.0; dim]
    };
    out.par_chunks_mut(CHUNK * dim).enumerate().for_each(|(chunk, out)| {
        let mut g = vec![0.0; dim];
        for (i, out) in out.chunks_exact_mut(dim).enumerate() {
            row(chunk * CHUNK + i, &mut g);
            for ((to, g), m) in out.iter_mut().zip(&g).zip(&mean) {
                *to = T::from_f64(g - m);
            }
        }
    });
    Ok(())
}

/// Writes one row of dC.
type Row<'a> = Box<dyn Fn(usize, &mut [f64]) + Sync + 'a>;

fn rows_of<'a, H: Hidden>(x: TensorView<'a, H, 2>, upstream: f64, config: &MnnConfig) -> Result<Row<'a>> {
    let [rows, dim] = x.shape();
    let squares = squares_of(Isa::best(), x, config)?;
    if is_undefined(squares.zero_rows, config) {
        return Ok(Box::new(|_, g| g.fill(f64::NAN)));
    }
    let norms = norms_of(&squares, config);
    let mut weights = vec![0.0; dim];
    for j in norm::top_columns(&norms, config.top.unwrap_or(rows.min(dim))) {
        if norms[j] > 0.0 {
            weights[j] = upstream / norms[j];
        }
    }
    let z = Normalised::new(x, config)?;
    let normalize = config.normalize;
    Ok(Box::new(move |i, g| {
        // g holds Z_i first; dC_ij = Z_ij (w_j - g.Z) / |C_i| with g_j = w_j Z_ij.
        z.fill(i, 0..dim, g);
        let along: f64 = if normalize { g.iter().zip(&weights).map(|(z, w)| w * z * z).sum() } else { 0.0 };
        let norm = z.norm(i);
        g.iter_mut().zip(&weights).for_each(|(g, w)| *g = *g * (w - along) / norm);
    }))
}
