//! Whole causal sequences: segments side by side, each a stream of its own.

use std::borrow::Cow;

use kc_core::math::Real;
use kc_core::{Result, TensorView, bytemuck};
use rayon::prelude::*;

use super::plan::Plan;
use super::stream::{CHUNK, HeadSums, REACH, Source, Stream};
use super::{SeaInputs, SeaLayer};

/// Tokens of a segment. Its first eight are prepared twice, which costs a little; fewer segments keep fewer threads busy.
const SEGMENT: usize = 512;

/// Where segment `s` starts to prepare.
fn prepared(s: usize) -> usize {
    (s * SEGMENT).saturating_sub(REACH)
}

impl<T: Real> SeaLayer<T> {
    /// The fast way of causal layers of f32 (`None` for others). Writes `out` `[N, H, T, d]` and gives the entries of the
    /// matrix of each batch entry. Inputs and result have been checked.
    pub(super) fn stream(&self, inputs: &SeaInputs<'_, T>, out: &mut [T]) -> Result<Option<Vec<usize>>> {
        if inputs.jitter.is_some() {
            return Ok(None);
        }
        let (Some(q), Some(k), Some(v)) = (flat(inputs.q), flat(inputs.k), flat(inputs.v)) else {
            return Ok(None);
        };
        let own = inputs.estimator.map(|own| own.map(|x| flat(x).unwrap_or_default()));
        let [n, h, t, d] = inputs.q.shape();
        let plan = Plan::new(self.isa, &self.config, &self.params);
        let (entry, line) = (h * t * d, t * d);
        let source = |i: usize| {
            let part = i * entry..(i + 1) * entry;
            let (q, k, v) = (&q[part.clone()], &k[part.clone()], &v[part.clone()]);
            let own = match &own {
                Some([q, k, v]) => [&q[part.clone()], &k[part.clone()], &v[part]],
                None => [q, k, v],
            };
            Source { k, v, stride: line, q, own, first: 0, near: line }
        };
        let segments = t.div_ceil(SEGMENT);
        // Sums over the tokens of each segment, then over all before it.
        let mut sums: Vec<HeadSums> = (0..n * segments * h)
            .into_par_iter()
            .map(|at| {
                let (i, s, head) = (at / (segments * h), at / h % segments, at % h);
                let (first, end) = (prepared(s), prepared(s + 1).min(t));
                // Nobody reads the sums after the last segment.
                let end = if s + 1 == segments { first } else { end };
                let source = source(i);
                let rows = head * line + first * d..head * line + end * d;
                let own = [&source.own[1][rows.clone()], &source.own[2][rows.clone()]];
                plan.sums_of(first, &source.v[rows], own)
            })
            .collect();
        for i in 0..n {
            for head in 0..h {
                let mut before = HeadSums::start(&plan);
                for s in 0..segments {
                    let here = &mut sums[(i * segments + s) * h + head];
                    let mut next = before.clone();
                    next.add(here);
                    *here = std::mem::replace(&mut before, next);
                }
            }
        }
        let mut parts: Vec<Vec<&mut [f32]>> = (0..n * segments).map(|_| Vec::with_capacity(h)).collect();
        // T is f32 here.
        let whole: &mut [f32] = bytemuck::cast_slice_mut(out);
        for (i, head) in whole.chunks_exact_mut(line).enumerate() {
            for (s, part) in head.chunks_mut(SEGMENT * d).enumerate() {
                parts[i / h * segments + s].push(part);
            }
        }
        let work = parts.into_par_iter().zip(sums.par_chunks_exact(h)).enumerate();
        let entries = work
            .map(|(at, (mut out, sums))| {
                let (i, s) = (at / segments, at % segments);
                let source = source(i);
                let (first, start, end) = (prepared(s), s * SEGMENT, t.min((s + 1) * SEGMENT));
                let mut stream = Stream::new(&plan, first, sums.to_vec());
                if start > first {
                    stream.step(&plan, &source, start - first, None)?;
                }
                let mut entries = 0;
                for from in (start..end).step_by(CHUNK) {
                    let many = CHUNK.min(end - from);
                    let mut rows: Vec<&mut [f32]> = out
                        .iter_mut()
                        .map(|out| &mut out[(from - start) * d..(from - start + many) * d])
                        .collect();
                    entries += stream.step(&plan, &source, many, Some(&mut rows))?;
                }
                Ok(entries)
            })
            .collect::<Result<Vec<usize>>>()?;
        let nnz = entries.chunks_exact(segments).map(|all| all.iter().sum()).collect();
        Ok(Some(nnz))
    }
}

/// The elements in order, if they are f32; borrowed if they lie so.
pub(super) fn flat<T: Real>(x: TensorView<'_, T, 4>) -> Option<Cow<'_, [f32]>> {
    let x = x.as_type::<f32>()?;
    Some(match x.as_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(x.to_vec()),
    })
}
