//! The definitions in plain loops: slow, never tuned, what tests compare with.

use kc_core::{Result, Tensor, TensorView};

use super::{Assign, BcqMatrix, BcqSpec, Init, Method, Offset};

/// `sum_b alpha_b B_b + offset` for each element, in f64; columns in stored order.
pub fn dequantize(w: &BcqMatrix) -> Result<Tensor<f64, 2>> {
    Tensor::from_fn(w.shape(), |[n, j]| {
        let g = j / w.group();
        let mut value = f64::from(w.offset(n, g));
        for (b, &scale) in w.group_scales(n, g).iter().enumerate() {
            let plus = w.plane_row(b, n)[j / 8] >> (j % 8) & 1 == 1;
            value += if plus { f64::from(scale) } else { -f64::from(scale) };
        }
        value
    })
}

/// `x W^T + bias` in f64; columns of `x` in the order of the matrix.
pub fn product(x: TensorView<'_, f32, 2>, w: &BcqMatrix, bias: Option<&[f32]>) -> Result<Tensor<f64, 2>> {
    let dense = dequantize(w)?;
    Tensor::from_fn([x.rows(), w.shape()[0]], |[m, n]| {
        let mut sum = bias.map_or(0.0, |bias| f64::from(bias[n]));
        for j in 0..x.cols() {
            let column = w.order().map_or(j, |order| order[j] as usize);
            sum += f64::from(x.at([m, column])) * dense[[n, j]];
        }
        sum
    })
}

/// What bounds of errors are relative to: `sum_k |x_k| (sum_b |alpha_b| + |offset|) + |bias|`.
pub fn product_terms(
    x: TensorView<'_, f32, 2>,
    w: &BcqMatrix,
    bias: Option<&[f32]>,
) -> Result<Tensor<f64, 2>> {
    Tensor::from_fn([x.rows(), w.shape()[0]], |[m, n]| {
        let mut sum = bias.map_or(0.0, |bias| f64::from(bias[n].abs()));
        for j in 0..x.cols() {
            let column = w.order().map_or(j, |order| order[j] as usize);
            let g = j / w.group();
            let scales: f64 = w.group_scales(n, g).iter().map(|s| f64::from(s.abs())).sum();
            sum += f64::from(x.at([m, column]).abs()) * (scales + f64::from(w.offset(n, g).abs()));
        }
        sum
    })
}

/// `sum_(t<8) (2 bit_t(i) - 1) x[8 j + t]` for `i < 256`: `[ceil(K/8), 256]`, `x` continued by zeros.
pub fn table(x: &[f32]) -> Result<Tensor<f64, 2>> {
    Tensor::from_fn([x.len().div_ceil(8), 256], |[j, i]| {
        let signed = |t: usize| {
            let x = x.get(8 * j + t).map_or(0.0, |&x| f64::from(x));
            if i >> t & 1 == 1 { x } else { -x }
        };
        (0..8).map(signed).sum()
    })
}

/// One row of weights, solved group by group: the signs of each value (bit `i` for scale `i`), the scales `[G, q]` and
/// the offsets `[G]`. No importance beside `h`, no pruning, scales in f64.
pub fn quantize_row(w: &[f64], h: &[f64], group: usize, spec: &BcqSpec) -> (Vec<u8>, Vec<f64>, Vec<f64>) {
    let (mut codes, mut scales, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
    for (w, h) in w.chunks(group).zip(h.chunks(group)) {
        let mut best: Option<(f64, Group)> = None;
        let mut starts = Vec::new();
        if spec.init != Init::Uniform {
            starts.push(greedy(w, h, spec));
        }
        if spec.init != Init::Greedy {
            starts.push(uniform(w, usize::from(spec.bits)));
        }
        for mut state in starts {
            let rounds = if spec.method == Method::Greedy { 0 } else { spec.rounds };
            for round in 0..=rounds {
                if round > 0 {
                    state = turn(w, h, &state, spec);
                }
                let error = state.error(w, h);
                if best.as_ref().is_none_or(|(least, _)| error < *least) {
                    best = Some((error, state.clone()));
                }
            }
        }
        if let Some((_, state)) = best {
            codes.extend(state.codes);
            scales.extend(state.scales);
            offsets.push(state.offset);
        }
    }
    (codes, scales, offsets)
}

#[derive(Debug, Clone)]
struct Group {
    codes: Vec<u8>,
    scales: Vec<f64>,
    offset: f64,
}

fn sign(code: u8, i: usize) -> f64 {
    if code >> i & 1 == 1 { 1.0 } else { -1.0 }
}

impl Group {
    fn value(&self, code: u8) -> f64 {
        self.offset + self.scales.iter().enumerate().map(|(i, s)| s * sign(code, i)).sum::<f64>()
    }

    fn error(&self, w: &[f64], h: &[f64]) -> f64 {
        let one = |((w, h), &code): ((&f64, &f64), &u8)| h * (w - self.value(code)).powi(2);
        w.iter().zip(h).zip(&self.codes).map(one).sum()
    }
}

fn weighted_mean(w: &[f64], h: &[f64]) -> f64 {
    w.iter().zip(h).map(|(w, h)| w * h).sum::<f64>() / h.iter().sum::<f64>()
}

fn greedy(w: &[f64], h: &[f64], spec: &BcqSpec) -> Group {
    let offset = if spec.offset == Offset::None { 0.0 } else { weighted_mean(w, h) };
    let mut r: Vec<f64> = w.iter().map(|w| w - offset).collect();
    let mut out = Group { codes: vec![0; w.len()], scales: Vec::new(), offset };
    for i in 0..usize::from(spec.bits) {
        let sizes: Vec<f64> = r.iter().map(|r| r.abs()).collect();
        let scale = weighted_mean(&sizes, h);
        out.scales.push(scale);
        for (r, code) in r.iter_mut().zip(&mut out.codes) {
            *code |= u8::from(*r >= 0.0) << i;
            *r -= scale * sign(*code, i);
        }
    }
    out
}

fn uniform(w: &[f64], q: usize) -> Group {
    let low = w.iter().fold(0.0, |m: f64, &w| m.min(w));
    let high = w.iter().fold(0.0, |m: f64, &w| m.max(w));
    let most = f64::from((1u32 << q) - 1);
    let step = (high - low) / most;
    let code = |w: &f64| if step == 0.0 { 0 } else { ((w - low) / step).round_ties_even().min(most) as u8 };
    let scales: Vec<f64> = (0..q).map(|i| step / 2.0 * f64::from(1u32 << i)).collect();
    let offset = low + scales.iter().sum::<f64>();
    Group { codes: w.iter().map(code).collect(), scales, offset }
}

/// One round: least squares by conjugate gradients, magnitudes in falling order, assignment.
fn turn(w: &[f64], h: &[f64], state: &Group, spec: &BcqSpec) -> Group {
    let q = state.scales.len();
    let joint = spec.offset == Offset::Joint;
    let m = q + usize::from(joint);
    let column = |code: u8, i: usize| if i < q { sign(code, i) } else { 1.0 };
    let fixed = if joint { 0.0 } else { state.offset };
    let (mut a, mut b) = (vec![vec![0.0; m]; m], vec![0.0; m]);
    for ((w, h), &code) in w.iter().zip(h).zip(&state.codes) {
        for i in 0..m {
            for (j, a) in a[i].iter_mut().enumerate() {
                *a += h * column(code, i) * column(code, j);
            }
            b[i] += h * column(code, i) * (w - fixed);
        }
    }
    let x = conjugate_gradients(&a, &b);
    let mut scales: Vec<f64> = x[..q].iter().map(|x| x.abs()).collect();
    scales.sort_by(|a, b| b.total_cmp(a));
    let mut out = Group { codes: Vec::new(), scales, offset: if joint { x[q] } else { state.offset } };
    for &w in w {
        let mut code = 0;
        match spec.assign {
            Assign::Greedy => {
                let mut r = w - out.offset;
                for (i, scale) in out.scales.iter().enumerate() {
                    code |= u8::from(r >= 0.0) << i;
                    r -= scale * sign(code, i);
                }
            }
            Assign::Nearest => {
                let mut least = f64::INFINITY;
                for candidate in 0..1u32 << q {
                    let value = out.value(candidate as u8);
                    let away = (w - value).abs();
                    if away < least || away == least && value > out.value(code) {
                        (least, code) = (away, candidate as u8);
                    }
                }
            }
        }
        out.codes.push(code);
    }
    out
}

/// From zero, so that a singular system gives its shortest solution.
fn conjugate_gradients(a: &[Vec<f64>], b: &[f64]) -> Vec<f64> {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let (mut x, mut r, mut p) = (vec![0.0; b.len()], b.to_vec(), b.to_vec());
    let start = dot(b, b);
    for _ in 0..4 * b.len() {
        let before = dot(&r, &r);
        if before <= 1e-28 * start {
            break;
        }
        let ap: Vec<f64> = a.iter().map(|row| dot(row, &p)).collect();
        let step = before / dot(&p, &ap);
        for i in 0..b.len() {
            x[i] += step * p[i];
            r[i] -= step * ap[i];
        }
        let turn = dot(&r, &r) / before;
        for i in 0..b.len() {
            p[i] = r[i] + turn * p[i];
        }
    }
    x
}
