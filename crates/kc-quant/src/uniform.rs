//! [`UniformGroups`]: the form in which all uniformly quantised weights meet.
//!
//! Every file format and the quantiser of 6-bit weights give it, every
//! product takes it, so that loading a file of one kind and multiplying with the kernel of another never
//! quantises again.

use kc_core::{Error, Result, Tensor};

/// What a code stands for, beside its scale.
#[derive(Debug, Clone, PartialEq)]
pub enum Zeros {
    /// `w = scale * (code - zero)` with one zero for all groups: `2^(bits-1)` for symmetric codes.
    Constant(i32),
    /// `w = scale * (code - zero)` with a zero for each row and group, `[N, G]`. It may lie outside of the codes.
    PerGroup(Vec<i32>),
    /// `w = scale * code + offset` with an offset for each row and group, `[N, G]`.
    Offset(Vec<f32>),
}

/// A matrix `[N, K]` of unsigned codes of 1 to 8 bits, with a scale and a zero for each row and group of
/// consecutive columns.
///
/// The columns may be stored in another order than the matrix has ([`order`](Self::order)), so that groups of a
/// file with activation order are consecutive.
#[derive(Debug, Clone, PartialEq)]
pub struct UniformGroups {
    shape: [usize; 2],
    bits: u8,
    group: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
    zeros: Zeros,
    order: Option<Vec<u32>>,
}

impl UniformGroups {
    /// Puts the parts together. `codes` is `[N, K]` row by row, one code per byte; `scales` is `[N, G]` with
    /// `G = ceil(K / group)`.
    ///
    /// # Errors
    /// `Argument` for bits outside of 1 to 8, a group of 0 columns or a code that does not fit; `Shape` for
    /// lengths that do not agree; `NotFinite` for scales or offsets.
    pub fn new(
        shape: [usize; 2],
        bits: u8,
        group: usize,
        codes: Vec<u8>,
        scales: Vec<f32>,
        zeros: Zeros,
    ) -> Result<Self> {
        if !(1..=8).contains(&bits) {
            return Err(Error::argument("bits", "1 to 8", bits));
        }
        if group == 0 {
            return Err(Error::argument("group", "at least 1 column", group));
        }
        let [n, k] = shape;
        let group = group.min(k.max(1));
        let count = kc_core::shape::checked_len("codes", &shape)?;
        if codes.len() != count {
            return Err(Error::shape("codes", format!("[{n}, {k}]"), &[codes.len()]));
        }
        let groups = kc_core::shape::checked_len("scales", &[n, k.div_ceil(group)])?;
        check_groups("scales", scales.len(), groups)?;
        check_finite("scales", &scales)?;
        check_zeros(&zeros, groups)?;
        let most = (0xffu16 >> (8 - bits)) as u8;
        if let Some(at) = first_above(&codes, most) {
            let expected = format!("codes of at most {most} for {bits} bits");
            return Err(Error::argument("codes", expected, format!("{} at {at}", codes[at])));
        }
        Ok(Self { shape, bits, group, codes, scales, zeros, order: None })
    }

    /// States that stored column `j` is column `order[j]` of the matrix.
    ///
    /// # Errors
    /// `Argument` unless `order` holds each column once.
    pub fn with_order(mut self, order: Vec<u32>) -> Result<Self> {
        let k = self.shape[1];
        let mut seen = vec![false; k];
        for &column in &order {
            match seen.get_mut(column as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(Error::argument("order", format!("each of 0..{k} once"), column)),
            }
        }
        if order.len() != k {
            return Err(Error::shape("order", format!("[{k}]"), &[order.len()]));
        }
        let sorted = order.iter().enumerate().all(|(j, &c)| j == c as usize);
        self.order = (!sorted).then_some(order);
        Ok(self)
    }

    /// The same codes and scales with other zeros.
    ///
    /// # Errors
    /// `Shape` for another number of zeros, `NotFinite` for offsets.
    pub fn with_zeros(self, zeros: Zeros) -> Result<Self> {
        check_zeros(&zeros, self.shape[0] * self.groups())?;
        Ok(Self { zeros, ..self })
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Bits of a code.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Columns of a group; the last may be shorter.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.shape[1].div_ceil(self.group)
    }

    /// The codes, `[N, K]` in stored order.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// The scales, `[N, G]`.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The zeros.
    pub fn zeros(&self) -> &Zeros {
        &self.zeros
    }

    /// The matrix's column at each stored column, if they differ.
    pub fn order(&self) -> Option<&[u32]> {
        self.order.as_deref()
    }

    /// The zero of a row and group, if zeros are integers.
    pub fn zero(&self, row: usize, group: usize) -> Option<i32> {
        match &self.zeros {
            Zeros::Constant(zero) => Some(*zero),
            Zeros::PerGroup(zeros) => zeros.get(row * self.groups() + group).copied(),
            Zeros::Offset(_) => None,
        }
    }

    /// The same matrix with the smallest number of columns per group that divides both its own and `group`, if
    /// `group` divides its own; scales and zeros are repeated.
    pub fn regroup(&self, group: usize) -> Result<Self> {
        if group == 0 || !self.group.is_multiple_of(group) && self.shape[1] > self.group {
            return Err(Error::argument("group", format!("a divisor of {}", self.group), group));
        }
        let (old, new) = (self.groups(), self.shape[1].div_ceil(group));
        let source = |i: usize| (i / new) * old + (i % new) * group / self.group;
        let total = self.shape[0] * new;
        Ok(Self {
            group: group.min(self.shape[1].max(1)),
            scales: (0..total).map(|i| self.scales[source(i)]).collect(),
            zeros: match &self.zeros {
                Zeros::Constant(zero) => Zeros::Constant(*zero),
                Zeros::PerGroup(zeros) => Zeros::PerGroup((0..total).map(|i| zeros[source(i)]).collect()),
                Zeros::Offset(zeros) => Zeros::Offset((0..total).map(|i| zeros[source(i)]).collect()),
            },
            ..self.clone()
        })
    }

    /// Row `n` of the matrix, `out` of length K: `scale * (code - zero)` or `scale * code + offset`, each
    /// operation rounded to f32.
    ///
    /// # Panics
    /// If `out` has not K elements or there is no such row, which is a mistake in the calling code.
    pub fn dequantize_row(&self, n: usize, out: &mut [f32]) {
        let [_, k] = self.shape;
        assert_eq!(out.len(), k, "one element per column");
        let groups = self.groups();
        let codes = &self.codes[n * k..][..k];
        for (j, &code) in codes.iter().enumerate() {
            let at = n * groups + j / self.group;
            let scale = self.scales[at];
            let value = match &self.zeros {
                Zeros::Constant(zero) => scale * (i32::from(code) - zero) as f32,
                Zeros::PerGroup(zeros) => scale * i32::from(code).wrapping_sub(zeros[at]) as f32,
                Zeros::Offset(offsets) => scale * f32::from(code) + offsets[at],
            };
            out[self.order.as_ref().map_or(j, |order| order[j] as usize)] = value;
        }
    }

    /// What the codes stand for, `[N, K]`.
    pub fn dequantize(&self) -> Result<Tensor<f32, 2>> {
        let mut out = Tensor::zeros(self.shape)?;
        if self.shape[1] > 0 {
            for (n, row) in out.as_mut_slice().chunks_exact_mut(self.shape[1]).enumerate() {
                self.dequantize_row(n, row);
            }
        }
        Ok(out)
    }
}

fn check_zeros(zeros: &Zeros, groups: usize) -> Result<()> {
    match zeros {
        Zeros::Constant(_) => Ok(()),
        Zeros::PerGroup(zeros) => check_groups("zeros", zeros.len(), groups),
        Zeros::Offset(offsets) => {
            check_groups("offsets", offsets.len(), groups)?;
            check_finite("offsets", offsets)
        }
    }
}

/// The first code above `most`, which is one less than a power of two.
fn first_above(codes: &[u8], most: u8) -> Option<usize> {
    const RUN: usize = 4096;
    // All bits of a run at once, which vectors do; only a run with a bad code is searched.
    let bad = |run: &&[u8]| run.iter().fold(0, |all, &code| all | code) > most;
    let (i, run) = codes.chunks(RUN).enumerate().find(|(_, run)| bad(run))?;
    Some(i * RUN + run.iter().position(|&code| code > most)?)
}

fn check_groups(name: &'static str, got: usize, groups: usize) -> Result<()> {
    if got == groups {
        return Ok(());
    }
    Err(Error::shape(name, format!("{groups} entries, one per row and group"), &[got]))
}

fn check_finite(name: &'static str, values: &[f32]) -> Result<()> {
    match values.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(Error::not_finite(name, &[at], f64::from(values[at]))),
        None => Ok(()),
    }
}
