//! The vision backbone: four stages of blocks on ever coarser grids, from named tensors.

use kc_core::neural::{Gelu, LayerNorm, gelu};
use kc_core::{AnyTensor, Error, Result, Tensor, TensorView, TensorViewMut};
use kc_gemm::gemm_into;

use super::layer::Linear;
use super::{
    BlockWeights, Grid, Inverse, SoftAttention, SoftBlock, SoftWeights, SoftWorkspace, check_finite,
};
use crate::{AttentionConfig, Layout, Mask, attention};

/// The epsilon of batch normalisation.
const BN_EPS: f64 = 1e-5;
/// The epsilon of the last stage's layer normalisations.
const LAST_EPS: f64 = 1e-6;
/// Patches of a stage give one landmark each: sides by stage.
const RATIOS: [usize; 3] = [8, 4, 2];
/// Sides of the local kernels by stage.
const KERNELS: [usize; 3] = [9, 5, 3];
/// Sides of the grids that position embeddings were learnt on.
const SIDES: [usize; 4] = [56, 28, 14, 7];

/// Which backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VitSize {
    /// Depths 1, 2, 3, 2: 13 million parameters.
    Tiny,
    /// Depths 1, 3, 20, 4.
    Small,
    /// Depths 1, 3, 29, 5, and 288 channels in stage 3.
    Medium,
    /// Depths 1, 3, 40, 5.
    Large,
    /// Depths 1, 5, 49, 5, and 352 channels in stage 3.
    Huge,
}

impl VitSize {
    /// Blocks of each stage.
    pub fn depths(self) -> [usize; 4] {
        match self {
            VitSize::Tiny => [1, 2, 3, 2],
            VitSize::Small => [1, 3, 20, 4],
            VitSize::Medium => [1, 3, 29, 5],
            VitSize::Large => [1, 3, 40, 5],
            VitSize::Huge => [1, 5, 49, 5],
        }
    }

    /// Channels of each stage.
    pub fn widths(self) -> [usize; 4] {
        let third = match self {
            VitSize::Medium => 288,
            VitSize::Huge => 352,
            VitSize::Tiny | VitSize::Small | VitSize::Large => 320,
        };
        [64, 128, third, 512]
    }

    /// Heads of each stage.
    pub fn heads(self) -> [usize; 4] {
        let [_, _, third, _] = self.widths();
        [2, 4, third / 32, 16]
    }
}

/// A convolution of 3 x 3 with zeros around, batch normalisation folded in, and a rectifier.
#[derive(Debug, Clone)]
struct Conv {
    /// `[9 in, out]`
    w: Tensor<f32, 2>,
    bias: Vec<f32>,
    stride: usize,
}

/// Rows of channels on a grid, one image after the other.
#[derive(Debug)]
struct Feature {
    rows: Tensor<f32, 2>,
    images: usize,
    sides: [usize; 2],
}

impl Conv {
    fn forward(&self, x: &Feature) -> Result<Feature> {
        let [height, width] = x.sides;
        let c = x.rows.shape()[1];
        let sides = x.sides.map(|side| side.div_ceil(self.stride));
        let mut rows = Tensor::zeros([x.images * sides[0] * sides[1], self.bias.len()])?;
        let row_len = sides[1] * self.bias.len();
        let mut patches = Tensor::zeros([sides[1], 9 * c])?;
        for (at, to) in rows.as_mut_slice().chunks_exact_mut(row_len.max(1)).enumerate() {
            let (image, y) = (at / sides[0], at % sides[0]);
            for (column, patch) in patches.as_mut_slice().chunks_exact_mut(9 * c).enumerate() {
                for (tap, to) in patch.chunks_exact_mut(c).enumerate() {
                    let (row, column) = (y * self.stride + tap / 3, column * self.stride + tap % 3);
                    if (1..=height).contains(&row) && (1..=width).contains(&column) {
                        let from = ((image * height + row - 1) * width + column - 1) * c;
                        to.copy_from_slice(&x.rows.as_slice()[from..from + c]);
                    } else {
                        to.fill(0.0);
                    }
                }
            }
            to.chunks_exact_mut(self.bias.len()).for_each(|row| row.copy_from_slice(&self.bias));
            let out = TensorViewMut::from_slice([sides[1], self.bias.len()], to)?;
            gemm_into(1.0, patches.view(), self.w.view(), 1.0, out)?;
        }
        rows.as_mut_slice().iter_mut().for_each(|x| *x = x.max(0.0));
        Ok(Feature { rows, images: x.images, sides })
    }
}

/// A block of the last stage: softmax attention and two linear layers, normalised before each.
#[derive(Debug, Clone)]
struct LastBlock {
    first: [Vec<f32>; 2],
    q: Linear<f32>,
    kv: Linear<f32>,
    out: Linear<f32>,
    second: [Vec<f32>; 2],
    up: Linear<f32>,
    down: Linear<f32>,
}

fn normalised(x: &Tensor<f32, 2>, [gamma, beta]: &[Vec<f32>; 2]) -> Result<Tensor<f32, 2>> {
    let mut y = Tensor::zeros(x.shape())?;
    LayerNorm { gamma, beta, eps: LAST_EPS }.forward(x.as_slice(), y.as_mut_slice())?;
    Ok(y)
}

fn add(to: &mut Tensor<f32, 2>, x: &Tensor<f32, 2>) {
    to.as_mut_slice().iter_mut().zip(x.as_slice()).for_each(|(a, b)| *a += b);
}

impl LastBlock {
    /// Adds what the block finds to the tokens `[images tokens, C]`.
    fn forward(&self, x: &mut Tensor<f32, 2>, images: usize, heads: usize) -> Result<()> {
        let [rows, c] = x.shape();
        let shape = [images, rows / images.max(1), heads, c / heads];
        let y = normalised(x, &self.first)?;
        let (q, kv) = (self.q.forward(y.view())?, self.kv.forward(y.view())?);
        let part = |from: usize| kv.view().slice(1, from..from + c)?.to_tensor()?.reshape(shape);
        let (k, v) = (part(0)?, part(c)?);
        let config = AttentionConfig { layout: Layout::Nhd, ..AttentionConfig::default() };
        let found = attention(q.view().reshaped(shape)?, k.view(), v.view(), &Mask::NONE, &config)?;
        add(x, &self.out.forward(found.out.reshape([rows, c])?.view())?);
        let mut inner = self.up.forward(normalised(x, &self.second)?.view())?;
        gelu(Gelu::Exact, inner.as_mut_slice());
        add(x, &self.down.forward(inner.view())?);
        Ok(())
    }
}

/// The backbone with its classifier, for inference in f32.
///
/// Stage 1 sees a quarter of the image's sides, each further stage half of those before. Stages 1 to 3 are [`SoftBlock`]s with local
/// kernels, stage 4 is softmax attention with a class token, whose last state is classified. Position embeddings are resized to the grid.
#[derive(Debug, Clone)]
pub struct SoftVit {
    size: VitSize,
    stems: Vec<Vec<Conv>>,
    /// `[tokens, C]` by stage; the last begins with that of the class token.
    positions: Vec<Tensor<f32, 2>>,
    blocks: Vec<Vec<SoftBlock<f32>>>,
    last: Vec<LastBlock>,
    class: Vec<f32>,
    norm: [Vec<f32>; 2],
    head: Linear<f32>,
}

/// Asks for tensors by name and checks their shapes.
struct Loader<F> {
    get: F,
    /// That of all layers, as they run one after the other.
    workspace: SoftWorkspace<f32>,
}

impl<F: FnMut(&str, &[usize]) -> Result<AnyTensor>> Loader<F> {
    fn tensor<const N: usize>(&mut self, name: &str, shape: [usize; N]) -> Result<Tensor<f32, N>> {
        let any = (self.get)(name, &shape)?;
        if any.shape() != shape {
            return Err(Error::shape(name.to_owned(), format!("{shape:?}"), any.shape()));
        }
        let tensor = any.to_f32(name.to_owned())?;
        match kc_core::math::first_non_finite(tensor.as_slice()) {
            None => Ok(tensor),
            Some(at) => Err(Error::not_finite(name.to_owned(), &[at], f64::from(tensor.as_slice()[at]))),
        }
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        Ok(self.tensor(name, [len])?.into_vec())
    }

    fn pair(&mut self, name: &str, len: usize) -> Result<[Vec<f32>; 2]> {
        Ok([self.vector(&format!("{name}.weight"), len)?, self.vector(&format!("{name}.bias"), len)?])
    }

    fn weights(&mut self, name: &str, shape: [usize; 2]) -> Result<(Tensor<f32, 2>, Vec<f32>)> {
        let w = self.tensor(&format!("{name}.weight"), shape)?;
        Ok((w, self.vector(&format!("{name}.bias"), shape[0])?))
    }

    fn linear(&mut self, name: &str, shape: [usize; 2]) -> Result<Linear<f32>> {
        let (w, b) = self.weights(name, shape)?;
        Linear::new("weight", w, b, shape)
    }

    /// Convolution `at` and the batch normalisation after it.
    fn conv(&mut self, stem: &str, at: usize, [input, out]: [usize; 2], stride: usize) -> Result<Conv> {
        let name = format!("{stem}.proj.{at}");
        let w = self.tensor(&format!("{name}.weight"), [out, input, 3, 3])?;
        let b = self.vector(&format!("{name}.bias"), out)?;
        let norm = format!("{stem}.proj.{}", at + 1);
        let [gamma, beta] = self.pair(&norm, out)?;
        let mean = self.vector(&format!("{norm}.running_mean"), out)?;
        let variance = self.vector(&format!("{norm}.running_var"), out)?;
        let scale: Vec<f64> = gamma
            .iter()
            .zip(&variance)
            .map(|(g, v)| f64::from(*g) / (f64::from(*v) + BN_EPS).sqrt())
            .collect();
        if let Some(at) = scale.iter().position(|s| !s.is_finite()) {
            let value = f64::from(variance[at]);
            return Err(Error::argument(format!("{norm}.running_var"), "variances of at least 0", value));
        }
        let w = Tensor::from_fn([9 * input, out], |[k, o]| {
            (f64::from(w[[o, k % input, k / input / 3, k / input % 3]]) * scale[o]) as f32
        })?;
        let bias =
            (0..out).map(|o| (f64::from(b[o] - mean[o]) * scale[o] + f64::from(beta[o])) as f32).collect();
        Ok(Conv { w, bias, stride })
    }

    fn block(&mut self, name: &str, stage: usize, c: usize, heads: usize) -> Result<SoftBlock<f32>> {
        let (d, r, k) = (c / heads, RATIOS[stage], KERNELS[stage]);
        let mha = format!("{name}.att.mha");
        let [gamma, beta] = self.pair(&format!("{mha}.attn.Qnorm_act.0"), d)?;
        let weights = SoftWeights {
            q: self.weights(&format!("{mha}.W_q"), [c, c])?,
            v: self.weights(&format!("{mha}.W_v"), [c, c])?,
            out: self.weights(&format!("{mha}.ff"), [c, c])?,
            conv_w: self.tensor(&format!("{mha}.attn.Qlandmark_op.weight"), [d, d, r, r])?,
            norm: (gamma, beta),
            local: Some(
                self.tensor(&format!("{mha}.attn.conv.weight"), [heads, 1, k, k])?.reshape([heads, k, k])?,
            ),
        };
        let [first, second] = ["norm1", "norm2"].map(|norm| format!("{name}.att.{norm}"));
        let ([first_gamma, first_beta], [second_gamma, second_beta]) =
            (self.pair(&first, c)?, self.pair(&second, c)?);
        let rest = BlockWeights {
            first: (first_gamma, first_beta),
            up: self.weights(&format!("{name}.att.ff1"), [4 * c, c])?,
            down: self.weights(&format!("{name}.att.ff2"), [c, 4 * c])?,
            second: (second_gamma, second_beta),
        };
        let mut attention = SoftAttention::new(heads, weights)?;
        attention.workspace = self.workspace.clone();
        SoftBlock::new(attention, rest)
    }

    fn last_block(&mut self, name: &str, c: usize) -> Result<LastBlock> {
        Ok(LastBlock {
            first: self.pair(&format!("{name}.norm1"), c)?,
            q: self.linear(&format!("{name}.attn.q"), [c, c])?,
            kv: self.linear(&format!("{name}.attn.kv"), [2 * c, c])?,
            out: self.linear(&format!("{name}.attn.proj"), [c, c])?,
            second: self.pair(&format!("{name}.norm2"), c)?,
            up: self.linear(&format!("{name}.mlp.fc1"), [4 * c, c])?,
            down: self.linear(&format!("{name}.mlp.fc2"), [c, 4 * c])?,
        })
    }
}

impl SoftVit {
    /// The backbone of `size` with a classifier of `classes` classes. `get` is asked for each tensor by its name in the published weights,
    /// with the shape that it must have (real numbers of any width).
    ///
    /// # Errors
    /// Those of `get`; `Shape` for another shape and `NotFinite` for NaN or infinity, with the tensor's name.
    pub fn from_tensors(
        size: VitSize,
        classes: usize,
        get: impl FnMut(&str, &[usize]) -> Result<AnyTensor>,
    ) -> Result<Self> {
        let mut load = Loader { get, workspace: SoftWorkspace::default() };
        let (depths, widths, heads) = (size.depths(), size.widths(), size.heads());
        let (mut stems, mut positions, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
        for stage in 0..4 {
            let (stem, c) = (format!("patch_embed{}", stage + 1), widths[stage]);
            stems.push(if stage == 0 {
                vec![
                    load.conv(&stem, 0, [3, 32], 2)?,
                    load.conv(&stem, 3, [32, 32], 1)?,
                    load.conv(&stem, 6, [32, c], 2)?,
                ]
            } else {
                vec![load.conv(&stem, 0, [widths[stage - 1], c], 2)?]
            });
            let tokens = SIDES[stage] * SIDES[stage] + usize::from(stage == 3);
            let found = load.tensor(&format!("pos_embed{}", stage + 1), [1, tokens, c])?;
            positions.push(found.reshape([tokens, c])?);
            if stage < 3 {
                let of_stage = (0..depths[stage])
                    .map(|i| load.block(&format!("block{}.{i}", stage + 1), stage, c, heads[stage]))
                    .collect::<Result<Vec<_>>>()?;
                blocks.push(of_stage);
            }
        }
        let c = widths[3];
        Ok(SoftVit {
            size,
            stems,
            positions,
            blocks,
            last: (0..depths[3])
                .map(|i| load.last_block(&format!("block4.{i}"), c))
                .collect::<Result<_>>()?,
            class: load.tensor("cls_token", [1, 1, c])?.into_vec(),
            norm: load.pair("norm", c)?,
            head: load.linear("head", [classes, c])?,
        })
    }

    /// Chooses inverse and normalisation of all blocks: the published normalised weights want
    /// [`Inverse::NewtonBacktrack`] and `true`.
    pub fn set_inverse(&mut self, inverse: Inverse, norm: bool) {
        for block in self.blocks.iter_mut().flatten() {
            block.attention.inverse = inverse;
            block.attention.norm = norm;
        }
    }

    /// Scores `[B, classes]` of images `[B, 3, H, W]`, normalised as in training.
    ///
    /// # Errors
    /// `Shape` for other channels; `NotFinite` with the position; `Argument` (`ratio`) if a side is too short for a patch of some
    /// stage: 64 pixels are enough.
    pub fn forward(&self, images: TensorView<'_, f32, 4>) -> Result<Tensor<f32, 2>> {
        let [count, channels, height, width] = images.shape();
        if channels != 3 || height == 0 || width == 0 {
            return Err(Error::shape("images", "[B, 3, H, W]", &images.shape()));
        }
        check_finite("images", images)?;
        let rows = images.permuted([0, 2, 3, 1])?.to_tensor()?.reshape([count * height * width, 3])?;
        let mut x = Feature { rows, images: count, sides: [height, width] };
        for (stage, &side) in SIDES.iter().enumerate() {
            for conv in &self.stems[stage] {
                x = conv.forward(&x)?;
            }
            let [h, w] = x.sides;
            let c = x.rows.shape()[1];
            let whole = &self.positions[stage];
            let skip = usize::from(stage == 3);
            let places = resized(&whole.as_slice()[skip * c..], side, [h, w], c);
            for image in x.rows.as_mut_slice().chunks_exact_mut((h * w * c).max(1)) {
                image.iter_mut().zip(&places).for_each(|(x, p)| *x += p);
            }
            if stage == 3 {
                break;
            }
            let mut tokens = x.rows.reshape([count, h * w, c])?;
            for block in &self.blocks[stage] {
                tokens = block.forward(tokens.view(), Grid::Image { h, w })?.0;
            }
            x = Feature { rows: tokens.reshape([count * h * w, c])?, ..x };
        }
        self.classify(&x)
    }

    /// The last stage: a class token in front of the others.
    fn classify(&self, x: &Feature) -> Result<Tensor<f32, 2>> {
        let ([h, w], c) = (x.sides, self.class.len());
        let tokens = h * w + 1;
        let mut all = Tensor::zeros([x.images * tokens, c])?;
        let pairs =
            all.as_mut_slice().chunks_exact_mut(tokens * c).zip(x.rows.as_slice().chunks_exact(h * w * c));
        for (to, from) in pairs {
            let (class, rest) = to.split_at_mut(c);
            let place = self.positions[3].as_slice();
            class.iter_mut().zip(&self.class).zip(place).for_each(|((to, x), p)| *to = x + p);
            rest.copy_from_slice(from);
        }
        for block in &self.last {
            block.forward(&mut all, x.images, self.size.heads()[3])?;
        }
        let all = normalised(&all, &self.norm)?;
        let first = Tensor::from_fn([x.images, c], |[i, j]| all[[i * tokens, j]])?;
        self.head.forward(first.view())
    }
}

/// Rows of channels on a square grid, resized to another grid: bilinear, with the corners of the outer pixels aligned.
fn resized(rows: &[f32], side: usize, [height, width]: [usize; 2], c: usize) -> Vec<f32> {
    if [height, width] == [side, side] {
        return rows.to_vec();
    }
    let place = |i: usize, len: usize| {
        let at = ((i as f64 + 0.5) * side as f64 / len as f64 - 0.5).max(0.0);
        let low = (at as usize).min(side - 1);
        (low, (low + 1).min(side - 1), at - low as f64)
    };
    let mut out = Vec::with_capacity(height * width * c);
    for y in 0..height {
        let (top, bottom, down) = place(y, height);
        for x in 0..width {
            let (left, right, across) = place(x, width);
            for j in 0..c {
                let at = |y: usize, x: usize| f64::from(rows[(y * side + x) * c + j]);
                let upper = at(top, left) * (1.0 - across) + at(top, right) * across;
                let lower = at(bottom, left) * (1.0 - across) + at(bottom, right) * across;
                out.push((upper * (1.0 - down) + lower * down) as f32);
            }
        }
    }
    out
}
