//! The solver of one group: greedy or uniform start, then least squares and assignment in turns.
//!
//! A value's signs are one byte, bit `i` set for `+1` of scale `i`; there are only `2^q` of them. So the sums of
//! the weights, and of the weighted values, of all that share a byte say everything that least squares needs: a
//! Walsh-Hadamard transform turns them into the Gram matrix and the right-hand side. A round reads the group
//! once.

use super::small::{self, MOST};
use crate::lut_gemm::{Assign, BcqSpec, Init, Method, Offset};

/// Levels of the most bits.
const LEVELS: usize = 256;

/// What a group is made of: `w ~ offset + sum_i (+-scales[i])`, scales falling.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) scales: [f64; 8],
    pub(super) offset: f64,
    /// The signs of each value.
    pub(super) codes: Vec<u8>,
    /// `sum h (w - value)^2`
    pub(super) error: f64,
}

impl State {
    fn new() -> Self {
        State { scales: [0.0; 8], offset: 0.0, codes: Vec::new(), error: f64::INFINITY }
    }

    fn set(&mut self, other: &Self) {
        self.scales = other.scales;
        self.offset = other.offset;
        self.error = other.error;
        self.codes.clone_from(&other.codes);
    }
}

/// Memory and settings for the groups of a row.
#[derive(Debug)]
pub(super) struct Solver {
    bits: usize,
    rounds: usize,
    assign: Assign,
    offset: Offset,
    init: Init,
    state: State,
    /// The best state of the group at hand.
    pub(super) best: State,
    /// Error of the best state after each round, the start being round 0.
    pub(super) errors: Vec<f64>,
    run_errors: Vec<f64>,
    /// Sum of the weights, and of weighted values, for each byte of signs.
    count: [f64; LEVELS],
    sum: [f64; LEVELS],
    residual: Vec<f64>,
}

impl Solver {
    pub(super) fn new(spec: &BcqSpec) -> Self {
        let rounds = if spec.method == Method::Greedy { 0 } else { spec.rounds as usize };
        Solver {
            bits: usize::from(spec.bits),
            rounds,
            assign: spec.assign,
            offset: spec.offset,
            init: spec.init,
            state: State::new(),
            best: State::new(),
            errors: vec![0.0; rounds + 1],
            run_errors: vec![0.0; rounds + 1],
            count: [0.0; LEVELS],
            sum: [0.0; LEVELS],
            residual: Vec::new(),
        }
    }

    /// Rounds behind the start.
    pub(super) fn rounds(&self) -> usize {
        self.rounds
    }

    /// Solves a group of values `w` with weights `h`, which are at least 0 and not all 0.
    pub(super) fn solve(&mut self, w: &[f64], h: &[f64]) {
        self.best.error = f64::INFINITY;
        self.errors.fill(f64::INFINITY);
        if self.init != Init::Uniform {
            self.start_greedy(w, h);
            self.improve(w, h);
        }
        if self.init != Init::Greedy {
            self.start_uniform(w, h, false);
            self.improve(w, h);
        }
        if self.init == Init::Best {
            // The grid of plain rounding, whose zero is an integer, is one more start where it is the best so far.
            self.start_uniform(w, h, true);
            if self.state.error < self.best.error {
                self.improve(w, h);
            }
        }
    }

    /// Rounds from the state at hand, which goes to the best one if it is better.
    fn improve(&mut self, w: &[f64], h: &[f64]) {
        let mut lowest = f64::INFINITY;
        let mut done = 0;
        for round in 0..=self.rounds {
            if round > 0 {
                self.least_squares();
                let before = std::mem::take(&mut self.state.codes);
                self.state.codes.reserve(w.len());
                match self.assign {
                    Assign::Nearest => self.assign_nearest(w, h),
                    Assign::Greedy => self.assign_greedy(w, h),
                }
                // The same signs have the same least squares: nothing will change any more.
                done = if before == self.state.codes { self.rounds } else { round };
            }
            lowest = lowest.min(self.state.error);
            if self.state.error < self.best.error {
                self.best.set(&self.state);
            }
            self.run_errors[round..=done.max(round)].fill(lowest);
            if done == self.rounds {
                break;
            }
        }
        for (error, run) in self.errors.iter_mut().zip(&self.run_errors) {
            *error = error.min(*run);
        }
    }

    /// Each scale is the mean magnitude of what the scales before it left.
    fn start_greedy(&mut self, w: &[f64], h: &[f64]) {
        let weight: f64 = h.iter().sum();
        let mean = || w.iter().zip(h).map(|(w, h)| w * h).sum::<f64>() / weight;
        let state = &mut self.state;
        state.offset = if self.offset == Offset::None { 0.0 } else { mean() };
        self.residual.clear();
        self.residual.extend(w.iter().map(|w| w - state.offset));
        state.scales = [0.0; 8];
        state.codes.clear();
        state.codes.resize(w.len(), 0);
        for i in 0..self.bits {
            let size = self.residual.iter().zip(h).map(|(r, h)| r.abs() * h).sum::<f64>() / weight;
            state.scales[i] = size;
            for (r, code) in self.residual.iter_mut().zip(&mut state.codes) {
                let plus = *r >= 0.0;
                *code |= u8::from(plus) << i;
                *r -= if plus { size } else { -size };
            }
        }
        // A group with a few large values can have a larger second scale.
        let order = falling(&state.scales, self.bits);
        let scales = state.scales;
        for (to, &from) in state.scales.iter_mut().zip(&order[..self.bits]) {
            *to = scales[from];
        }
        for code in &mut state.codes {
            let old = *code;
            *code = 0;
            for (to, &from) in order[..self.bits].iter().enumerate() {
                *code |= (old >> from & 1) << to;
            }
        }
        self.measure(w, h);
    }

    /// The grid of `2^q` equal steps from the smallest value (or 0) to the largest (or 0), shifted so that 0 is on
    /// it if `aligned`.
    fn start_uniform(&mut self, w: &[f64], h: &[f64], aligned: bool) {
        let most = f64::from((1u32 << self.bits) - 1);
        let low = w.iter().fold(0.0, |m: f64, &w| m.min(w));
        let high = w.iter().fold(0.0, |m: f64, &w| m.max(w));
        let step = (high - low) / most;
        // A group of zeros has one level, 0.
        let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
        let low = if aligned { -step * (-low * inverse).round_ties_even() } else { low };
        let state = &mut self.state;
        state.scales = [0.0; 8];
        for i in 0..self.bits {
            state.scales[i] = step / 2.0 * f64::from(1u32 << (self.bits - 1 - i));
        }
        state.offset = low + state.scales.iter().sum::<f64>();
        let shift = 8 - self.bits;
        state.codes.clear();
        state.codes.extend(w.iter().map(|w| {
            let code = ((w - low) * inverse).round_ties_even().clamp(0.0, most) as u8;
            // The first scale is the largest, which is the last bit of the grid's code.
            (code << shift).reverse_bits()
        }));
        self.measure(w, h);
    }

    /// Fills the sums and the error for signs that were not chosen by an assignment.
    fn measure(&mut self, w: &[f64], h: &[f64]) {
        let levels = self.levels();
        self.clear();
        let mut error = 0.0;
        for ((&w, &h), &code) in w.iter().zip(h).zip(&self.state.codes) {
            let code = usize::from(code);
            let e = w - levels[code];
            error += h * e * e;
            self.count[code] += h;
            self.sum[code] += h * w;
        }
        self.state.error = error;
    }

    fn clear(&mut self) {
        self.count[..1 << self.bits].fill(0.0);
        self.sum[..1 << self.bits].fill(0.0);
    }

    /// What each byte of signs stands for.
    fn levels(&self) -> [f64; LEVELS] {
        levels(&self.state.scales[..self.bits], self.state.offset)
    }

    /// New scales (and offset) for the signs at hand, whose sums are there; magnitudes, falling.
    fn least_squares(&mut self) {
        let q = self.bits;
        let (mut count, mut sum) = (self.count, self.sum);
        walsh(&mut count[..1 << q]);
        walsh(&mut sum[..1 << q]);
        // Entry `mask` is the sum over (-1)^(bits in common): a sign of +1 counts as -1.
        let total = count[0];
        let joint = self.offset == Offset::Joint;
        let m = q + usize::from(joint);
        let (mut a, mut b) = ([[0.0; MOST]; MOST], [0.0; MOST]);
        for i in 0..q {
            a[i][i] = 1.0;
            for j in 0..i {
                a[i][j] = count[1 << i | 1 << j] / total;
                a[j][i] = a[i][j];
            }
            b[i] = -sum[1 << i] / total;
            if joint {
                a[i][q] = -count[1 << i] / total;
                a[q][i] = a[i][q];
            } else {
                b[i] += self.state.offset * count[1 << i] / total;
            }
        }
        if joint {
            a[q][q] = 1.0;
            b[q] = sum[0] / total;
        }
        let x = small::solve(&a, &b, m);
        let mut scales = [0.0; 8];
        for i in 0..q {
            scales[i] = x[i].abs();
        }
        let order = falling(&scales, q);
        for i in 0..q {
            self.state.scales[i] = scales[order[i]];
        }
        if joint {
            self.state.offset = x[q];
        }
    }

    /// The nearest of all levels; a value in the middle takes the upper one.
    fn assign_nearest(&mut self, w: &[f64], h: &[f64]) {
        let sorted = Sorted::of(&self.state.scales[..self.bits], self.state.offset);
        self.clear();
        let mut error = 0.0;
        for (&w, &h) in w.iter().zip(h) {
            let at = sorted.nearest(w);
            let code = sorted.codes[at];
            let e = w - sorted.levels[at];
            error += h * e * e;
            self.count[usize::from(code)] += h;
            self.sum[usize::from(code)] += h * w;
            self.state.codes.push(code);
        }
        self.state.error = error;
    }

    /// The signs of successive residuals.
    fn assign_greedy(&mut self, w: &[f64], h: &[f64]) {
        for &w in w {
            let code = greedy_code(&self.state.scales[..self.bits], self.state.offset, w);
            self.state.codes.push(code);
        }
        self.measure(w, h);
    }
}

/// The signs of successive residuals of `w`, `+1` for 0.
fn greedy_code(scales: &[f64], offset: f64, w: f64) -> u8 {
    let (mut r, mut code) = (w - offset, 0);
    for (i, &scale) in scales.iter().enumerate() {
        let plus = r >= 0.0;
        code |= u8::from(plus) << i;
        r -= if plus { scale } else { -scale };
    }
    code
}

/// What each byte of signs stands for.
pub(super) fn levels(scales: &[f64], offset: f64) -> [f64; LEVELS] {
    let mut out = [0.0; LEVELS];
    out[0] = offset - scales.iter().sum::<f64>();
    for (i, scale) in scales.iter().enumerate() {
        for code in 0..1usize << i {
            out[code | 1 << i] = out[code] + 2.0 * scale;
        }
    }
    out
}

/// The levels in rising order, to find the nearest one of a value.
#[derive(Debug)]
pub(super) struct Sorted {
    levels: [f64; LEVELS],
    codes: [u8; LEVELS],
    /// Between a level and the next.
    middles: [f64; LEVELS],
    bits: usize,
}

impl Sorted {
    pub(super) fn of(scales: &[f64], offset: f64) -> Self {
        let (bits, by_code) = (scales.len(), levels(scales, offset));
        let used = 1usize << bits;
        let mut out =
            Sorted { levels: [0.0; LEVELS], codes: [0; LEVELS], middles: [f64::INFINITY; LEVELS], bits };
        for (code, slot) in out.codes[..used].iter_mut().enumerate() {
            *slot = code as u8;
        }
        out.codes[..used].sort_by(|&a, &b| by_code[usize::from(a)].total_cmp(&by_code[usize::from(b)]));
        for i in 0..used {
            out.levels[i] = by_code[usize::from(out.codes[i])];
        }
        for i in 1..used {
            out.middles[i - 1] = 0.5 * (out.levels[i - 1] + out.levels[i]);
        }
        out
    }

    /// The place of the level that is nearest to `w`.
    #[inline(always)]
    fn nearest(&self, w: f64) -> usize {
        let (mut at, mut half) = (0, 1usize << self.bits >> 1);
        while half > 0 {
            at += if w >= self.middles[(at + half - 1) % LEVELS] { half } else { 0 };
            half >>= 1;
        }
        at % LEVELS
    }

    /// The signs of the level that is nearest to `w`.
    pub(super) fn code(&self, w: f64) -> u8 {
        self.codes[self.nearest(w)]
    }
}

/// The order in which `scales[..count]` fall; equal ones as they are.
fn falling(scales: &[f64; 8], count: usize) -> [usize; 8] {
    let mut order = [0, 1, 2, 3, 4, 5, 6, 7];
    order[..count].sort_by(|&a, &b| scales[b].total_cmp(&scales[a]));
    order
}

/// The transform of Walsh and Hadamard: entry `m` becomes `sum_c (-1)^popcount(c & m) x[c]`.
fn walsh(x: &mut [f64]) {
    let mut half = 1;
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}
