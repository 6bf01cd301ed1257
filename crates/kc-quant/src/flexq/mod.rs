//! Weights of 6 bits with activations of 6 or 8 bits, in groups, multiplied as integers.
//!
//! For models that lose too much at 4 bits and are too big at 8. Weights are quantised once, activations in each
//! call; [`sensitivity`] and [`plan`] find the layers that need 8-bit activations. Any pair of widths from 1 to 8
//! bits works.
//!
//! ```text
//! scale s = max|x| / (2^(b-1) - 1)      code q = clamp(rne(x / s), -2^(b-1), 2^(b-1) - 1)      per row and group
//! y[m,n] = sum_g sx[m,g] sw[n,g] sum_{k in g} (qx - zx)[m,k] (qw - zw)[n,k]  + bias[n]
//! ```
//!
//! | Item | What it does |
//! |---|---|
//! | [`QuantSpec`], [`QuantMatrix`] | how to quantise; a quantised matrix, with its bit planes |
//! | [`FlexLinear`] | weights packed for the machine, `x [M, K]` to `y [M, N]` |
//! | [`sensitivity`], [`plan`] | the error of each layer with 6, 8 and 16-bit activations, and which get 8 |
//!
//! ```
//! use kc_core::TensorView;
//! use kc_quant::flexq::{FlexLinear, KernelChoice, QuantMatrix, QuantSpec};
//!
//! let w = [0.5f32, -0.25, 1.0, 0.125, 0.75, -0.5];
//! let w = QuantMatrix::quantize(TensorView::from_slice([2, 3], &w)?, &QuantSpec::default())?;
//! let layer = FlexLinear::new(&w, None, KernelChoice::Auto)?;
//! let x = [1.0f32, 2.0, -1.0];
//! let y = layer.forward(TensorView::from_slice([1, 3], &x)?, 8)?;
//! assert!((y.as_slice()[0] + 1.0).abs() < 0.05);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! # Exactness
//! Codes are reproducible bit for bit: true division, half to even, in f32, with the scale rounded to the type
//! that stores it first. Sums inside of a group are exact integers. Then, in f32 and without fused operations:
//! `acc += f32(sum) * (sw * sx)` for rising groups, the bias last. All kernels and any number of threads give the
//! same bits. The error against exact arithmetic on the codes is at most `2e-6 sum|terms|` with groups of 128.
//!
//! # Cost
//! `M N K` products of bytes. Weights take 6 bits and 32 bits per group and row; one token reads all of them
//! once and is bound by memory (0.78 bytes per weight with groups of 128). The instruction sets multiply
//! unsigned with signed bytes: `vpdpbusd` sums four products in 32 bits; without it `vpmaddubsw` sums two in 16 bits,
//! and as many of its results are added there as cannot overflow: 8 for 6 x 6 bits, 2 for 6 x 8 bits. Codes of 8 x 8
//! bits are split into nibbles. The page of figures is `docs/performance.md`.
//!
//! # When not to use it
//! For one token 4-bit weights are a third faster and often good enough; layers with few tokens and large `N` gain
//! nothing from 6-bit activations, which only help where arithmetic is the limit. The bit-plane kernel
//! ([`KernelChoice::Popcount`], the paper's) needs `bits_x * bits_w` steps and only pays for one or two bits.
//!
//! # Source
//! "FlexQ: Efficient Post-training INT6 Quantization for LLM Serving via Algorithm-System Co-Design" (2025): groups,
//! widths, sensitivity, bit planes. Its fixed list of sensitive layers is [`Policy::Names`]; measuring them,
//! scales without a floor and exact sums per group are additions of this crate.

use kc_core::{Error, Result, Tensor, TensorView};
use rayon::prelude::*;

use crate::group::{Group, ScaleDtype};
use crate::rows::Rows;
use crate::uniform::{UniformGroups, Zeros};

mod activations;
mod linear;
mod planes;
mod portable;
mod quantize;
pub mod reference;
mod sensitivity;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use activations::Activations;
pub use linear::{FlexLinear, Kernel, KernelChoice};
pub use planes::{from_planes, to_planes};
pub use sensitivity::{LayerSample, Plan, PlannedLayer, Policy, Sensitivity, plan, sensitivity};

/// What codes range over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// Signed codes around 0, scale from the largest magnitude. The paper's.
    #[default]
    Sym,
    /// Unsigned codes for the range from the smallest to the largest value, widened to contain 0; the zero is a
    /// code.
    Asym,
    /// As [`Asym`](Self::Asym) without widening: the zero may lie outside of the codes. Groups whose zero would
    /// be beyond 10 000, or whose values are all equal, use `Asym`.
    AsymFree,
}

impl Scheme {
    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Sym => "sym",
            Scheme::Asym => "asym",
            Scheme::AsymFree => "asym_free",
        }
    }
}

/// How to quantise. The default is the paper's: 6 bits, groups of 128 columns, symmetric, f32 scales, no floor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantSpec {
    /// Bits of a code, 1 to 8.
    pub bits: u8,
    /// Columns that share a scale.
    pub group: Group,
    /// What codes range over.
    pub scheme: Scheme,
    /// The type that stores scales.
    pub scale_dtype: ScaleDtype,
    /// The smallest scale, at least 0. Anything above 0 destroys small tensors.
    pub scale_floor: f32,
}

impl Default for QuantSpec {
    fn default() -> Self {
        Self {
            bits: 6,
            group: Group::default(),
            scheme: Scheme::default(),
            scale_dtype: ScaleDtype::default(),
            scale_floor: 0.0,
        }
    }
}

impl QuantSpec {
    fn check(&self) -> Result<()> {
        if !(1..=8).contains(&self.bits) {
            return Err(Error::argument("bits", "1 to 8", self.bits));
        }
        if !(self.scale_floor >= 0.0 && self.scale_floor.is_finite()) {
            return Err(Error::argument("scale_floor", "a number of at least 0", self.scale_floor));
        }
        Ok(())
    }
}

/// A quantised matrix `[N, K]`, and how it was quantised.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantMatrix {
    spec: QuantSpec,
    uniform: UniformGroups,
}

impl QuantMatrix {
    /// Quantises `w` `[N, K]`, rows in parallel.
    ///
    /// # Errors
    /// `NotFinite` with the position of a NaN or infinity; `Argument` for bits outside of 1 to 8, a group of 0,
    /// a negative floor, or a scale that the type of scales cannot hold; `Empty` if there is no row or column.
    pub fn quantize(w: TensorView<'_, f32, 2>, spec: &QuantSpec) -> Result<Self> {
        spec.check()?;
        let [n, k] = w.shape();
        if n == 0 || k == 0 {
            return Err(Error::empty("w"));
        }
        let group = spec.group.len(k)?;
        let groups = k.div_ceil(group);
        let rows = Rows::of(w)?;
        let mut codes = vec![0u8; n * k];
        let mut scales = vec![0f32; n * groups];
        let mut zeros = vec![0i32; n * groups];
        let lines = codes.par_chunks_mut(k).zip(scales.par_chunks_mut(groups));
        lines.zip(zeros.par_chunks_mut(groups)).enumerate().try_for_each(
            |(i, ((codes, scales), zeros))| {
                let row = rows.row(i);
                if let Some(j) = quantize::not_finite(row) {
                    return Err(Error::not_finite("w", &[i, j], f64::from(row[j])));
                }
                for (g, (x, codes)) in row.chunks(group).zip(codes.chunks_mut(group)).enumerate() {
                    let affine = quantize::fit(x, spec)?;
                    quantize::encode(x, affine, spec.bits, codes);
                    (scales[g], zeros[g]) = (affine.scale, affine.zero);
                }
                Ok(())
            },
        )?;
        let zeros = match spec.scheme {
            Scheme::Sym => Zeros::Constant(quantize::half(spec.bits)),
            Scheme::Asym | Scheme::AsymFree => Zeros::PerGroup(zeros),
        };
        let uniform = UniformGroups::new([n, k], spec.bits, group, codes, scales, zeros)?;
        Ok(Self { spec: *spec, uniform })
    }

    /// Takes codes that something else made. Activations will be quantised as `spec` says; its bits and group
    /// become those of the codes.
    pub fn from_uniform(uniform: UniformGroups, spec: &QuantSpec) -> Result<Self> {
        let spec = QuantSpec { bits: uniform.bits(), group: Group::Size(uniform.group()), ..*spec };
        spec.check()?;
        Ok(Self { spec, uniform })
    }

    /// How it was quantised.
    pub fn spec(&self) -> &QuantSpec {
        &self.spec
    }

    /// Codes, scales and zeros.
    pub fn uniform(&self) -> &UniformGroups {
        &self.uniform
    }

    /// The codes as the definition has them, `[N, K]`: signed if symmetric, else unsigned.
    pub fn codes(&self) -> Result<Tensor<i16, 2>> {
        let shift = self.shift() as i16;
        let codes: Vec<i16> = self.uniform.codes().iter().map(|&c| i16::from(c) - shift).collect();
        Tensor::from_slice(self.uniform.shape(), &codes)
    }

    /// The scales, `[N, G]`.
    pub fn scales(&self) -> Result<Tensor<f32, 2>> {
        Tensor::from_slice([self.uniform.shape()[0], self.uniform.groups()], self.uniform.scales())
    }

    /// The zeros of the codes that [`codes`](Self::codes) returns, `[N, G]`: 0 if symmetric.
    pub fn zeros(&self) -> Result<Tensor<i32, 2>> {
        let shape = [self.uniform.shape()[0], self.uniform.groups()];
        let shift = self.shift();
        let zero = |[n, g]: [usize; 2]| self.uniform.zero(n, g).unwrap_or(shift) - shift;
        Tensor::from_fn(shape, zero)
    }

    fn shift(&self) -> i32 {
        match self.spec.scheme {
            Scheme::Sym => quantize::half(self.spec.bits),
            Scheme::Asym | Scheme::AsymFree => 0,
        }
    }

    /// What the codes stand for, `[N, K]`.
    pub fn dequantize(&self) -> Result<Tensor<f32, 2>> {
        self.uniform.dequantize()
    }

    /// Bits that a weight takes, scales and zeros included.
    pub fn bits_per_weight(&self) -> f64 {
        let [n, k] = self.uniform.shape();
        let zeros = usize::from(self.spec.scheme != Scheme::Sym) * usize::from(self.spec.bits);
        let group_bits = self.spec.scale_dtype.bytes() * 8 + zeros;
        f64::from(self.spec.bits) + (n * self.uniform.groups() * group_bits) as f64 / (n * k) as f64
    }
}
