//! Passes over the tokens: tiles of the Gaussian kernel that are used at once, and stored only where all of them are small.

use kc_core::{Isa, Result, TensorView, TensorViewMut, par};
use rayon::prelude::*;

use super::landmark::read_row;
use super::portable::{LANES, Product, at_level};
use super::workspace::Block;
use super::{Scalar, Shape, SoftWorkspace, head_of};

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
        let (width, depth) = (count.max(1).next_multiple_of(LANES), channels.next_multiple_of(LANES));
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

    /// Fills columns `at..at + channels` of a tile whose rows are `step` wide with tokens of a head, zeros for those that do not
    /// count, and leaves the rest alone.
    pub(super) fn fill(
        &self,
        x: TensorView<'_, T, 2>,
        entry: usize,
        first: usize,
        [at, step]: [usize; 2],
        rows: &mut [T],
    ) {
        let channels = x.cols();
        for (r, row) in rows.chunks_exact_mut(step).enumerate() {
            let row = &mut row[at..at + channels];
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
        self.fill(x, entry, first, [0, depth], scratch);
        scratch
    }
}

/// Bytes of kernels that are kept from one pass to the next; larger ones are computed again.
const KEPT_BYTES: usize = 8 << 20;

/// The kernels of a call that is small enough to keep them: `[heads, tokens, width]`.
#[derive(Debug, Clone)]
pub(super) struct Kept<T: Scalar> {
    data: Block<T>,
    width: usize,
}

impl<T: Scalar> Kept<T> {
    /// Room for the kernels, if they are small and all of one width.
    pub(super) fn room(
        inputs: &Inputs<'_, T>,
        panels: &[Panels<T>],
        workspace: Option<&SoftWorkspace<T>>,
    ) -> Result<Option<Self>> {
        let width = panels.first().map_or(0, |panels| panels.width);
        let len = width.checked_mul(inputs.shape.tokens).and_then(|len| len.checked_mul(panels.len()));
        match len {
            Some(len) if inputs.mask.is_none() && (1..=KEPT_BYTES / size_of::<T>()).contains(&len) => {
                Ok(Some(Kept { data: SoftWorkspace::take(workspace, len)?, width }))
            }
            _ => Ok(None),
        }
    }

    /// The kernels of the tokens of a head from `first` on.
    pub(super) fn piece(&self, shape: &Shape, head: usize, first: usize) -> &[T] {
        &self.data[(head * shape.tokens + first) * self.width..]
    }

    /// The kernels of each piece of work.
    fn pieces(&mut self, shape: &Shape) -> Vec<&mut [T]> {
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
    /// Queries that had to be copied.
    raw: Vec<T>,
    bias: Vec<T>,
}

impl<T: Scalar> Tile<T> {
    pub(super) fn new(panels: &Panels<T>) -> Self {
        let rows = || vec![T::ZERO; TOKENS * panels.depth];
        Tile { q: rows(), v: rows(), raw: rows(), bias: vec![T::ZERO; TOKENS] }
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
        let raw = &mut self.raw[..rows * panels.depth];
        let raw = inputs.rows(head_of(inputs.q, entry, head), entry, first, panels.depth, raw);
        let q = &mut self.q[..rows * panels.depth];
        let bias = &mut self.bias[..rows];
        for (r, bias) in bias.iter_mut().enumerate() {
            *bias = if inputs.counts(entry, first + r) { T::ZERO } else { -T::INFINITY };
        }
        at_level!(inputs.isa, centre(raw, q, T::from_f64(inputs.shape.scale), &panels.centre, bias));
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

impl<T: Scalar> Tile<T> {
    /// As [`weigh`](Self::weigh), to some rows of `out`: at once, or through `scratch`.
    pub(super) fn weigh_rows(
        isa: Isa,
        panels: &Panels<T>,
        k: &[T],
        w: &[T],
        scratch: &mut [T],
        out: &mut TensorViewMut<'_, T, 2>,
        rows: std::ops::Range<usize>,
    ) {
        let (depth, plain) = (panels.depth, out.shape()[1] == panels.depth);
        if plain && let Some(out) = out.as_mut_slice() {
            Self::weigh(isa, panels, k, w, rows.len(), &mut out[rows.start * depth..rows.end * depth]);
            return;
        }
        let scratch = &mut scratch[..rows.len() * depth];
        Self::weigh(isa, panels, k, w, rows.len(), scratch);
        write_rows(out, rows.start, scratch, depth);
    }
}

/// The heads and pieces of tokens that work is cut into.
pub(super) fn pieces(shape: &Shape) -> Vec<([usize; 2], std::ops::Range<usize>)> {
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
    let shape = inputs.shape;
    let parts = pieces(shape)
        .into_par_iter()
        .map(|(at, piece)| {
            let head = at[0] * shape.heads + at[1];
            let source =
                kept.map_or(Source::Dropped, |kept| Source::Kept(kept.piece(shape, head, piece.start)));
            sums_of(inputs, &panels[head], at, x, piece, source)
        })
        .collect();
    by_head(shape, parts, panels)
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
        let mut all = Vec::with_capacity(panels.count * shape.channels);
        for row in rows.chunks_exact(panels.depth) {
            all.extend(row[..shape.channels].iter().map(|x| x.to_f64()));
        }
        out.push(all);
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
        let k = if let Source::Kept(k) = &source {
            &k[part.start * width..part.end * width]
        } else {
            let k = match &mut source {
                Source::Room(room) => &mut room[part.start * width..part.end * width],
                _ => &mut own[..rows * width],
            };
            tile.queries(inputs, panels, at, first, rows);
            tile.kernel(inputs.isa, panels, k);
            k
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
        let kept = kept.map(|kept| kept.piece(shape, head, piece.start));
        let mut out = out.outer_mut(0);
        let mut out = out.matrix_mut(0);
        for part in par::chunks(piece.len(), TOKENS) {
            let (first, rows) = (piece.start + part.start, part.len());
            let k = match kept {
                Some(kept) => &kept[part.start * panels.width..part.end * panels.width],
                None => {
                    let k = &mut own[..rows * panels.width];
                    tile.queries(inputs, panels, at, first, rows);
                    tile.kernel(inputs.isa, panels, k);
                    k
                }
            };
            Tile::weigh_rows(inputs.isa, panels, k, &weights, &mut tile.v, &mut out, part);
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
