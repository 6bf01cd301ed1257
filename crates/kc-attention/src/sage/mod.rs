//! Attention in 4 and 8 bits: SageAttention2.
//!
//! Queries and keys become integers of 8 or 4 bits, whose products are exact and cheap; weights and values of the second
//! product are stored in few bits too. What keeps the result close to exact attention is *smoothing*: the mean of the keys
//! is taken off before quantising (softmax does not see it), and for 4 bits the mean of each block of queries (what is
//! lost is a number for each block and key, which is added to the scores).
//!
//! ```text
//! k' = k - mean(k)                        q' = q - mean of its block
//! codes = round(x' qmax / amax)           scale = amax / qmax, amax over the rows that share a scale
//! S  = D^(-1/2) (s_q s_k codes_q codes_k + mean_q k')        P = exp(S - max)        O = P V / sum P
//! lse = ln sum exp S + D^(-1/2) q mean(k)
//! ```
//!
//! | Tensor | Shape |
//! |---|---|
//! | queries, output | `[B, Hq, Nq, D]` ([`Layout::Hnd`]) or `[B, Nq, Hq, D]` ([`Layout::Nhd`]); f16, bf16, f32 or f64, all computed in f32 |
//! | keys, values | `[B, Hkv, Nk, D]` or `[B, Nk, Hkv, D]`, `Hq` a multiple of `Hkv`, any `D` from 1 |
//! | mask | [`Mask`], broadcast to `[B, Hq, Nq, Nk]` |
//! | lse | `[B, Hq, Nq]`, natural logarithm |
//!
//! # Weights and values
//!
//! | [`PvMode`] | Weights | Values | Sum of weights |
//! |---|---|---|---|
//! | `F16`, the default | 14 bits of the tile's largest | 13 bits and a sign of the largest of channel and tile | rounded |
//! | `Int8` | `round(255 P)` | 7 bits and a sign of the largest of the channel | rounded |
//! | `Fp8`, `Fp8F16Acc` | e4m3 of `448 P` | e4m3, largest 448 or 2.25 | exact |
//! | `F32` | as they are | as they are | exact |
//!
//! The paper's default rounds both to IEEE half. AVX2 multiplies 16-bit integers faster than floats and halves not at
//! all, so `F16` is fixed point relative to the largest of 64 keys; that rounds less than half on all fixtures (relative
//! L1 error added: 1.6e-5 to 1.9e-4, against 3.5e-5 to 2.1e-4; [`mod@reference`] has true halves). 64 products of 14 and 13
//! bits may pass 32 bits only if the weights sum to more than 16; then sums move to f32 after every 16 keys. `f16_accum`
//! and `Fp8F16Acc` allow sums in half, of which no kernel makes use.
//!
//! # Cost
//! Keys and values are packed once for each of their heads, O(Nk D), and shared by the queries of all their heads; then
//! `4 Nq Nk D` operations and about 16 vector instructions for 8 scores. Tiles that a causal mask hides are skipped. Memory
//! beyond the inputs: packed keys (2 bytes a code, with VNNI 1; 4 bits take half a byte) and values (2 bytes; 4 for `F32` and
//! `Fp8`), and a few tiles per thread.
//!
//! What the instructions allow, on Zen 3 and 4 without AVX-512, in multiply-adds per cycle and core:
//!
//! | | at most | with loads, measured |
//! |---|---|---|
//! | f32 FMA | 16 | |
//! | 8 bits: `vpmaddwd`, summed as floats (see the source of `kernel`) | 32 | 28 |
//! | half as fixed point: `vpmaddwd`, `vpaddd` | 26 (pipes collide; 32 on paper) | 26 |
//! | 4 bits: `vpmaddubsw`, `vpaddw` | 51 (pipes collide; 64 on paper) | |
//!
//! With one cycle for softmax a score takes at least 5.8 cycles for 64 channels and 10.5 for 128; f32 attention at the full
//! rate of FMA, without any softmax, takes 8 and 16. So exact 8-bit products with 14-bit weights are at most 1.4 to 1.5 times
//! as fast as perfect f32 on these processors, and 4 bits with 8-bit values 1.7 to 2 times. VNNI doubles or
//! quadruples the products.
//!
//! When not to use it: on short sequences (below 256 keys packing shows), for training (gradients are those of exact
//! attention, [`attention_backward`](crate::attention_backward)), or where errors of 0.2 to 2 percent (8 bits) matter.
//!
//! Results have the same bits on any number of threads and in both layouts.
//!
//! Source: Zhang et al., "SageAttention2 Technical Report: Accurate 4 Bit Attention for Plug-and-play Inference
//! Acceleration" (2024; later "SageAttention2: Efficient Attention with Thorough Outlier Smoothing and Per-thread INT4
//! Quantization"), sections 3.1 to 3.4; `Int8` is of SageAttention (2024), `Fp8F16Acc` of SageAttention2++ (2025). Masks, any
//! `D`, the mean of each packed sequence and `F16` in fixed point are additions of this crate.
//!
//! ```
//! use kc_attention::sage::{QkBits, SageConfig, sage_attention};
//! use kc_attention::{AttentionConfig, Mask, attention, compare};
//! use kc_core::Tensor;
//!
//! let wave = |a: usize, b: usize| ((a * 37 + b * 11) % 101) as f32 / 50.0 - 1.0;
//! let q = Tensor::<f32, 4>::from_fn([1, 4, 100, 32], |[_, h, i, c]| wave(h + i, c))?;
//! // A constant in some channels costs plain quantisers their precision; smoothing takes it off.
//! let k = Tensor::<f32, 4>::from_fn([1, 2, 120, 32], |[_, h, i, c]| wave(3 * h + i, 2 * c) + (c % 8 / 7) as f32 * 9.0)?;
//! let v = Tensor::<f32, 4>::from_fn([1, 2, 120, 32], |[_, h, i, c]| wave(h + 5 * i, c))?;
//! let exact = attention(q.view(), k.view(), v.view(), &Mask::CAUSAL, &AttentionConfig::default())?.out;
//! let error = |config: &SageConfig| {
//!     let found = sage_attention(q.view(), k.view(), v.view(), &Mask::CAUSAL, config)?;
//!     Ok::<f64, kc_core::Error>(compare(found.out.view(), exact.view())?.rel_l1)
//! };
//! let eight = error(&SageConfig::default())?;
//! let rough = error(&SageConfig { smooth_k: false, ..SageConfig::default() })?;
//! let four = error(&SageConfig { bits: QkBits::Int4, ..SageConfig::default() })?;
//! assert!(eight < 0.02 && eight < 0.5 * rough && eight < four);
//! # Ok::<(), kc_core::Error>(())
//! ```

use kc_core::{Error, Float, Isa, Result, Tensor, TensorView, TensorViewMut};

use crate::exact::check_mask;
use crate::{Attention, Dims, Layout, Mask, Select};

pub mod cache;
mod decode;
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

pub use cache::{CacheConfig, CacheValues, SageKvCache};
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
        /// Sums of products within a tile may be rounded to half. Only [`mod@reference`] does so: the kernels sum a tile
        /// (64 keys, or 16 while weights sum to more than 16) exactly in 32-bit integers and tiles in f32, either way.
        f16_accum: bool,
    },
    /// Weights in 0 to 255, values within ±127 times a factor per channel; sums of a tile exact in integers, of tiles in
    /// f32.
    Int8,
    /// Both in E4M3, sums of a tile and of tiles in f32.
    Fp8,
    /// The same with values within ±2.25, so that half would not overflow; the sums are those of `Fp8`, in f32.
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

/// As [`sage_attention`], into `out` of the shape of `q` and, if it is given, `lse` `[B, Hq, Nq]`, whatever `config.lse` says.
/// [`Sage::attend_into`] does the same again and again without packing.
///
/// # Errors
/// As [`sage_attention`], and `Shape` if `out` or `lse` have another shape.
pub fn sage_attention_into<E: Float>(
    q: TensorView<'_, E, 4>,
    k: TensorView<'_, E, 4>,
    v: TensorView<'_, E, 4>,
    mask: &Mask<'_>,
    config: &SageConfig,
    out: TensorViewMut<'_, E, 4>,
    lse: Option<TensorViewMut<'_, f32, 3>>,
) -> Result<()> {
    Sage::new(q, k, v, mask, config)?.attend_into(out, lse)
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
        if let Select::Add(add) = mask.select {
            check_mask(add)?;
        }
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
        let mut out = Tensor::zeros(self.config.layout.shape(self.shape))?;
        let mut lse = if self.config.lse { Some(Tensor::zeros([b, h, n])?) } else { None };
        self.attend_into(out.view_mut(), lse.as_mut().map(Tensor::view_mut))?;
        Ok(Attention { out, lse })
    }

    /// The attention into `out` of the shape of the queries and, if it is given, `lse` `[B, Hq, Nq]`.
    ///
    /// # Errors
    /// `Shape` if they have another shape.
    pub fn attend_into(
        &self,
        out: TensorViewMut<'_, E, 4>,
        lse: Option<TensorViewMut<'_, f32, 3>>,
    ) -> Result<()> {
        let want = self.config.layout.shape(self.shape);
        if out.shape() != want {
            return Err(Error::shape("out", format!("{want:?} of the queries"), &out.shape()));
        }
        let [b, h, n, _] = self.shape;
        if let Some(lse) = &lse
            && lse.shape() != [b, h, n]
        {
            return Err(Error::shape("lse", format!("{:?}", [b, h, n]), &lse.shape()));
        }
        let out = match self.config.layout {
            Layout::Hnd => out,
            Layout::Nhd => out.permuted([0, 2, 1, 3])?,
        };
        self.job.as_ref().map_or(Ok(()), |job| job.run(out, lse))
    }
}
