//! INT4 weights with a scale for each group of columns.

use std::ops::Range;

use kc_core::{Error, Isa, Result, Tensor, TensorView, bf16, math, par};

use super::DequantMode;
use super::portable::{code_of, group_error};
use crate::group::Group;
use crate::int::{pack_stream, stream_words, unpack_stream};
use crate::rows::Rows;
use crate::uniform::{UniformGroups, Zeros};
use crate::{fp8, weight_only};

/// The number that stands for 0 in unsigned codes.
pub(super) const ZERO: u8 = 8;

/// The largest magnitude of a group that scaling a whole tensor may lead to.
const LIMIT: f32 = 448.0;

/// The type in which the scales of weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScaleType {
    /// E4M3, at least `2^-9`.
    #[default]
    Fp8,
    /// bfloat16.
    Bf16,
    /// 32 bits: as computed.
    F32,
}

impl ScaleType {
    /// All of them.
    pub const ALL: [ScaleType; 3] = [ScaleType::Fp8, ScaleType::Bf16, ScaleType::F32];

    /// The name that files and the command line use.
    pub const fn name(self) -> &'static str {
        match self {
            ScaleType::Fp8 => "fp8",
            ScaleType::Bf16 => "bf16",
            ScaleType::F32 => "f32",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Bytes of a stored scale.
    pub const fn bytes(self) -> usize {
        match self {
            ScaleType::Fp8 => 1,
            ScaleType::Bf16 => 2,
            ScaleType::F32 => 4,
        }
    }

    /// The scale of a group whose largest magnitude is `largest`, for codes up to `top`: 1 for a group of zeros.
    #[inline(always)]
    pub(super) fn scale(self, largest: f32, top: f32) -> f32 {
        if largest == 0.0 {
            return 1.0;
        }
        let scale = match self {
            ScaleType::Fp8 => fp8::round(largest / top).max(fp8::MIN_POSITIVE),
            ScaleType::Bf16 => bf16::from_f32(largest / top).to_f32(),
            ScaleType::F32 => largest / top,
        };
        // The smallest denormal numbers have no seventh; one of them is as good as none.
        if scale == 0.0 { 1.0 } else { scale }
    }
}

/// What all weights are multiplied by before their groups are quantised, and outputs divided by. Only FP8 scales need
/// it: with the others `Reference` and `MinError` are 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum PerTensor {
    /// The power of two from `2^-8` to `2^14` with the least squared error of the weights; the smallest of equals.
    #[default]
    MinError,
    /// The published rule: the power of two from 1 to `2^14` with the least shortfall of group maxima below what the
    /// smallest scale can hold. `rank` 1 is the best, 2 the second, and so on; the smaller of equals comes first.
    Reference {
        /// Which of that order, from 1.
        rank: usize,
    },
    /// This factor, a power of two or not.
    Fixed(f32),
    /// 1.
    Off,
}

/// How weights are quantised. The default: groups of 128, FP8 scales, the factor of least error.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WeightSpec {
    /// Columns that share a scale.
    pub group: Group,
    /// The type of the scales.
    pub scale_type: ScaleType,
    /// The factor of the whole tensor.
    pub per_tensor: PerTensor,
}

/// Quantised weights `[N, K]`: `w ~ q s / sigma`.
#[derive(Debug, Clone, PartialEq)]
pub struct FireqWeights {
    shape: [usize; 2],
    group: usize,
    scale_type: ScaleType,
    per_tensor: f32,
    /// Eight codes to a word, two's complement, row by row.
    packed: Vec<u32>,
    /// `[N, G]`
    scales: Vec<f32>,
}

impl FireqWeights {
    /// Quantises `w` `[N, K]`.
    ///
    /// # Errors
    /// `NotFinite` with the position; `Argument` for a group of 0 columns, a rank out of range, or a factor that is not
    /// positive or takes a weight beyond the range of f32.
    pub fn quantize(w: TensorView<'_, f32, 2>, spec: &WeightSpec) -> Result<Self> {
        let [n, k] = w.shape();
        let group = spec.group.len(k)?;
        let rows = Rows::of(w)?;
        for i in 0..n {
            if let Some(j) = math::first_non_finite(rows.row(i)) {
                return Err(Error::not_finite("w", &[i, j], f64::from(rows.row(i)[j])));
            }
        }
        let maxima = group_maxima(&rows, n, group);
        let sigma = per_tensor(&rows, &maxima, [n, k], group, spec)?;
        let largest = maxima.iter().copied().fold(0.0, f32::max) * sigma;
        if !largest.is_finite() {
            return Err(Error::argument("per_tensor", "a factor within the range of f32", sigma));
        }
        let scales: Vec<f32> = maxima.iter().map(|m| spec.scale_type.scale(m * sigma, 7.0)).collect();
        let (words, groups) = (stream_words(k, 4), k.div_ceil(group));
        let mut packed = vec![0; kc_core::shape::checked_len("w", &[n, words])?];
        if words > 0 {
            use rayon::prelude::*;
            let fill = |(i, words): (usize, &mut [u32])| {
                let mut codes = vec![0u8; k];
                let scales = &scales[i * groups..][..groups];
                for ((w, codes), &s) in rows.row(i).chunks(group).zip(codes.chunks_mut(group)).zip(scales) {
                    for (w, code) in w.iter().zip(codes) {
                        *code = code_of(w * sigma, s) as i8 as u8;
                    }
                }
                pack_stream(&codes, 4, words);
            };
            packed.par_chunks_mut(words).enumerate().for_each(fill);
        }
        Ok(Self { shape: [n, k], group, scale_type: spec.scale_type, per_tensor: sigma, packed, scales })
    }

    /// Puts the parts together: words `[N, ceil(K / 8)]`, scales `[N, ceil(K / group)]`.
    ///
    /// # Errors
    /// `Shape` for lengths that do not agree; `Argument` for a group of 0 columns, scales or a factor that are not
    /// positive, scales that their type does not hold, or bits behind the last code; `NotFinite` for scales.
    pub fn from_parts(
        shape: [usize; 2],
        group: usize,
        scale_type: ScaleType,
        per_tensor: f32,
        packed: Vec<u32>,
        scales: Vec<f32>,
    ) -> Result<Self> {
        let [n, k] = shape;
        if group == 0 {
            return Err(Error::argument("group", "at least 1 column", group));
        }
        let (group, words) = (group.min(k.max(1)), stream_words(k, 4));
        if packed.len() != kc_core::shape::checked_len("packed", &[n, words])? {
            return Err(Error::shape("packed", format!("[{n}, {words}]"), &[packed.len()]));
        }
        let groups = k.div_ceil(group);
        if scales.len() != kc_core::shape::checked_len("scales", &[n, groups])? {
            return Err(Error::shape("scales", format!("[{n}, {groups}]"), &[scales.len()]));
        }
        if let Some(at) = math::first_non_finite(&scales) {
            return Err(Error::not_finite("scales", &[at], f64::from(scales[at])));
        }
        let held = |s: f32| match scale_type {
            ScaleType::Fp8 => fp8::round(s) == s,
            ScaleType::Bf16 => bf16::from_f32(s).to_f32() == s,
            ScaleType::F32 => true,
        };
        if let Some(at) = scales.iter().position(|&s| s <= 0.0 || !held(s)) {
            let expected = format!("positive numbers of {}", scale_type.name());
            return Err(Error::argument("scales", expected, format!("{} at {at}", scales[at])));
        }
        check_factor(per_tensor)?;
        if !k.is_multiple_of(8) && packed.chunks_exact(words).any(|row| row[words - 1] >> (k % 8 * 4) != 0) {
            return Err(Error::argument("packed", "zeros behind the last code of a row", "other bits"));
        }
        Ok(Self { shape, group, scale_type, per_tensor, packed, scales })
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Columns of a group; the last may be shorter.
    pub fn group(&self) -> usize {
        self.group
    }

    /// The type of the scales.
    pub fn scale_type(&self) -> ScaleType {
        self.scale_type
    }

    /// The factor `sigma` of the whole tensor.
    pub fn per_tensor(&self) -> f32 {
        self.per_tensor
    }

    /// The packed codes, `[N, ceil(K / 8)]`: code `k` of a row in bits `4 (k mod 8)` of word `k / 8`.
    pub fn packed(&self) -> &[u32] {
        &self.packed
    }

    /// The scales as they are stored, `[N, G]`.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Bytes of codes and scales in a file.
    pub fn bytes(&self) -> usize {
        4 * self.packed.len() + self.scale_type.bytes() * self.scales.len()
    }

    /// The codes of a row in offset binary: 8 stands for 0.
    pub(super) fn unsigned_row(&self, row: usize, out: &mut [u8]) {
        let words = stream_words(self.shape[1], 4);
        unpack_stream(&self.packed[row * words..][..words], 4, out);
        out.iter_mut().for_each(|code| *code ^= ZERO);
    }

    /// The codes, -8 to 7, `[N, K]`.
    pub fn codes(&self) -> Result<Tensor<i8, 2>> {
        let mut out = Tensor::zeros(self.shape)?;
        let mut row = vec![0; self.shape[1]];
        for (i, to) in out.as_mut_slice().chunks_exact_mut(self.shape[1].max(1)).enumerate() {
            self.unsigned_row(i, &mut row);
            to.iter_mut().zip(&row).for_each(|(to, &code)| *to = code as i8 - ZERO as i8);
        }
        Ok(out)
    }

    /// Codes and scales for the products of this crate; they stand for `sigma w`.
    pub fn to_uniform(&self) -> Result<UniformGroups> {
        let [n, k] = self.shape;
        let mut codes = vec![0; n * k];
        for (i, row) in codes.chunks_exact_mut(k.max(1)).enumerate() {
            self.unsigned_row(i, row);
        }
        UniformGroups::new(
            self.shape,
            4,
            self.group,
            codes,
            self.scales.clone(),
            Zeros::Constant(i32::from(ZERO)),
        )
    }

    /// What the codes stand for, `[N, K]`, divided by the factor of the tensor.
    pub fn dequantize(&self, mode: DequantMode) -> Result<Tensor<f32, 2>> {
        let mut out = self.to_uniform()?.dequantize()?;
        match mode {
            DequantMode::Exact => {}
            DequantMode::Fp8Product => fp8::round_slice_with(Isa::best(), out.as_mut_slice()),
            DequantMode::Requantized => {
                for row in out.as_mut_slice().chunks_exact_mut(self.shape[1].max(1)) {
                    let scale = requantize_row(row);
                    row.iter_mut().for_each(|w| *w *= scale);
                }
            }
        }
        out.as_mut_slice().iter_mut().for_each(|w| *w /= self.per_tensor);
        Ok(out)
    }

    /// `||W - W^|| / ||W||`.
    ///
    /// # Errors
    /// `Shape` unless `w` has the shape of these weights.
    pub fn relative_error(&self, w: TensorView<'_, f32, 2>, mode: DequantMode) -> Result<f64> {
        crate::metrics::relative_error(self.dequantize(mode)?.view(), w)
    }

    /// Packs the codes for products.
    pub(super) fn pack(&self) -> Result<weight_only::WeightOnly> {
        weight_only::WeightOnly::new(&self.to_uniform()?, None)
    }
}

/// Rounds a row to FP8 with a scale of its own, which is returned: `row` then holds what the codes stand for.
pub(super) fn requantize_row(row: &mut [f32]) -> f32 {
    let largest = row.iter().fold(0.0f32, |top, w| top.max(w.abs()));
    let scale = largest / fp8::MAX;
    let scale = if scale == 0.0 { 1.0 } else { scale };
    row.iter_mut().for_each(|w| *w = fp8::round(*w / scale));
    scale
}

fn check_factor(sigma: f32) -> Result<()> {
    if sigma.is_finite() && sigma > 0.0 {
        return Ok(());
    }
    Err(Error::argument("per_tensor", "a positive number", sigma))
}

/// The largest magnitude of each row and group.
fn group_maxima(rows: &Rows<'_, f32>, n: usize, group: usize) -> Vec<f32> {
    let largest = |w: &[f32]| w.iter().fold(0.0f32, |top, w| if w.abs() > top { w.abs() } else { top });
    (0..n).flat_map(|i| rows.row(i).chunks(group).map(largest)).collect()
}

/// The factor that `spec` asks for.
fn per_tensor(
    rows: &Rows<'_, f32>,
    maxima: &[f32],
    [n, k]: [usize; 2],
    group: usize,
    spec: &WeightSpec,
) -> Result<f32> {
    let top = maxima.iter().copied().fold(0.0, f32::max);
    let powers = |from: i32| (from..=14).map(|e| 2f32.powi(e)).filter(move |sigma| top * sigma <= LIMIT);
    match spec.per_tensor {
        PerTensor::Off => Ok(1.0),
        PerTensor::Fixed(sigma) => check_factor(sigma).map(|()| sigma),
        PerTensor::Reference { rank } if !(1..=15).contains(&rank) => {
            Err(Error::argument("per_tensor", "a rank of 1 to 15", rank))
        }
        _ if spec.scale_type != ScaleType::Fp8 => Ok(1.0),
        PerTensor::Reference { rank } => {
            let least = 7.0 * f64::from(fp8::MIN_POSITIVE);
            let shortfall = |sigma: f32| -> f64 {
                maxima.iter().map(|m| (least - f64::from(m * sigma)).max(0.0) / least).sum()
            };
            let mut found: Vec<(f64, f32)> = powers(0).map(|sigma| (shortfall(sigma), sigma)).collect();
            found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
            // Fewer are left when large weights leave no room.
            Ok(found.get(rank - 1).or(found.last()).map_or(1.0, |(_, sigma)| *sigma))
        }
        PerTensor::MinError => {
            let all: Vec<f32> = powers(-8).collect();
            let groups = k.div_ceil(group);
            let of_rows = |range: Range<usize>| {
                let mut sums = vec![0.0; all.len()];
                for i in range {
                    let maxima = &maxima[i * groups..][..groups];
                    for (w, m) in rows.row(i).chunks(group).zip(maxima) {
                        add_errors(w, *m, &all, &mut sums);
                    }
                }
                sums
            };
            let add = |mut a: Vec<f64>, b: Vec<f64>| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                a
            };
            let errors = par::map_reduce(n, 16, of_rows, add).unwrap_or_else(|| vec![0.0; all.len()]);
            let pairs = errors.into_iter().zip(all);
            let best = pairs.reduce(|best, next| if next.0 < best.0 { next } else { best });
            Ok(best.map_or(1.0, |(_, sigma)| sigma))
        }
    }
}

/// Adds the squared error of a group with each of these factors. A power of two changes nothing but the rounding of the
/// scale: where that leaves the same scale behind, the error is the same to the last bit.
fn add_errors(w: &[f32], largest: f32, factors: &[f32], sums: &mut [f64]) {
    let (mut step, mut error) = (f32::NAN, 0.0);
    for (sigma, sum) in factors.iter().zip(sums) {
        let s = ScaleType::Fp8.scale(largest * sigma, 7.0);
        if s / sigma != step {
            step = s / sigma;
            error = group_error(w, *sigma, s);
        }
        *sum += error;
    }
}
