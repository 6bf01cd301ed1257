//! Low-bit products side by side: ours of one width, ours of others, and those of other programs, on the same
//! numbers.

use std::hint::black_box;

use kc_core::{AnyTensor, Tensor};
use kc_gemm::gemm;
use kc_quant::linear::{QuantLinear, Scratch};
use kc_quant::metrics::relative_error;
use serde_json::json;

use crate::experiments::{Comparison, Ctx, PythonSide, Rival, Timing, Work};

/// A layer of ours, and what it is called.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) layer: Box<dyn Layer>,
}

/// What is timed: `y = x W^T`.
pub(crate) trait Layer: Send {
    /// One call.
    fn run(&mut self, x: &Tensor<f32, 2>, y: &mut Tensor<f32, 2>) -> kc_core::Result<()>;
    /// Bytes of packed weights that one call reads.
    fn bytes(&self) -> usize;
}

/// Any layer of the crate, with its memory.
pub(crate) struct Packed(QuantLinear, Scratch);

impl Packed {
    pub(crate) fn boxed(layer: QuantLinear) -> Box<dyn Layer> {
        Box::new(Packed(layer, Scratch::new()))
    }
}

impl Layer for Packed {
    fn run(&mut self, x: &Tensor<f32, 2>, y: &mut Tensor<f32, 2>) -> kc_core::Result<()> {
        self.0.forward_into(x.view(), y.view_mut(), &mut self.1)
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// The f32 product of the same numbers.
pub(crate) struct Float(pub(crate) Tensor<f32, 2>);

impl Layer for Float {
    fn run(&mut self, x: &Tensor<f32, 2>, y: &mut Tensor<f32, 2>) -> kc_core::Result<()> {
        kc_gemm::gemm_into(1.0, x.view(), self.0.view().transposed(), 0.0, y.view_mut())
    }

    fn bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }
}

/// Normal weights `[n, k]`, the same in every race of a shape.
pub(crate) fn weights(ctx: &Ctx, [n, k]: [usize; 2]) -> anyhow::Result<Tensor<f32, 2>> {
    let mut w = vec![0.0; n * k];
    ctx.rng(100).fill_normal(&mut w);
    Ok(Tensor::from_slice([n, k], &w)?)
}

/// The shapes, tokens and threads of a race: few with `--quick`.
pub(crate) fn cases(ctx: &Ctx) -> Vec<([usize; 2], usize, usize)> {
    let mut cases = Vec::new();
    let square = [4096, 4096];
    for m in [1, 16, 256] {
        cases.push((ctx.pick([1024, 1024], square), m, 1));
    }
    if ctx.pick(false, true) {
        cases.extend([1, 16, 256].map(|m| (square, m, 2)));
        cases.extend([1, 16].map(|m| ([11008, 4096], m, 1)));
    }
    cases
}

/// Times the first entry beside the others and the Python peers of the experiment. Returns the times of the first.
pub(crate) fn race(
    ctx: &mut Ctx,
    w: &Tensor<f32, 2>,
    tokens: usize,
    threads: usize,
    entries: &mut [Entry],
) -> anyhow::Result<Timing> {
    let [n, k] = w.shape();
    ctx.step(format!("{n} x {k}, {tokens} tokens, {threads} threads"));
    let mut x = vec![0.0; tokens * k];
    ctx.rng(200 + tokens as u64).fill_normal(&mut x);
    let x = Tensor::from_slice([tokens, k], &x)?;
    let exact = gemm(x.view(), w.view().transposed())?;
    let mut errors = Vec::new();
    for entry in entries.iter_mut() {
        let mut y = Tensor::zeros([tokens, n])?;
        entry.layer.run(&x, &mut y)?;
        errors.push(relative_error(y.view(), exact.view())?);
    }
    let (x_any, w_any): (AnyTensor, AnyTensor) = (x.clone().into_any(), w.clone().into_any());
    let judge = |found: &crate::peers::Arrays| {
        let y = found.get("y").ok_or_else(|| anyhow::anyhow!("no y"))?;
        Ok(relative_error(y.view::<f32, 2>("y")?, exact.view())?)
    };
    let [first, others @ ..] = entries else { anyhow::bail!("a race needs somebody") };
    // Few tokens read the weights once; many are bound by arithmetic.
    let work = if tokens <= 4 {
        Work::Bytes(first.layer.bytes() as f64)
    } else {
        Work::ByteOps(2.0 * (tokens * n * k) as f64)
    };
    let case = format!("{}, {tokens} tokens, {n} x {k}", first.name);
    let mut y = Tensor::zeros([tokens, n])?;
    let rivals = others.iter_mut().zip(&errors[1..]).map(|(entry, &error)| {
        let (layer, x) = (&mut entry.layer, &x);
        let mut y = y.clone();
        Rival::new(entry.name, "here", move || {
            black_box(layer.run(x, &mut y)).ok();
        })
        .error(error)
    });
    let rivals = rivals.collect();
    ctx.compare(Comparison {
        case,
        threads,
        ours: &mut || {
            black_box(first.layer.run(&x, &mut y)).ok();
        },
        our_error: Some(errors[0]),
        rivals,
        python: Some(PythonSide {
            arrays: &[("x", &x_any), ("w", &w_any)],
            params: json!({}),
            error: &judge,
        }),
        work: Some(work),
        note: "relative to the f32 product of the numbers before they were quantised",
    })
}
