//! Gradients, tile by tile.
//!
//! A unit of work owns the sums of one key head over some tiles of queries, so nothing is summed in an order that
//! depends on threads: units with few heads are cut into pieces by shape, whose sums are added in order.

use kc_core::{AlignedBuf, DType, Error, Float, Result, Tensor, TensorView, TensorViewMut, par};
use rayon::prelude::*;

use super::forward::{self, GAP, Job, KEYS, Plan, QUERIES, write_row};
use super::kernels::{Left, Right, Scalar, Size};
use super::window::{Cover, Window};
use super::{AttentionConfig, check_finite, job, pack, same_shape};
use crate::layout::{Dims, Layout};
use crate::mask::Mask;

/// Units of work that are wanted.
const UNITS: usize = 16;

/// Gradients of attention.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionGrads<E: Float> {
    /// As the queries.
    pub dq: Tensor<E, 4>,
    /// As the keys.
    pub dk: Tensor<E, 4>,
    /// As the values.
    pub dv: Tensor<E, 4>,
}

/// The gradients of `sum(O dO)` with respect to queries, keys and values. `o` and `lse` are the results of
/// [`attention`](super::attention) for the same inputs, mask and settings, `d_o` has the shape of `o`; `config.lse` has no meaning here.
/// The heads of a group add up in the gradients of their keys and values.
///
/// For f64 the lse is computed again, as one in f32 would cost half of the digits.
///
/// # Errors
/// As [`attention`](super::attention); `Shape` if `o`, `lse` or `d_o` have another shape; `NotFinite` for NaN or plus
/// infinity in `lse`.
pub fn attention_backward<E: Float>(
    q: TensorView<'_, E, 4>,
    k: TensorView<'_, E, 4>,
    v: TensorView<'_, E, 4>,
    o: TensorView<'_, E, 4>,
    lse: TensorView<'_, f32, 3>,
    d_o: TensorView<'_, E, 4>,
    mask: &Mask<'_>,
    config: &AttentionConfig,
) -> Result<AttentionGrads<E>> {
    let job = job([q, k, v], mask, config)?;
    same_shape("o", q.shape(), o.shape())?;
    same_shape("d_o", q.shape(), d_o.shape())?;
    let Dims { batch, heads, queries, .. } = job.dims;
    same_shape("lse", [batch, heads, queries], lse.shape())?;
    if config.check_finite {
        for (name, x) in [("q", q), ("k", k), ("v", v), ("o", o), ("d_o", d_o)] {
            check_finite(name, x)?;
        }
        if let Some(at) = lse.iter().position(|x| x.is_nan() || x == f32::INFINITY) {
            let index = [at / (heads * queries), at / queries % heads, at % queries];
            return Err(Error::not_finite("lse", &index, f64::from(lse.at(index))));
        }
    }
    let layout = config.layout;
    let grads = AttentionGrads {
        dq: Tensor::zeros(q.shape())?,
        dk: Tensor::zeros(k.shape())?,
        dv: Tensor::zeros(v.shape())?,
    };
    let (o, d_o) = (layout.heads_first(o)?, layout.heads_first(d_o)?);
    if E::DTYPE == DType::F64 {
        let mut exact = Tensor::<f64, 3>::zeros(lse.shape())?;
        let mut again = Tensor::<E, 4>::zeros(q.shape())?;
        forward::run::<E, f64, f64>(&job, layout, again.view_mut(), Some(exact.view_mut()))?;
        run::<E, f64, f64>(&Given { job, o, d_o, lse: exact.view() }, layout, grads)
    } else {
        run::<E, f32, f32>(&Given { job, o, d_o, lse }, layout, grads)
    }
}

/// The inputs, `[B, H, N, D]`.
struct Given<'a, E: Float, L: Float> {
    job: Job<'a, E>,
    o: TensorView<'a, E, 4>,
    d_o: TensorView<'a, E, 4>,
    lse: TensorView<'a, L, 3>,
}

/// Keys and values of a head, packed.
struct Packed<T: Scalar> {
    keys: AlignedBuf<T>,
    values: AlignedBuf<T>,
    /// For products with the slopes.
    key_channels: AlignedBuf<T>,
}

impl<T: Scalar> Packed<T> {
    fn new<E: Float>(job: &Job<'_, E>, plan: &Plan, batch: usize, head: usize) -> Result<Self> {
        let mut packed = Packed {
            keys: AlignedBuf::zeroed(plan.keys * plan.depth)?,
            values: AlignedBuf::zeroed(plan.keys * plan.depth)?,
            key_channels: AlignedBuf::zeroed(plan.keys * plan.channels)?,
        };
        let mut buffer = vec![T::ZERO; plan.panels[0] * plan.channels];
        let (k, v) = (job.k.outer(batch).matrix(head), job.v.outer(batch).matrix(head));
        for t in 0..plan.keys.div_ceil(KEYS) {
            let tile = plan.tile(t);
            let there = tile.start..tile.end.min(job.dims.keys);
            let at = tile.start * plan.depth;
            pack::by_rows(k, there.clone(), plan.panels, T::ONE, &mut buffer, &mut packed.keys[at..]);
            pack::by_rows(v, there.clone(), plan.panels, T::ONE, &mut buffer, &mut packed.values[at..]);
            let to = &mut packed.key_channels[tile.start * plan.channels..];
            pack::by_channels(k, there, tile.len(), plan.panels, &mut buffer, to);
        }
        Ok(packed)
    }
}

/// The gradient of the queries of a tile.
struct Target<'a, E: Float> {
    head: usize,
    first: usize,
    dq: TensorViewMut<'a, E, 4>,
}

/// Sums over some tiles of queries, `[keys, channels]` each.
struct Sums<T: Scalar> {
    dk: AlignedBuf<T>,
    dv: AlignedBuf<T>,
}

fn run<E: Float, T: Scalar, L: Float>(
    given: &Given<'_, E, L>,
    layout: Layout,
    mut grads: AttentionGrads<E>,
) -> Result<AttentionGrads<E>> {
    let (dims, plan) = (&given.job.dims, given.job.plan::<T>());
    let units = dims.batch * dims.kv_heads;
    let group = dims.heads / dims.kv_heads;
    let tiles = dims.queries.div_ceil(QUERIES);
    let pieces = (UNITS / units.max(1)).clamp(1, (group * tiles).max(1));
    let (heads, tokens) = match layout {
        Layout::Hnd => (1, 2),
        Layout::Nhd => (2, 1),
    };
    let mut targets = Vec::new();
    for dq in grads.dq.view_mut().chunks(0, 1)? {
        for (head, dq) in dq.chunks(heads, 1)?.into_iter().enumerate() {
            for (tile, dq) in dq.chunks(tokens, QUERIES)?.into_iter().enumerate() {
                targets.push(Target { head, first: tile * QUERIES, dq });
            }
        }
    }
    let mut targets = targets.into_iter();
    let mut of_keys = Vec::new();
    for (dk, dv) in grads.dk.view_mut().chunks(0, 1)?.into_iter().zip(grads.dv.view_mut().chunks(0, 1)?) {
        of_keys.extend(dk.chunks(heads, 1)?.into_iter().zip(dv.chunks(heads, 1)?));
    }
    let mut of_keys = of_keys.into_iter();
    for units in par::chunks(units, UNITS) {
        let place = |unit: usize| (unit / dims.kv_heads, unit % dims.kv_heads);
        let pack = |unit: usize| Packed::<T>::new(&given.job, &plan, place(unit).0, place(unit).1);
        let packed = units.clone().into_par_iter().map(pack).collect::<Result<Vec<_>>>()?;
        let mut work = Vec::new();
        for (unit, packed) in units.clone().zip(&packed) {
            let mut shares: Vec<Vec<Target<'_, E>>> = (0..pieces).map(|_| Vec::new()).collect();
            for (i, target) in targets.by_ref().take(group * tiles).enumerate() {
                shares[i % pieces].push(target);
            }
            work.extend(shares.into_iter().map(|share| (place(unit).0, packed, share)));
        }
        let sums = work.into_par_iter().with_max_len(1).map_init(
            || Tile::<T>::new(&plan),
            |tile, (batch, packed, share)| {
                let tile = tile.as_mut().map_err(|e| e.clone())?;
                let room = (plan.keys + plan.rows) * plan.channels;
                let mut sums = Sums { dk: AlignedBuf::zeroed(room)?, dv: AlignedBuf::zeroed(room)? };
                for target in share {
                    tile.differentiate(given, &plan, batch, packed, target, &mut sums);
                }
                Ok::<Sums<T>, Error>(sums)
            },
        );
        let mut sums = sums.collect::<Result<Vec<Sums<T>>>>()?;
        let parts: Vec<_> = sums.chunks_mut(pieces).zip(of_keys.by_ref()).collect();
        let scale = T::from_f64(given.job.scale);
        parts.into_par_iter().for_each(|(pieces, (mut dk, mut dv))| {
            let Some((first, rest)) = pieces.split_first_mut() else { return };
            for piece in rest {
                first.dk.iter_mut().zip(piece.dk.iter()).for_each(|(a, b)| *a += *b);
                first.dv.iter_mut().zip(piece.dv.iter()).for_each(|(a, b)| *a += *b);
            }
            first.dk.iter_mut().for_each(|x| *x = *x * scale);
            for j in 0..dims.keys {
                let row = j * plan.channels..j * plan.channels + plan.depth;
                write_row(&mut dk, j, &first.dk[row.clone()]);
                write_row(&mut dv, j, &first.dv[row]);
            }
        });
    }
    Ok(grads)
}

/// The memory of a thread.
struct Tile<T: Scalar> {
    q: AlignedBuf<T>,
    d_o: AlignedBuf<T>,
    q_channels: AlignedBuf<T>,
    d_o_channels: AlignedBuf<T>,
    scores: AlignedBuf<T>,
    products: AlignedBuf<T>,
    dq: AlignedBuf<T>,
    buffer: AlignedBuf<T>,
    shift: Vec<T>,
    delta: Vec<T>,
    window: Window<T>,
}

impl<T: Scalar> Tile<T> {
    fn new(plan: &Plan) -> Result<Self> {
        Ok(Tile {
            q: AlignedBuf::zeroed(QUERIES * plan.depth)?,
            d_o: AlignedBuf::zeroed(QUERIES * plan.depth)?,
            q_channels: AlignedBuf::zeroed(QUERIES * plan.channels)?,
            d_o_channels: AlignedBuf::zeroed(QUERIES * plan.channels)?,
            scores: AlignedBuf::zeroed(QUERIES * (KEYS + GAP))?,
            products: AlignedBuf::zeroed(QUERIES * (KEYS + GAP))?,
            dq: AlignedBuf::zeroed(QUERIES * (plan.channels + GAP))?,
            buffer: AlignedBuf::zeroed(plan.panels[0].max(plan.rows) * plan.channels)?,
            shift: vec![T::ZERO; QUERIES],
            delta: vec![T::ZERO; QUERIES],
            window: Window::new(),
        })
    }

    fn differentiate<E: Float, L: Float>(
        &mut self,
        given: &Given<'_, E, L>,
        plan: &Plan,
        batch: usize,
        packed: &Packed<T>,
        mut target: Target<'_, E>,
        sums: &mut Sums<T>,
    ) {
        let (job, head) = (&given.job, target.head);
        let kernels = T::kernels(job.isa);
        let queries = target.first..job.dims.queries.min(target.first + QUERIES);
        let rows = queries.len().next_multiple_of(plan.rows);
        let (stride, dq_stride) = (KEYS + GAP, plan.channels + GAP);
        let groups = [plan.rows, plan.rows];
        let (q, d_o) = (job.q.outer(batch).matrix(head), given.d_o.outer(batch).matrix(head));
        pack::by_rows(q, queries.clone(), groups, job.factor(), &mut self.buffer, &mut self.q);
        pack::by_rows(d_o, queries.clone(), groups, T::ONE, &mut self.buffer, &mut self.d_o);
        pack::by_channels(q, queries.clone(), rows, plan.panels, &mut self.buffer, &mut self.q_channels);
        pack::by_channels(d_o, queries.clone(), rows, plan.panels, &mut self.buffer, &mut self.d_o_channels);
        // Rows that are not there, or see no key, have weight 0.
        self.shift[..rows].fill(T::INFINITY);
        self.delta[..rows].fill(T::ZERO);
        let (o, lse) = (given.o.outer(batch).matrix(head), given.lse.matrix(batch).row(head));
        for (r, i) in queries.clone().enumerate() {
            let lse = lse.at([i]).to_f64();
            if lse > f64::NEG_INFINITY {
                self.shift[r] = T::from_f64(lse * std::f64::consts::LOG2_E);
                let pairs = o.row(i).iter().zip(d_o.row(i).iter());
                self.delta[r] = T::from_f64(pairs.map(|(o, d)| o.to_f64() * d.to_f64()).sum());
            }
        }
        self.dq[..rows * dq_stride].fill(T::ZERO);

        let end = job.mask.end(queries.end - 1, &job.dims);
        for t in 0..end.div_ceil(KEYS) {
            let tile = plan.tile(t);
            let seen = tile.start..end.min(tile.end);
            let padded = seen.len().next_multiple_of(plan.panels[0]).min(tile.len());
            let cover = self.window.look(&job.mask, &job.dims, [batch, head], &queries, &seen);
            if cover == Cover::None {
                continue;
            }
            let size = Size { rows, depth: plan.depth, columns: padded };
            let at = tile.start * plan.depth;
            let right = |data| Right { data, depth: plan.depth };
            let left = Left::packed(&self.q, plan.rows, plan.depth);
            let keys = right(&packed.keys[at..]);
            (kernels.product)(job.isa, left, keys, &mut self.scores, stride, size, false);
            let left = Left::packed(&self.d_o, plan.rows, plan.depth);
            let values = right(&packed.values[at..]);
            (kernels.product)(job.isa, left, values, &mut self.products, stride, size, false);
            self.window.apply(cover, &mut self.scores, stride, queries.len(), padded);
            (kernels.slopes)(
                job.isa,
                &mut self.scores,
                &mut self.products,
                stride,
                padded,
                &self.shift[..rows],
                &self.delta[..rows],
            );

            // Keys are rows now; those that fill up the last tile of registers get nothing.
            let key_rows = padded.next_multiple_of(plan.rows);
            for r in 0..rows {
                self.scores[r * stride + padded..r * stride + key_rows].fill(T::ZERO);
                self.products[r * stride + padded..r * stride + key_rows].fill(T::ZERO);
            }
            let at = tile.start * plan.channels;
            let size = Size { rows: key_rows, depth: rows, columns: plan.channels };
            let right = |data| Right { data, depth: rows };
            let left = Left::columns(&self.scores, stride);
            let (dv, dk) = (&mut sums.dv[at..], &mut sums.dk[at..]);
            (kernels.product)(job.isa, left, right(&self.d_o_channels), dv, plan.channels, size, true);
            let left = Left::columns(&self.products, stride);
            (kernels.product)(job.isa, left, right(&self.q_channels), dk, plan.channels, size, true);
            let left = Left::rows(&self.products, stride);
            let right = Right { data: &packed.key_channels[at..], depth: tile.len() };
            let size = Size { rows, depth: padded, columns: plan.channels };
            (kernels.product)(job.isa, left, right, &mut self.dq, dq_stride, size, true);
        }
        let scale = T::from_f64(job.scale);
        for r in 0..queries.len() {
            let row = &mut self.dq[r * dq_stride..][..plan.depth];
            row.iter_mut().for_each(|x| *x = *x * scale);
            write_row(&mut target.dq, r, row);
        }
    }
}
