//! Any grid, ratio, mask, stride and landmark against the definition, and what must hold for all of them.

use kc_attention::soft::{
    Grid, Inverse, Landmark, SoftConfig, newton_inverse, soft_attention, soft_attention_backward,
};
use kc_core::{Tensor, TensorView};
use kc_testing::{Tol, assert_close, normals};
use proptest::prelude::*;

use super::properties::{compare, tensor};

/// A call.
#[derive(Debug, Clone)]
struct Case {
    batch: usize,
    heads: usize,
    sides: [usize; 2],
    sequence: bool,
    ratio: usize,
    channels: usize,
    landmark: usize,
    given: usize,
    /// Every how many tokens one is masked; none for 0.
    masked: usize,
    norm: bool,
    /// Half the sides of local kernels; none for 0.
    reach: usize,
    strided: bool,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let shape = (1..3usize, 1..3usize, 1..10usize, 1..12usize, any::<bool>(), 1..20usize);
    let rest = (0..5usize, 1..9usize, 0..4usize, any::<bool>(), 0..3usize, any::<bool>(), 0..1000u64);
    (shape, rest, 0.0..1.0f64).prop_map(|(shape, rest, part)| {
        let (batch, heads, h, w, sequence, channels) = shape;
        let (landmark, given, masked, norm, reach, strided, seed) = rest;
        let sides = if sequence { [1, h * w] } else { [h, w] };
        let most = if sequence { h * w } else { h.min(w) };
        let ratio = 1 + (part * most as f64) as usize;
        Case {
            batch,
            heads,
            sides,
            sequence,
            ratio,
            channels,
            landmark,
            given,
            masked,
            norm,
            reach,
            strided,
            seed,
        }
    })
}

impl Case {
    fn run(&self, check: impl Fn([TensorView<'_, f32, 4>; 3], &Landmark<'_, f32>, &SoftConfig<'_, f32>)) {
        let ([h, w], d, seed) = (self.sides, self.channels, 10 * self.seed);
        let (n, rows) = (h * w, if self.sequence { 1 } else { self.ratio });
        let arrays = [0, 1, 2].map(|i| {
            let shape =
                if self.strided { [self.batch, n, self.heads, d] } else { [self.batch, self.heads, n, d] };
            tensor(shape, seed + i)
        });
        let inputs = [0, 1, 2].map(|i| {
            let x = arrays[i].view();
            if self.strided { x.permuted([0, 2, 1, 3]).unwrap() } else { x }
        });
        let conv_w = tensor([d, d, rows, self.ratio], seed + 3);
        let (gamma, beta) = (normals(d, seed + 4), normals(d, seed + 5));
        let given = tensor([self.batch, self.heads, self.given, d], seed + 6);
        let k = 2 * self.reach + 1;
        let local = tensor([self.heads, if self.sequence { 1 } else { k }, k], seed + 7);
        let mask = Tensor::from_fn([self.batch, n], |[b, i]| {
            u8::from(self.masked == 0 || !(i + b).is_multiple_of(self.masked))
        })
        .unwrap();
        let landmark = match self.landmark {
            0 => Landmark::Conv { w: conv_w.view(), gamma: &gamma, beta: &beta },
            1 => Landmark::AvgPool,
            2 => Landmark::MaxPool,
            3 => Landmark::Random { seed },
            _ => Landmark::Given(given.view()),
        };
        let grid = if self.sequence { Grid::Seq(n) } else { Grid::Image { h, w } };
        let config = SoftConfig {
            norm: self.norm,
            inverse: Inverse::Exact { ridge: 0.1 },
            mask: (self.masked > 0).then(|| mask.view()),
            local: (self.reach > 0).then(|| local.view()),
            ..SoftConfig::new(grid, self.ratio)
        };
        check(inputs, &landmark, &config);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_call_is_as_defined(case in cases()) {
        case.run(|inputs, landmark, config| compare(inputs, landmark, config, 2e-5));
    }

    /// Attention is linear in V, and its two gradients by V are each other's transpose: <X(V), dX> = <V, dV(dX)>.
    #[test]
    fn values_pass_linearly(case in cases()) {
        case.run(|[q, v, dx], landmark, config| {
            let (x, cache) = soft_attention(q, v, landmark, config).unwrap();
            let dv = soft_attention_backward(&cache, dx).unwrap().dv;
            let dot = |a: TensorView<'_, f32, 4>, b: TensorView<'_, f32, 4>| {
                a.iter().zip(b.iter()).map(|(a, b)| f64::from(a) * f64::from(b)).sum::<f64>()
            };
            let size = |a: TensorView<'_, f32, 4>| dot(a, a).sqrt();
            let scale = size(x.view()) * size(dx) + size(v) * size(dv.view());
            assert!((dot(x.view(), dx) - dot(v, dv.view())).abs() <= 1e-5 * scale.max(1e-3));
            let twice = Tensor::from_fn(v.shape(), |at| 2.0 * v.at(at)).unwrap();
            let (y, _) = soft_attention(q, twice.view(), landmark, config).unwrap();
            let doubled: Vec<f32> = x.as_slice().iter().map(|x| 2.0 * x).collect();
            assert_eq!(y.as_slice(), doubled);
        });
    }

    /// Every inverse of a well-conditioned kernel is the same, from one landmark to beyond the blocks of a product.
    #[test]
    fn inverses_agree(m in 1..60usize, seed in 0..1000u64) {
        let points = tensor([m, 24], seed);
        let a = kc_attention::soft::gaussian_kernel(points.view(), points.view()).unwrap();
        let a = Tensor::from_fn([m, m], |[i, j]| 0.5 * f64::from(a[[i, j]] + a[[j, i]])).unwrap();
        let (want, _) = newton_inverse(a.view(), &Inverse::Exact { ridge: 0.0 }).unwrap();
        for inverse in [Inverse::Newton { iters: 30, ridge: 0.0 }, Inverse::Pinv { rcond: 1e-12 }] {
            let (y, report) = newton_inverse(a.view(), &inverse).unwrap();
            assert!(report.residual < 1e-9 && report.iters <= 30, "{inverse:?} {report:?}");
            assert_close(y.as_slice(), want.as_slice(), Tol::new(1e-9, 1e-9));
        }
    }
}
