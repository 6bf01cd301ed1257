//! Gradients, tile by tile.
//!
//! A unit of work owns the sums of one key head over some tiles of queries, so nothing is summed in an order that
//! depends on threads: units with few heads are cut into pieces by shape, whose sums are added in order.

use kc_core::{AlignedBuf, DType, Error, Float, Result, Tensor, TensorView, TensorViewMut, par};

use super::forward::{self, GAP, Job, KEYS, Plan, Pool, QUERIES, each, write_row};
use super::kernels::{Left, Right, Scalar, Size};
use super::window::{Cover, Window};
use super::{AttentionConfig, check_finite, job, pack, same_shape};
use crate::layout::Dims;
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
    let mut grads = AttentionGrads {
        dq: Tensor::zeros(q.shape())?,
        dk: Tensor::zeros(k.shape())?,
        dv: Tensor::zeros(v.shape())?,
    };
    let to = [grads.dq.view_mut(), grads.dk.view_mut(), grads.dv.view_mut()];
    attention_backward_into(q, k, v, o, lse, d_o, mask, config, to)?;
    Ok(grads)
}

/// As [`attention_backward`], into `[dq, dk, dv]` of the shapes of `q`, `k` and `v`. After an error their content is
/// unspecified.
///
/// # Errors
/// As [`attention_backward`], and `Shape` if a gradient has another shape.
pub fn attention_backward_into<E: Float>(
    q: TensorView<'_, E, 4>,
    k: TensorView<'_, E, 4>,
    v: TensorView<'_, E, 4>,
    o: TensorView<'_, E, 4>,
    lse: TensorView<'_, f32, 3>,
    d_o: TensorView<'_, E, 4>,
    mask: &Mask<'_>,
    config: &AttentionConfig,
    grads: [TensorViewMut<'_, E, 4>; 3],
) -> Result<()> {
    let job = job([q, k, v], mask, config)?;
    same_shape("o", q.shape(), o.shape())?;
    same_shape("d_o", q.shape(), d_o.shape())?;
    for ((name, x), grad) in [("dq", q), ("dk", k), ("dv", v)].into_iter().zip(&grads) {
        same_shape(name, x.shape(), grad.shape())?;
    }
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
    let (o, d_o) = (layout.heads_first(o)?, layout.heads_first(d_o)?);
    let [dq, dk, dv] = grads.map(|grad| layout.heads_first_mut(grad));
    let grads = [dq?, dk?, dv?];
    if E::DTYPE == DType::F64 {
        let mut exact = Tensor::<f64, 3>::zeros(lse.shape())?;
        let mut again = Tensor::<E, 4>::zeros(o.shape())?;
        forward::run::<E, f64, f64>(&job, again.view_mut(), Some(exact.view_mut()))?;
        run::<E, f64, f64>(&Given { job, o, d_o, lse: exact.view() }, grads)
    } else {
        run::<E, f32, f32>(&Given { job, o, d_o, lse }, grads)
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
struct Packed<'a, T: Scalar> {
    keys: &'a mut [T],
    values: &'a mut [T],
    /// For products with the slopes.
    key_channels: &'a mut [T],
}

impl<'a, T: Scalar> Packed<'a, T> {
    /// Elements of a head.
    fn len(plan: &Plan) -> usize {
        plan.keys * (2 * plan.depth + plan.channels)
    }

    fn new(room: &'a mut [T], plan: &Plan) -> Self {
        let (keys, rest) = room.split_at_mut(plan.keys * plan.depth);
        let (values, key_channels) = rest.split_at_mut(plan.keys * plan.depth);
        Packed { keys, values, key_channels }
    }

    fn fill<E: Float>(&mut self, job: &Job<'_, E>, plan: &Plan, [batch, head]: [usize; 2]) {
        let mut buffer = vec![T::ZERO; plan.buffer()];
        let (k, v) = (job.k.outer(batch).matrix(head), job.v.outer(batch).matrix(head));
        for t in 0..plan.keys.div_ceil(KEYS) {
            let tile = plan.tile(t);
            let there = tile.start..tile.end.min(job.dims.keys);
            let at = tile.start * plan.depth;
            pack::by_rows(job, plan, k, there.clone(), &mut buffer, &mut self.keys[at..]);
            pack::by_rows(job, plan, v, there.clone(), &mut buffer, &mut self.values[at..]);
            let to = &mut self.key_channels[tile.start * plan.channels..];
            pack::by_channels(plan, k, there, tile.len(), &mut buffer, to);
        }
    }
}

/// The gradient of the queries of a tile, `[1, 1, queries, D]`.
struct Target<'a, E: Float> {
    head: usize,
    first: usize,
    dq: TensorViewMut<'a, E, 4>,
}

/// Sums over some tiles of queries, `[keys, channels]` each.
struct Sums<'a, T: Scalar> {
    dk: &'a mut [T],
    dv: &'a mut [T],
}

fn run<E: Float, T: Scalar, L: Float>(
    given: &Given<'_, E, L>,
    [dq, dk, dv]: [TensorViewMut<'_, E, 4>; 3],
) -> Result<()> {
    let (dims, plan) = (&given.job.dims, given.job.plan::<T>());
    let units = dims.batch * dims.kv_heads;
    let group = dims.heads / dims.kv_heads;
    let tiles = dims.queries.div_ceil(QUERIES);
    let pieces = (UNITS / units.max(1)).clamp(1, (group * tiles).max(1));
    let mut targets = Vec::new();
    for dq in dq.chunks(0, 1)? {
        for (head, dq) in dq.chunks(1, 1)?.into_iter().enumerate() {
            for (tile, dq) in dq.chunks(2, QUERIES)?.into_iter().enumerate() {
                targets.push(Target { head, first: tile * QUERIES, dq });
            }
        }
    }
    let mut targets = targets.into_iter();
    let mut of_keys = Vec::new();
    for (dk, dv) in dk.chunks(0, 1)?.into_iter().zip(dv.chunks(0, 1)?) {
        of_keys.extend(dk.chunks(1, 1)?.into_iter().zip(dv.chunks(1, 1)?));
    }
    let mut of_keys = of_keys.into_iter();
    // Large blocks get huge pages, so everything of a round lies in two.
    let most = units.min(UNITS);
    let mut room = AlignedBuf::<T>::zeroed(most.saturating_mul(Packed::<T>::len(&plan)))?;
    let sum = (plan.keys + plan.rows) * plan.channels;
    let mut sums = AlignedBuf::<T>::zeroed(most.saturating_mul(pieces).saturating_mul(2 * sum))?;
    let (small, threads) = (given.job.is_small(), Pool::new());
    for units in par::chunks(units, UNITS) {
        let mut packed = Vec::new();
        for (unit, room) in units.clone().zip(room.chunks_mut(Packed::<T>::len(&plan))) {
            packed.push((Packed::new(room, &plan), [unit / dims.kv_heads, unit % dims.kv_heads]));
        }
        each(small, packed.iter_mut().collect(), |(packed, place)| {
            packed.fill(&given.job, &plan, *place);
            Ok(())
        })?;
        let mut work = Vec::new();
        for (packed, [batch, _]) in &packed {
            let mut shares: Vec<Vec<Target<'_, E>>> = (0..pieces).map(|_| Vec::new()).collect();
            for (i, target) in targets.by_ref().take(group * tiles).enumerate() {
                shares[i % pieces].push(target);
            }
            work.extend(shares.into_iter().map(|share| (*batch, packed, share)));
        }
        let work = work.into_iter().zip(sums.chunks_mut(2 * sum)).collect();
        each(small, work, |((batch, packed, share), sums)| {
            sums.fill(T::ZERO);
            let (dk, dv) = sums.split_at_mut(sum);
            let mut sums = Sums { dk, dv };
            threads.with(
                || Tile::new(&plan),
                |tile| {
                    for target in share {
                        tile.differentiate(given, &plan, batch, packed, target, &mut sums);
                    }
                },
            )
        })?;
        let parts = sums.chunks_mut(2 * sum * pieces).take(units.len()).zip(of_keys.by_ref()).collect();
        let scale = T::from_f64(given.job.scale);
        each(small, parts, |(pieces, (mut dk, mut dv))| {
            let (first, rest) = pieces.split_at_mut(2 * sum);
            for piece in rest.chunks_exact(2 * sum) {
                first.iter_mut().zip(piece).for_each(|(a, b)| *a += *b);
            }
            let (sum_dk, sum_dv) = first.split_at_mut(sum);
            sum_dk.iter_mut().for_each(|x| *x = *x * scale);
            for j in 0..dims.keys {
                let row = j * plan.channels..j * plan.channels + plan.depth;
                write_row(&mut dk, [0, 0, j], &sum_dk[row.clone()]);
                write_row(&mut dv, [0, 0, j], &sum_dv[row]);
            }
            Ok(())
        })?;
    }
    Ok(())
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
            q: AlignedBuf::zeroed(plan.queries * plan.depth)?,
            d_o: AlignedBuf::zeroed(plan.queries * plan.depth)?,
            q_channels: AlignedBuf::zeroed(plan.queries * plan.channels)?,
            d_o_channels: AlignedBuf::zeroed(plan.queries * plan.channels)?,
            scores: AlignedBuf::zeroed(plan.queries * (KEYS + GAP))?,
            products: AlignedBuf::zeroed(plan.queries * (KEYS + GAP))?,
            dq: AlignedBuf::zeroed(plan.queries * (plan.channels + GAP))?,
            buffer: AlignedBuf::zeroed(plan.channels)?,
            shift: vec![T::ZERO; plan.queries],
            delta: vec![T::ZERO; plan.queries],
            window: Window::new(),
        })
    }

    fn differentiate<E: Float, L: Float>(
        &mut self,
        given: &Given<'_, E, L>,
        plan: &Plan,
        batch: usize,
        packed: &Packed<'_, T>,
        mut target: Target<'_, E>,
        sums: &mut Sums<'_, T>,
    ) {
        let (job, head) = (&given.job, target.head);
        let kernels = T::kernels(job.isa);
        let queries = target.first..job.dims.queries.min(target.first + QUERIES);
        let rows = queries.len().next_multiple_of(plan.rows);
        let (stride, dq_stride) = (KEYS + GAP, plan.channels + GAP);
        let (q, d_o) = (job.q.outer(batch).matrix(head), given.d_o.outer(batch).matrix(head));
        pack::rows(q, queries.clone(), rows, &mut self.q);
        pack::rows(d_o, queries.clone(), rows, &mut self.d_o);
        pack::by_channels(plan, q, queries.clone(), rows, &mut self.buffer, &mut self.q_channels);
        pack::by_channels(plan, d_o, queries.clone(), rows, &mut self.buffer, &mut self.d_o_channels);
        let factor = job.factor::<T>();
        self.q[..rows * plan.depth].iter_mut().for_each(|x| *x = *x * factor);
        // Rows that are not there, or see no key, have weight 0.
        self.shift[..rows].fill(T::INFINITY);
        self.delta[..rows].fill(T::ZERO);
        let (o, lse) = (given.o.outer(batch).matrix(head), given.lse.matrix(batch).row(head));
        for (r, i) in queries.clone().enumerate() {
            let lse = lse.at([i]).to_f64();
            if lse > f64::NEG_INFINITY {
                self.shift[r] = T::from_f64(lse * std::f64::consts::LOG2_E);
                pack::row(o, i, &mut self.buffer);
                self.delta[r] = T::from_f64(dot(&self.buffer[..plan.depth], &self.d_o[r * plan.depth..]));
            }
        }
        self.dq[..rows * dq_stride].fill(T::ZERO);

        let end = job.mask.end(queries.end - 1, &job.dims);
        for t in 0..end.div_ceil(KEYS) {
            let tile = plan.tile(t);
            let seen = tile.start..end.min(tile.end);
            let padded = seen.len().next_multiple_of(plan.panels[0]).min(tile.len());
            let cover = self.window.look(&job.mask, &job.dims, batch, &(head..head + 1), &queries, &seen);
            if cover == Cover::None {
                continue;
            }
            let size = Size { rows, depth: plan.depth, columns: padded };
            let at = tile.start * plan.depth;
            let right = |data| Right { data, depth: plan.depth };
            let left = Left::rows(&self.q, plan.depth);
            let keys = right(&packed.keys[at..]);
            (kernels.product)(job.isa, left, keys, &mut self.scores, stride, size, false);
            let left = Left::rows(&self.d_o, plan.depth);
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
            write_row(&mut target.dq, [0, 0, r], row);
        }
    }
}

/// The sum of products of `a` with the front of `b`.
fn dot<T: Scalar>(a: &[T], b: &[T]) -> f64 {
    let mut sums = [0.0; 4];
    for (a, b) in a.chunks(4).zip(b.chunks(4)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a.to_f64() * b.to_f64();
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}
