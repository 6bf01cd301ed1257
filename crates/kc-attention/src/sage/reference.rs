//! The definition, step by step, in plain loops with sums in f64. Only numbers that the algorithm rounds are rounded.

use kc_core::{Result, Tensor, TensorView, f16};
use kc_quant::fp8;

use super::{Granularity, PvMode, QkBits, SageConfig};
use crate::{Attention, Dims, Mask, Select};

/// Attention of `q` over `k` and `v`, as [`sage_attention`](super::sage_attention). The logarithms of the sums are always
/// there; `check_finite` and `isa` mean nothing here.
///
/// # Errors
/// Shapes and options that do not fit.
pub fn sage_attention(
    q: TensorView<'_, f32, 4>,
    k: TensorView<'_, f32, 4>,
    v: TensorView<'_, f32, 4>,
    mask: &Mask<'_>,
    config: &SageConfig,
) -> Result<Attention<f32>> {
    config.check()?;
    let [q, k, v] = [q, k, v].map(|x| config.layout.heads_first(x));
    let (q, k, v) = (q?, k?, v?);
    let dims = Dims::of(q.shape(), k.shape(), v.shape())?;
    let mask = mask.broadcast(&dims)?;
    let [b, h, n, d] = q.shape();
    let mut out = Tensor::<f32, 4>::zeros(config.layout.shape([b, h, n, d]))?;
    let mut lse = Tensor::<f32, 3>::zeros([b, h, n])?;
    for batch in 0..b {
        for head in 0..h {
            let kv = dims.kv_head(head);
            let rows = |x: TensorView<'_, f32, 4>, head: usize, n: usize| -> Vec<Vec<f32>> {
                (0..n).map(|i| (0..d).map(|c| x.at([batch, head, i, c])).collect()).collect()
            };
            let scores = Scores::new(&rows(q, head, n), &rows(k, kv, dims.keys), config);
            let values = Values::new(&rows(v, kv, dims.keys), config);
            for i in 0..n {
                let visible = |j: usize| -> f64 {
                    let seen = j < mask.end(i, &dims);
                    match mask.select {
                        _ if !seen => f64::NEG_INFINITY,
                        Select::All => 0.0,
                        Select::Keep(keep) if keep.at([batch, head, i, j]) == 0 => f64::NEG_INFINITY,
                        Select::Keep(_) => 0.0,
                        Select::Add(add) => f64::from(add.at([batch, head, i, j])),
                    }
                };
                let row: Vec<f64> = (0..dims.keys).map(|j| scores.at(i, j) + visible(j)).collect();
                let (o, l) = attend(&row, &values, config);
                for (c, o) in o.iter().enumerate() {
                    out[config.layout.shape([batch, head, i, c])] = *o as f32;
                }
                lse[[batch, head, i]] = (l + scores.shift(i)) as f32;
            }
        }
    }
    Ok(Attention { out, lse: Some(lse) })
}

/// The quantised scores of a head.
struct Scores {
    scale: f64,
    q: Vec<Vec<f32>>,
    km: Vec<f32>,
    smooth: Vec<Vec<f32>>,
    qm: Vec<Vec<f32>>,
    block: usize,
    codes: [Vec<Vec<i32>>; 2],
    steps: [Vec<f32>; 2],
}

impl Scores {
    fn new(q: &[Vec<f32>], k: &[Vec<f32>], config: &SageConfig) -> Self {
        let d = k[0].len();
        let km = if config.smooth_k { mean(k) } else { vec![0.0; d] };
        let smooth: Vec<Vec<f32>> = k.iter().map(|row| minus(row, &km)).collect();
        let on = config.smooth_q.unwrap_or(config.bits == QkBits::Int4);
        let qm: Vec<Vec<f32>> =
            q.chunks(config.blkq).map(|rows| if on { mean(rows) } else { vec![0.0; d] }).collect();
        let centred: Vec<Vec<f32>> =
            q.iter().enumerate().map(|(i, row)| minus(row, &qm[i / config.blkq])).collect();
        let (q_codes, q_steps) = codes(&centred, config, [config.blkq, config.warpq, 1]);
        let (k_codes, k_steps) = codes(&smooth, config, [config.blkk, config.warpk, 2]);
        let scale = config.scale.map_or_else(|| 1.0 / (d as f64).sqrt(), f64::from);
        Scores {
            scale,
            q: q.to_vec(),
            km,
            smooth,
            qm,
            block: config.blkq,
            codes: [q_codes, k_codes],
            steps: [q_steps, k_steps],
        }
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        let product: i32 = self.codes[0][i].iter().zip(&self.codes[1][j]).map(|(a, b)| a * b).sum();
        let quantised = f64::from(product) * f64::from(self.steps[0][i]) * f64::from(self.steps[1][j]);
        self.scale * (quantised + dot(&self.qm[i / self.block], &self.smooth[j]))
    }

    /// What smoothing the keys took from every score of query `i`.
    fn shift(&self, i: usize) -> f64 {
        self.scale * dot(&self.q[i], &self.km)
    }
}

/// Codes of rows, and the step of each row.
fn codes(
    rows: &[Vec<f32>],
    config: &SageConfig,
    [block, warp, run]: [usize; 3],
) -> (Vec<Vec<i32>>, Vec<f32>) {
    let limit = if config.bits == QkBits::Int8 { 127.0f32 } else { 7.0 };
    let same = |a: usize, b: usize| match config.granularity {
        Granularity::PerTensor => true,
        Granularity::PerBlock => a / block == b / block,
        Granularity::PerWarp => a / warp == b / warp,
        Granularity::PerThread => a / warp == b / warp && a % 8 / run == b % 8 / run,
        Granularity::PerToken => a == b,
    };
    let size = |row: &Vec<f32>| row.iter().fold(1e-7f32, |m, x| m.max(x.abs()));
    let sizes: Vec<f32> = rows.iter().map(size).collect();
    let amax = |r: usize| {
        let members = sizes.iter().enumerate().filter(|(other, _)| same(r, *other));
        members.fold(1e-7f32, |m, (_, size)| m.max(*size))
    };
    let amax: Vec<f32> = (0..rows.len()).map(amax).collect();
    let code = |x: f32, amax: f32| (x * (limit / amax)).round_ties_even().clamp(-limit, limit) as i32;
    let codes = rows.iter().zip(&amax).map(|(row, m)| row.iter().map(|x| code(*x, *m)).collect()).collect();
    (codes, amax.iter().map(|m| m / limit).collect())
}

/// The values of a head as the mode stores them.
struct Values {
    /// What is multiplied with the weights.
    stored: Vec<Vec<f64>>,
    /// What the sum of a channel is multiplied with.
    factor: Vec<f64>,
    /// What is added in the end.
    mean: Vec<f32>,
}

impl Values {
    fn new(v: &[Vec<f32>], config: &SageConfig) -> Self {
        let d = v[0].len();
        let vm = if config.smooth_v { mean(v) } else { vec![0.0; d] };
        let v: Vec<Vec<f32>> = v.iter().map(|row| minus(row, &vm)).collect();
        let delta = |range: f32| -> Vec<f32> {
            let of = |c: usize| v.iter().fold(0.0f32, |m, row| m.max(row[c].abs())) / range;
            (0..d).map(of).map(|delta| if delta == 0.0 { 1.0 } else { delta }).collect()
        };
        let (delta, weight) = match config.pv {
            PvMode::F32 | PvMode::F16 { .. } => (vec![1.0; d], 1.0),
            PvMode::Int8 => (delta(127.0), 255.0),
            PvMode::Fp8 => (delta(448.0), 448.0),
            PvMode::Fp8F16Acc => (delta(2.25), 448.0),
        };
        let store = |x: f32, delta: f32| -> f64 {
            f64::from(match config.pv {
                PvMode::F32 => x,
                PvMode::F16 { .. } => f16::from_f32(x).to_f32(),
                PvMode::Int8 => (x / delta).round_ties_even().clamp(-127.0, 127.0),
                PvMode::Fp8 | PvMode::Fp8F16Acc => fp8::round(x / delta),
            })
        };
        let stored =
            v.iter().map(|row| row.iter().zip(&delta).map(|(x, d)| store(*x, *d)).collect()).collect();
        // The weights of Int8 and of the denominator are integers; all others are numbers up to 1.
        let unit = if config.pv == PvMode::Int8 { 1.0 } else { weight };
        Values { stored, factor: delta.iter().map(|d| f64::from(*d) / unit).collect(), mean: vm }
    }
}

/// Output and logarithm of the sum of one row of scores.
fn attend(scores: &[f64], values: &Values, config: &SageConfig) -> (Vec<f64>, f64) {
    let d = values.factor.len();
    let (mut top, mut exact, mut sum) = (f64::NEG_INFINITY, 0.0, 0.0);
    let mut out = vec![0.0f64; d];
    for (tile, scores) in scores.chunks(config.blkk).enumerate() {
        let next = scores.iter().fold(top, |m, s| m.max(*s));
        if next == f64::NEG_INFINITY {
            continue;
        }
        let shrink = (top - next).exp();
        top = next;
        exact *= shrink;
        sum *= shrink;
        let mut part = vec![0.0f64; d];
        for (j, s) in scores.iter().enumerate() {
            let p = (s - top).exp();
            exact += p;
            let (weight, counted) = match config.pv {
                PvMode::F32 => (p, p),
                PvMode::F16 { .. } => {
                    let half = f64::from(f16::from_f32(p as f32).to_f32());
                    (half, half)
                }
                PvMode::Int8 => {
                    let code = (255.0 * p).round_ties_even();
                    (code, code)
                }
                PvMode::Fp8 | PvMode::Fp8F16Acc => (f64::from(fp8::round(448.0 * p as f32)), p),
            };
            sum += counted;
            for (part, v) in part.iter_mut().zip(&values.stored[tile * config.blkk + j]) {
                *part += weight * v;
                if config.pv == (PvMode::F16 { f16_accum: true }) {
                    *part = f64::from(f16::from_f32(*part as f32).to_f32());
                }
            }
        }
        out.iter_mut().zip(&part).for_each(|(out, part)| *out = *out * shrink + part);
    }
    if top == f64::NEG_INFINITY {
        return (vec![0.0; d], top);
    }
    let finish = |((o, factor), mean): ((&f64, &f64), &f32)| o * factor / sum + f64::from(*mean);
    (out.iter().zip(&values.factor).zip(&values.mean).map(finish).collect(), top + exact.ln())
}

fn mean(rows: &[Vec<f32>]) -> Vec<f32> {
    let of = |c: usize| rows.iter().map(|row| f64::from(row[c])).sum::<f64>() / rows.len() as f64;
    (0..rows[0].len()).map(|c| of(c) as f32).collect()
}

fn minus(row: &[f32], mean: &[f32]) -> Vec<f32> {
    row.iter().zip(mean).map(|(x, m)| x - m).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
