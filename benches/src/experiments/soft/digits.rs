//! A classifier of one block on real digits, with softmax-free attention and with softmax, trained alike.

use anyhow::Context as _;
use kc_attention::soft::{BlockWeights, Grid, SoftAttention, SoftBlock, SoftWeights};
use kc_attention::{AttentionConfig, Mask, attention, attention_backward};
use kc_core::neural::{Gelu, LayerNorm, gelu, gelu_backward};
use kc_core::optim::Adam;
use kc_core::{KcRng, Tensor, TensorView};
use kc_gemm::gemm;
use kc_testing::golden_tensor;

use crate::experiments::Ctx;

const TOKENS: usize = 64;
const WIDTH: usize = 32;
const HEADS: usize = 2;
const CLASSES: usize = 10;
const BATCH: usize = 64;
const TRAINING: usize = 1297;

type Matrix = Tensor<f32, 2>;

fn random<const N: usize>(shape: [usize; N], scale: f64, rng: &mut KcRng) -> anyhow::Result<Tensor<f32, N>> {
    Ok(Tensor::from_fn(shape, |_| (scale * rng.normal()) as f32)?)
}

fn add(to: &mut [f32], x: &[f32]) {
    to.iter_mut().zip(x).for_each(|(a, b)| *a += b);
}

fn column_sums(x: &Matrix) -> Vec<f32> {
    let mut sums = vec![0.0; x.shape()[1]];
    x.as_slice().chunks_exact(sums.len()).for_each(|row| add(&mut sums, row));
    sums
}

/// `x W^T + b`
fn linear(x: &Matrix, w: &[f32], b: &[f32]) -> anyhow::Result<Matrix> {
    let w = TensorView::from_slice([b.len(), x.shape()[1]], w)?;
    let mut y = gemm(x.view(), w.transposed())?;
    y.as_mut_slice().chunks_exact_mut(b.len()).for_each(|row| add(row, b));
    Ok(y)
}

/// Gradients by `x`, `w` and `b`.
fn linear_backward(x: &Matrix, w: &[f32], dy: &Matrix) -> anyhow::Result<(Matrix, Vec<f32>, Vec<f32>)> {
    let w = TensorView::from_slice([dy.shape()[1], x.shape()[1]], w)?;
    let dw = gemm(dy.view().transposed(), x.view())?;
    Ok((gemm(dy.view(), w)?, dw.into_vec(), column_sums(dy)))
}

fn norm(x: &Matrix, gamma: &[f32], beta: &[f32]) -> anyhow::Result<Matrix> {
    let mut y = Tensor::zeros(x.shape())?;
    LayerNorm { gamma, beta, eps: 1e-5 }.forward(x.as_slice(), y.as_mut_slice())?;
    Ok(y)
}

/// Gradients by `x`, `gamma` and `beta`.
fn norm_backward(x: &Matrix, gamma: &[f32], dy: &Matrix) -> anyhow::Result<(Matrix, Vec<f32>, Vec<f32>)> {
    let mut dx = Tensor::zeros(x.shape())?;
    let (mut dg, mut db) = (vec![0.0; gamma.len()], vec![0.0; gamma.len()]);
    let layer = LayerNorm { gamma, beta: gamma, eps: 1e-5 };
    layer.backward(x.as_slice(), dy.as_slice(), dx.as_mut_slice(), &mut dg, &mut db)?;
    let narrow = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect();
    Ok((dx, narrow(dg), narrow(db)))
}

/// The same block with softmax attention. Parameters in turn: weights and biases of q, k, v, o; normalisation; up; down;
/// normalisation.
struct Dense {
    parameters: Vec<Vec<f32>>,
}

/// What a [`Dense`] block keeps for its gradients.
struct Kept {
    x: Matrix,
    qkv: [Matrix; 3],
    joined: Matrix,
    lse: Tensor<f32, 3>,
    before_first: Matrix,
    y: Matrix,
    inner: Matrix,
    active: Matrix,
    before_second: Matrix,
}

fn heads(x: &Matrix) -> kc_core::Result<TensorView<'_, f32, 4>> {
    x.view().reshaped([x.shape()[0] / TOKENS, TOKENS, HEADS, WIDTH / HEADS])
}

impl Dense {
    fn new(rng: &mut KcRng) -> anyhow::Result<Self> {
        let scale = (1.0 / WIDTH as f64).sqrt();
        let mut parameters = Vec::new();
        for _ in 0..4 {
            parameters.extend([random([WIDTH * WIDTH], scale, rng)?.into_vec(), vec![0.0; WIDTH]]);
        }
        parameters.extend([vec![1.0; WIDTH], vec![0.0; WIDTH]]);
        let inner = 4 * WIDTH;
        parameters.extend([random([inner * WIDTH], scale, rng)?.into_vec(), vec![0.0; inner]]);
        parameters.extend([random([WIDTH * inner], 0.5 * scale, rng)?.into_vec(), vec![0.0; WIDTH]]);
        parameters.extend([vec![1.0; WIDTH], vec![0.0; WIDTH]]);
        Ok(Dense { parameters })
    }

    fn config() -> AttentionConfig {
        AttentionConfig { layout: kc_attention::Layout::Nhd, lse: true, ..AttentionConfig::default() }
    }

    fn forward(&self, x: &Matrix) -> anyhow::Result<(Matrix, Kept)> {
        let p = &self.parameters;
        let qkv = [linear(x, &p[0], &p[1])?, linear(x, &p[2], &p[3])?, linear(x, &p[4], &p[5])?];
        let found =
            attention(heads(&qkv[0])?, heads(&qkv[1])?, heads(&qkv[2])?, &Mask::NONE, &Self::config())?;
        let joined = found.out.reshape(x.shape())?;
        let mut before_first = linear(&joined, &p[6], &p[7])?;
        add(before_first.as_mut_slice(), x.as_slice());
        let y = norm(&before_first, &p[8], &p[9])?;
        let inner = linear(&y, &p[10], &p[11])?;
        let mut active = inner.clone();
        gelu(Gelu::Tanh, active.as_mut_slice());
        let mut before_second = linear(&active, &p[12], &p[13])?;
        add(before_second.as_mut_slice(), y.as_slice());
        let z = norm(&before_second, &p[14], &p[15])?;
        let lse = found.lse.context("the logarithms of the sums")?;
        let x = x.clone();
        Ok((z, Kept { x, qkv, joined, lse, before_first, y, inner, active, before_second }))
    }

    fn backward(&self, kept: &Kept, dz: &Matrix) -> anyhow::Result<(Matrix, Vec<Vec<f32>>)> {
        let p = &self.parameters;
        let (d_sum, dg2, db2) = norm_backward(&kept.before_second, &p[14], dz)?;
        let (mut d_active, dw_down, db_down) = linear_backward(&kept.active, &p[12], &d_sum)?;
        gelu_backward(Gelu::Tanh, kept.inner.as_slice(), d_active.as_mut_slice())?;
        let (mut dy, dw_up, db_up) = linear_backward(&kept.y, &p[10], &d_active)?;
        add(dy.as_mut_slice(), d_sum.as_slice());
        let (mut dx, dg1, db1) = norm_backward(&kept.before_first, &p[8], &dy)?;
        let (d_joined, dw_o, db_o) = linear_backward(&kept.joined, &p[6], &dx)?;
        let [q, k, v] = &kept.qkv;
        let grads = attention_backward(
            heads(q)?,
            heads(k)?,
            heads(v)?,
            heads(&kept.joined)?,
            kept.lse.view(),
            heads(&d_joined)?,
            &Mask::NONE,
            &Self::config(),
        )?;
        let mut all = Vec::new();
        for (i, d) in [grads.dq, grads.dk, grads.dv].into_iter().enumerate() {
            let (more, dw, db) = linear_backward(&kept.x, &p[2 * i], &d.reshape(kept.x.shape())?)?;
            add(dx.as_mut_slice(), more.as_slice());
            all.extend([dw, db]);
        }
        all.extend([dw_o, db_o, dg1, db1, dw_up, db_up, dw_down, db_down, dg2, db2]);
        Ok((dx, all))
    }
}

/// The block under test.
enum Block {
    Soft(Box<SoftBlock<f32>>),
    Dense(Dense),
}

fn soft_block(rng: &mut KcRng) -> anyhow::Result<SoftBlock<f32>> {
    let (d, scale) = (WIDTH / HEADS, (1.0 / WIDTH as f64).sqrt());
    let inner = 4 * WIDTH;
    let mut square = || anyhow::Ok((random([WIDTH, WIDTH], scale, rng)?, vec![0.0; WIDTH]));
    let [q, v, out] = [square()?, square()?, square()?];
    let attention = SoftAttention::new(
        HEADS,
        SoftWeights {
            q,
            v,
            out,
            conv_w: random([d, d, 2, 2], (1.0 / (4 * d) as f64).sqrt(), rng)?,
            norm: (vec![1.0; d], vec![0.0; d]),
            local: None,
        },
    )?;
    let weights = BlockWeights {
        first: (vec![1.0; WIDTH], vec![0.0; WIDTH]),
        up: (random([inner, WIDTH], scale, rng)?, vec![0.0; inner]),
        down: (random([WIDTH, inner], 0.5 * scale, rng)?, vec![0.0; WIDTH]),
        second: (vec![1.0; WIDTH], vec![0.0; WIDTH]),
    };
    Ok(SoftBlock::new(attention, weights)?)
}

/// Tokens of single pixels with learnt positions, a block, the mean of the tokens, a linear layer.
struct Model {
    /// Embedding of a pixel `[WIDTH]`, positions `[TOKENS, WIDTH]`, head `[CLASSES, WIDTH]` and `[CLASSES]`.
    outer: [Vec<f32>; 4],
    block: Block,
}

impl Model {
    fn embed(&self, pixels: &[f32]) -> anyhow::Result<Matrix> {
        let [unit, places, ..] = &self.outer;
        Ok(Tensor::from_fn([pixels.len(), WIDTH], |[i, c]| {
            pixels[i] * unit[c] + places[i % TOKENS * WIDTH + c]
        })?)
    }

    fn classify(&self, z: &Matrix) -> anyhow::Result<(Matrix, Matrix)> {
        let batch = z.shape()[0] / TOKENS;
        let mean = Tensor::from_fn([batch, WIDTH], |[b, c]| {
            (0..TOKENS).map(|t| z[[b * TOKENS + t, c]]).sum::<f32>() / TOKENS as f32
        })?;
        let scores = linear(&mean, &self.outer[2], &self.outer[3])?;
        Ok((mean, scores))
    }

    fn scores(&self, pixels: &[f32]) -> anyhow::Result<Matrix> {
        let x = self.embed(pixels)?;
        let z = match &self.block {
            Block::Soft(block) => {
                let tokens = x.reshape([pixels.len() / TOKENS, TOKENS, WIDTH])?;
                block.forward(tokens.view(), GRID)?.0.reshape([pixels.len(), WIDTH])?
            }
            Block::Dense(block) => block.forward(&x)?.0,
        };
        Ok(self.classify(&z)?.1)
    }

    /// The gradients of the mean cross-entropy, in the order of [`parameters_mut`](Self::parameters_mut).
    fn gradients(&self, pixels: &[f32], labels: &[usize]) -> anyhow::Result<Vec<Vec<f32>>> {
        let (x, batch) = (self.embed(pixels)?, labels.len());
        let three = [batch, TOKENS, WIDTH];
        let spread = |z: &Matrix| -> anyhow::Result<(Matrix, Vec<f32>, Vec<f32>)> {
            let (mean, mut slope) = self.classify(z)?;
            for (row, &label) in slope.as_mut_slice().chunks_exact_mut(CLASSES).zip(labels) {
                let scores = row.to_vec();
                kc_core::math::softmax(&scores, row)?;
                row[label] -= 1.0;
                row.iter_mut().for_each(|x| *x /= batch as f32);
            }
            let (d_mean, dw, db) = linear_backward(&mean, &self.outer[2], &slope)?;
            let dz = Tensor::from_fn(z.shape(), |[i, c]| d_mean[[i / TOKENS, c]] / TOKENS as f32)?;
            Ok((dz, dw, db))
        };
        let (dx, dw, db, inner): (Matrix, _, _, Vec<Vec<f32>>) = match &self.block {
            Block::Soft(block) => {
                let tokens = x.reshape(three)?;
                let (z, cache) = block.forward(tokens.view(), GRID)?;
                let (dz, dw, db) = spread(&z.reshape([batch * TOKENS, WIDTH])?)?;
                let (dx, grads) = block.backward(&cache, dz.view().reshaped(three)?)?;
                let inner = grads.slices().into_iter().map(<[f32]>::to_vec).collect();
                (dx.reshape([batch * TOKENS, WIDTH])?, dw, db, inner)
            }
            Block::Dense(block) => {
                let (z, kept) = block.forward(&x)?;
                let (dz, dw, db) = spread(&z)?;
                let (dx, inner) = block.backward(&kept, &dz)?;
                (dx, dw, db, inner)
            }
        };
        let (mut unit, mut places) = (vec![0.0; WIDTH], vec![0.0; TOKENS * WIDTH]);
        for (i, row) in dx.as_slice().chunks_exact(WIDTH).enumerate() {
            unit.iter_mut().zip(row).for_each(|(u, d)| *u += pixels[i] * d);
            add(&mut places[i % TOKENS * WIDTH..][..WIDTH], row);
        }
        let mut all = vec![unit, places, dw, db];
        all.extend(inner);
        Ok(all)
    }

    fn parameters_mut(&mut self) -> Vec<&mut [f32]> {
        let mut all: Vec<&mut [f32]> = self.outer.iter_mut().map(Vec::as_mut_slice).collect();
        match &mut self.block {
            Block::Soft(block) => all.extend(block.parameters_mut()),
            Block::Dense(block) => all.extend(block.parameters.iter_mut().map(Vec::as_mut_slice)),
        }
        all
    }
}

const GRID: Grid = Grid::Image { h: 8, w: 8 };

/// Shares of the test digits that are recognised after `steps` steps of Adam: with softmax-free attention and with softmax.
pub(super) fn accuracies(ctx: &Ctx, steps: usize) -> anyhow::Result<[f64; 2]> {
    let x: Tensor<u8, 2> = golden_tensor("digits/digits_x.npy");
    let y: Tensor<i32, 1> = golden_tensor("digits/digits_y.npy");
    let pixels: Vec<f32> = x.as_slice().iter().map(|&p| f32::from(p) / 8.0 - 1.0).collect();
    let labels: Vec<usize> = y.as_slice().iter().map(|&y| y as usize).collect();
    let mut found = [0.0; 2];
    for (which, found) in found.iter_mut().enumerate() {
        let mut rng = ctx.rng(77);
        let outer = [
            random([WIDTH], 1.0, &mut rng)?.into_vec(),
            random([TOKENS * WIDTH], 0.5, &mut rng)?.into_vec(),
            random([CLASSES * WIDTH], 0.2, &mut rng)?.into_vec(),
            vec![0.0; CLASSES],
        ];
        let block = if which == 0 {
            Block::Soft(Box::new(soft_block(&mut rng)?))
        } else {
            Block::Dense(Dense::new(&mut rng)?)
        };
        let mut model = Model { outer, block };
        let mut steppers: Vec<Adam> =
            model.parameters_mut().iter().map(|p| Adam::new(p.len(), 0.0)).collect();
        for step in 0..steps {
            ctx.step(format!("digits with {}, step {step}", ["soft attention", "softmax"][which]));
            let picked: Vec<usize> = (0..BATCH).map(|_| rng.below(TRAINING as u64) as usize).collect();
            let batch: Vec<f32> =
                picked.iter().flat_map(|&i| pixels[i * TOKENS..(i + 1) * TOKENS].to_vec()).collect();
            let targets: Vec<usize> = picked.iter().map(|&i| labels[i]).collect();
            let grads = model.gradients(&batch, &targets)?;
            // Ten steps of warming up, then a cosine down to zero.
            let rate = 1e-2
                * ((step + 1) as f64 / 10.0).min(1.0)
                * 0.5
                * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos());
            for ((p, g), adam) in model.parameters_mut().into_iter().zip(&grads).zip(&mut steppers) {
                adam.rate = rate;
                adam.step(p, g)?;
            }
        }
        let scores = model.scores(&pixels[TRAINING * TOKENS..])?;
        let right = scores
            .as_slice()
            .chunks_exact(CLASSES)
            .zip(&labels[TRAINING..])
            .filter(|(row, label)| kc_core::math::arg_max(row) == Some(**label))
            .count();
        *found = right as f64 / (labels.len() - TRAINING) as f64;
    }
    Ok(found)
}
