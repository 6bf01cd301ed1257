//! A layer laid out for inference in f32: what the causal stream and the bidirectional tiles share.

use kc_core::Isa;
use kc_core::math::Real;
use kc_core::neural::{Gelu, gelu};

use super::portable::{Product, dispatch};
use super::{SeaConfig, SeaParams};

/// A right operand in panels of the width of a register tile.
#[derive(Debug, Clone)]
pub(super) struct Panels {
    data: Vec<f32>,
    k: usize,
    n: usize,
    wide: usize,
}

impl Panels {
    /// Of `w` `[n, k]`, multiplied by `factor`.
    fn new<T: Real>(isa: Isa, w: &[T], k: usize, factor: f64) -> Self {
        let n = w.len() / k;
        let wide = if isa.level() >= kc_core::Level::Avx512 { 32 } else { 16 };
        let mut data = vec![0.0; n.next_multiple_of(wide) * k];
        for (i, row) in w.chunks_exact(k).enumerate() {
            for (j, x) in row.iter().enumerate() {
                data[(i / wide * k + j) * wide + i % wide] = (x.to_f64() * factor) as f32;
            }
        }
        Panels { data, k, n, wide }
    }

    /// `out = bias + x w^T`; `x` `[m, k]`, `out` `[m, n]`.
    pub(super) fn apply(&self, isa: Isa, m: usize, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        let Panels { k, n, wide, .. } = *self;
        if let Some(bias) = bias {
            out[..m * n].chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias));
        }
        for (panel, b) in self.data.chunks_exact(k * wide).enumerate() {
            let at = panel * wide;
            let p = Product { m, n: wide.min(n - at), k, a: [k, 1], b: wide, c: n };
            p.run(isa, x, b, &mut out[at..], bias.is_some());
        }
    }
}

/// What inference needs of a layer.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) isa: Isa,
    pub(super) config: SeaConfig,
    /// Random features.
    pub(super) m: usize,
    /// Augmented values, a place for the denominator, zeros up to whole registers.
    pub(super) wide: usize,
    pub(super) queries: Panels,
    pub(super) keys: Panels,
    encoder: Panels,
    pub(super) decoder: Panels,
    gates: Panels,
    /// The 3x3 convolutions by taps: two, or three in bidirectional layers.
    pub(super) convs: Vec<Vec<f32>>,
    /// The last convolution of causal layers, which is a product.
    pub(super) last: Panels,
    pub(super) p: SeaParams<f32>,
}

/// `[c_out, c_in, 3, 3]` as `[3][3][c_in][c_out]`.
fn by_taps(w: &[f32], c_in: usize) -> Vec<f32> {
    let c_out = w.len() / (9 * c_in);
    let mut out = vec![0.0; w.len()];
    for (at, x) in w.iter().enumerate() {
        let (o, i, tap) = (at / (9 * c_in), at / 9 % c_in, at % 9);
        out[(tap * c_in + i) * c_out + o] = *x;
    }
    out
}

impl Plan {
    pub(super) fn new<T: Real>(isa: Isa, config: &SeaConfig, params: &SeaParams<T>) -> Self {
        let (d, c) = (config.head_dim, config.channels());
        let root = (d as f64).powf(-0.25);
        let p: SeaParams<f32> = params.cast();
        let (scale, square, last): (f64, &[&[f32]], &[f32]) = if config.causal {
            (config.score_scale(), &[&p.c1_w, &p.c2_w], &p.c3_w)
        } else {
            (1.0, &[&p.c1_w, &p.c2_w, &p.c3_w], &[])
        };
        Plan {
            isa,
            config: config.clone(),
            m: config.features(),
            wide: (2 * d + 1).next_multiple_of(8),
            queries: Panels::new(isa, &params.proj, d, root * scale),
            keys: Panels::new(isa, &params.proj, d, root),
            encoder: Panels::new(isa, &params.enc_w, 3 * d, 1.0),
            decoder: Panels::new(isa, &params.dec_w, 2 * d, 1.0),
            gates: Panels::new(isa, &params.scale_w, 2 * d, 1.0),
            convs: square.iter().map(|w| by_taps(w, c)).collect(),
            last: Panels::new(isa, last, c, 1.0),
            p,
        }
    }

    /// Adds the products of some tokens' features `[tokens, m]` and augmented values `[tokens, wide]` to the sums of a
    /// head `[m, wide]`; `part` is scratch.
    pub(super) fn add(&self, (features, values): (&[f32], &[f32]), part: &mut Vec<f32>, sums: &mut [f64]) {
        let (m, wide) = (self.m, self.wide);
        part.resize(m * wide, 0.0);
        let k = features.len() / m;
        Product { m, n: wide, k, a: [1, m], b: wide, c: wide }.run(self.isa, features, values, part, false);
        sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += f64::from(*x));
    }

    /// Encodings `[many, 2d]` and gates `[many, 2]`, before the logistic function, from what the linear attention read
    /// `[many, wide]` and the values `[many, d]`; `x` is scratch.
    pub(super) fn encode(
        &self,
        (read, v): (&[f32], &[f32]),
        x: &mut Vec<f32>,
        enc: &mut [f32],
        gates: &mut [f32],
    ) {
        let (isa, wide, d) = (self.isa, self.wide, self.config.head_dim);
        let many = v.len() / d;
        x.resize(many * 3 * d, 0.0);
        for ((x, read), v) in x.chunks_exact_mut(3 * d).zip(read.chunks_exact(wide)).zip(v.chunks_exact(d)) {
            let inverse = 1.0 / read[2 * d];
            x[..2 * d].iter_mut().zip(read).for_each(|(x, y)| *x = y * inverse);
            x[2 * d..].copy_from_slice(v);
        }
        self.encoder.apply(isa, many, x, Some(&self.p.enc_b), enc);
        dispatch!(isa, normalise(enc, &self.p.enc_ln_g, &self.p.enc_ln_b));
        gelu(Gelu::Exact, enc);
        self.gates.apply(isa, many, enc, Some(&self.p.scale_b), gates);
    }
}
