//! From codes in any arrangement to rows: what the packings of integers share.

use std::borrow::Cow;

use kc_core::{Error, Result, Tensor, TensorView};
use rayon::prelude::*;

use crate::{UniformGroups, Zeros};

/// Where codes come from.
pub(super) trait CodeSource: Sync {
    /// Rows of a tile: one if the file has rows, else as many as make good use of a cache line of its columns.
    const ROWS: usize;
    /// Columns of a tile, a multiple of 128. A tile stays in the first cache.
    const COLUMNS: usize;

    /// Writes the codes of a tile: row `rows.start + i`, column `cols.start + j` to `out[i * stride + j]`.
    /// `rows.start` is a multiple of ROWS, `cols.start` one of COLUMNS.
    fn tile(&self, rows: std::ops::Range<usize>, cols: std::ops::Range<usize>, out: &mut [u8], stride: usize);
}

/// Which group a column belongs to.
#[derive(Debug, Clone)]
pub(super) enum Columns {
    /// Consecutive groups of so many columns.
    Runs(usize),
    /// A group for each column, in any order.
    Index(Vec<u32>),
}

impl Columns {
    /// Checks the indices of a file, `[K]`, against the number of groups.
    pub(super) fn of_index(index: TensorView<'_, i32, 1>, k: usize, groups: usize) -> Result<Self> {
        if index.len() != k {
            return Err(Error::shape("g_idx", format!("[{k}]"), &index.shape()));
        }
        let mut out = Vec::with_capacity(k);
        for (column, group) in index.iter().enumerate() {
            match usize::try_from(group) {
                Ok(g) if g < groups => out.push(g as u32),
                Ok(g) => return Err(Error::index("g_idx", &[column], g, groups)),
                Err(_) => {
                    return Err(Error::argument("g_idx", format!("groups of 0 to {}", groups - 1), group));
                }
            }
        }
        let run = out.iter().take_while(|&&g| g == 0).count().max(1);
        let plain = out.iter().enumerate().all(|(column, &g)| g as usize == column / run);
        Ok(if plain && k.div_ceil(run) == groups { Columns::Runs(run) } else { Columns::Index(out) })
    }

    /// The group of each column of weights in this crate's form, in the order of the matrix.
    pub(super) fn index_of(weights: &UniformGroups) -> Vec<i32> {
        let [_, k] = weights.shape();
        let mut index = vec![0; k];
        for j in 0..k {
            index[weights.order().map_or(j, |order| order[j] as usize)] = (j / weights.group()) as i32;
        }
        index
    }
}

/// The numbers beside the codes.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    pub(super) shape: [usize; 2],
    pub(super) bits: u8,
    pub(super) columns: Columns,
    /// `[N, G]`.
    pub(super) scales: Vec<f32>,
    /// Whole zeros: one, or `[N, G]`.
    pub(super) zeros: Zeros,
}

impl Grid {
    /// Columns of a group, if groups are consecutive.
    pub(super) fn group(&self) -> Option<usize> {
        match self.columns {
            Columns::Runs(run) => Some(run),
            Columns::Index(_) => None,
        }
    }

    fn groups(&self) -> usize {
        self.scales.len() / self.shape[0].max(1)
    }

    fn zero(&self, at: usize) -> i32 {
        match &self.zeros {
            Zeros::Constant(zero) => *zero,
            Zeros::PerGroup(zeros) => zeros[at],
            // No packing of integers has offsets.
            Zeros::Offset(_) => 0,
        }
    }

    /// `scale * (code - zero)` of every element.
    pub(super) fn dequantize<S: CodeSource>(&self, source: &S) -> Result<Tensor<f32, 2>> {
        let [n, k] = self.shape;
        let mut out = Tensor::zeros(self.shape)?;
        if out.is_empty() {
            return Ok(out);
        }
        let groups = self.groups();
        let tasks = out.as_mut_slice().par_chunks_mut(S::ROWS * k).enumerate();
        tasks.for_each_init(
            || vec![0u8; S::ROWS * S::COLUMNS],
            |tile, (block, out)| {
                let rows = block * S::ROWS..(block * S::ROWS + S::ROWS).min(n);
                for start in (0..k).step_by(S::COLUMNS) {
                    let cols = start..(start + S::COLUMNS).min(k);
                    source.tile(rows.clone(), cols.clone(), tile, S::COLUMNS);
                    for (i, row) in out.chunks_exact_mut(k).enumerate() {
                        let codes = &tile[i * S::COLUMNS..][..cols.len()];
                        self.scale_row((rows.start + i) * groups, start, codes, &mut row[cols.clone()]);
                    }
                }
            },
        );
        Ok(out)
    }

    /// `codes` stand from column `start` on in the row whose groups begin at `at`.
    fn scale_row(&self, at: usize, start: usize, codes: &[u8], out: &mut [f32]) {
        match &self.columns {
            Columns::Runs(run) => {
                let mut done = 0;
                while done < codes.len() {
                    let group = (start + done) / run;
                    let end = ((group + 1) * run - start).min(codes.len());
                    let (scale, zero) = (self.scales[at + group], self.zero(at + group));
                    for (out, &code) in out[done..end].iter_mut().zip(&codes[done..end]) {
                        *out = scale * (i32::from(code).wrapping_sub(zero)) as f32;
                    }
                    done = end;
                }
            }
            Columns::Index(index) => {
                let groups = self.groups();
                let scales = &self.scales[at..][..groups];
                let columns = out.iter_mut().zip(codes).zip(&index[start..]);
                match &self.zeros {
                    Zeros::PerGroup(zeros) => {
                        let zeros = &zeros[at..][..groups];
                        for ((out, &code), &group) in columns {
                            let code = i32::from(code).wrapping_sub(zeros[group as usize]);
                            *out = scales[group as usize] * code as f32;
                        }
                    }
                    _ => {
                        let zero = self.zero(at);
                        for ((out, &code), &group) in columns {
                            *out = scales[group as usize] * i32::from(code).wrapping_sub(zero) as f32;
                        }
                    }
                }
            }
        }
    }

    /// The codes as they are, in this crate's form. Columns in any order are sorted by their group; groups of
    /// unequal length are cut into equal ones.
    pub(super) fn to_uniform<S: CodeSource>(&self, source: &S) -> Result<UniformGroups> {
        let [n, k] = self.shape;
        match &self.columns {
            Columns::Runs(run) => {
                let codes = self.codes(source, None)?;
                UniformGroups::new(
                    self.shape,
                    self.bits,
                    *run,
                    codes,
                    self.scales.clone(),
                    self.zeros.clone(),
                )
            }
            Columns::Index(index) => {
                let mut order: Vec<u32> = (0..k as u32).collect();
                order.sort_by_key(|&column| index[column as usize]);
                let group = common_group(&order, index);
                let firsts: Vec<usize> =
                    (0..k).step_by(group).map(|j| index[order[j] as usize] as usize).collect();
                let groups = self.groups();
                let len = kc_core::shape::checked_len("scales", &[n, firsts.len()])?;
                let mut scales = Vec::with_capacity(len);
                for row in 0..n {
                    scales.extend(firsts.iter().map(|&g| self.scales[row * groups + g]));
                }
                let zeros = match &self.zeros {
                    Zeros::PerGroup(zeros) => Zeros::PerGroup(
                        (0..n).flat_map(|row| firsts.iter().map(move |&g| zeros[row * groups + g])).collect(),
                    ),
                    other => other.clone(),
                };
                let codes = self.codes(source, Some(&order))?;
                UniformGroups::new(self.shape, self.bits, group, codes, scales, zeros)?.with_order(order)
            }
        }
    }

    /// The codes, `[N, K]`, column `order[j]` of the matrix at `j`.
    fn codes<S: CodeSource>(&self, source: &S, order: Option<&[u32]>) -> Result<Vec<u8>> {
        let [n, k] = self.shape;
        let mut codes = zeros(kc_core::shape::checked_len("codes", &self.shape)?);
        if codes.is_empty() {
            return Ok(codes);
        }
        let tasks = codes.par_chunks_mut(S::ROWS * k).enumerate();
        tasks.for_each_init(Vec::new, |unsorted, (block, out)| {
            let rows = block * S::ROWS..(block * S::ROWS + S::ROWS).min(n);
            let to: &mut [u8] = match order {
                Some(_) => {
                    unsorted.resize(S::ROWS * k, 0);
                    unsorted
                }
                None => out,
            };
            for start in (0..k).step_by(S::COLUMNS) {
                let cols = start..(start + S::COLUMNS).min(k);
                source.tile(rows.clone(), cols, &mut to[start..], k);
            }
            if let Some(order) = order {
                for (out, row) in out.chunks_exact_mut(k).zip(unsorted.chunks_exact(k)) {
                    for (out, &column) in out.iter_mut().zip(order) {
                        *out = row[column as usize];
                    }
                }
            }
        });
        Ok(codes)
    }
}

/// Zeros in large pages: touching small ones for the first time costs more than unpacking.
pub(super) fn zeros(len: usize) -> Vec<u8> {
    let mut zeros = vec![0; len];
    kc_core::advise_huge_pages(&mut zeros);
    zeros
}

/// The largest length that all groups of the sorted columns are multiples of, but for the last one.
fn common_group(order: &[u32], index: &[u32]) -> usize {
    let mut common = 0;
    for j in 1..order.len() {
        if index[order[j] as usize] != index[order[j - 1] as usize] {
            common = gcd(common, j);
        }
    }
    if common == 0 { order.len().max(1) } else { common }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The elements row by row: borrowed when the array is dense, as those of files are.
pub(super) fn dense<T: kc_core::Element>(view: TensorView<'_, T, 2>) -> Cow<'_, [T]> {
    view.as_slice().map_or_else(|| Cow::Owned(view.to_vec()), Cow::Borrowed)
}

/// The bits of words, which files hold as signed integers.
pub(super) fn words(signed: &[i32]) -> &[u32] {
    kc_core::bytemuck::cast_slice(signed)
}

/// Words as files hold them.
pub(super) fn signed(words: &[u32]) -> &[i32] {
    kc_core::bytemuck::cast_slice(words)
}
