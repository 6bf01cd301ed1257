//! The causal layer as a stream: a few tokens at a time, in f32, keeping only what the next tokens need.
//!
//! The state is the sums of the linear attention (f64), the last four rows in front of each convolution, and the sum of
//! the values; a row of the estimate is chosen from and forgotten at once. Whole sequences run in segments side by side,
//! each of which starts eight tokens early, so that its convolutions have seen what they need.

use kc_core::Result;
use kc_core::math::{Function, apply_in_place};

use super::performer::{RELU_FLOOR, SUM_FLOOR};
use super::plan::{Panels, Plan};
use super::portable::{Product, Taps, dispatch};
use super::rows::Chosen;

/// Tokens of a step.
pub(super) const CHUNK: usize = 32;
/// Tokens before a row that the convolutions see.
pub(super) const REACH: usize = 8;
/// Rows that a convolution sees before its own.
const BEFORE: usize = 4;
/// Columns that a convolution sees beside its own.
const BESIDE: usize = 2;

impl Plan {
    /// Values with their places and a 1 for the denominator: `[rows, wide]`.
    fn augment(&self, first: usize, v: &[f32], out: &mut Vec<f32>) {
        let d = self.config.head_dim;
        out.clear();
        out.resize(v.len() / d * self.wide, 0.0);
        for (t, (out, v)) in out.chunks_exact_mut(self.wide).zip(v.chunks_exact(d)).enumerate() {
            out[..d].copy_from_slice(&self.p.pos[(first + t) * d..][..d]);
            out[d..2 * d].copy_from_slice(v);
            out[2 * d] = 1.0;
        }
    }

    /// Rectified features `[rows, m]`.
    fn features(&self, panels: &Panels, x: &[f32], out: &mut Vec<f32>) {
        let rows = x.len() / self.config.head_dim;
        out.resize(rows * self.m, 0.0);
        panels.apply(self.isa, rows, x, None, out);
        out.iter_mut().for_each(|x| *x = x.max(0.0) + RELU_FLOOR as f32);
    }

    /// The sums that some tokens of a head add.
    pub(super) fn sums_of(&self, first: usize, v: &[f32], own: [&[f32]; 2]) -> HeadSums {
        let d = self.config.head_dim;
        let mut found = HeadSums::zeros(self);
        let (mut features, mut values, mut part) = (Vec::new(), Vec::new(), Vec::new());
        let step = CHUNK * d;
        for (i, (k, v)) in own[0].chunks(step).zip(own[1].chunks(step)).enumerate() {
            self.features(&self.keys, k, &mut features);
            self.augment(first + i * CHUNK, v, &mut values);
            self.add((&features, &values), &mut part, &mut found.linear);
        }
        for v in v.chunks_exact(d) {
            found.values.iter_mut().zip(v).for_each(|(sum, v)| *sum += f64::from(*v));
        }
        found
    }
}

/// Sums over the tokens of a head so far.
#[derive(Debug, Clone)]
pub(super) struct HeadSums {
    /// `[m, wide]`
    linear: Vec<f64>,
    /// `[d]`
    values: Vec<f64>,
}

impl HeadSums {
    fn zeros(plan: &Plan) -> Self {
        HeadSums { linear: vec![0.0; plan.m * plan.wide], values: vec![0.0; plan.config.head_dim] }
    }

    /// Before the first token: the small number that keeps denominators from 0.
    pub(super) fn start(plan: &Plan) -> Self {
        let mut sums = Self::zeros(plan);
        let d = plan.config.head_dim;
        sums.linear.iter_mut().skip(2 * d).step_by(plan.wide).for_each(|x| *x = SUM_FLOOR);
        sums
    }

    /// Adds those of later tokens.
    pub(super) fn add(&mut self, later: &HeadSums) {
        self.linear.iter_mut().zip(&later.linear).for_each(|(a, b)| *a += b);
        self.values.iter_mut().zip(&later.values).for_each(|(a, b)| *a += b);
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.linear[..]) + size_of_val(&self.values[..])
    }
}

/// The tokens of one batch entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    /// Keys and values from token 0 on, heads `stride` elements apart.
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) stride: usize,
    /// Queries, and queries, keys and values of the estimator: from token `first` on, heads `near` elements apart.
    pub(super) q: &'a [f32],
    pub(super) own: [&'a [f32]; 3],
    pub(super) first: usize,
    pub(super) near: usize,
}

impl<'a> Source<'a> {
    /// Rows `first..first + many` of the keys or values of a head.
    fn past(&self, x: &'a [f32], head: usize, first: usize, many: usize, d: usize) -> &'a [f32] {
        &x[head * self.stride + first * d..][..many * d]
    }

    /// Rows `first..first + many` of what is read once.
    fn now(&self, x: &'a [f32], head: usize, first: usize, many: usize, d: usize) -> &'a [f32] {
        &x[head * self.near + (first - self.first) * d..][..many * d]
    }
}

/// A stream at some token.
#[derive(Debug)]
pub(super) struct Stream {
    next: usize,
    sums: Vec<HeadSums>,
    /// Rows before each convolution, [`BEFORE`] old ones first: `[rows, width + 2 BESIDE, channels]`.
    planes: [Vec<f32>; 2],
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Scratch {
    fq: Vec<f32>,
    fk: Vec<f32>,
    turned: Vec<f32>,
    values: Vec<f32>,
    part: Vec<f32>,
    sums32: Vec<f32>,
    weights: Vec<f32>,
    read: Vec<f32>,
    x: Vec<f32>,
    enc: Vec<f32>,
    gates: Vec<f32>,
    averages: Vec<f32>,
    rows: Vec<f32>,
    act: Vec<f32>,
    last: Vec<f32>,
    columns: Vec<f32>,
    prob: Vec<f32>,
    chosen: Chosen,
}

impl Stream {
    /// Starts at token `next` with the sums over all tokens before.
    pub(super) fn new(plan: &Plan, next: usize, sums: Vec<HeadSums>) -> Self {
        let line = (plan.config.width() + 2 * BESIDE) * plan.config.channels();
        let planes = [(); 2].map(|()| vec![0.0; (BEFORE + CHUNK) * line]);
        Stream { next, sums, planes, scratch: Scratch::default() }
    }

    /// Bytes that stay between calls.
    pub(super) fn bytes(&self) -> usize {
        self.sums.iter().map(HeadSums::bytes).sum::<usize>()
            + self.planes.iter().map(|p| size_of_val(&p[..])).sum::<usize>()
    }

    /// Takes the next `many` tokens, at most [`CHUNK`]. `out` are their results per head `[many, d]`, none for tokens
    /// that only prepare. Gives the number of entries of the matrix.
    pub(super) fn step(
        &mut self,
        plan: &Plan,
        source: &Source<'_>,
        many: usize,
        mut out: Option<&mut [&mut [f32]]>,
    ) -> Result<usize> {
        let config = &plan.config;
        let (h, d, w, c) = (config.heads, config.head_dim, config.width(), config.channels());
        let isa = plan.isa;
        let first = self.next;
        let line = (w + 2 * BESIDE) * c;
        self.scratch.enc.resize(h * many * 2 * d, 0.0);
        self.scratch.gates.resize(h * many * 2, 0.0);
        self.scratch.averages.resize(h * many * d, 0.0);
        for head in 0..h {
            self.encode(plan, source, head, many);
            self.decode(plan, head, many);
            let sums = &mut self.sums[head].values;
            let averages = &mut self.scratch.averages[head * many * d..][..many * d];
            let v = source.past(source.v, head, first, many, d);
            for (t, (avg, v)) in averages.chunks_exact_mut(d).zip(v.chunks_exact(d)).enumerate() {
                let inverse = 1.0 / (first + t + 1) as f64;
                for ((avg, sum), v) in avg.iter_mut().zip(&mut *sums).zip(v) {
                    *sum += f64::from(*v);
                    *avg = (*sum * inverse) as f32;
                }
            }
        }
        let taps = Taps { width: w, step: BESIDE, c_in: c, c_out: c, floor: 0.0 };
        let (plane, second) = self.planes.split_at_mut(1);
        for t in 0..many {
            let from = [0, 1, 2].map(|i| &plane[0][(t + 2 * i) * line..][..line]);
            let to = &mut second[0][(BEFORE + t) * line + BESIDE * c..][..w * c];
            taps.run(isa, from, &plan.convs[0], &plan.p.c1_b, to);
        }
        let mut entries = 0;
        if let Some(out) = &mut out {
            apply_in_place(isa, Function::Sigmoid, &mut self.scratch.gates);
            let s = &mut self.scratch;
            s.chosen.clear();
            for t in 0..many {
                let from = [0, 1, 2].map(|i| &second[0][(t + 2 * i) * line..][..line]);
                s.act.resize(w * c, 0.0);
                taps.run(isa, from, &plan.convs[1], &plan.p.c2_b, &mut s.act);
                choose(plan, s, first + t)?;
            }
            entries = s.chosen.entries();
            for (head, out) in out.iter_mut().enumerate() {
                let (k, v) = (
                    source.past(source.k, head, 0, first + many, d),
                    source.past(source.v, head, 0, first + many, d),
                );
                let q = source.now(source.q, head, first, many, d);
                let gates = &s.gates[head * many * 2..][..many * 2];
                s.chosen.attend(plan, head, [q, k, v], gates, out)?;
                let averages = s.averages[head * many * d..].chunks_exact(d);
                for ((out, avg), gate) in out.chunks_exact_mut(d).zip(averages).zip(gates.chunks_exact(2)) {
                    out.iter_mut().zip(avg).for_each(|(out, avg)| *out += (1.0 - gate[1]) * avg);
                }
            }
        }
        for plane in &mut self.planes {
            plane.copy_within(many * line..(many + BEFORE) * line, 0);
        }
        self.next += many;
        Ok(entries)
    }

    /// Linear attention and encoder of a head: `enc` and `gates` of its rows.
    fn encode(&mut self, plan: &Plan, source: &Source<'_>, head: usize, many: usize) {
        let (isa, m, wide, d) = (plan.isa, plan.m, plan.wide, plan.config.head_dim);
        let (s, sums) = (&mut self.scratch, &mut self.sums[head].linear);
        let [q, k, v] = source.own.map(|x| source.now(x, head, self.next, many, d));
        plan.features(&plan.queries, q, &mut s.fq);
        plan.features(&plan.keys, k, &mut s.fk);
        plan.augment(self.next, v, &mut s.values);
        s.turned.resize(m * many, 0.0);
        for i in 0..many {
            for j in 0..m {
                s.turned[j * many + i] = s.fk[i * m + j];
            }
        }
        s.weights.resize(many * many, 0.0);
        let among = Product { m: many, n: many, k: m, a: [m, 1], b: many, c: many };
        among.run(isa, &s.fq, &s.turned, &mut s.weights, false);
        for i in 0..many {
            s.weights[i * many + i + 1..(i + 1) * many].fill(0.0);
        }
        s.sums32.clear();
        s.sums32.extend(sums.iter().map(|x| *x as f32));
        s.read.resize(many * wide, 0.0);
        let before = Product { m: many, n: wide, k: m, a: [m, 1], b: wide, c: wide };
        before.run(isa, &s.fq, &s.sums32, &mut s.read, false);
        let inside = Product { m: many, n: wide, k: many, a: [many, 1], b: wide, c: wide };
        inside.run(isa, &s.weights, &s.values, &mut s.read, true);
        plan.add((&s.fk, &s.values), &mut s.part, sums);
        let enc = &mut s.enc[head * many * 2 * d..][..many * 2 * d];
        let gates = &mut s.gates[head * many * 2..][..many * 2];
        plan.encode((&s.read, v), &mut s.x, enc, gates);
    }

    /// Row decoder of a head: its channels of the first plane.
    fn decode(&mut self, plan: &Plan, head: usize, many: usize) {
        let config = &plan.config;
        let (d, w, c, split) = (config.head_dim, config.width(), config.channels(), config.splits());
        let s = &mut self.scratch;
        s.rows.resize(many * split * w, 0.0);
        let enc = &s.enc[head * many * 2 * d..][..many * 2 * d];
        plan.decoder.apply(plan.isa, many, enc, Some(&plan.p.dec_b), &mut s.rows);
        dispatch!(plan.isa, normalise(&mut s.rows, &plan.p.ln1_g, &plan.p.ln1_b));
        let line = (w + 2 * BESIDE) * c;
        for (t, rows) in s.rows.chunks_exact(split * w).enumerate() {
            let plane = &mut self.planes[0][(BEFORE + t) * line + BESIDE * c..][..w * c];
            let (zero, one) = rows.split_at(w);
            for ((place, zero), one) in plane.chunks_exact_mut(c).zip(zero).zip(one) {
                place[2 * head] = *zero;
                place[2 * head + 1] = *one;
            }
        }
    }
}

/// The estimate of query `t` from the second convolution, and the columns of its chosen cells, head by head.
fn choose(plan: &Plan, s: &mut Scratch, t: usize) -> Result<()> {
    let config = &plan.config;
    let (h, w, t_m) = (config.heads, config.width(), config.t_m);
    s.last.resize(w * h, 0.0);
    plan.last.apply(plan.isa, w, &s.act, Some(&plan.p.c3_b), &mut s.last);
    s.columns.resize(w * h, 0.0);
    for (x, place) in s.last.chunks_exact(h).enumerate() {
        for (head, value) in place.iter().enumerate() {
            s.columns[head * w + x] = *value;
        }
    }
    s.prob.resize(h * t_m, 0.0);
    for ((head, x), row) in s.columns.chunks_exact(w).enumerate().zip(s.prob.chunks_exact_mut(t_m)) {
        dispatch!(plan.isa, pool(plan.p.c3_b[head], x, row));
    }
    let prob = &mut s.prob;
    dispatch!(plan.isa, normalise(prob, &plan.p.ln2_g, &plan.p.ln2_b));
    dispatch!(plan.isa, lower(prob, t_m));
    apply_in_place(plan.isa, Function::Exp, prob);
    dispatch!(plan.isa, unit(prob, t_m));
    s.chosen.push(plan, &s.prob, t + 1)
}
