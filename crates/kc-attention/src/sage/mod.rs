//! Attention in 4 and 8 bits (SageAttention2).

use kc_core::{Error, Float, Isa, Result, Tensor, TensorView};

use crate::{Attention, Dims, Layout, Mask};

mod forward;
mod groups;
mod kernel;
mod pack;
pub mod plan;
mod portable;
pub mod quantize;
pub mod reference;
mod rows;
pub mod smooth;
mod varlen;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use groups::Groups;
pub use quantize::{Quantized, quantize_k, quantize_q};
pub use varlen::sage_attention_varlen;

/// Bits of the codes of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum QkBits {
    /// Within ±127.
    #[default]
    Int8,
    /// Within ±7.
    Int4,
}

impl QkBits {
    /// The largest code.
    pub fn limit(self) -> f32 {
        match self {
            QkBits::Int8 => 127.0,
            QkBits::Int4 => 7.0,
        }
    }
}

/// Which rows share a scale, from the coarsest to the finest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Granularity {
    /// All rows of a head.
    PerTensor,
    /// A block of `blkq` or `blkk` rows.
    PerBlock,
    /// `warpq` or `warpk` rows.
    PerWarp,
    /// Of those, the queries with the same place of 8, or the keys with the same pair of places.
    #[default]
    PerThread,
    /// Each row its own.
    PerToken,
}

/// The number format of weights and values in the second product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PvMode {
    /// As they are.
    F32,
    /// IEEE half, or at least as exact.
    F16 {
        /// Products of a tile of keys may be summed in half.
        f16_accum: bool,
    },
    /// Weights in 0 to 255, values within ±127 times a factor per channel.
    Int8,
    /// Both in E4M3.
    Fp8,
    /// Both in E4M3, values within ±2.25 so that products may be summed in half.
    Fp8F16Acc,
}

impl Default for PvMode {
    fn default() -> Self {
        PvMode::F16 { f16_accum: false }
    }
}

/// What attention in few bits does. The default is that of the paper: 8 bits, a scale per thread, smoothed keys, half
/// precision for the values.
#[derive(Debug, Clone, PartialEq)]
pub struct SageConfig {
    /// Bits of the codes of queries and keys.
    pub bits: QkBits,
    /// Which rows share a scale.
    pub granularity: Granularity,
    /// The mean of the keys is taken off before quantising.
    pub smooth_k: bool,
    /// The mean of each block of queries is taken off before quantising; `None` for 4 bits only.
    pub smooth_q: Option<bool>,
    /// The mean of the values is taken off before quantising.
    pub smooth_v: bool,
    /// The second product.
    pub pv: PvMode,
    /// What scores are multiplied with; `None` for `D^-1/2`.
    pub scale: Option<f32>,
    /// The order of the axes of queries, keys, values and result.
    pub layout: Layout,
    /// Queries of a block, a multiple of `warpq`.
    pub blkq: usize,
    /// Queries of a warp, a multiple of 8.
    pub warpq: usize,
    /// Keys of a block, a multiple of `warpk`.
    pub blkk: usize,
    /// Keys of a warp, a multiple of 8.
    pub warpk: usize,
    /// Return the logarithms of the sums of exponentials too.
    pub lse: bool,
    /// Refuse NaN and infinities.
    pub check_finite: bool,
    /// The level of the kernels.
    pub isa: Isa,
}

impl Default for SageConfig {
    fn default() -> Self {
        SageConfig {
            bits: QkBits::default(),
            granularity: Granularity::default(),
            smooth_k: true,
            smooth_q: None,
            smooth_v: false,
            pv: PvMode::default(),
            scale: None,
            layout: Layout::Hnd,
            blkq: 128,
            warpq: 32,
            blkk: 64,
            warpk: 64,
            lse: false,
            check_finite: true,
            isa: Isa::best(),
        }
    }
}

impl SageConfig {
    /// Whether the means of queries are taken off.
    pub fn smooths_q(&self) -> bool {
        self.smooth_q.unwrap_or(self.bits == QkBits::Int4)
    }

    /// Tiles and the scale in range.
    pub(crate) fn check(&self) -> Result<()> {
        for (warp_name, warp, block_name, block) in
            [("warpq", self.warpq, "blkq", self.blkq), ("warpk", self.warpk, "blkk", self.blkk)]
        {
            if warp == 0 || !warp.is_multiple_of(8) {
                return Err(Error::argument(warp_name, "a multiple of 8", warp));
            }
            if block == 0 || !block.is_multiple_of(warp) {
                return Err(Error::argument(
                    block_name,
                    format!("a multiple of {warp_name} = {warp}"),
                    block,
                ));
            }
        }
        match self.scale {
            Some(scale) if !scale.is_finite() => Err(Error::argument("scale", "a finite number", scale)),
            _ => Ok(()),
        }
    }
}

/// Attention of queries `q` `[B, Hq, Nq, D]` over keys `k` and values `v` `[B, Hkv, Nk, D]` (or of the configuration's
/// layout). A query that sees no key gets zeros, and minus infinity for the logarithm.
///
/// # Errors
/// `Shape` for shapes or a mask that do not fit; `Empty` without keys or channels; `NotFinite` with the position;
/// `Argument` for tiles that do not fit each other or a scale that is not finite.
pub fn sage_attention<E: Float>(
    q: TensorView<'_, E, 4>,
    k: TensorView<'_, E, 4>,
    v: TensorView<'_, E, 4>,
    mask: &Mask<'_>,
    config: &SageConfig,
) -> Result<Attention<E>> {
    Sage::new(q, k, v, mask, config)?.attend()
}

/// Queries, keys and values after quantising and packing.
pub struct Sage<'a, E: Float> {
    job: Option<forward::Job<'a, E>>,
    shape: [usize; 4],
    config: &'a SageConfig,
}

impl<'a, E: Float> Sage<'a, E> {
    /// Quantises and packs.
    ///
    /// # Errors
    /// As [`sage_attention`].
    pub fn new(
        q: TensorView<'a, E, 4>,
        k: TensorView<'a, E, 4>,
        v: TensorView<'a, E, 4>,
        mask: &Mask<'a>,
        config: &'a SageConfig,
    ) -> Result<Self> {
        config.check()?;
        let heads_first = |x| config.layout.heads_first(x);
        let (q, k, v) = (heads_first(q)?, heads_first(k)?, heads_first(v)?);
        let dims = Dims::of(q.shape(), k.shape(), v.shape())?;
        let mask = mask.broadcast(&dims)?;
        let job = match q.is_empty() {
            true => None,
            false => Some(forward::Job::new(q, k, v, mask, dims, config)?),
        };
        Ok(Sage { job, shape: q.shape(), config })
    }

    /// Bytes of the packed keys and values.
    pub fn bytes(&self) -> usize {
        self.job.as_ref().map_or(0, forward::Job::bytes)
    }

    /// The attention.
    ///
    /// # Errors
    /// Only for want of memory.
    pub fn attend(&self) -> Result<Attention<E>> {
        let [b, h, n, _] = self.shape;
        let mut out = Tensor::zeros(self.shape)?;
        let mut lse = if self.config.lse { Some(Tensor::zeros([b, h, n])?) } else { None };
        if let Some(job) = &self.job {
            job.run(&mut out, lse.as_mut())?;
        }
        Ok(Attention { out: in_layout(out, self.config.layout)?, lse })
    }
}

/// `x` `[B, H, N, D]` in the layout and type asked for.
fn in_layout<E: Float>(x: Tensor<f32, 4>, layout: Layout) -> Result<Tensor<E, 4>> {
    let mut same = Some(x);
    if layout == Layout::Hnd
        && let Some(found) = (&mut same as &mut dyn std::any::Any).downcast_mut::<Option<Tensor<E, 4>>>()
        && let Some(found) = found.take()
    {
        return Ok(found);
    }
    let x = same.map_or_else(|| Tensor::zeros([0; 4]), Ok)?;
    let mut out = Tensor::zeros(layout.shape(x.shape()))?;
    let view = layout.heads_first(x.view())?;
    out.as_mut_slice().iter_mut().zip(view.iter()).for_each(|(out, x)| *out = E::from_f32(x));
    Ok(out)
}
