//! The definition in plain loops, in f64: slow, never tuned, never called by the rest.

use kc_core::{Error, Result, TensorView};

use super::{Group, SeaConfig, SeaParams, Span};

/// What the definition says about one batch entry.
#[derive(Debug, Clone)]
pub struct Reference {
    /// `[H, T, t_m]`
    pub est_score: Vec<f64>,
    /// `[H, T, t_m]`
    pub est_prob: Vec<f64>,
    /// `[H, T, t_m]`
    pub keep: Vec<bool>,
    /// Entries of the sparse matrix, by query, then head: keys, rising.
    pub entries: Vec<Vec<Vec<usize>>>,
    /// `[H, T, d]`
    pub out: Vec<f64>,
}

/// A plane `[rows][width][channels]`; 0 outside.
struct Plane {
    rows: usize,
    width: usize,
    channels: usize,
    data: Vec<f64>,
}

impl Plane {
    fn new(rows: usize, width: usize, channels: usize, f: impl Fn(usize, usize, usize) -> f64) -> Self {
        let mut data = Vec::new();
        for r in 0..rows {
            for x in 0..width {
                for c in 0..channels {
                    data.push(f(r, x, c));
                }
            }
        }
        Plane { rows, width, channels, data }
    }

    fn at(&self, r: isize, x: isize, c: usize) -> f64 {
        if r < 0 || x < 0 || r as usize >= self.rows || x as usize >= self.width {
            return 0.0;
        }
        self.data[(r as usize * self.width + x as usize) * self.channels + c]
    }

    /// A convolution of 3x3 taps at these row and column offsets.
    fn conv(&self, w: &[f64], b: &[f64], rows: usize, stride: isize, at: [[isize; 3]; 2]) -> Plane {
        Plane::new(rows, self.width, b.len(), |r, x, o| {
            let mut sum = b[o];
            for i in 0..self.channels {
                for (ri, dr) in at[0].iter().enumerate() {
                    for (ci, dx) in at[1].iter().enumerate() {
                        let seen = self.at(r as isize * stride + dr, x as isize + dx, i);
                        sum += w[((o * self.channels + i) * 3 + ri) * 3 + ci] * seen;
                    }
                }
            }
            sum
        })
    }

    fn relu(mut self) -> Plane {
        self.data.iter_mut().for_each(|x| *x = x.max(0.0));
        self
    }
}

fn norm(x: &[f64], gamma: &[f64], beta: &[f64]) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let scale = 1.0 / (variance + 1e-5).sqrt();
    (0..x.len()).map(|i| (x[i] - mean) * scale * gamma[i] + beta[i]).collect()
}

fn affine(x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
    (0..b.len()).map(|o| b[o] + dot(&w[o * x.len()..(o + 1) * x.len()], x)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn softmax(x: &[f64]) -> Vec<f64> {
    kc_core::math::reference::softmax(x)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The layer on one batch entry: `q`, `k`, `v` `[H, T, d]`, of which `len` tokens are valid.
///
/// # Errors
/// Bad settings, or shapes that do not fit them.
pub fn forward(
    config: &SeaConfig,
    p: &SeaParams<f64>,
    [q, k, v]: [TensorView<'_, f64, 3>; 3],
    len: usize,
) -> Result<Reference> {
    config.check()?;
    let [h, t, d] = q.shape();
    if h != config.heads || d != config.head_dim || k.shape() != q.shape() || v.shape() != q.shape() {
        return Err(Error::shape("q", format!("[{}, T, {}]", config.heads, config.head_dim), &q.shape()));
    }
    if len == 0 || len > t {
        return Err(Error::argument("len", format!("1 to {t}"), len));
    }
    let (w, t_m, m, s) = (config.width(), config.t_m, config.features(), config.splits());
    let row = |x: TensorView<'_, f64, 3>, head: usize, t: usize| -> Vec<f64> {
        (0..d).map(|c| x.at([head, t, c])).collect()
    };
    let padded = |t: usize| t >= len;
    let seen = |t: usize| if config.causal { t + 1 } else { len };
    let scale = config.score_scale();
    let root = (d as f64).powf(-0.25);

    // Linear attention on values with their places, and the encoder.
    let mut enc = vec![vec![Vec::new(); t]; h];
    for (head, enc) in enc.iter_mut().enumerate() {
        let dash =
            |x: &[f64]| -> Vec<f64> { (0..m).map(|i| dot(&p.proj[i * d..(i + 1) * d], x) * root).collect() };
        let live = if config.mask_padding { len } else { t };
        let tokens = |x: TensorView<'_, f64, 3>, t: usize| -> Vec<f64> {
            if config.mask_padding && padded(t) { vec![0.0; d] } else { row(x, head, t) }
        };
        let key_max = (0..live).flat_map(|t| dash(&tokens(k, t))).fold(f64::NEG_INFINITY, f64::max);
        let feature = |x: &[f64], is_key: bool| -> Vec<f64> {
            if config.causal {
                let x: Vec<f64> = x.iter().map(|x| if is_key { *x } else { x * scale }).collect();
                return dash(&x).into_iter().map(|y| y.max(0.0) + 1e-3).collect();
            }
            let dash = dash(x);
            let own = dash.iter().fold(f64::NEG_INFINITY, |m, x| m.max(*x));
            let shift = dot(x, x) / (2.0 * (d as f64).sqrt()) + if is_key { key_max } else { own };
            dash.iter().map(|y| ((y - shift).exp() + 1e-4) / (m as f64).sqrt()).collect()
        };
        let place = |t: usize, c: usize| -> f64 {
            if padded(t) {
                0.0
            } else if config.causal {
                p.pos[t * d + c]
            } else {
                let at = if len > 1 { t as f64 / (len - 1) as f64 * (d - 1) as f64 } else { 0.0 };
                (1.0 - (at - c as f64).abs()).max(0.0)
            }
        };
        let value = |t: usize, c: usize| if padded(t) { 0.0 } else { v.at([head, t, c]) };
        let keys: Vec<Vec<f64>> = (0..live).map(|t| feature(&tokens(k, t), true)).collect();
        for (i, enc) in enc.iter_mut().enumerate() {
            let query = feature(&tokens(q, i), false);
            let (mut sums, mut below) = (vec![0.0; 2 * d], 0.0);
            for (j, key) in keys.iter().enumerate() {
                if config.causal && j > i {
                    continue;
                }
                let weight = dot(&query, key);
                below += weight;
                for c in 0..d {
                    sums[c] += weight * place(j, c);
                    sums[d + c] += weight * value(j, c);
                }
            }
            if config.causal {
                below += 1e-6 * query.iter().sum::<f64>();
            }
            let mut x: Vec<f64> = sums.iter().map(|x| x / below).collect();
            x.extend((0..d).map(|c| value(i, c)));
            let y = norm(&affine(&x, &p.enc_w, &p.enc_b), &p.enc_ln_g, &p.enc_ln_b);
            let half = std::f64::consts::FRAC_1_SQRT_2;
            let erf = kc_core::math::reference::erf;
            *enc = y.iter().map(|y| y * 0.5 * (1.0 + erf(y * half))).collect();
        }
    }

    // Row decoder and convolutions.
    let rows = |head: usize, t: usize| affine(&enc[head][t], &p.dec_w, &p.dec_b);
    let decoded: Vec<Vec<Vec<f64>>> = (0..h).map(|head| (0..t).map(|t| rows(head, t)).collect()).collect();
    let plane = Plane::new(t, w, h * s, |t, x, c| {
        let part = &decoded[c / s][t][c % s * w..(c % s + 1) * w];
        if config.causal { norm(part, &p.ln1_g, &p.ln1_b)[x] } else { part[x] }
    });
    let mut est_score = Vec::new();
    if config.causal {
        let at = [[-4, -2, 0], [-2, 0, 2]];
        let second = plane.conv(&p.c1_w, &p.c1_b, t, 1, at).relu().conv(&p.c2_w, &p.c2_b, t, 1, at).relu();
        for head in 0..h {
            for t in 0..t {
                let cell = |x: usize| -> f64 {
                    let mut sum = p.c3_b[head];
                    if x > 0 && x <= t_m {
                        for c in 0..h * s {
                            sum +=
                                p.c3_w[head * h * s + c] * second.at(t as isize, ((x - 1) / 4) as isize, c);
                        }
                    }
                    sum
                };
                let pooled: Vec<f64> = (0..t_m)
                    .map(|j| {
                        let (from, to) = (j * (t_m + 2) / t_m, ((j + 1) * (t_m + 2)).div_ceil(t_m));
                        (from..to).map(cell).sum::<f64>() / (to - from) as f64
                    })
                    .collect();
                est_score.extend(norm(&pooled, &p.ln2_g, &p.ln2_b));
            }
        }
    } else {
        let (near, half) = ([[-1, 0, 1], [-1, 0, 1]], t.div_ceil(2));
        let second =
            plane.conv(&p.c1_w, &p.c1_b, half, 2, near).relu().conv(&p.c2_w, &p.c2_b, half, 1, near).relu();
        let twice = Plane::new(2 * half, w, h * s, |r, x, c| second.at((r / 2) as isize, x as isize, c));
        let last = twice.conv(&p.c3_w, &p.c3_b, 2 * half, 1, near);
        let place = |i: usize, from: usize, to: usize| -> (usize, usize, f64) {
            let x = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
            let low = (x.floor() as usize).min(from - 1);
            (low, (low + 1).min(from - 1), x - low as f64)
        };
        for head in 0..h {
            for i in 0..t {
                let (r0, r1, down) = place(i, 2 * half, t);
                for j in 0..t_m {
                    let (x0, x1, across) = place(j, w, t_m);
                    let at = |r: usize, x: usize| last.at(r as isize, x as isize, head);
                    let upper = (1.0 - across) * at(r0, x0) + across * at(r0, x1);
                    let lower = (1.0 - across) * at(r1, x0) + across * at(r1, x1);
                    est_score.push((1.0 - down) * upper + down * lower);
                }
            }
        }
    }
    let mut est_prob = Vec::new();
    for (i, score) in est_score.chunks_exact(t_m).enumerate() {
        est_prob.extend(if padded(i % t) { vec![0.0; t_m] } else { softmax(score) });
    }

    // The largest cells of each group, by sorting.
    let mut keep = vec![false; h * t * t_m];
    let budget = config.k * config.oversample;
    let id = |head: usize, t_: usize, b: usize| (head * t + t_) * t_m + b;
    let queries = |head: usize, from: usize, to: usize| -> Vec<usize> {
        (from..to).flat_map(|i| (0..t_m).map(move |b| id(head, i, b))).collect()
    };
    let mut groups: Vec<(Vec<usize>, f64)> = Vec::new();
    match config.group {
        Group::CausalBatch => {
            for i in 0..len {
                let all = (0..h).flat_map(|head| queries(head, i, i + 1)).collect();
                groups.push((all, h as f64 * budget * t_m as f64 / seen(i) as f64));
            }
        }
        Group::Query => {
            for (head, i) in (0..h).flat_map(|head| (0..len).map(move |i| (head, i))) {
                groups.push((queries(head, i, i + 1), budget * t_m as f64 / len as f64));
            }
        }
        Group::Head => {
            for head in 0..h {
                groups.push((queries(head, 0, len), budget * t_m as f64));
            }
        }
        Group::Batch => {
            let all = (0..h).flat_map(|head| queries(head, 0, len)).collect();
            groups.push((all, h as f64 * budget * t_m as f64));
        }
    }
    for (mut cells, many) in groups {
        cells.sort_by(|a, b| est_prob[*b].total_cmp(&est_prob[*a]).then(a.cmp(b)));
        let many = (many.round_ties_even().max(1.0) as usize).min(cells.len());
        cells[..many].iter().for_each(|&cell| keep[cell] = true);
    }

    // Columns, exact attention on them, and the mixture.
    let span = match config.max_span {
        Span::K => (config.k.floor() as usize).max(1),
        Span::At(n) => n,
        Span::All => usize::MAX,
    };
    let edge = |x: usize, width: usize| ((x * width) as f64 / t_m as f64 + 0.5).floor() as usize;
    let mut entries = vec![vec![Vec::new(); h]; t];
    let mut out = vec![0.0; h * t * d];
    for head in 0..h {
        let mut column = vec![0.0; t_m];
        for i in 0..t {
            (0..t_m).for_each(|b| column[b] += est_prob[id(head, i, b)] / t as f64);
        }
        for i in 0..t {
            let width = seen(i);
            for b in (0..t_m).filter(|&b| keep[id(head, i, b)]) {
                let (start, end) = (edge(b, width), edge(b + 1, width));
                let (long, many) = (end - start, (end - start).min(span));
                let mut cols: Vec<usize> = (0..many).map(|n| end - 1 - n * long / many).collect();
                cols.reverse();
                entries[i][head].extend(cols);
            }
            let gates = affine(&enc[head][i], &p.scale_w, &p.scale_b);
            let gate = if config.partial_scaler { sigmoid(gates[0]) } else { 1.0 };
            let share = sigmoid(gates[1]);
            let query = row(q, head, i);
            let scores: Vec<f64> =
                entries[i][head].iter().map(|&j| scale * dot(&query, &row(k, head, j))).collect();
            let weights = softmax(&scores);
            for c in 0..d {
                let at = |j: &usize| v.at([head, *j, c]);
                let sparse: f64 = entries[i][head].iter().zip(&weights).map(|(j, w)| w * at(j)).sum();
                let average: f64 = if config.causal {
                    (0..=i).map(|j| at(&j)).sum::<f64>() / (i + 1) as f64
                } else {
                    (0..len).map(|j| column[((2 * j + 1) * t_m).div_ceil(2 * len) - 1] * at(&j)).sum()
                };
                out[(head * t + i) * d + c] = share * gate * sparse + (1.0 - share) * average;
            }
        }
    }
    Ok(Reference { est_score, est_prob, keep, entries, out })
}
