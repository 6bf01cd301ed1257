//! Codes of queries and keys.
//!
//! ```text
//! amax = max(|x - mean| over the group, 1e-7)    scale = amax / qmax    code = clamp(round(x' qmax / amax), ±qmax)
//! ```
//!
//! in f32, half to even; `qmax` is 127 or 7. Neither -128 nor -8 occurs.

use kc_core::{Element, Error, Float, Isa, Result, Tensor, TensorView};
use rayon::prelude::*;

use super::groups::Groups;
use super::rows::{self, Rows};
use super::{SageConfig, smooth};

/// The smallest magnitude that a group is given.
const FLOOR: f32 = 1e-7;

/// Codes with their scales and what was taken off before.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// `[B, H, N, D]`, whatever the layout of the input; within ±7 for 4 bits.
    pub codes: Tensor<i8, 4>,
    /// `[B, H, S]`, with `S` of [`Groups::count`].
    pub scales: Tensor<f32, 3>,
    /// What was taken off: `[B, H, blocks of queries, D]`, or `[B, H, 1, D]` for keys; zeros if nothing was.
    pub mean: Tensor<f32, 4>,
}

/// What is taken off the rows of a head.
#[derive(Debug, Clone, Default)]
pub struct Means {
    values: Vec<f32>,
    block: usize,
    channels: usize,
}

impl Means {
    /// Nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// The same for all rows.
    pub fn constant(mean: Vec<f32>) -> Self {
        Means { channels: mean.len(), values: mean, block: usize::MAX }
    }

    /// One for each block of `block` rows, `[blocks, channels]`.
    pub fn of_blocks(values: Vec<f32>, block: usize, channels: usize) -> Self {
        Means { values, block, channels }
    }

    /// What is taken off row `row`; empty for nothing.
    #[inline]
    pub fn of(&self, row: usize) -> &[f32] {
        if self.values.is_empty() {
            return &[];
        }
        let first = row / self.block * self.channels;
        &self.values[first..first + self.channels]
    }

    /// All of them.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// How the rows of one head become codes.
#[derive(Debug, Clone)]
pub struct Quantiser {
    isa: Isa,
    groups: Groups,
    means: Means,
    limit: f32,
    /// One for each group.
    scales: Vec<f32>,
    inverses: Vec<f32>,
}

impl Quantiser {
    /// Finds the scales of `x` `[N, D]`, called `arg` in errors, for the configuration's bits.
    ///
    /// # Errors
    /// `NotFinite` with the position in the head.
    pub fn fit<E: Float>(
        arg: &'static str,
        x: TensorView<'_, E, 2>,
        means: Means,
        groups: Groups,
        config: &SageConfig,
    ) -> Result<Self> {
        let isa = config.isa;
        let n = x.rows();
        let mut largest = vec![0u32; groups.count(n)];
        let mut rows = Rows::new(x);
        for row in 0..n {
            let values = rows.get(row);
            let bits = rows::largest(isa, values, means.of(row));
            if config.check_finite
                && bits >= f32::INFINITY.to_bits()
                && let Some(at) = kc_core::math::first_non_finite(values)
            {
                return Err(Error::not_finite(arg, &[row, at], f64::from(values[at])));
            }
            let slot = &mut largest[groups.of(row)];
            *slot = bits.max(*slot);
        }
        let limit = config.bits.limit();
        let amax = || largest.iter().map(|&bits| f32::from_bits(bits).clamp(FLOOR, f32::MAX));
        let scales = amax().map(|amax| amax / limit).collect();
        let inverses = amax().map(|amax| limit / amax).collect();
        Ok(Quantiser { isa, groups, means, limit, scales, inverses })
    }

    /// The scale of each group.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The scale of row `row`.
    #[inline]
    pub fn scale(&self, row: usize) -> f32 {
        self.scales[self.groups.of(row)]
    }

    /// What is taken off.
    pub fn means(&self) -> &Means {
        &self.means
    }

    /// The codes of row `row`, which holds `values`.
    #[inline]
    pub fn encode(&self, row: usize, values: &[f32], out: &mut [i8]) {
        let inverse = self.inverses[self.groups.of(row)];
        rows::encode(self.isa, values, self.means.of(row), inverse, self.limit, out);
    }
}

/// The quantiser of the keys `[N, D]` of a head, smoothed if the configuration says so.
pub fn of_keys<E: Float>(k: TensorView<'_, E, 2>, config: &SageConfig) -> Result<Quantiser> {
    let means = match config.smooth_k {
        true => Means::constant(smooth::channel_mean(config.isa, k)),
        false => Means::none(),
    };
    Quantiser::fit("k", k, means, Groups::of_keys(config), config)
}

/// The quantiser of the queries `[N, D]` of a head, smoothed if the configuration says so.
pub fn of_queries<E: Float>(q: TensorView<'_, E, 2>, config: &SageConfig) -> Result<Quantiser> {
    let means = match config.smooths_q() {
        true => Means::of_blocks(smooth::block_means(config.isa, q, config.blkq), config.blkq, q.cols()),
        false => Means::none(),
    };
    Quantiser::fit("q", q, means, Groups::of_queries(config), config)
}

/// Codes of the queries `q`, of the configuration's layout.
///
/// # Errors
/// Tiles that do not fit each other; `NotFinite`; `Empty` without channels.
pub fn quantize_q<E: Float>(q: TensorView<'_, E, 4>, config: &SageConfig) -> Result<Quantized> {
    let q = config.layout.heads_first(q)?;
    let blocks = q.shape()[2].div_ceil(config.blkq.max(1));
    quantize("q", q, config, blocks, Groups::of_queries(config), |head| of_queries(head, config))
}

/// Codes of the keys `k`, of the configuration's layout.
///
/// # Errors
/// As [`quantize_q`].
pub fn quantize_k<E: Float>(k: TensorView<'_, E, 4>, config: &SageConfig) -> Result<Quantized> {
    let k = config.layout.heads_first(k)?;
    quantize("k", k, config, 1, Groups::of_keys(config), |head| of_keys(head, config))
}

fn quantize<E: Float>(
    arg: &'static str,
    x: TensorView<'_, E, 4>,
    config: &SageConfig,
    blocks: usize,
    groups: Groups,
    fit: impl Fn(TensorView<'_, E, 2>) -> Result<Quantiser> + Sync,
) -> Result<Quantized> {
    config.check()?;
    let [b, h, n, d] = x.shape();
    if d == 0 {
        return Err(Error::empty(arg));
    }
    let mut codes = Tensor::zeros([b, h, n, d])?;
    let mut scales = Tensor::zeros([b, h, groups.count(n)])?;
    let mut mean = Tensor::zeros([b, h, blocks, d])?;
    let heads: Vec<_> = per_head(&mut codes, b * h)
        .zip(per_head(&mut scales, b * h))
        .zip(per_head(&mut mean, b * h))
        .enumerate()
        .collect();
    heads.into_par_iter().try_for_each(|(head, ((codes, scales), mean))| {
        let view = x.outer(head / h).matrix(head % h);
        let quantiser = fit(view).map_err(|error| in_head(error, &[head / h, head % h], config))?;
        scales.copy_from_slice(quantiser.scales());
        let values = quantiser.means().values();
        mean[..values.len()].copy_from_slice(values);
        let mut rows = Rows::new(view);
        for (row, codes) in codes.chunks_exact_mut(d).enumerate() {
            quantiser.encode(row, rows.get(row), codes);
        }
        Ok(())
    })?;
    Ok(Quantized { codes, scales, mean })
}

/// The equal parts of a tensor.
fn per_head<T: Element, const N: usize>(
    x: &mut Tensor<T, N>,
    heads: usize,
) -> impl Iterator<Item = &mut [T]> {
    let size = (x.len() / heads.max(1)).max(1);
    let rest = heads - x.len() / size;
    x.as_mut_slice().chunks_exact_mut(size).chain((0..rest).map(|_| Default::default()))
}

/// The same error with the position in the whole tensor.
pub(super) fn in_head(error: Error, head: &[usize; 2], config: &SageConfig) -> Error {
    match error {
        Error::NotFinite { arg, index, value } if index.len() == 2 => {
            let [b, h, n, d] = config.layout.shape([head[0], head[1], index[0], index[1]]);
            Error::NotFinite { arg, index: vec![b, h, n, d], value }
        }
        other => other,
    }
}
