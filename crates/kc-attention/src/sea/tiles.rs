//! Bidirectional inference in f32: tiles of queries side by side, each of which needs the sums over all keys, and a few
//! rows above and below it for the convolutions.
//!
//! The average of the values is weighed by the mean of all rows of the estimate, so it is known, and mixed in, when all
//! tiles are done.

use kc_core::math::{Function, Real, apply_in_place, dot_f64_with, min_max_with};
use kc_core::{Result, bytemuck};
use rayon::prelude::*;

use super::conv::bilinear_at;
use super::performer::{SOFTMAX_FLOOR, place};
use super::plan::Plan;
use super::portable::{Product, Taps, dispatch};
use super::rows::Chosen;
use super::segments::flat;
use super::stretch::cell_of;
use super::{Group, SeaInputs, SeaLayer};

/// Queries of a tile; even, since the convolutions halve the rows.
const TILE: usize = 128;
/// Most parts whose sums over keys run side by side in a head.
const PARTS: usize = 8;
/// Fewest keys of a part.
const PART: usize = 512;
/// Keys of a step.
const CHUNK: usize = 32;

/// One batch entry `[H, T, d]`.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    /// For the scores and the average.
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    /// For the estimator.
    own: [&'a [f32]; 3],
    tokens: usize,
    /// Valid tokens.
    len: usize,
    /// Tokens that the estimator sees as they are; queries and keys behind them are 0, and such keys do not count.
    seen: usize,
}

impl Entry<'_> {
    /// Rows `first..first + many` of a head of `x`, those from `valid` on as zeros.
    fn copy(
        &self,
        x: &[f32],
        (head, d): (usize, usize),
        first: usize,
        many: usize,
        valid: usize,
        out: &mut Vec<f32>,
    ) {
        let live = valid.saturating_sub(first).min(many);
        out.clear();
        out.extend_from_slice(&x[(head * self.tokens + first) * d..][..live * d]);
        out.resize(many * d, 0.0);
    }
}

/// Sums over keys of a head.
#[derive(Debug, Clone)]
struct KeySums {
    /// The largest exponent so far; the sums are relative to it.
    most: f32,
    /// Exponentials times augmented values `[m, wide]`.
    exact: Vec<f64>,
    /// Augmented values `[wide]`: what the floor of the features multiplies.
    all: Vec<f64>,
}

impl KeySums {
    fn new(plan: &Plan) -> Self {
        KeySums { most: f32::NEG_INFINITY, exact: vec![0.0; plan.m * plan.wide], all: vec![0.0; plan.wide] }
    }

    /// Makes the sums relative to `most`, if that is larger.
    fn raise(&mut self, most: f32) {
        if most > self.most {
            let factor = (f64::from(self.most) - f64::from(most)).exp();
            self.exact.iter_mut().for_each(|x| *x *= factor);
            self.most = most;
        }
    }

    fn add(&mut self, other: &KeySums) {
        self.raise(other.most);
        let factor = (f64::from(other.most) - f64::from(self.most)).exp();
        self.exact.iter_mut().zip(&other.exact).for_each(|(a, b)| *a += factor * b);
        self.all.iter_mut().zip(&other.all).for_each(|(a, b)| *a += b);
    }

    /// What queries are multiplied with `[m, wide]`.
    fn matrix(&self) -> Vec<f32> {
        let rows = self.exact.chunks_exact(self.all.len());
        rows.flat_map(|row| row.iter().zip(&self.all).map(|(x, all)| (x + SOFTMAX_FLOOR * all) as f32))
            .collect()
    }
}

impl Plan {
    /// Subtracts `|x|^2 / (2 sqrt d)` of its row from every exponent.
    fn centre(&self, x: &[f32], dash: &mut [f32]) -> Result<()> {
        let d = self.config.head_dim;
        let factor = 0.5 / (d as f64).sqrt();
        for (x, dash) in x.chunks_exact(d).zip(dash.chunks_exact_mut(self.m)) {
            let shift = (factor * dot_f64_with(self.isa, x, x)?) as f32;
            dash.iter_mut().for_each(|x| *x -= shift);
        }
        Ok(())
    }

    /// Sums over keys `first..end` of a head.
    fn key_sums(&self, entry: &Entry<'_>, head: usize, first: usize, end: usize) -> Result<KeySums> {
        let (isa, d, wide) = (self.isa, self.config.head_dim, self.wide);
        let mut sums = KeySums::new(self);
        let (mut keys, mut own, mut dash) = (Vec::new(), Vec::new(), Vec::new());
        let (mut values, mut part) = (Vec::new(), Vec::new());
        for from in (first..end).step_by(CHUNK) {
            let many = CHUNK.min(end - from);
            entry.copy(entry.own[1], (head, d), from, many, entry.seen, &mut keys);
            entry.copy(entry.own[2], (head, d), from, many, entry.len, &mut own);
            dash.resize(many * self.m, 0.0);
            self.keys.apply(isa, many, &keys, None, &mut dash);
            let most = min_max_with(isa, &dash).map_or(sums.most, |(_, most)| most);
            sums.raise(most);
            dash.iter_mut().for_each(|x| *x -= sums.most);
            self.centre(&keys, &mut dash)?;
            apply_in_place(isa, Function::Exp, &mut dash);
            values.clear();
            values.resize(many * wide, 0.0);
            for (i, (row, v)) in values.chunks_exact_mut(wide).zip(own.chunks_exact(d)).enumerate() {
                if from + i < entry.len {
                    place(from + i, entry.len, &mut row[..d]);
                    row[d..2 * d].copy_from_slice(v);
                }
                row[2 * d] = 1.0;
                sums.all.iter_mut().zip(&*row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            self.add((&dash, &values), &mut part, &mut sums.exact);
        }
        Ok(sums)
    }
}

/// What a tile leaves behind.
#[derive(Debug)]
struct Left {
    entries: usize,
    /// Sums of the rows of the estimate `[H, t_m]`.
    estimate: Vec<f64>,
    /// Shares of the average `[H, queries]`.
    shares: Vec<f32>,
}

#[derive(Debug, Default)]
struct Scratch {
    own: Vec<f32>,
    fq: Vec<f32>,
    read: Vec<f32>,
    x: Vec<f32>,
    enc: Vec<f32>,
    /// Gates of a head and all its rows.
    band_gates: Vec<f32>,
    /// Gates `[H, queries, 2]`.
    gates: Vec<f32>,
    rows: Vec<f32>,
    /// Padded rows in front of the three convolutions.
    planes: [Vec<f32>; 3],
    zeros: Vec<f32>,
    last: Vec<f32>,
    columns: Vec<f32>,
    prob: Vec<f32>,
    chosen: Chosen,
}

/// Rows of a plane that a tile has: `first..end` of all, `len` elements each.
#[derive(Debug, Clone, Copy)]
struct Band {
    first: usize,
    end: usize,
    len: usize,
}

impl Band {
    /// Row `at` of all, or `zeros` outside of the plane.
    fn row<'a>(&self, plane: &'a [f32], at: Option<usize>, zeros: &'a [f32]) -> &'a [f32] {
        match at {
            Some(at) if (self.first..self.end).contains(&at) => {
                &plane[(at - self.first) * self.len..][..self.len]
            }
            _ => zeros,
        }
    }
}

impl Scratch {
    /// Queries `first..end`: `out` are their rows per head, without the average.
    fn tile(
        &mut self,
        plan: &Plan,
        entry: &Entry<'_>,
        sums: &[Vec<f32>],
        (first, end): (usize, usize),
        out: &mut [&mut [f32]],
    ) -> Result<Left> {
        let config = &plan.config;
        let (h, d, w, c, t_m) =
            (config.heads, config.head_dim, config.width(), config.channels(), config.t_m);
        let (isa, tokens, many) = (plan.isa, entry.tokens, end - first);
        let half = tokens.div_ceil(2);
        let tap = |t: usize| bilinear_at(t, 2 * half, tokens);
        // Rows of the last convolution, of the second and of the first, and tokens in front of it.
        let (low, high) = (tap(first).at[0], tap(end - 1).at[1] + 1);
        let len = (w + 2) * c;
        let second = Band { first: low.saturating_sub(1) / 2, end: (high / 2 + 1).min(half), len };
        let before = Band { first: second.first.saturating_sub(1), end: (second.end + 1).min(half), len };
        let plane =
            Band { first: (2 * before.first).saturating_sub(1), end: (2 * before.end).min(tokens), len };
        for (plane, band) in self.planes.iter_mut().zip([plane, before, second]) {
            // The sides of every row are 0 and stay so.
            plane.resize((band.end - band.first) * len, 0.0);
        }
        self.zeros.resize(len, 0.0);
        self.gates.clear();
        for (head, sums) in sums.iter().enumerate() {
            self.encode(plan, entry, sums, head, plane)?;
            self.gates
                .extend_from_slice(&self.band_gates[(first - plane.first) * 2..(end - plane.first) * 2]);
        }
        apply_in_place(isa, Function::Sigmoid, &mut self.gates);
        let [rows, halves, seconds] = &mut self.planes;
        let taps = Taps { width: w, step: 1, c_in: c, c_out: c, floor: 0.0 };
        for at in before.first..before.end {
            let from = [(2 * at).checked_sub(1), Some(2 * at), Some(2 * at + 1)];
            let from = from.map(|at| plane.row(rows, at, &self.zeros));
            let to = &mut halves[(at - before.first) * len + c..][..w * c];
            taps.run(isa, from, &plan.convs[0], &plan.p.c1_b, to);
        }
        for at in second.first..second.end {
            let from =
                [at.checked_sub(1), Some(at), Some(at + 1)].map(|at| before.row(halves, at, &self.zeros));
            let to = &mut seconds[(at - second.first) * len + c..][..w * c];
            taps.run(isa, from, &plan.convs[1], &plan.p.c2_b, to);
        }
        let taps = Taps { c_out: h, floor: f32::NEG_INFINITY, ..taps };
        self.last.resize((high - low) * w * h, 0.0);
        for at in low..high {
            // Every row of the second convolution counts twice.
            let from = [at.checked_sub(1), Some(at), (at + 1 < 2 * half).then_some(at + 1)];
            let from = from.map(|at| second.row(seconds, at.map(|at| at / 2), &self.zeros));
            taps.run(isa, from, &plan.convs[2], &plan.p.c3_b, &mut self.last[(at - low) * w * h..][..w * h]);
        }
        let mut estimate = vec![0.0; h * t_m];
        self.chosen.clear();
        for t in first..end {
            if t >= entry.len {
                self.chosen.push_empty(h);
                continue;
            }
            let tap = tap(t);
            let [near, far] = tap.at.map(|at| &self.last[(at - low) * w * h..][..w * h]);
            let [most, rest] = tap.weight.map(|weight| weight as f32);
            self.columns.resize(w * h, 0.0);
            for (x, (near, far)) in near.chunks_exact(h).zip(far.chunks_exact(h)).enumerate() {
                for (head, (near, far)) in near.iter().zip(far).enumerate() {
                    self.columns[head * w + x] = most * near + rest * far;
                }
            }
            self.prob.resize(h * t_m, 0.0);
            for (x, row) in self.columns.chunks_exact(w).zip(self.prob.chunks_exact_mut(t_m)) {
                dispatch!(isa, stretch(x, row));
            }
            let prob = &mut self.prob;
            dispatch!(isa, lower(prob, t_m));
            apply_in_place(isa, Function::Exp, prob);
            dispatch!(isa, unit(prob, t_m));
            estimate.iter_mut().zip(&*prob).for_each(|(sum, p)| *sum += f64::from(*p));
            self.chosen.push(plan, prob, entry.len)?;
        }
        let line = tokens * d;
        for (head, out) in out.iter_mut().enumerate() {
            let [keys, values] = [entry.k, entry.v].map(|x| &x[head * line..][..line]);
            let queries = &entry.q[head * line + first * d..head * line + end * d];
            let gates = &self.gates[head * many * 2..][..many * 2];
            self.chosen.attend(plan, head, [queries, keys, values], gates, out)?;
        }
        let shares = self.gates.chunks_exact(2).map(|gate| 1.0 - gate[1]).collect();
        Ok(Left { entries: self.chosen.entries(), estimate, shares })
    }

    /// Linear attention, encoder and row decoder of a head: its channels of the first plane, and its gates.
    fn encode(
        &mut self,
        plan: &Plan,
        entry: &Entry<'_>,
        sums: &[f32],
        head: usize,
        band: Band,
    ) -> Result<()> {
        let config = &plan.config;
        let (d, w, c, split) = (config.head_dim, config.width(), config.channels(), config.splits());
        let (isa, m, wide, many) = (plan.isa, plan.m, plan.wide, band.end - band.first);
        entry.copy(entry.own[0], (head, d), band.first, many, entry.seen, &mut self.own);
        self.fq.resize(many * m, 0.0);
        plan.queries.apply(isa, many, &self.own, None, &mut self.fq);
        let fq = &mut self.fq;
        dispatch!(isa, lower(fq, m));
        plan.centre(&self.own, fq)?;
        apply_in_place(isa, Function::Exp, fq);
        fq.iter_mut().for_each(|x| *x += SOFTMAX_FLOOR as f32);
        self.read.resize(many * wide, 0.0);
        let product = Product { m: many, n: wide, k: m, a: [m, 1], b: wide, c: wide };
        product.run(isa, fq, sums, &mut self.read, false);
        entry.copy(entry.own[2], (head, d), band.first, many, entry.len, &mut self.own);
        self.enc.resize(many * 2 * d, 0.0);
        self.band_gates.resize(many * 2, 0.0);
        plan.encode((&self.read, &self.own), &mut self.x, &mut self.enc, &mut self.band_gates);
        self.rows.resize(many * split * w, 0.0);
        plan.decoder.apply(isa, many, &self.enc, Some(&plan.p.dec_b), &mut self.rows);
        let lines = self.planes[0].chunks_exact_mut(band.len).zip(self.rows.chunks_exact(split * w));
        for (line, rows) in lines {
            for (x, place) in line[c..c + w * c].chunks_exact_mut(c).enumerate() {
                for (i, to) in place[split * head..][..split].iter_mut().enumerate() {
                    *to = rows[i * w + x];
                }
            }
        }
        Ok(())
    }
}

impl<T: Real> SeaLayer<T> {
    /// The fast way of bidirectional layers of f32 whose queries choose for themselves (`None` for others). Writes `out`
    /// `[N, H, T, d]` and gives the entries of the matrix of each batch entry. Inputs and result have been checked.
    pub(super) fn tiles(
        &self,
        inputs: &SeaInputs<'_, T>,
        lengths: &[usize],
        out: &mut [T],
    ) -> Result<Option<Vec<usize>>> {
        let alone = matches!(self.config.group, Group::CausalBatch | Group::Query);
        if self.config.causal || inputs.jitter.is_some() || !alone {
            return Ok(None);
        }
        let (Some(q), Some(k), Some(v)) = (flat(inputs.q), flat(inputs.k), flat(inputs.v)) else {
            return Ok(None);
        };
        let own = inputs.estimator.map(|own| own.map(|x| flat(x).unwrap_or_default()));
        let [n, h, t, d] = inputs.q.shape();
        let plan = Plan::new(self.isa, &self.config, &self.params);
        let (size, line, t_m) = (h * t * d, t * d, self.config.t_m);
        let entries: Vec<Entry<'_>> = (0..n)
            .map(|i| {
                let part = i * size..(i + 1) * size;
                let (q, k, v) = (&q[part.clone()], &k[part.clone()], &v[part.clone()]);
                let own = match &own {
                    Some([q, k, v]) => [&q[part.clone()], &k[part.clone()], &v[part]],
                    None => [q, k, v],
                };
                let seen = if self.config.mask_padding { lengths[i] } else { t };
                Entry { q, k, v, own, tokens: t, len: lengths[i], seen }
            })
            .collect();
        let parts = t.div_ceil(PART).min(PARTS);
        let share = t.div_ceil(parts);
        let sums = (0..n * h * parts)
            .into_par_iter()
            .map(|at| {
                let (i, head, part) = (at / (h * parts), at / parts % h, at % parts);
                let end = entries[i].seen.min((part + 1) * share);
                plan.key_sums(&entries[i], head, part * share, end)
            })
            .collect::<Result<Vec<_>>>()?;
        let matrices: Vec<Vec<f32>> = sums
            .chunks_exact(parts)
            .map(|parts| {
                let mut all = parts[0].clone();
                parts[1..].iter().for_each(|part| all.add(part));
                all.matrix()
            })
            .collect();
        drop(sums);
        let tiles = t.div_ceil(TILE);
        let mut pieces: Vec<Vec<&mut [f32]>> = (0..n * tiles).map(|_| Vec::with_capacity(h)).collect();
        // T is f32 here.
        let whole: &mut [f32] = bytemuck::cast_slice_mut(out);
        for (i, head) in whole.chunks_exact_mut(line).enumerate() {
            for (tile, piece) in head.chunks_mut(TILE * d).enumerate() {
                pieces[i / h * tiles + tile].push(piece);
            }
        }
        let left = pieces
            .into_par_iter()
            .enumerate()
            .map_init(Scratch::default, |scratch, (at, mut out)| {
                let (i, first) = (at / tiles, at % tiles * TILE);
                let sums = &matrices[i * h..(i + 1) * h];
                scratch.tile(&plan, &entries[i], sums, (first, t.min(first + TILE)), &mut out)
            })
            .collect::<Result<Vec<Left>>>()?;
        whole.par_chunks_exact_mut(line).enumerate().for_each(|(at, out)| {
            let (i, head) = (at / h, at % h);
            let left = &left[i * tiles..(i + 1) * tiles];
            let avg = average(&entries[i], head, left, (t_m, d));
            for (left, out) in left.iter().zip(out.chunks_mut(TILE * d)) {
                let many = out.len() / d;
                for (share, out) in left.shares[head * many..].iter().zip(out.chunks_exact_mut(d)) {
                    out.iter_mut().zip(&avg).for_each(|(out, avg)| *out += share * avg);
                }
            }
        });
        Ok(Some(left.chunks_exact(tiles).map(|tiles| tiles.iter().map(|tile| tile.entries).sum()).collect()))
    }
}

/// The values of a head, weighed by the column means of the estimate.
fn average(entry: &Entry<'_>, head: usize, left: &[Left], (t_m, d): (usize, usize)) -> Vec<f32> {
    let mut mean = vec![0.0; t_m];
    for left in left {
        mean.iter_mut().zip(&left.estimate[head * t_m..]).for_each(|(sum, x)| *sum += x);
    }
    mean.iter_mut().for_each(|x| *x /= entry.tokens as f64);
    let mut sums = vec![0.0; d];
    for (j, v) in entry.v[head * entry.tokens * d..][..entry.len * d].chunks_exact(d).enumerate() {
        let weight = mean[cell_of(j, entry.len, t_m)];
        sums.iter_mut().zip(v).for_each(|(sum, v)| *sum += weight * f64::from(*v));
    }
    sums.into_iter().map(|x| x as f32).collect()
}
