//! Inputs and comparisons that several tests share.

use kc_core::{Tensor, TensorView};
use kc_testing::normals;
use kc_xent::{Embedding, XentInput};

/// A problem in f32.
pub(crate) struct Case {
    pub(crate) e: Tensor<f32, 2>,
    pub(crate) c: Tensor<f32, 2>,
    pub(crate) targets: Vec<i64>,
    pub(crate) bias: Vec<f32>,
}

impl Case {
    /// `n` tokens, `v` words, `d` dimensions; logits of a few units; every fifth target ignored.
    pub(crate) fn new(n: usize, v: usize, d: usize, seed: u64) -> Self {
        let scale = 3.0 / (d as f32).sqrt();
        let e: Vec<f32> = normals(n * d, seed).iter().map(|x| x * scale).collect();
        let targets = (0..n).map(|i| if i % 5 == 2 { -100 } else { (i * 7919 % v) as i64 }).collect();
        Self {
            e: Tensor::from_slice([n, d], &e).expect("a tensor"),
            c: Tensor::from_slice([v, d], &normals(v * d, seed + 1)).expect("a tensor"),
            targets,
            bias: normals(v, seed + 2).iter().map(|x| x * 0.3).collect(),
        }
    }

    pub(crate) fn input(&self) -> XentInput<'_, f32> {
        input(self.e.view(), self.c.view(), &self.targets).bias(&self.bias).expect("a bias")
    }
}

pub(crate) fn input<'a, T: Embedding>(
    e: TensorView<'a, T, 2>,
    c: TensorView<'a, T, 2>,
    targets: &[i64],
) -> XentInput<'a, T> {
    let targets = TensorView::from_slice([targets.len()], targets).expect("targets");
    XentInput::new(e, c, targets).expect("an input")
}
