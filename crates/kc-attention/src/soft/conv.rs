//! The convolution that makes landmarks. Its kernel is as large as its stride, so a row of the grid holds, for all patches of a
//! row of patches, the inputs of one row of the kernel: a product with the tokens where they are.

use kc_core::{Isa, Result, TensorView, TensorViewMut, par};

use super::landmark::{add_row, read_row};
use super::portable::{LANES, Product};
use super::workspace::Block;
use super::{Scalar, SoftWorkspace};

/// Inputs of a patch that are worked on for all patches before the next: their weights stay in the first-level cache.
const CHUNK: usize = 128;

/// Sizes of a convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conv {
    pub(super) channels: usize,
    /// Rows and columns of a patch.
    pub(super) patch: [usize; 2],
    /// Rows and columns of patches.
    pub(super) patches: [usize; 2],
    /// Columns of the grid.
    pub(super) width: usize,
}

impl Conv {
    /// Channels, padded.
    pub(super) fn depth(&self) -> usize {
        self.channels.next_multiple_of(LANES)
    }

    /// Inputs of a patch in a row of the grid.
    fn stretch(&self) -> usize {
        self.patch[1] * self.channels
    }

    /// The same, padded.
    fn line(&self) -> usize {
        self.stretch().next_multiple_of(LANES)
    }

    /// All inputs of a patch, padded by more than a line's padding, so that rows of so many do not share places in the cache.
    fn step(&self) -> usize {
        (self.patch[0] * self.stretch()).next_multiple_of(LANES) + 2 * LANES
    }

    /// Weights `[d, d, rows, columns]` as [`forward`](Self::forward) wants them: `[rows columns d, depth]`, a column per output.
    /// The padding is not read.
    pub(super) fn by_input<T: Scalar>(&self, w: &[T], from: Option<&SoftWorkspace<T>>) -> Result<Block<T>> {
        let (d, depth, taps) = (self.channels, self.depth(), self.patch[0] * self.patch[1]);
        let mut out = SoftWorkspace::take(from, taps * d * depth)?;
        for input in 0..d {
            transpose(&w[input * taps..], d * taps, [d, taps], &mut out[input * depth..], d * depth);
        }
        Ok(out)
    }

    /// Weights as [`backward`](Self::backward) wants them: `[d, step]`, a row per output.
    pub(super) fn by_output<T: Scalar>(&self, w: &[T], from: Option<&SoftWorkspace<T>>) -> Result<Block<T>> {
        let (d, taps) = (self.channels, self.patch[0] * self.patch[1]);
        let mut out = self.gradient_room(from)?;
        for (to, w) in out.chunks_exact_mut(self.step()).zip(w.chunks_exact(d * taps)) {
            transpose(w, taps, [d, taps], to, d);
        }
        Ok(out)
    }

    /// Room for a gradient, as [`by_output`](Self::by_output) has the weights.
    pub(super) fn gradient_room<T: Scalar>(&self, from: Option<&SoftWorkspace<T>>) -> Result<Block<T>> {
        SoftWorkspace::take(from, self.channels * self.step())
    }

    /// A gradient as `[d, d, rows, columns]`.
    pub(super) fn unfold<T: Scalar>(&self, gradient: &[T], out: &mut [T]) {
        let (d, taps) = (self.channels, self.patch[0] * self.patch[1]);
        for (to, from) in out.chunks_exact_mut(d * taps).zip(gradient.chunks_exact(self.step())) {
            transpose(from, d, [taps, d], to, taps);
        }
    }

    /// Tokens that stand in memory as strips of them are wanted.
    fn plain<'a, T: Scalar>(&self, q: TensorView<'a, T, 2>, valid: Option<&[bool]>) -> Option<&'a [T]> {
        let fits = valid.is_none() && self.line() == self.stretch();
        if fits { q.as_slice() } else { None }
    }

    /// Rows of the kernel, and parts of a line in each: one part if strips have to be copied.
    fn parts(&self, plain: bool) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> + use<> {
        let (rows, line) = (self.patch[0], self.line());
        let chunk = if plain { CHUNK } else { line };
        (0..rows).flat_map(move |row| par::chunks(line, chunk).map(move |part| (row, part)))
    }

    /// The inputs of one row of the kernel, `[patches of a row, line]`, from token `first` on: where they are, or copied to
    /// `scratch`; zeros for tokens that do not count.
    fn strip<'a, T: Scalar>(
        &self,
        q: TensorView<'a, T, 2>,
        valid: Option<&[bool]>,
        first: usize,
        scratch: &'a mut [T],
    ) -> &'a [T] {
        let (d, line) = (self.channels, self.line());
        if let Some(all) = self.plain(q, valid) {
            return &all[first * d..][..self.patches[1] * line];
        }
        for (j, to) in scratch.chunks_exact_mut(line).enumerate() {
            for (c, to) in to[..self.stretch()].chunks_exact_mut(d).enumerate() {
                let token = first + j * self.patch[1] + c;
                if valid.is_none_or(|valid| valid[token]) { read_row(q, token, to) } else { to.fill(T::ZERO) }
            }
        }
        scratch
    }

    /// The first token of row `row` of the patches of row `down`.
    fn token(&self, down: usize, row: usize) -> usize {
        (down * self.patch[0] + row) * self.width
    }

    /// The convolution of tokens `[N, d]`: `[patches, depth]`.
    pub(super) fn forward<T: Scalar>(
        &self,
        isa: Isa,
        weights: &[T],
        q: TensorView<'_, T, 2>,
        valid: Option<&[bool]>,
    ) -> Vec<T> {
        let ([down, across], depth, stretch, line) =
            (self.patches, self.depth(), self.stretch(), self.line());
        let mut out = vec![T::ZERO; down * across * depth];
        let mut scratch = vec![T::ZERO; across * line];
        for (row, part) in self.parts(self.plain(q, valid).is_some()) {
            for (i, out) in out.chunks_exact_mut(across * depth).enumerate() {
                let product = Product {
                    a: &self.strip(q, valid, self.token(i, row), &mut scratch)[part.start..],
                    row_step: line,
                    depth_step: 1,
                    rows: across,
                    depth: part.end.min(stretch) - part.start,
                    b: &weights[(row * stretch + part.start) * depth..],
                    b_step: depth,
                    columns: depth,
                    c_step: depth,
                    add: true,
                };
                T::product(isa, product, out);
            }
        }
        out
    }

    /// From the gradient `dz` `[patches, depth]` by the result: writes that by the weights, and adds to that by the tokens that count.
    pub(super) fn backward<T: Scalar>(
        &self,
        isa: Isa,
        weights: &[T],
        (q, valid): (TensorView<'_, T, 2>, Option<&[bool]>),
        dz: &[T],
        gradient: &mut [T],
        dq: &mut TensorViewMut<'_, T, 2>,
    ) {
        let (across, d, depth) = (self.patches[1], self.channels, self.depth());
        let (stretch, line, step) = (self.stretch(), self.line(), self.step());
        let (mut scratch, mut own) = (vec![T::ZERO; across * line], vec![T::ZERO; across * line]);
        let whole = self.plain(q, valid).is_some() && dq.as_mut_slice().is_some();
        for (row, part) in self.parts(whole) {
            for (i, dz) in dz.chunks_exact(across * depth).enumerate() {
                let first = self.token(i, row);
                let by_weights = Product {
                    a: dz,
                    row_step: 1,
                    depth_step: depth,
                    rows: d,
                    depth: across,
                    b: &self.strip(q, valid, first, &mut scratch)[part.start..],
                    b_step: line,
                    columns: part.len(),
                    c_step: step,
                    add: i > 0,
                };
                // A line's padding writes zeros to the start of the next, before that is written.
                T::product(isa, by_weights, &mut gradient[row * stretch + part.start..]);
                let by_tokens = Product {
                    a: dz,
                    row_step: depth,
                    depth_step: 1,
                    rows: across,
                    depth: d,
                    b: &weights[row * stretch + part.start..],
                    b_step: step,
                    columns: part.len(),
                    c_step: line,
                    add: true,
                };
                if whole && let Some(all) = dq.as_mut_slice() {
                    T::product(isa, by_tokens, &mut all[first * d + part.start..]);
                    continue;
                }
                T::product(isa, Product { add: false, ..by_tokens }, &mut own);
                for (j, line) in own.chunks_exact(line).enumerate() {
                    for (c, x) in line[..stretch].chunks_exact(d).enumerate() {
                        let token = first + j * self.patch[1] + c;
                        if valid.is_none_or(|valid| valid[token]) {
                            add_row(dq, token, T::ONE, x);
                        }
                    }
                }
            }
        }
    }
}

/// `to[j, i] = from[i, j]` for `[rows, columns]` of rows that are `from_step` and `to_step` apart, by blocks that the cache holds
/// even where steps are powers of two.
fn transpose<T: Scalar>(
    from: &[T],
    from_step: usize,
    [rows, columns]: [usize; 2],
    to: &mut [T],
    to_step: usize,
) {
    for i in (0..rows).step_by(LANES) {
        for j in (0..columns).step_by(LANES) {
            let (high, wide) = (LANES.min(rows - i), LANES.min(columns - j));
            if high == LANES && wide == LANES {
                let mut block = [[T::ZERO; LANES]; LANES];
                for (r, block) in block.iter_mut().enumerate() {
                    block.copy_from_slice(&from[(i + r) * from_step + j..][..LANES]);
                }
                for c in 0..LANES {
                    let to = &mut to[(j + c) * to_step + i..][..LANES];
                    for r in 0..LANES {
                        to[r] = block[r][c];
                    }
                }
                continue;
            }
            for c in 0..wide {
                for r in 0..high {
                    to[(j + c) * to_step + i + r] = from[(i + r) * from_step + j + c];
                }
            }
        }
    }
}
