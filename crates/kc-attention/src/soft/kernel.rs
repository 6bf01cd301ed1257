//! The Gaussian kernel: tiles of it that are used at once and never stored, its square form of landmarks, and the plain
//! function with its gradient.

use kc_core::{Error, Isa, Result, Tensor, TensorView, TensorViewMut, math, par};
use rayon::prelude::*;

use super::landmark::read_row;
use super::portable::{LANES, Product, at_level};
use super::{Scalar, Shape, check_finite, head_of};

/// Tokens of a tile.
pub(super) const TOKENS: usize = 48;

/// Landmarks of a head, laid out for tiles and measured from their centre.
#[derive(Debug)]
pub(super) struct Panels<T> {
    pub(super) count: usize,
    /// `count`, padded.
    pub(super) width: usize,
    /// Channels, padded.
    pub(super) depth: usize,
    /// Mean of the landmarks, padded with zeros.
    pub(super) centre: Vec<T>,
    /// `[channels, width]`
    pub(super) columns: Vec<T>,
    /// `[count, depth]`
    pub(super) rows: Vec<T>,
    /// Minus half the squares; minus infinity in the padding, so that the kernel is 0 there.
    pub(super) bias: Vec<T>,
}

impl<T: Scalar> Panels<T> {
    pub(super) fn of(landmarks: &[T], channels: usize) -> Self {
        let count = landmarks.len() / channels;
        let (width, depth) = (count.next_multiple_of(LANES), channels.next_multiple_of(LANES));
        let mut centre = vec![T::ZERO; depth];
        for (c, to) in centre[..channels].iter_mut().enumerate() {
            let sum: f64 = landmarks.chunks_exact(channels).map(|row| row[c].to_f64()).sum();
            *to = T::from_f64(sum / count.max(1) as f64);
        }
        let mut columns = vec![T::ZERO; channels * width];
        let mut rows = vec![T::ZERO; count * depth];
        let mut bias = vec![-T::INFINITY; width];
        for (j, row) in landmarks.chunks_exact(channels).enumerate() {
            let mut square = 0.0;
            for (c, &x) in row.iter().enumerate() {
                let x = x - centre[c];
                square += x.to_f64() * x.to_f64();
                columns[c * width + j] = x;
                rows[j * depth + c] = x;
            }
            bias[j] = T::from_f64(-0.5 * square);
        }
        Panels { count, width, depth, centre, columns, rows, bias }
    }

    fn channels(&self) -> usize {
        self.columns.len() / self.width.max(1)
    }
}

/// Rows `[m, channels]` in f64 as rows padded to `depth`.
pub(super) fn padded_rows<T: Scalar>(x: &[f64], channels: usize, depth: usize) -> Vec<T> {
    let mut out = vec![T::ZERO; x.len() / channels * depth];
    for (to, from) in out.chunks_exact_mut(depth).zip(x.chunks_exact(channels)) {
        to.iter_mut().zip(from).for_each(|(t, &f)| *t = T::from_f64(f));
    }
    out
}

/// The inputs of a pass over the tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inputs<'a, T: Scalar> {
    pub(super) shape: &'a Shape,
    pub(super) q: TensorView<'a, T, 4>,
    pub(super) v: TensorView<'a, T, 4>,
    pub(super) mask: Option<TensorView<'a, u8, 2>>,
    pub(super) isa: Isa,
}

impl<T: Scalar> Inputs<'_, T> {
    /// True unless token `i` of a batch entry is masked.
    pub(super) fn counts(&self, entry: usize, i: usize) -> bool {
        self.mask.is_none_or(|mask| mask.at([entry, i]) != 0)
    }

    /// Fills a tile's rows with tokens of a head, zeros for those that do not count, and leaves the padding alone.
    pub(super) fn fill(
        &self,
        x: TensorView<'_, T, 2>,
        entry: usize,
        first: usize,
        depth: usize,
        rows: &mut [T],
    ) {
        if let Some(whole) = self.plain(x, first, rows.len() / depth, depth) {
            rows.copy_from_slice(whole);
            return;
        }
        let channels = x.cols();
        for (r, row) in rows.chunks_exact_mut(depth).enumerate() {
            let row = &mut row[..channels];
            if self.counts(entry, first + r) { read_row(x, first + r, row) } else { row.fill(T::ZERO) }
        }
    }

    /// Tokens that stand in memory as a tile wants them.
    fn plain<'b>(&self, x: TensorView<'b, T, 2>, first: usize, rows: usize, depth: usize) -> Option<&'b [T]> {
        let fits = self.mask.is_none() && x.cols() == depth;
        let all = if fits { x.as_slice() } else { None };
        all.map(|all| &all[first * depth..(first + rows) * depth])
    }

    /// Tokens of a head as rows of a tile: where they are, or copied to `scratch`.
    pub(super) fn rows<'b>(
        &self,
        x: TensorView<'b, T, 2>,
        entry: usize,
        first: usize,
        depth: usize,
        scratch: &'b mut [T],
    ) -> &'b [T] {
        if let Some(whole) = self.plain(x, first, scratch.len() / depth, depth) {
            return whole;
        }
        self.fill(x, entry, first, depth, scratch);
        scratch
    }
}

/// Bytes of kernels that are kept from one pass to the next; larger ones are computed again.
const KEPT_BYTES: usize = 4 << 20;

/// The kernels of a call that is small enough to keep them: `[heads, tokens, width]`.
#[derive(Debug, Clone)]
pub(super) struct Kept<T> {
    data: Vec<T>,
    width: usize,
}

impl<T: Scalar> Kept<T> {
    /// Room for the kernels, if they are small and all of one width.
    pub(super) fn room(inputs: &Inputs<'_, T>, panels: &[Panels<T>]) -> Option<Self> {
        let width = panels.first()?.width;
        let len = width.checked_mul(inputs.shape.tokens)?.checked_mul(panels.len())?;
        let small = len.checked_mul(size_of::<T>())? <= KEPT_BYTES;
        (small && inputs.mask.is_none() && len > 0).then(|| Kept { data: vec![T::ZERO; len], width })
    }

    /// The kernel of some tokens of a head.
    pub(super) fn of(&self, shape: &Shape, head: usize, first: usize, rows: usize) -> &[T] {
        let from = (head * shape.tokens + first) * self.width;
        &self.data[from..from + rows * self.width]
    }

    /// The kernel of each piece of work.
    fn pieces<'b>(&'b mut self, shape: &Shape) -> Vec<&'b mut [T]> {
        let (by_head, by_piece) = (shape.tokens * self.width, shape.piece() * self.width);
        self.data.chunks_mut(by_head).flat_map(|head| head.chunks_mut(by_piece)).collect()
    }
}

/// Scratch for tiles of a head.
#[derive(Debug)]
pub(super) struct Tile<T> {
    /// Centred queries, `[TOKENS, depth]`.
    pub(super) q: Vec<T>,
    /// Values, `[TOKENS, depth]`.
    pub(super) v: Vec<T>,
    bias: Vec<T>,
}

impl<T: Scalar> Tile<T> {
    pub(super) fn new(panels: &Panels<T>) -> Self {
        let rows = || vec![T::ZERO; TOKENS * panels.depth];
        Tile { q: rows(), v: rows(), bias: vec![T::ZERO; TOKENS] }
    }

    /// Reads `rows` queries from `first` on and measures them from the landmarks' centre.
    pub(super) fn queries(
        &mut self,
        inputs: &Inputs<'_, T>,
        panels: &Panels<T>,
        [entry, head]: [usize; 2],
        first: usize,
        rows: usize,
    ) {
        let q = &mut self.q[..rows * panels.depth];
        inputs.fill(head_of(inputs.q, entry, head), entry, first, panels.depth, q);
        let bias = &mut self.bias[..rows];
        for (r, bias) in bias.iter_mut().enumerate() {
            *bias = if inputs.counts(entry, first + r) { T::ZERO } else { -T::INFINITY };
        }
        at_level!(inputs.isa, centre(q, T::from_f64(inputs.shape.scale), &panels.centre, bias));
    }

    /// The kernel `[rows, width]` of the queries that were read with all landmarks.
    pub(super) fn kernel(&self, isa: Isa, panels: &Panels<T>, k: &mut [T]) {
        let width = panels.width;
        let rows = k.len() / width;
        let product = Product {
            a: &self.q,
            row_step: panels.depth,
            depth_step: 1,
            rows,
            depth: panels.channels(),
            b: &panels.columns,
            b_step: width,
            columns: width,
            c_step: width,
            add: false,
        };
        T::product(isa, product, k);
        at_level!(isa, gaussian(k, &self.bias[..rows], &panels.bias));
    }

    /// `sums [m, depth] += K^T x` for `rows` rows of `x`.
    pub(super) fn add_sums(isa: Isa, panels: &Panels<T>, k: &[T], x: &[T], rows: usize, sums: &mut [T]) {
        let product = Product {
            a: k,
            row_step: 1,
            depth_step: panels.width,
            rows: panels.count,
            depth: rows,
            b: x,
            b_step: panels.depth,
            columns: panels.depth,
            c_step: panels.depth,
            add: true,
        };
        T::product(isa, product, sums);
    }

    /// `out [rows, depth] = K w` for `w [m, depth]`.
    pub(super) fn weigh(isa: Isa, panels: &Panels<T>, k: &[T], w: &[T], rows: usize, out: &mut [T]) {
        let product = Product {
            a: k,
            row_step: panels.width,
            depth_step: 1,
            rows,
            depth: panels.count,
            b: w,
            b_step: panels.depth,
            columns: panels.depth,
            c_step: panels.depth,
            add: false,
        };
        T::product(isa, product, out);
    }
}

/// The heads and pieces of tokens that work is cut into.
fn pieces(shape: &Shape) -> Vec<([usize; 2], std::ops::Range<usize>)> {
    let mut out = Vec::new();
    for all in 0..shape.all_heads() {
        for piece in par::chunks(shape.tokens, shape.piece()) {
            out.push(([all / shape.heads, all % shape.heads], piece));
        }
    }
    out
}

/// `K1^T x` of every head, `[m, d]`, with kernels that were kept before.
pub(super) fn sums<T: Scalar>(
    inputs: &Inputs<'_, T>,
    panels: &[Panels<T>],
    x: TensorView<'_, T, 4>,
    kept: Option<&Kept<T>>,
) -> Vec<Vec<f64>> {
    let parts = pieces(inputs.shape)
        .into_par_iter()
        .map(|(at, piece)| {
            let head = at[0] * inputs.shape.heads + at[1];
            match kept {
                Some(kept) => {
                    let k = kept.of(inputs.shape, head, piece.start, piece.len());
                    sums_of(inputs, &panels[head], at, x, piece, Source::Kept(k))
                }
                None => sums_of(inputs, &panels[head], at, x, piece, Source::Dropped),
            }
        })
        .collect();
    by_head(inputs.shape, parts, panels)
}

/// As [`sums`], filling the room for kernels.
pub(super) fn sums_keeping<T: Scalar>(
    inputs: &Inputs<'_, T>,
    panels: &[Panels<T>],
    x: TensorView<'_, T, 4>,
    room: &mut Kept<T>,
) -> Vec<Vec<f64>> {
    let parts = pieces(inputs.shape)
        .into_par_iter()
        .zip(room.pieces(inputs.shape))
        .map(|((at, piece), room)| {
            let panels = &panels[at[0] * inputs.shape.heads + at[1]];
            sums_of(inputs, panels, at, x, piece, Source::Room(room))
        })
        .collect();
    by_head(inputs.shape, parts, panels)
}

/// Where the kernel of some tokens comes from, and whether it stays.
enum Source<'a, T> {
    Kept(&'a [T]),
    Room(&'a mut [T]),
    Dropped,
}

/// Parts of heads, one after the other, added in a tree; padding is dropped.
pub(super) fn by_head<T: Scalar>(shape: &Shape, parts: Vec<Vec<T>>, panels: &[Panels<T>]) -> Vec<Vec<f64>> {
    let per_head = shape.tokens.div_ceil(shape.piece());
    let mut parts = parts.into_iter();
    let mut out = Vec::with_capacity(panels.len());
    for panels in panels {
        let of_head: Vec<Vec<T>> = parts.by_ref().take(per_head).collect();
        let sum = par::tree_reduce(of_head, |mut a, b| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a = *a + b);
            a
        });
        let rows = sum.unwrap_or_default();
        let row = |row: &[T]| row[..shape.channels].iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
        out.push(rows.chunks_exact(panels.depth).flat_map(row).collect());
    }
    out
}

/// `K1^T x` of some tokens of a head, `[m, depth]`.
fn sums_of<T: Scalar>(
    inputs: &Inputs<'_, T>,
    panels: &Panels<T>,
    at: [usize; 2],
    x: TensorView<'_, T, 4>,
    piece: std::ops::Range<usize>,
    mut source: Source<'_, T>,
) -> Vec<T> {
    let width = panels.width;
    let mut tile = Tile::new(panels);
    let mut sums = vec![T::ZERO; panels.count * panels.depth];
    let mut own = vec![T::ZERO; if matches!(source, Source::Dropped) { TOKENS * width } else { 0 }];
    let mut scratch = tile.v.clone();
    let x = head_of(x, at[0], at[1]);
    for part in par::chunks(piece.len(), TOKENS) {
        let (first, rows) = (piece.start + part.start, part.len());
        let cut = part.start * width..part.end * width;
        let k = match &mut source {
            Source::Kept(k) => &k[cut],
            Source::Room(_) | Source::Dropped => {
                let k = match &mut source {
                    Source::Room(room) => &mut room[cut],
                    _ => &mut own[..rows * width],
                };
                tile.queries(inputs, panels, at, first, rows);
                tile.kernel(inputs.isa, panels, k);
                k
            }
        };
        let x = inputs.rows(x, at[0], first, panels.depth, &mut scratch[..rows * panels.depth]);
        Tile::add_sums(inputs.isa, panels, k, x, rows, &mut sums);
    }
    sums
}

/// A view of each head, cut into pieces of tokens, in the order of [`pieces`].
pub(super) fn cut<'a, T: Scalar>(
    shape: &Shape,
    out: TensorViewMut<'a, T, 4>,
) -> Result<Vec<TensorViewMut<'a, T, 4>>> {
    let mut all = Vec::new();
    for entry in out.chunks(0, 1)? {
        for head in entry.chunks(1, 1)? {
            all.extend(head.chunks(2, shape.piece())?);
        }
    }
    Ok(all)
}

/// `out = K1 w` with `w [m, d]` of every head.
pub(super) fn apply<T: Scalar>(
    inputs: &Inputs<'_, T>,
    panels: &[Panels<T>],
    weights: &[Vec<f64>],
    kept: Option<&Kept<T>>,
    out: TensorViewMut<'_, T, 4>,
) -> Result<()> {
    let shape = inputs.shape;
    let outs = cut(shape, out)?;
    pieces(shape).into_par_iter().zip(outs).for_each(|((at, piece), mut out)| {
        let head = at[0] * shape.heads + at[1];
        let panels = &panels[head];
        let weights: Vec<T> = padded_rows(&weights[head], shape.channels, panels.depth);
        let mut tile = Tile::new(panels);
        let mut own = vec![T::ZERO; if kept.is_none() { TOKENS * panels.width } else { 0 }];
        let mut out = out.outer_mut(0);
        let mut out = out.matrix_mut(0);
        for part in par::chunks(piece.len(), TOKENS) {
            let (first, rows) = (piece.start + part.start, part.len());
            let k = match kept {
                Some(kept) => kept.of(shape, head, first, rows),
                None => {
                    let k = &mut own[..rows * panels.width];
                    tile.queries(inputs, panels, at, first, rows);
                    tile.kernel(inputs.isa, panels, k);
                    k
                }
            };
            let x = &mut tile.v[..rows * panels.depth];
            Tile::weigh(inputs.isa, panels, k, &weights, rows, x);
            write_rows(&mut out, part.start, x, panels.depth);
        }
    });
    Ok(())
}

/// Writes padded rows to rows `first..` of `out`.
pub(super) fn write_rows<T: Scalar>(
    out: &mut TensorViewMut<'_, T, 2>,
    first: usize,
    rows: &[T],
    depth: usize,
) {
    let channels = out.shape()[1];
    if channels == depth
        && let Some(out) = out.as_mut_slice()
    {
        out[first * depth..][..rows.len()].copy_from_slice(rows);
        return;
    }
    for (r, row) in rows.chunks_exact(depth).enumerate() {
        let mut to = out.row_mut(first + r);
        match to.as_mut_slice() {
            Some(to) => to.copy_from_slice(&row[..channels]),
            None => row[..channels].iter().enumerate().for_each(|(c, &x)| to.set([c], x)),
        }
    }
}

/// The kernel of landmarks `[m, d]` with each other, in f64 from differences: exact ones on the diagonal.
pub(super) fn square<T: Scalar>(landmarks: &[T], channels: usize) -> Vec<f64> {
    let rows: Vec<f64> = landmarks.iter().map(|x| x.to_f64()).collect();
    let m = rows.len() / channels;
    let mut a = vec![0.0; m * m];
    for i in 0..m {
        let left = &rows[i * channels..(i + 1) * channels];
        for (j, right) in rows.chunks_exact(channels).enumerate().take(i + 1) {
            a[i * m + j] = -0.5 * distance(left, right);
        }
        math::exp_in_place(&mut a[i * m..=i * m + i]);
        a[i * m + i] = 1.0;
        for j in 0..i {
            a[j * m + i] = a[i * m + j];
        }
    }
    a
}

/// The squared distance, in eight lanes.
fn distance(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for l in 0..LANES {
            sums[l] += (x[l] - y[l]) * (x[l] - y[l]);
        }
    }
    let rest: f64 = x_rest.iter().zip(y_rest).map(|(x, y)| (x - y) * (x - y)).sum();
    sums.iter().sum::<f64>() + rest
}

/// `exp(-|a_i - b_j|^2 / 2)` `[N, m]` of points `a` `[N, d]` and `b` `[m, d]`.
///
/// # Errors
/// `Shape` unless both have the same number of channels; `NotFinite` with the position.
pub fn gaussian_kernel<T: Scalar>(a: TensorView<'_, T, 2>, b: TensorView<'_, T, 2>) -> Result<Tensor<T, 2>> {
    let mut out = Tensor::zeros([a.rows(), b.cols().min(1) * b.rows()])?;
    if a.cols() != b.cols() || a.cols() == 0 {
        return Err(Error::shape("b", format!("[m, {}] to match a, with d > 0", a.cols()), &b.shape()));
    }
    check_finite("a", a)?;
    check_finite("b", b)?;
    let shape = points(a);
    let panels = Panels::of(&b.to_vec(), b.cols());
    let owned;
    let four = match a.reshaped([1, 1, a.rows(), a.cols()]) {
        Ok(view) => view,
        Err(_) => {
            owned = a.to_tensor()?.reshape([1, 1, a.rows(), a.cols()])?;
            owned.view()
        }
    };
    let inputs = Inputs { shape: &shape, q: four, v: four, mask: None, isa: Isa::best() };
    if out.is_empty() {
        return Ok(out);
    }
    let outs = out.view_mut().chunks(0, shape.piece())?;
    let ranges: Vec<_> = par::chunks(shape.tokens, shape.piece()).collect();
    ranges.into_par_iter().zip(outs).for_each(|(piece, mut out)| {
        let mut tile = Tile::new(&panels);
        let mut k = vec![T::ZERO; TOKENS * panels.width];
        for part in par::chunks(piece.len(), TOKENS) {
            let k = &mut k[..part.len() * panels.width];
            tile.queries(&inputs, &panels, [0, 0], piece.start + part.start, part.len());
            tile.kernel(inputs.isa, &panels, k);
            write_rows(&mut out, part.start, k, panels.width);
        }
    });
    Ok(out)
}

/// Points as the tokens of one head, not scaled.
fn points<T: Scalar>(a: TensorView<'_, T, 2>) -> Shape {
    let [tokens, channels] = a.shape();
    Shape { batch: 1, heads: 1, tokens, channels, sides: [1, tokens], scale: 1.0 }
}

/// From the gradient `d_kernel` `[N, m]` by [`gaussian_kernel`] to those by `a` `[N, d]` and `b` `[m, d]`.
///
/// # Errors
/// As [`gaussian_kernel`], and `Shape` for another `d_kernel`.
pub fn gaussian_kernel_backward<T: Scalar>(
    a: TensorView<'_, T, 2>,
    b: TensorView<'_, T, 2>,
    d_kernel: TensorView<'_, T, 2>,
) -> Result<(Tensor<T, 2>, Tensor<T, 2>)> {
    let mut g = gaussian_kernel(a, b)?;
    if d_kernel.shape() != g.shape() {
        return Err(Error::shape("d_kernel", format!("{:?}", g.shape()), &d_kernel.shape()));
    }
    g.as_mut_slice().iter_mut().zip(d_kernel.iter()).for_each(|(k, d)| *k = *k * d);
    let mut da = kc_gemm::gemm(g.view(), b)?;
    let mut db = kc_gemm::gemm(g.view().transposed(), a)?;
    for (grad, points, sums) in [(&mut da, a, g.view()), (&mut db, b, g.view().transposed())] {
        for i in 0..points.rows() {
            let sum = T::from_f64(sums.row(i).iter().map(|x| x.to_f64()).sum());
            for c in 0..points.cols() {
                let old = grad[[i, c]];
                grad[[i, c]] = old - sum * points.at([i, c]);
            }
        }
    }
    Ok((da, db))
}

/// Attention through the kernel of all tokens with each other: `exp(-|qs_i - qs_j|^2 / 2) v` with `qs = q d^(-1/4)`, for `q`, `v` `[B, h, N, d]`.
/// What [`soft_attention`](super::soft_attention) approximates; `O(N^2)` time, `O(N)` memory.
///
/// # Errors
/// `Shape` for `v` unlike `q`, `Empty` for no tokens or channels, `NotFinite` with the position.
pub fn soft_exact<T: Scalar>(q: TensorView<'_, T, 4>, v: TensorView<'_, T, 4>) -> Result<Tensor<T, 4>> {
    let config = super::SoftConfig::new(super::Grid::Seq(q.shape()[2]), 1);
    let shape = Shape::of(q, v, &config)?;
    let mut out = Tensor::zeros(q.shape())?;
    let scale = T::from_f64(shape.scale);
    // A block of keys takes the place of the landmarks.
    const KEYS: usize = 256;
    for at in 0..shape.all_heads() {
        let (entry, head) = (at / shape.heads, at % shape.heads);
        let one = |x: TensorView<'_, T, 4>| head_of(x, entry, head).to_tensor();
        let (q, v) = (one(q)?, one(v)?);
        let (n, d) = (shape.tokens, shape.channels);
        let four = [1, 1, n, d];
        let single = Shape { batch: 1, heads: 1, ..shape.clone() };
        let inputs = Inputs {
            shape: &single,
            q: q.view().reshaped(four)?,
            v: v.view().reshaped(four)?,
            mask: None,
            isa: Isa::best(),
        };
        let keys: Vec<Panels<T>> = q
            .as_slice()
            .chunks(KEYS * d)
            .map(|rows| Panels::of(&rows.iter().map(|x| *x * scale).collect::<Vec<T>>(), d))
            .collect();
        let to = out.view_mut().slice(0, entry..entry + 1)?.slice(1, head..head + 1)?;
        pieces(&single).into_par_iter().zip(cut(&single, to)?).for_each(|((at, piece), mut out)| {
            let mut out = out.outer_mut(0);
            let mut out = out.matrix_mut(0);
            for part in par::chunks(piece.len(), TOKENS) {
                let rows = part.len();
                let mut total = vec![0.0; rows * d];
                for (block, panels) in keys.iter().enumerate() {
                    let mut tile = Tile::new(panels);
                    let mut k = vec![T::ZERO; rows * panels.width];
                    tile.queries(&inputs, panels, at, piece.start + part.start, rows);
                    tile.kernel(inputs.isa, panels, &mut k);
                    let mut values = vec![T::ZERO; panels.count * panels.depth];
                    inputs.fill(v.view(), 0, block * KEYS, panels.depth, &mut values);
                    Tile::weigh(inputs.isa, panels, &k, &values, rows, &mut tile.v);
                    let found = tile.v.chunks_exact(panels.depth).flat_map(|row| &row[..d]);
                    total.iter_mut().zip(found).for_each(|(t, x)| *t += x.to_f64());
                }
                let total: Vec<T> = total.into_iter().map(T::from_f64).collect();
                write_rows(&mut out, part.start, &total, d);
            }
        });
    }
    Ok(out)
}
