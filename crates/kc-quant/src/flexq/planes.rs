//! Codes as bit planes: the paper's layout, and the product by AND and population count.
//!
//! `q = -2^(b-1) p_(b-1) + sum_{i<b-1} 2^i p_i` for signed codes, all terms positive for unsigned ones. The kernel
//! takes unsigned weights and signed activations, as the byte kernels do:
//!
//! ```text
//! S(x u) = sum_ij e_i 2^(i+j) popcount(px_i AND pu_j)      e_i = -1 for the top plane of x
//! ```

use std::ops::Range;

use kc_core::{Error, Isa, Result, Tensor, TensorView};

use super::activations::Activations;
use super::quantize::half;
use crate::uniform::{UniformGroups, Zeros};

/// Columns of a word of the published layout, times its 4 words.
const CHUNK: usize = 128;
/// Most rows of a tile of the published layout.
const TILE: usize = 8;

/// The bit planes of signed codes `[R, K]` in the layout of the published kernels: u32
/// `[K/128, ceil(R/c), b, c, 4]` with `c = min(R, 8)`; the smallest column of a word is its most significant bit,
/// and rows that do not exist are 0.
///
/// # Errors
/// `Shape` unless K is a multiple of 128, `Argument` for bits outside of 1 to 8, `Empty` without rows.
pub fn to_planes(codes: TensorView<'_, i16, 2>, bits: u8) -> Result<Tensor<u32, 5>> {
    let [rows, k] = codes.shape();
    check_layout(rows, k, bits)?;
    let c = rows.min(TILE);
    let shape = [k / CHUNK, rows.div_ceil(c), usize::from(bits), c, 4];
    Tensor::from_fn(shape, |[chunk, tile, plane, r, word]| {
        let row = tile * c + r;
        if row >= rows {
            return 0;
        }
        (0..32).fold(0u32, |bits, i| {
            let code = codes.at([row, chunk * CHUNK + word * 32 + i]);
            bits << 1 | u32::from((code as u16 >> plane & 1) as u8)
        })
    })
}

/// The signed codes `[rows, K]` of planes in the published layout.
///
/// # Errors
/// `Shape` if the planes do not fit `rows`, `Argument` for more than 8 planes.
pub fn from_planes(planes: TensorView<'_, u32, 5>, rows: usize) -> Result<Tensor<i16, 2>> {
    let (k, bits) = published_shape(planes, rows)?;
    let c = planes.shape()[3];
    Tensor::from_fn([rows, k], |[row, column]| {
        let (chunk, word, bit) = (column / CHUNK, column % CHUNK / 32, 31 - column % 32);
        let code = (0..usize::from(bits)).fold(0i16, |code, plane| {
            let words = planes.at([chunk, row / c, plane, row % c, word]);
            code | ((words >> bit & 1) as i16) << plane
        });
        // The top plane is the sign.
        let sign = half(bits) as i16;
        (code ^ sign) - sign
    })
}

fn check_layout(rows: usize, k: usize, bits: u8) -> Result<()> {
    if !(1..=8).contains(&bits) {
        return Err(Error::argument("bits", "1 to 8", bits));
    }
    if rows == 0 || k == 0 {
        return Err(Error::empty("codes"));
    }
    if !k.is_multiple_of(CHUNK) {
        return Err(Error::shape(
            "codes",
            "a number of columns that 128 divides, for bit planes",
            &[rows, k],
        ));
    }
    Ok(())
}

/// Columns and bits of planes for `rows` rows.
fn published_shape(planes: TensorView<'_, u32, 5>, rows: usize) -> Result<(usize, u8)> {
    let [chunks, tiles, bits, c, words] = planes.shape();
    if !(1..=8).contains(&bits) {
        return Err(Error::argument("planes", "1 to 8 planes", bits));
    }
    if rows == 0 || c != rows.min(TILE) || tiles != rows.div_ceil(c) || words != 4 || chunks == 0 {
        let expected = format!("[K/128, ceil({rows}/c), b, c, 4] with c = min({rows}, 8)");
        return Err(Error::shape("planes", expected, &planes.shape()));
    }
    Ok((chunks * CHUNK, bits as u8))
}

/// The planes of unsigned codes as the kernel reads them: `[N][G][words][bits]`, words of 64 columns, groups padded
/// with zeros.
#[derive(Debug)]
pub(super) struct Planes {
    words: Vec<u64>,
    scales: Vec<f32>,
    zeros: Zeros,
    /// `[N, G]`: sums of the codes.
    sums: Vec<i32>,
    shape: [usize; 2],
    bits: u8,
    group: usize,
}

impl Planes {
    pub(super) fn from_uniform(w: &UniformGroups) -> Self {
        let [_, k] = w.shape();
        let bits = usize::from(w.bits());
        let mut words = Vec::new();
        let mut sums = Vec::new();
        if k > 0 {
            for codes in w.codes().chunks(k).flat_map(|row| row.chunks(w.group())) {
                for part in codes.chunks(64) {
                    let mut planes = [0u64; 8];
                    split(part, &mut planes);
                    words.extend_from_slice(&planes[..bits]);
                }
                sums.push(codes.iter().map(|&c| i32::from(c)).sum());
            }
        }
        Self {
            words,
            scales: w.scales().to_vec(),
            zeros: w.zeros().clone(),
            sums,
            shape: w.shape(),
            bits: w.bits(),
            group: w.group(),
        }
    }

    /// From the published layout, plane by plane: no code is ever put together.
    pub(super) fn from_published(
        planes: TensorView<'_, u32, 5>,
        scales: TensorView<'_, f32, 2>,
        group: usize,
    ) -> Result<Self> {
        let [n, groups] = scales.shape();
        let (k, bits) = published_shape(planes, n)?;
        let group = if group == 0 { k } else { group.min(k) };
        if groups != k.div_ceil(group) || !group.is_multiple_of(64) {
            let expected = format!("[{n}, {}] for groups of {group}, a multiple of 64", k.div_ceil(group));
            return Err(Error::shape("scales", expected, &scales.shape()));
        }
        if let Some(at) = scales.iter().position(|s| !s.is_finite()) {
            let value = f64::from(scales.at([at / groups, at % groups]));
            return Err(Error::not_finite("scales", &[at / groups, at % groups], value));
        }
        let c = planes.shape()[3];
        let mut words = Vec::with_capacity(n * k / 64 * usize::from(bits));
        let mut sums = vec![0i32; n * groups];
        for row in 0..n {
            for word in 0..k / 64 {
                for plane in 0..usize::from(bits) {
                    let (chunk, at) = (word / 2, word % 2 * 2);
                    let part = |i: usize| {
                        u64::from(planes.at([chunk, row / c, plane, row % c, at + i]).reverse_bits())
                    };
                    // Unsigned codes are the signed ones with the top bit turned over.
                    let turn = if plane + 1 == usize::from(bits) { u64::MAX } else { 0 };
                    let bits = (part(0) | part(1) << 32) ^ turn;
                    words.push(bits);
                    sums[row * groups + word * 64 / group] += (bits.count_ones() << plane) as i32;
                }
            }
        }
        Ok(Self {
            words,
            scales: scales.to_vec(),
            zeros: Zeros::Constant(half(bits)),
            sums,
            shape: [n, k],
            bits,
            group,
        })
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    pub(super) fn bits(&self) -> u8 {
        self.bits
    }

    pub(super) fn group(&self) -> usize {
        self.group
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.words.as_slice())
            + size_of_val(self.scales.as_slice())
            + size_of_val(self.sums.as_slice())
    }

    /// `store(token, row, value)` for `rows` of the weights and all tokens.
    pub(super) fn multiply(
        &self,
        isa: Isa,
        x: &Activations,
        rows: Range<usize>,
        store: impl FnMut(usize, usize, f32),
    ) {
        #[cfg(target_arch = "x86_64")]
        super::x86::multiply_planes(isa, self, x, rows, store);
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = isa;
            self.multiply_rows(x, rows, store);
        }
    }

    #[inline(always)]
    pub(super) fn multiply_rows(
        &self,
        x: &Activations,
        rows: Range<usize>,
        mut store: impl FnMut(usize, usize, f32),
    ) {
        let (k, groups) = (self.shape[1], self.shape[1].div_ceil(self.group));
        let bits = usize::from(self.bits);
        let x_bits = usize::from(x.bits());
        // Word by word as the weights have them, so that a group's words are consecutive.
        let row_words = k / self.group * self.group.div_ceil(64) + (k % self.group).div_ceil(64);
        for t in 0..x.rows {
            let mut x_planes: Vec<[u64; 8]> = Vec::with_capacity(row_words);
            for g in 0..groups {
                let len = self.group.min(k - g * self.group);
                let codes = &x.codes[(g * x.rows + t) * x.stride..][..len];
                for part in codes.chunks(64) {
                    let mut planes = [0u64; 8];
                    split(kc_core::bytemuck::cast_slice(part), &mut planes);
                    x_planes.push(planes);
                }
            }
            for n in rows.clone() {
                let (mut total, mut word) = (0f32, 0);
                for g in 0..groups {
                    let m = g * x.rows + t;
                    let mut sum = 0i32;
                    for _ in 0..self.group.min(k - g * self.group).div_ceil(64) {
                        let w = &self.words[(n * row_words + word) * bits..][..bits];
                        let planes = &x_planes[word];
                        for (i, px) in planes[..x_bits].iter().enumerate() {
                            let mut row = 0u32;
                            for pw in w.iter().rev() {
                                row = (row << 1) + (px & pw).count_ones();
                            }
                            let part = (row << i) as i32;
                            sum += if i + 1 == x_bits { -part } else { part };
                        }
                        word += 1;
                    }
                    let at = n * groups + g;
                    let (centred, by, scale) = (x.sums[m], x.scales[m], self.scales[at]);
                    let zero = x.zeros.get(m).copied().unwrap_or(0);
                    let exact = sum.wrapping_sub(zero.wrapping_mul(self.sums[at]));
                    total += match &self.zeros {
                        Zeros::Constant(z) => {
                            exact.wrapping_sub(z.wrapping_mul(centred)) as f32 * (scale * by)
                        }
                        Zeros::PerGroup(z) => {
                            exact.wrapping_sub(z[at].wrapping_mul(centred)) as f32 * (scale * by)
                        }
                        Zeros::Offset(o) => (exact as f32 * scale + centred as f32 * o[at]) * by,
                    };
                }
                store(t, n, total);
            }
        }
    }
}

/// The bit planes of up to 64 bytes, least significant first.
#[inline(always)]
fn split(codes: &[u8], planes: &mut [u64; 8]) {
    for (i, &code) in codes.iter().enumerate() {
        for (plane, bits) in planes.iter_mut().enumerate() {
            *bits |= u64::from(code >> plane & 1) << i;
        }
    }
}
