//! Uniform codes are sums of signs too, exactly: `code = (2^b - 1)/2 + sum_i 2^(i-1) B_i`. And plain rounding to such
//! codes.

use kc_core::{Error, Result, TensorView, par};

use super::{BcqMatrix, check_bits};
use crate::group::Group;
use crate::rows::Rows;
use crate::uniform::{UniformGroups, Zeros};

/// Candidates of the search for the smallest error, each 1 % narrower than the one before.
const SHRINKS: u32 = 80;

impl BcqMatrix {
    /// The same matrix: scale `i` is `s/2 2^i` and its signs are the bits `i` of the codes. Scales and offsets are
    /// f64 rounded to f32. Codes with a negative scale are inverted, so that scales are not negative.
    ///
    /// # Errors
    /// `Empty` without rows or columns; `NotFinite` where an offset leaves the range of f32.
    pub fn from_uniform(u: &UniformGroups) -> Result<Self> {
        let ([n, k], bits, groups) = (u.shape(), u.bits(), u.groups());
        let (q, row_bytes) = (usize::from(bits), k.div_ceil(8));
        let half = f64::from((1u32 << bits) - 1) / 2.0;
        let mut planes = vec![0; kc_core::shape::checked_len("codes", &[q, n, row_bytes])?];
        let mut scales = Vec::with_capacity(n * groups * q);
        let mut offsets = Vec::with_capacity(n * groups);
        for (at, &scale) in u.scales().iter().enumerate() {
            let (row, g) = (at / groups, at % groups);
            let scale = f64::from(scale);
            scales.extend((0..q).map(|i| (scale.abs() / 2.0 * f64::from(1u32 << i)) as f32));
            offsets.push(match u.zeros() {
                Zeros::Constant(zero) => scale * (half - f64::from(*zero)),
                Zeros::PerGroup(zeros) => scale * (half - f64::from(zeros[at])),
                Zeros::Offset(offsets) => scale * half + f64::from(offsets[at]),
            } as f32);
            let flip = if scale < 0.0 { 0xff } else { 0 };
            for column in g * u.group()..k.min((g + 1) * u.group()) {
                let code = u.codes()[row * k + column] ^ flip;
                for b in 0..q {
                    planes[(b * n + row) * row_bytes + column / 8] |= (code >> b & 1) << (column % 8);
                }
            }
        }
        let order = u.order().map(<[u32]>::to_vec);
        Ok(Self { order, ..Self::from_parts([n, k], bits, u.group(), planes, scales, Some(offsets))? })
    }
}

/// How [`rtn`] rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct RtnSpec {
    /// Bits of a code, 1 to 8.
    pub bits: u8,
    /// Columns that share a scale and a zero.
    pub group: Group,
    /// The range is symmetric around 0, and the zero is `2^(bits-1)`.
    pub symmetric: bool,
    /// Tries narrower ranges, down to 21 %, for the smallest `sum |w - w^|^2.4`.
    pub search: bool,
}

impl Default for RtnSpec {
    /// 4 bits, groups of 128, the range of the values (and 0), no search.
    fn default() -> Self {
        Self { bits: 4, group: Group::default(), symmetric: false, search: false }
    }
}

/// Rounds `w` to the nearest of `2^bits` equal steps: with `lo = min(w, 0)` and `hi = max(w, 0)` of a group (-1 and 1
/// if both are 0), `s = (hi - lo) / (2^bits - 1)`, `zero = rne(-lo / s)` and `code = clamp(rne(w / s) + zero)`.
///
/// # Errors
/// `Empty` without rows or columns, `NotFinite` for weights, `Argument` for bits outside of 1 to 8 or a group of 0.
pub fn rtn(w: TensorView<'_, f32, 2>, spec: &RtnSpec) -> Result<UniformGroups> {
    check_bits(spec.bits)?;
    let [n, k] = w.shape();
    if n == 0 || k == 0 {
        return Err(Error::empty("w"));
    }
    let group = spec.group.len(k)?;
    let rows = Rows::of(w)?;
    for i in 0..n {
        if let Some(j) = rows.row(i).iter().position(|x| !x.is_finite()) {
            return Err(Error::not_finite("w", &[i, j], f64::from(rows.row(i)[j])));
        }
    }
    let rounded = par::map_chunks(n, 4, |range| {
        let (mut codes, mut scales, mut zeros) = (Vec::new(), Vec::new(), Vec::new());
        for w in range.flat_map(|i| rows.row(i).chunks(group)) {
            let grid = grid(w, spec);
            scales.push(grid.scale);
            zeros.push(grid.zero);
            codes.extend(w.iter().map(|&w| grid.code(w) as u8));
        }
        (codes, scales, zeros)
    });
    let (mut codes, mut scales, mut zeros) = (Vec::new(), Vec::new(), Vec::new());
    for (c, s, z) in rounded {
        codes.extend(c);
        scales.extend(s);
        zeros.extend(z.into_iter().map(|zero| zero as i32));
    }
    UniformGroups::new([n, k], spec.bits, group, codes, scales, Zeros::PerGroup(zeros))
}

/// A grid of codes `0..=most`.
#[derive(Debug, Clone, Copy)]
struct Grid {
    scale: f32,
    zero: f32,
    most: f32,
}

impl Grid {
    fn of(low: f32, high: f32, spec: &RtnSpec) -> Self {
        let most = f32::from((0xffu16 >> (8 - spec.bits)) as u8);
        // Halves first, so that no difference of finite values overflows.
        let scale = (high / 2.0 - low / 2.0) / most * 2.0;
        let scale = scale.clamp(f32::MIN_POSITIVE, f32::MAX);
        let zero = if spec.symmetric { (most + 1.0) / 2.0 } else { (-low / scale).round_ties_even() };
        Self { scale, zero, most }
    }

    fn code(self, w: f32) -> f32 {
        ((w / self.scale).round_ties_even() + self.zero).clamp(0.0, self.most)
    }

    fn error(self, w: &[f32]) -> f64 {
        let one = |&w: &f32| f64::from(w - self.scale * (self.code(w) - self.zero)).abs().powf(2.4);
        w.iter().map(one).sum()
    }
}

fn grid(w: &[f32], spec: &RtnSpec) -> Grid {
    let mut low = w.iter().fold(0.0, |m: f32, &w| m.min(w));
    let mut high = w.iter().fold(0.0, |m: f32, &w| m.max(w));
    if spec.symmetric {
        high = high.max(-low);
        low = -high;
    }
    if low == high {
        (low, high) = (-1.0, 1.0);
    }
    let mut best = Grid::of(low, high, spec);
    if spec.search {
        let mut least = best.error(w);
        for i in 1..SHRINKS {
            let p = 1.0 - i as f32 / 100.0;
            let narrow = Grid::of(p * low, p * high, spec);
            let error = narrow.error(w);
            if error < least {
                (least, best) = (error, narrow);
            }
        }
    }
    best
}
