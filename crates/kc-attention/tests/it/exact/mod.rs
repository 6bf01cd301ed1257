//! Exact attention.

mod backward;
mod edges;
mod forward;
mod random;
mod varlen;

use kc_attention::{AttentionConfig, Mask, Select};
use kc_core::{Tensor, TensorView};
use kc_testing::normals;

fn with_lse() -> AttentionConfig {
    AttentionConfig { lse: true, ..AttentionConfig::default() }
}

/// Standard normals.
fn normal<const N: usize>(shape: [usize; N], seed: u64) -> Tensor<f32, N> {
    Tensor::from_slice(shape, &normals(shape.iter().product(), seed)).unwrap()
}

/// `[B, Hq, Nq]`, `[Hkv, Nk]`, `D`.
#[derive(Debug, Clone, Copy)]
struct Case([usize; 3], [usize; 2], usize);

impl Case {
    fn inputs(self, seed: u64) -> [Tensor<f32, 4>; 3] {
        let Case([b, hq, nq], [hkv, nk], d) = self;
        [normal([b, hq, nq, d], seed), normal([b, hkv, nk, d], seed + 1), normal([b, hkv, nk, d], seed + 2)]
    }
}

/// Sizes around tiles of registers, of queries and of keys.
const CASES: [Case; 9] = [
    Case([1, 1, 1], [1, 1], 1),
    Case([2, 2, 3], [1, 5], 3),
    Case([1, 4, 33], [2, 40], 8),
    Case([1, 1, 97], [1, 129], 16),
    Case([2, 3, 100], [3, 260], 33),
    Case([1, 2, 200], [1, 130], 64),
    Case([1, 2, 96], [2, 128], 72),
    Case([1, 1, 13], [1, 700], 160),
    Case([1, 6, 5], [2, 1100], 20),
];

/// The masks of a case: none, causal, both kinds of choice, and choices that broadcast.
struct Masks {
    keep: Tensor<u8, 4>,
    add: Tensor<f32, 4>,
    row: Tensor<u8, 4>,
}

impl Masks {
    fn new(case: Case, seed: u64) -> Self {
        let Case([b, hq, nq], [_, nk], _) = case;
        let noise = normal([b, hq, nq, nk], seed);
        // Some queries see nothing.
        let keep = |[b, h, i, j]: [usize; 4]| u8::from(i % 5 != 3 && noise[[b, h, i, j]] > 0.2);
        let add = |[b, h, i, j]: [usize; 4]| if j % 7 == 2 { f32::NEG_INFINITY } else { noise[[b, h, i, j]] };
        Masks {
            keep: Tensor::from_fn([b, hq, nq, nk], keep).unwrap(),
            add: Tensor::from_fn([b, hq, nq, nk], add).unwrap(),
            row: Tensor::from_fn([1, 1, 1, nk], |[_, _, _, j]| u8::from(j < nk.div_ceil(2))).unwrap(),
        }
    }

    fn all(&self) -> Vec<Mask<'_>> {
        let with = |causal, select| Mask { causal, select };
        vec![
            Mask::NONE,
            Mask::CAUSAL,
            with(false, Select::Keep(self.keep.view())),
            with(true, Select::Keep(self.keep.view())),
            with(false, Select::Add(self.add.view())),
            with(true, Select::Add(self.add.view())),
            with(false, Select::Keep(self.row.view())),
        ]
    }
}

fn tokens_first(x: &Tensor<f32, 4>) -> Tensor<f32, 4> {
    x.view().permuted([0, 2, 1, 3]).unwrap().to_tensor().unwrap()
}

/// `x` behind strides: every second channel of a larger tensor, with NaN between.
fn spread(x: &Tensor<f32, 4>) -> Vec<f32> {
    x.as_slice().iter().flat_map(|&x| [x, f32::NAN]).collect()
}

fn spread_view<'a>(x: &Tensor<f32, 4>, data: &'a [f32]) -> TensorView<'a, f32, 4> {
    let [a, b, c, d] = x.shape();
    let wide = TensorView::from_slice([a, b, c, 2 * d], data).unwrap();
    wide.step(3, 2).unwrap()
}
