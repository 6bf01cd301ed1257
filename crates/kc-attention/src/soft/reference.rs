//! The definition in plain loops: everything in f64, the whole of `K1` stored, one head after the other.

use kc_core::neural::{Gelu, LayerNorm, gelu, gelu_backward};
use kc_core::{KcRng, Result, Tensor, TensorView};

use super::{Inverse, LN_EPS, Landmark, Scalar, SoftConfig};

/// What [`soft_attention`] gives.
#[derive(Debug, Clone)]
pub struct Forward {
    /// The result, `[B, h, N, d]`.
    pub x: Tensor<f64, 4>,
    /// For each batch entry and head.
    pub heads: Vec<HeadForward>,
}

/// What a head gives; rows one after the other.
#[derive(Debug, Clone)]
pub struct HeadForward {
    /// The landmarks that exist, `[m, d]`.
    pub landmarks: Vec<f64>,
    /// Their kernel, `[m, m]`.
    pub a: Vec<f64>,
    /// Its inverse, after normalisation if there is one, `[m, m]`.
    pub inverse: Vec<f64>,
    qs: Vec<f64>,
    v: Vec<f64>,
    k: Vec<f64>,
    y: Vec<f64>,
    e: Vec<f64>,
    before: Vec<f64>,
    patches: Vec<Vec<usize>>,
}

/// Gradients of [`soft_attention`], all in f64.
#[derive(Debug, Clone)]
pub struct Backward {
    /// By `q`.
    pub dq: Tensor<f64, 4>,
    /// By `v`.
    pub dv: Tensor<f64, 4>,
    /// By the convolution's weights, `[d, d, rows, columns]`; zeros without one.
    pub d_conv_w: Tensor<f64, 4>,
    /// By its normalisation's scale.
    pub d_gamma: Vec<f64>,
    /// By its normalisation's shift.
    pub d_beta: Vec<f64>,
    /// By the local kernels; empty without them.
    pub d_local: Vec<f64>,
}

/// `a b` for `a` `[l, m]` and `b` `[m, n]`.
fn times(a: &[f64], b: &[f64], [l, m, n]: [usize; 3]) -> Vec<f64> {
    let mut out = vec![0.0; l * n];
    for i in 0..l {
        for k in 0..m {
            for j in 0..n {
                out[i * n + j] += a[i * m + k] * b[k * n + j];
            }
        }
    }
    out
}

/// `a` `[m, n]` with rows and columns exchanged.
fn turned(a: &[f64], [m, n]: [usize; 2]) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            out[j * m + i] = a[i * n + j];
        }
    }
    out
}

/// `exp(-|a_i - b_j|^2 / 2)` of points with `d` coordinates.
pub fn gaussian(a: &[f64], b: &[f64], d: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for x in a.chunks_exact(d) {
        for y in b.chunks_exact(d) {
            let distance: f64 = x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum();
            out.push((-0.5 * distance).exp());
        }
    }
    out
}

/// The inverse of a symmetric matrix `[m, m]`, step for step as defined; an exact one by elimination. The pseudo-inverse is the
/// exact inverse here: give it regular matrices.
pub fn inverse(a: &[f64], m: usize, how: &Inverse) -> Vec<f64> {
    let plus = |ridge: f64| {
        let mut p = a.to_vec();
        (0..m).for_each(|i| p[i * m + i] += ridge);
        p
    };
    let row_sum = (0..m).map(|i| a[i * m..(i + 1) * m].iter().sum::<f64>()).fold(0.0, f64::max);
    let cube = [m, m, m];
    let iterate = |p: &[f64], alpha: f64, iters: usize| {
        let mut v: Vec<f64> = p.iter().map(|p| alpha * p).collect();
        for _ in 0..iters {
            let vpv = times(&times(&v, p, cube), &v, cube);
            v.iter_mut().zip(vpv).for_each(|(v, w)| *v = 2.0 * *v - w);
        }
        v
    };
    match *how {
        Inverse::Newton { iters, ridge } => iterate(&plus(ridge), 1.8 / (row_sum * row_sum), iters),
        Inverse::NewtonBacktrack { iters } => {
            let mut alpha = 2.0 / (row_sum * row_sum);
            for _ in 0..10 {
                let square = times(a, a, cube);
                let unit = |i: usize, j: usize| if i == j { 1.0 } else { 0.0 };
                let column =
                    |j: usize| (0..m).map(|i| (unit(i, j) - alpha * square[i * m + j]).abs()).sum::<f64>();
                if (0..m).map(column).fold(0.0, f64::max) <= 1.01 {
                    break;
                }
                alpha /= 2.0;
            }
            iterate(a, alpha, iters)
        }
        Inverse::Exact { ridge } => eliminate(plus(ridge), m),
        Inverse::Pinv { .. } => eliminate(a.to_vec(), m),
    }
}

/// The inverse by Gauss and Jordan's elimination.
fn eliminate(mut a: Vec<f64>, m: usize) -> Vec<f64> {
    let mut out = vec![0.0; m * m];
    (0..m).for_each(|i| out[i * m + i] = 1.0);
    for p in 0..m {
        let pivot = a[p * m + p];
        for j in 0..m {
            a[p * m + j] /= pivot;
            out[p * m + j] /= pivot;
        }
        for i in (0..m).filter(|&i| i != p) {
            let factor = a[i * m + p];
            for j in 0..m {
                a[i * m + j] -= factor * a[p * m + j];
                out[i * m + j] -= factor * out[p * m + j];
            }
        }
    }
    out
}

/// Rows and columns of the grid, and those of a patch.
fn sides<T: Scalar>(config: &SoftConfig<'_, T>) -> ([usize; 2], [usize; 2]) {
    (config.grid.sides(), config.grid.patch(config.ratio))
}

/// The tokens of each patch that count, patch by patch in rows; patches without any are left out.
fn patches<T: Scalar>(config: &SoftConfig<'_, T>, counts: &[bool]) -> Vec<Vec<usize>> {
    let ([height, width], [rows, columns]) = sides(config);
    let mut out = Vec::new();
    for i in 0..height / rows {
        for j in 0..width / columns {
            let mut tokens = Vec::new();
            for r in 0..rows {
                for c in 0..columns {
                    tokens.push((i * rows + r) * width + j * columns + c);
                }
            }
            if tokens.iter().any(|&t| counts[t]) {
                out.push(tokens);
            }
        }
    }
    out
}

/// Softmax-free attention: as [`super::soft_attention`].
///
/// # Errors
/// If the memory for the result cannot be had. Arguments are not checked.
pub fn soft_attention<T: Scalar>(
    q: TensorView<'_, T, 4>,
    v: TensorView<'_, T, 4>,
    landmark: &Landmark<'_, T>,
    config: &SoftConfig<'_, T>,
) -> Result<Forward> {
    let [batch, heads, n, d] = q.shape();
    let mut x = Tensor::zeros(q.shape())?;
    let mut all = Vec::new();
    for b in 0..batch {
        let counts: Vec<bool> = (0..n).map(|i| config.mask.is_none_or(|mask| mask.at([b, i]) != 0)).collect();
        for h in 0..heads {
            let read = |x: TensorView<'_, T, 4>, scale: f64| {
                let mut out = Vec::new();
                for i in 0..n {
                    for c in 0..d {
                        out.push(if counts[i] { x.at([b, h, i, c]).to_f64() * scale } else { 0.0 });
                    }
                }
                out
            };
            let (qs, v) = (read(q, (d as f64).powf(-0.25)), read(v, 1.0));
            let patches = patches(config, &counts);
            let (landmarks, before) = landmarks_of(&qs, d, &patches, &counts, landmark, [b, h])?;
            let m = landmarks.len() / d;
            let mut k = gaussian(&qs, &landmarks, d);
            for i in (0..n).filter(|&i| !counts[i]) {
                k[i * m..(i + 1) * m].fill(0.0);
            }
            let a = gaussian(&landmarks, &landmarks, d);
            let y = inverse(&a, m, &config.inverse);
            let e: Vec<f64> = if config.norm {
                (0..m).map(|i| a[i * m..(i + 1) * m].iter().sum::<f64>().powf(-0.5)).collect()
            } else {
                vec![1.0; m]
            };
            let inverse: Vec<f64> = (0..m * m).map(|i| e[i / m] * y[i] * e[i % m]).collect();
            let sums = times(&turned(&k, [n, m]), &v, [m, n, d]);
            let rows = times(&k, &times(&inverse, &sums, [m, m, d]), [n, m, d]);
            for i in 0..n {
                for c in 0..d {
                    let local = local_at(config, &v, d, h, i, c);
                    x[[b, h, i, c]] = if counts[i] { rows[i * d + c] + local } else { 0.0 };
                }
            }
            all.push(HeadForward { landmarks, a, inverse, qs, v, k, y, e, before, patches });
        }
    }
    Ok(Forward { x, heads: all })
}

/// Landmarks of a head, and what a convolution gave before normalisation.
fn landmarks_of<T: Scalar>(
    qs: &[f64],
    d: usize,
    patches: &[Vec<usize>],
    counts: &[bool],
    landmark: &Landmark<'_, T>,
    [b, h]: [usize; 2],
) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut out = Vec::new();
    match landmark {
        Landmark::Conv { w, gamma, beta } => {
            let mut before = Vec::new();
            let [_, _, _, columns] = w.shape();
            for tokens in patches {
                for o in 0..d {
                    let mut sum = 0.0;
                    for (t, token) in tokens.iter().enumerate() {
                        for i in 0..d {
                            sum += w.at([o, i, t / columns, t % columns]).to_f64() * qs[token * d + i];
                        }
                    }
                    before.push(sum);
                }
            }
            let wide = |x: &[T]| x.iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
            out = vec![0.0; before.len()];
            LayerNorm { gamma: &wide(gamma), beta: &wide(beta), eps: LN_EPS }.forward(&before, &mut out)?;
            gelu(Gelu::Exact, &mut out);
            return Ok((out, before));
        }
        Landmark::AvgPool | Landmark::MaxPool => {
            for tokens in patches {
                let seen: Vec<usize> = tokens.iter().copied().filter(|&t| counts[t]).collect();
                for c in 0..d {
                    let values = seen.iter().map(|t| qs[t * d + c]);
                    out.push(match landmark {
                        Landmark::AvgPool => values.sum::<f64>() / seen.len() as f64,
                        _ => values.fold(f64::NEG_INFINITY, f64::max),
                    });
                }
            }
        }
        Landmark::Random { seed } => {
            let mut tokens: Vec<usize> = (0..counts.len()).filter(|&i| counts[i]).collect();
            KcRng::new(*seed, 0).shuffle(&mut tokens);
            tokens.truncate(patches.len());
            tokens.sort_unstable();
            tokens.iter().for_each(|t| out.extend_from_slice(&qs[t * d..(t + 1) * d]));
        }
        Landmark::Given(given) => {
            for j in 0..given.shape()[2] {
                (0..d).for_each(|c| out.push(given.at([b, h, j, c]).to_f64()));
            }
        }
    }
    Ok((out, Vec::new()))
}

/// Neighbours of token `i` under the local kernels: `(row of the kernel, column, token)`.
fn around<T: Scalar>(config: &SoftConfig<'_, T>, i: usize) -> Vec<[usize; 3]> {
    let Some(kernels) = config.local else { return Vec::new() };
    let (([height, width], _), [_, tall, wide]) = (sides(config), kernels.shape());
    let mut out = Vec::new();
    for a in 0..tall {
        for b in 0..wide {
            let (y, x) = (i / width + a, i % width + b);
            if y >= tall / 2 && y - tall / 2 < height && x >= wide / 2 && x - wide / 2 < width {
                out.push([a, b, (y - tall / 2) * width + x - wide / 2]);
            }
        }
    }
    out
}

fn local_at<T: Scalar>(config: &SoftConfig<'_, T>, v: &[f64], d: usize, h: usize, i: usize, c: usize) -> f64 {
    let tap = |a, b| config.local.map_or(0.0, |kernels| kernels.at([h, a, b]).to_f64());
    around(config, i).iter().map(|&[a, b, t]| tap(a, b) * v[t * d + c]).sum()
}

/// The gradients of a result, for landmarks of a convolution, by means, or given.
///
/// # Errors
/// If the memory cannot be had. Arguments are not checked.
pub fn soft_attention_backward<T: Scalar>(
    forward: &Forward,
    landmark: &Landmark<'_, T>,
    config: &SoftConfig<'_, T>,
    dx: TensorView<'_, T, 4>,
) -> Result<Backward> {
    let [_, heads, n, d] = dx.shape();
    let (_, [rows, columns]) = sides(config);
    let taps = config.local.map_or([0; 3], |kernels| kernels.shape());
    let mut out = Backward {
        dq: Tensor::zeros(dx.shape())?,
        dv: Tensor::zeros(dx.shape())?,
        d_conv_w: Tensor::zeros([d, d, rows, columns])?,
        d_gamma: vec![0.0; d],
        d_beta: vec![0.0; d],
        d_local: vec![0.0; taps.iter().product()],
    };
    for (at, head) in forward.heads.iter().enumerate() {
        let (b, h, m) = (at / heads, at % heads, head.landmarks.len() / d);
        let counts: Vec<bool> = (0..n).map(|i| config.mask.is_none_or(|mask| mask.at([b, i]) != 0)).collect();
        let dx: Vec<f64> = (0..n * d)
            .map(|i| if counts[i / d] { dx.at([b, h, i / d, i % d]).to_f64() } else { 0.0 })
            .collect();
        let kt = turned(&head.k, [n, m]);
        let sums = times(&kt, &head.v, [m, n, d]);
        let t = times(&head.inverse, &sums, [m, m, d]);
        let u = times(&kt, &dx, [m, n, d]);
        let r = times(&turned(&head.inverse, [m, m]), &u, [m, m, d]);
        let dv = times(&head.k, &r, [n, m, d]);
        let mut g1 = times(&dx, &turned(&t, [m, d]), [n, d, m]);
        let more = times(&head.v, &turned(&r, [m, d]), [n, d, m]);
        for i in 0..n * m {
            g1[i] = (g1[i] + more[i]) * head.k[i];
        }
        // Through the normalisation to the inverse and to the row sums of A.
        let d_inverse = times(&u, &turned(&sums, [m, d]), [m, d, m]);
        let mut d_y = vec![0.0; m * m];
        let mut d_sum = vec![0.0; m];
        for i in 0..m {
            for j in 0..m {
                d_y[i * m + j] = head.e[i] * d_inverse[i * m + j] * head.e[j];
                if config.norm {
                    let part = d_inverse[i * m + j] * head.y[i * m + j];
                    d_sum[i] -= 0.5 * head.e[i].powi(3) * part * head.e[j];
                    d_sum[j] -= 0.5 * head.e[j].powi(3) * part * head.e[i];
                }
            }
        }
        let yt = turned(&head.y, [m, m]);
        let d_a = times(&times(&yt, &d_y, [m, m, m]), &yt, [m, m, m]);
        let mut d_landmarks = vec![0.0; m * d];
        let mut d_qs = vec![0.0; n * d];
        for i in 0..m {
            for j in 0..m {
                let g = (d_sum[i] - d_a[i * m + j]) * head.a[i * m + j];
                for c in 0..d {
                    let apart = head.landmarks[j * d + c] - head.landmarks[i * d + c];
                    d_landmarks[i * d + c] += g * apart;
                    d_landmarks[j * d + c] -= g * apart;
                }
            }
        }
        for i in 0..n {
            for j in 0..m {
                for c in 0..d {
                    let apart = head.landmarks[j * d + c] - head.qs[i * d + c];
                    d_qs[i * d + c] += g1[i * m + j] * apart;
                    d_landmarks[j * d + c] -= g1[i * m + j] * apart;
                }
            }
        }
        match landmark {
            Landmark::Conv { w, gamma, beta } => {
                let wide = |x: &[T]| x.iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
                let (gamma, beta) = (wide(gamma), wide(beta));
                let norm = LayerNorm { gamma: &gamma, beta: &beta, eps: LN_EPS };
                let mut normal = vec![0.0; m * d];
                norm.forward(&head.before, &mut normal)?;
                gelu_backward(Gelu::Exact, &normal, &mut d_landmarks)?;
                let mut dz = vec![0.0; m * d];
                norm.backward(&head.before, &d_landmarks, &mut dz, &mut out.d_gamma, &mut out.d_beta)?;
                for (j, tokens) in head.patches.iter().enumerate() {
                    for (t, &token) in tokens.iter().enumerate() {
                        for o in 0..d {
                            for i in 0..d {
                                let index = [o, i, t / columns, t % columns];
                                out.d_conv_w[index] += dz[j * d + o] * head.qs[token * d + i];
                                d_qs[token * d + i] += dz[j * d + o] * w.at(index).to_f64();
                            }
                        }
                    }
                }
            }
            Landmark::AvgPool => {
                for (j, tokens) in head.patches.iter().enumerate() {
                    let seen: Vec<usize> = tokens.iter().copied().filter(|&t| counts[t]).collect();
                    for token in &seen {
                        (0..d)
                            .for_each(|c| d_qs[token * d + c] += d_landmarks[j * d + c] / seen.len() as f64);
                    }
                }
            }
            Landmark::Given(_) | Landmark::MaxPool | Landmark::Random { .. } => {}
        }
        let scale = (d as f64).powf(-0.25);
        for i in (0..n).filter(|&i| counts[i]) {
            for c in 0..d {
                out.dq[[b, h, i, c]] = d_qs[i * d + c] * scale;
                out.dv[[b, h, i, c]] += dv[i * d + c];
            }
            for [y, x, token] in around(config, i) {
                let tap = config.local.map_or(0.0, |kernels| kernels.at([h, y, x]).to_f64());
                for c in (0..d).filter(|_| counts[token]) {
                    out.dv[[b, h, token, c]] += tap * dx[i * d + c];
                    out.d_local[(h * taps[1] + y) * taps[2] + x] += dx[i * d + c] * head.v[token * d + c];
                }
            }
        }
    }
    Ok(out)
}
