//! Linear attention with random features: what the estimator reads.
//!
//! Bidirectional layers use softmax features of `q` and `k`,
//! `f(x) = m^-1/2 (exp(P x d^-1/4 - |x|^2 / (2 sqrt d) - max) + 1e-4)`, where `max` is that of `P x d^-1/4` over the
//! features of a query, or over all keys and features of a head. Causal layers use ReLU features of `scale q` and `k`,
//! `f(x) = relu(P x d^-1/4) + 1e-3`, and add 1e-6 to the sum of key features. Sums over tokens run in f64.

use kc_core::math::{Real, exp_in_place};
use kc_core::{Error, Isa, Result, Tensor, TensorView};
use rayon::prelude::*;

use super::portable::{Product, times_transposed};

/// Which features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Features {
    /// Positive features whose products estimate `exp(q . k / sqrt d)`.
    Softmax,
    /// Rectified projections.
    Relu,
}

/// Added to softmax features.
pub(super) const SOFTMAX_FLOOR: f64 = 1e-4;
/// Added to ReLU features.
pub(super) const RELU_FLOOR: f64 = 1e-3;
/// Added to causal sums of key features.
pub(super) const SUM_FLOOR: f64 = 1e-6;

/// The projections `[m, d]` and how features are made of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map<'a, T> {
    pub(super) proj: &'a [T],
    pub(super) d: usize,
    pub(super) kind: Features,
    /// Factor of ReLU queries.
    pub(super) scale: f64,
    pub(super) causal: bool,
    /// Keys from here on do not count.
    pub(super) keys: usize,
}

/// One head: features of queries and keys `[t, m]`, denominators, results.
#[derive(Debug, Clone)]
pub(super) struct Head<T> {
    fq: Vec<T>,
    fk: Vec<T>,
    den: Vec<f64>,
    pub(super) ctx: Vec<T>,
}

/// Gradients by `q`, `k` `[t, d]` and the augmented values `[t, width]`.
#[derive(Debug)]
pub(super) struct HeadGrads<T> {
    pub(super) q: Vec<T>,
    pub(super) k: Vec<T>,
    pub(super) values: Vec<T>,
}

impl<T: Real> Map<'_, T> {
    fn m(&self) -> usize {
        self.proj.len() / self.d
    }

    /// `P x d^-1/4`, `[t, m]`, `x` multiplied by `factor` first.
    fn project(&self, isa: Isa, x: &[T], factor: f64) -> Vec<T> {
        let (m, t) = (self.m(), x.len() / self.d);
        let mut out = vec![T::ZERO; t * m];
        times_transposed(isa, [t, m, self.d], x, self.proj, &mut out, false);
        let scale = T::from_f64((self.d as f64).powf(-0.25) * factor);
        out.iter_mut().for_each(|x| *x = *x * scale);
        out
    }

    /// `|x|^2 / (2 sqrt d)`.
    fn half_square(&self, x: &[T]) -> T {
        let sum: f64 = x.iter().map(|x| x.to_f64() * x.to_f64()).sum();
        T::from_f64(sum / (2.0 * (self.d as f64).sqrt()))
    }

    fn softmax(&self, x: &[T], dash: &mut [T], most: impl Fn(&[T]) -> T) {
        let (m, floor) = (self.m(), T::from_f64(SOFTMAX_FLOOR));
        let root = T::from_f64((m as f64).powf(-0.5));
        for (x, dash) in x.chunks_exact(self.d).zip(dash.chunks_exact_mut(m)) {
            let shift = self.half_square(x) + most(dash);
            dash.iter_mut().for_each(|x| *x = *x - shift);
            exp_in_place(dash);
            dash.iter_mut().for_each(|x| *x = root * (*x + floor));
        }
    }

    /// Features of queries.
    pub(super) fn queries(&self, isa: Isa, q: &[T]) -> Vec<T> {
        match self.kind {
            Features::Softmax => {
                let mut dash = self.project(isa, q, 1.0);
                self.softmax(q, &mut dash, largest);
                dash
            }
            Features::Relu => rectified(self.project(isa, q, self.scale)),
        }
    }

    /// Features of keys; those that do not count are 0.
    pub(super) fn keys(&self, isa: Isa, k: &[T]) -> Vec<T> {
        let live = self.keys.min(k.len() / self.d);
        let mut out = match self.kind {
            Features::Softmax => {
                let mut dash = self.project(isa, k, 1.0);
                let most = largest(&dash[..live * self.m()]);
                self.softmax(k, &mut dash, |_| most);
                dash
            }
            Features::Relu => rectified(self.project(isa, k, 1.0)),
        };
        out[live * self.m()..].fill(T::ZERO);
        out
    }

    /// Back from features to what was projected.
    fn back(&self, isa: Isa, x: &[T], f: &[T], df: &mut [T], factor: f64) -> Vec<T> {
        let (m, d, t) = (self.m(), self.d, x.len() / self.d);
        match self.kind {
            Features::Softmax => {
                let floor = T::from_f64((m as f64).powf(-0.5) * SOFTMAX_FLOOR);
                // Features that do not count are 0, and have no slope.
                let slope = |f: T| if f == T::ZERO { T::ZERO } else { f - floor };
                df.iter_mut().zip(f).for_each(|(df, f)| *df = *df * slope(*f));
            }
            Features::Relu => {
                let floor = T::from_f64(RELU_FLOOR);
                df.iter_mut().zip(f).for_each(|(df, f)| *df = if *f > floor { *df } else { T::ZERO });
            }
        }
        let mut dx = vec![T::ZERO; t * d];
        Product { m: t, n: d, k: m, a: [m, 1], b: d, c: d }.run(isa, df, self.proj, &mut dx, false);
        let scale = T::from_f64((d as f64).powf(-0.25) * factor);
        dx.iter_mut().for_each(|x| *x = *x * scale);
        if self.kind == Features::Softmax {
            let inverse = 1.0 / (d as f64).sqrt();
            for ((dx, x), df) in dx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(df.chunks_exact(m)) {
                let along = T::from_f64(df.iter().map(|x| x.to_f64()).sum::<f64>() * inverse);
                dx.iter_mut().zip(x).for_each(|(dx, x)| *dx = *dx - along * *x);
            }
        }
        dx
    }

    /// Linear attention of one head: `q`, `k` `[t, d]`, `values` `[t, width]`.
    pub(super) fn forward(&self, isa: Isa, q: &[T], k: &[T], values: &[T]) -> Head<T> {
        let (m, t) = (self.m(), q.len() / self.d);
        let width = values.len().checked_div(t).unwrap_or(0);
        let (fq, fk) = (self.queries(isa, q), self.keys(isa, k));
        let mut state = State::new(m, width, self.causal);
        if !self.causal {
            (0..t).for_each(|s| state.add(&fk[s * m..][..m], &values[s * width..][..width]));
        }
        let (mut ctx, mut den) = (vec![T::ZERO; t * width], Vec::with_capacity(t));
        let mut sums = vec![0.0; width + 1];
        for s in 0..t {
            if self.causal {
                state.add(&fk[s * m..][..m], &values[s * width..][..width]);
            }
            state.read(&fq[s * m..][..m], &mut sums);
            den.push(sums[width]);
            for (to, from) in ctx[s * width..][..width].iter_mut().zip(&sums) {
                *to = T::from_f64(from / sums[width]);
            }
        }
        Head { fq, fk, den, ctx }
    }

    /// From the gradient by the result to those by the inputs. The maxima and the projections are constants.
    pub(super) fn backward(
        &self,
        isa: Isa,
        [q, k, values]: [&[T]; 3],
        head: &Head<T>,
        d_ctx: &[T],
    ) -> HeadGrads<T> {
        let (m, t) = (self.m(), q.len() / self.d);
        let width = values.len().checked_div(t).unwrap_or(0);
        // The gradient by numerators and, last, by the denominator of each query.
        let mut d_sums = vec![0.0f64; t * (width + 1)];
        for s in 0..t {
            let (d_ctx, ctx) = (&d_ctx[s * width..][..width], &head.ctx[s * width..][..width]);
            let d_sums = &mut d_sums[s * (width + 1)..][..width + 1];
            let mut along = 0.0;
            for j in 0..width {
                d_sums[j] = d_ctx[j].to_f64() / head.den[s];
                along += d_sums[j] * ctx[j].to_f64();
            }
            d_sums[width] = -along;
        }
        let (mut dfq, mut dfk) = (vec![T::ZERO; t * m], vec![T::ZERO; t * m]);
        let mut d_values = vec![T::ZERO; t * width];
        let mut state = State::new(m, width, self.causal);
        if !self.causal {
            (0..t).for_each(|s| state.add(&head.fk[s * m..][..m], &values[s * width..][..width]));
        }
        for s in 0..t {
            if self.causal {
                state.add(&head.fk[s * m..][..m], &values[s * width..][..width]);
            }
            state.rows(&d_sums[s * (width + 1)..][..width + 1], &mut dfq[s * m..][..m]);
        }
        let mut later = State { sums: vec![0.0; m * (width + 1)], width };
        if !self.causal {
            (0..t).for_each(|s| {
                later.add_wide(&head.fq[s * m..][..m], &d_sums[s * (width + 1)..][..width + 1])
            });
        }
        let (mut sums, mut wide) = (vec![0.0; width + 1], vec![1.0f64; width + 1]);
        for s in (0..t).rev() {
            if self.causal {
                later.add_wide(&head.fq[s * m..][..m], &d_sums[s * (width + 1)..][..width + 1]);
            }
            for (wide, v) in wide.iter_mut().zip(&values[s * width..][..width]) {
                *wide = v.to_f64();
            }
            later.rows(&wide, &mut dfk[s * m..][..m]);
            later.read(&head.fk[s * m..][..m], &mut sums);
            for (to, from) in d_values[s * width..][..width].iter_mut().zip(&sums) {
                *to = T::from_f64(*from);
            }
        }
        let factor = if self.kind == Features::Relu { self.scale } else { 1.0 };
        HeadGrads {
            q: self.back(isa, q, &head.fq, &mut dfq, factor),
            k: self.back(isa, k, &head.fk, &mut dfk, 1.0),
            values: d_values,
        }
    }
}

/// Where token `t` of `len` stands, over the channels of `out`: the identity stretched over the tokens.
pub(super) fn place<T: Real>(t: usize, len: usize, out: &mut [T]) {
    let at = if len > 1 { t as f64 / (len - 1) as f64 * (out.len() - 1) as f64 } else { 0.0 };
    for (c, x) in out.iter_mut().enumerate() {
        *x = T::from_f64((1.0 - (at - c as f64).abs()).max(0.0));
    }
}

fn largest<T: Real>(x: &[T]) -> T {
    x.iter().fold(-T::INFINITY, |m, &x| if x > m { x } else { m })
}

fn rectified<T: Real>(mut x: Vec<T>) -> Vec<T> {
    let floor = T::from_f64(RELU_FLOOR);
    x.iter_mut().for_each(|x| *x = if *x > T::ZERO { *x } else { T::ZERO } + floor);
    x
}

/// Sums over tokens of `f_k [v, 1]^T`, `[m, width + 1]`, in f64.
#[derive(Debug, Clone)]
pub(super) struct State {
    sums: Vec<f64>,
    width: usize,
}

impl State {
    pub(super) fn new(m: usize, width: usize, causal: bool) -> Self {
        let mut sums = vec![0.0; m * (width + 1)];
        if causal {
            sums.iter_mut().skip(width).step_by(width + 1).for_each(|x| *x = SUM_FLOOR);
        }
        State { sums, width }
    }

    /// Adds a token.
    pub(super) fn add<T: Real>(&mut self, f: &[T], values: &[T]) {
        for (f, row) in f.iter().zip(self.sums.chunks_exact_mut(self.width + 1)) {
            let f = f.to_f64();
            row.iter_mut().zip(values).for_each(|(sum, v)| *sum += f * v.to_f64());
            row[self.width] += f;
        }
    }

    fn add_wide<T: Real>(&mut self, f: &[T], values: &[f64]) {
        for (f, row) in f.iter().zip(self.sums.chunks_exact_mut(self.width + 1)) {
            let f = f.to_f64();
            row.iter_mut().zip(values).for_each(|(sum, v)| *sum += f * v);
        }
    }

    /// `f^T S`: numerators and, last, the denominator.
    pub(super) fn read<T: Real>(&self, f: &[T], out: &mut [f64]) {
        out.fill(0.0);
        for (f, row) in f.iter().zip(self.sums.chunks_exact(self.width + 1)) {
            let f = f.to_f64();
            out.iter_mut().zip(row).for_each(|(out, x)| *out += f * x);
        }
    }

    /// `S x`.
    fn rows<T: Real>(&self, x: &[f64], out: &mut [T]) {
        for (out, row) in out.iter_mut().zip(self.sums.chunks_exact(self.width + 1)) {
            *out = T::from_f64(row.iter().zip(x).map(|(a, b)| a * b).sum());
        }
    }
}

/// Linear attention of `q`, `k` `[N, H, T, d]` and `v` `[N, H, T, e]` with the directions `proj` `[m, d]`; `[N, H, T, e]`.
///
/// ReLU queries are not scaled here: multiply `q` before. Cost: `2 T m (d + e)` products per head.
///
/// # Errors
/// Shapes that do not fit.
pub fn linear_attention<T: Real>(
    q: TensorView<'_, T, 4>,
    k: TensorView<'_, T, 4>,
    v: TensorView<'_, T, 4>,
    proj: TensorView<'_, T, 2>,
    features: Features,
    causal: bool,
) -> Result<Tensor<T, 4>> {
    let [n, h, t, d] = q.shape();
    if k.shape() != q.shape() {
        return Err(Error::shape("k", format!("{:?} to match q", q.shape()), &k.shape()));
    }
    if v.shape()[..3] != [n, h, t] {
        return Err(Error::shape("v", format!("[{n}, {h}, {t}, e] to match q"), &v.shape()));
    }
    if d == 0 || proj.cols() != d || proj.rows() == 0 {
        return Err(Error::shape("proj", format!("[m, {d}]"), &proj.shape()));
    }
    let e = v.shape()[3];
    let (q, k, v, proj) = (q.to_tensor()?, k.to_tensor()?, v.to_tensor()?, proj.to_tensor()?);
    let mut out = Tensor::zeros([n, h, t, e])?;
    if out.is_empty() {
        return Ok(out);
    }
    let map = Map { proj: proj.as_slice(), d, kind: features, scale: 1.0, causal, keys: t };
    out.as_mut_slice().par_chunks_exact_mut(t * e).enumerate().for_each(|(i, out)| {
        let (q, k) = (&q.as_slice()[i * t * d..][..t * d], &k.as_slice()[i * t * d..][..t * d]);
        let v = &v.as_slice()[i * t * e..][..t * e];
        out.copy_from_slice(&map.forward(Isa::best(), q, k, v).ctx);
    });
    Ok(out)
}
