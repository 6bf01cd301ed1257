//! The solver: its options against the reference and against figures of real layers, traps, bad input.

use kc_core::{Error, Tensor, TensorView};
use kc_gemm::gemm;
use kc_quant::lut_gemm::*;
use kc_quant::metrics::relative_error;
use kc_quant::{Group, ScaleDtype};
use kc_testing::{golden_json, golden_tensor, normals, same_on_any_pool, uniforms};
use proptest::prelude::*;

fn tensor(shape: [usize; 2], seed: u64) -> Tensor<f32, 2> {
    Tensor::from_slice(shape, &normals(shape[0] * shape[1], seed)).unwrap()
}

/// Rounds, joint offsets, both starts.
fn best(bits: u8) -> BcqSpec {
    BcqSpec { bits, offset: Offset::Joint, init: Init::Best, ..BcqSpec::default() }
}

fn squared_error(w: &[f64], h: &[f64], values: impl Fn(usize) -> f64) -> f64 {
    w.iter().zip(h).enumerate().map(|(j, (w, h))| h * (w - values(j)).powi(2)).sum()
}

/// The weighted squared error of each group of a row of the reference.
fn reference_errors(w: &[f64], h: &[f64], group: usize, spec: &BcqSpec) -> Vec<f64> {
    let (codes, scales, offsets) = reference::quantize_row(w, h, group, spec);
    let q = usize::from(spec.bits);
    let value = |j: usize| {
        let signed = |i: usize| if codes[j] >> i & 1 == 1 { 1.0 } else { -1.0 };
        (0..q).map(|i| scales[j / group * q + i] * signed(i)).sum::<f64>() + offsets[j / group]
    };
    let groups = w.len().div_ceil(group);
    let range = |g: usize| g * group..w.len().min((g + 1) * group);
    (0..groups).map(|g| squared_error(&w[range(g)], &h[range(g)], |j| value(g * group + j))).collect()
}

#[test]
fn options_follow_the_reference() {
    let (n, k, group) = (6, 150, 64);
    let w = tensor([n, k], 1);
    let h = Tensor::from_slice([n, k], &uniforms(n * k, 0.1, 2.0, 2)).unwrap();
    let mut specs = Vec::new();
    for bits in [1, 2, 3, 5] {
        for (offset, init) in [
            (Offset::None, Init::Greedy),
            (Offset::Mean, Init::Greedy),
            (Offset::Joint, Init::Greedy),
            (Offset::Joint, Init::Uniform),
        ] {
            for (method, assign) in [
                (Method::Greedy, Assign::Nearest),
                (Method::Alternating, Assign::Nearest),
                (Method::Alternating, Assign::Greedy),
            ] {
                specs.push(BcqSpec {
                    bits,
                    group: Group::Size(group),
                    method,
                    assign,
                    offset,
                    init,
                    rounds: 5,
                    ..BcqSpec::default()
                });
            }
        }
    }
    for spec in &specs {
        for weighted in [false, true] {
            let q = BcqMatrix::quantize(w.view(), spec, weighted.then(|| h.view())).unwrap();
            let back = reference::dequantize(&q).unwrap();
            let (mut ours, mut theirs) = (0.0, 0.0);
            for row in 0..n {
                let w: Vec<f64> = w.as_slice()[row * k..][..k].iter().map(|&x| f64::from(x)).collect();
                let h: Vec<f64> = match weighted {
                    true => h.as_slice()[row * k..][..k].iter().map(|&x| f64::from(x)).collect(),
                    false => vec![1.0; k],
                };
                ours += squared_error(&w, &h, |j| back[[row, j]]);
                theirs += reference_errors(&w, &h, group, spec).iter().sum::<f64>();
            }
            // Ties and roundings may lead to another fixed point; the errors stay together.
            assert!((ours / theirs - 1.0).abs() < 2e-3, "{spec:?} {weighted}: {ours} {theirs}");
        }
    }
}

#[test]
fn slices_of_real_layers_have_the_errors_of_the_fixtures() {
    let slices = golden_json("quant_minilm/slices.json");
    for name in ["l4_up", "l3_down", "l2_key"] {
        let x: Tensor<f32, 2> = golden_tensor(&format!("quant_minilm/{name}_x.npy"));
        let w: Tensor<f32, 2> = golden_tensor(&format!("quant_minilm/{name}_w.npy"));
        let want = gemm(x.view(), w.view().transposed()).unwrap();
        let error = |q: &BcqMatrix| {
            let layer = LutLinear::new(q, None, LutMode::F32, KernelChoice::Auto).unwrap();
            relative_error(layer.forward(x.view()).unwrap().view(), want.view()).unwrap()
        };
        for bits in [2, 3, 4] {
            let rounded = rtn(w.view(), &RtnSpec { bits, ..RtnSpec::default() }).unwrap();
            let solved = |spec: BcqSpec| BcqMatrix::quantize(w.view(), &spec, None).unwrap();
            let alternating = BcqSpec { bits, ..BcqSpec::default() };
            let greedy = BcqSpec { method: Method::Greedy, ..alternating.clone() };
            for (method, q, tolerance) in [
                ("greedy", solved(greedy), 1e-5),
                ("alternating15", solved(alternating), 1e-5),
                // Ours has one start more, which is the best one for some groups.
                ("joint_best15", solved(best(bits)), if bits > 2 { 0.03 } else { 1e-5 }),
                ("rtn", BcqMatrix::from_uniform(&rounded).unwrap(), 1e-5),
            ] {
                let key = match method {
                    "rtn" => format!("rtn{bits}_128"),
                    _ => format!("bcq{bits}_128_{method}"),
                };
                let fixture = slices[name]["rel_err"][&key].as_f64().unwrap();
                let ratio = error(&q) / fixture;
                assert!((ratio - 1.0).abs() < tolerance, "{name} {key}: {ratio}");
            }
        }
    }
}

#[test]
fn errors_never_rise_and_best_is_never_worse() {
    for (name, bits) in [("l4_up", 2), ("l3_down", 3), ("l2_key", 4), ("l3_down", 4)] {
        let w: Tensor<f32, 2> = golden_tensor(&format!("quant_minilm/{name}_w.npy"));
        let [n, k] = w.shape();
        let fit = |init, assign| {
            let spec = BcqSpec { init, assign, ..best(bits) };
            BcqMatrix::fit(w.view(), &spec, None).unwrap()
        };
        let all = [
            fit(Init::Best, Assign::Nearest),
            fit(Init::Greedy, Assign::Nearest),
            fit(Init::Uniform, Assign::Nearest),
            fit(Init::Greedy, Assign::Greedy),
        ];
        for fit in &all {
            assert_eq!(fit.round_errors.len(), 16);
            assert!(fit.round_errors.is_sorted_by(|a, b| a >= b), "{:?}", fit.round_errors);
            assert!(fit.round_errors[15] < 0.9 * fit.round_errors[0]);
            assert!((fit.round_errors[15] / fit.rel_sq_error - 1.0).abs() < 1e-5);
        }
        let rounded =
            BcqMatrix::from_uniform(&rtn(w.view(), &RtnSpec { bits, ..RtnSpec::default() }).unwrap())
                .unwrap();
        let errors = |q: &BcqMatrix| {
            let back = reference::dequantize(q).unwrap();
            let mut out = vec![0.0; n * q.groups()];
            for row in 0..n {
                for j in 0..k {
                    out[row * q.groups() + j / 128] += (f64::from(w[[row, j]]) - back[[row, j]]).powi(2);
                }
            }
            out
        };
        let [b, g, u] = [&all[0], &all[1], &all[2]].map(|fit| errors(&fit.matrix));
        for (at, r) in errors(&rounded).iter().enumerate() {
            let least = g[at].min(u[at]).min(*r);
            assert!(b[at] <= least * (1.0 + 1e-5), "{name} {bits} group {at}: {} {least}", b[at]);
        }
    }
}

#[test]
fn the_published_figures_of_errors_are_in_reach() {
    // More rounds, joint offsets and the better start each lower the error of a real layer.
    let w: Tensor<f32, 2> = golden_tensor("quant_minilm/l4_up_w.npy");
    for bits in [2, 3, 4] {
        let error = |spec: &BcqSpec| BcqMatrix::fit(w.view(), spec, None).unwrap().rel_sq_error;
        let plain = BcqSpec { bits, ..BcqSpec::default() };
        let joint = BcqSpec { offset: Offset::Joint, ..plain.clone() };
        let start = BcqSpec { rounds: 0, ..plain.clone() };
        let refined = BcqSpec { rounds: 1, ..plain.clone() };
        let [start, refined, plain, joint, best] = [&start, &refined, &plain, &joint, &best(bits)].map(error);
        assert!(start > refined && refined > plain && plain > joint && joint >= best);
    }
}

#[test]
fn the_solver_is_free_of_scale() {
    let w = normals(4 * 128, 3);
    let fit = |scale: f32| {
        let w: Vec<f32> = w.iter().map(|w| w * scale).collect();
        BcqMatrix::fit(TensorView::from_slice([4, 128], &w).unwrap(), &BcqSpec::default(), None).unwrap()
    };
    let one = fit(1.0);
    for scale in [1e-6, 1e-20, 1e20] {
        let other = fit(scale);
        assert!((other.rel_sq_error / one.rel_sq_error - 1.0).abs() < 1e-4, "{scale}");
    }
    // Powers of two change nothing at all.
    let (small, large) = (fit(2.0f32.powi(-60)), fit(2.0f32.powi(60)));
    assert_eq!(small.matrix.planes(), one.matrix.planes());
    assert_eq!(large.matrix.planes(), one.matrix.planes());
}

#[test]
fn constants_and_zeros_have_no_nan() {
    let mut w = vec![0.0f32; 3 * 64];
    w[64..128].fill(0.7);
    w[128..].fill(-1e-6);
    let w = TensorView::from_slice([3, 64], &w).unwrap();
    for bits in [1, 3, 8] {
        for (offset, init) in [
            (Offset::None, Init::Greedy),
            (Offset::Mean, Init::Greedy),
            (Offset::Joint, Init::Greedy),
            (Offset::Joint, Init::Uniform),
            (Offset::Joint, Init::Best),
        ] {
            let spec = BcqSpec { bits, group: Group::Size(32), offset, init, ..BcqSpec::default() };
            let fit = BcqMatrix::fit(w, &spec, None).unwrap();
            assert!(fit.rel_sq_error < 1e-10, "{spec:?}: {}", fit.rel_sq_error);
            let q = &fit.matrix;
            assert!(q.group_scales(0, 0).iter().all(|&s| s == 0.0) && q.offset(0, 1) == 0.0, "{spec:?}");
            assert!(q.scales().iter().all(|s| s.is_finite() && *s >= 0.0));
        }
    }
}

#[test]
fn scales_fall_and_are_not_negative() {
    let mut w = normals(8 * 200, 4);
    w.iter_mut().step_by(50).for_each(|w| *w *= 20.0);
    let w = TensorView::from_slice([8, 200], &w).unwrap();
    for method in [Method::Greedy, Method::Alternating] {
        for assign in [Assign::Nearest, Assign::Greedy] {
            let spec = BcqSpec { bits: 4, group: Group::Size(50), method, assign, ..BcqSpec::default() };
            let q = BcqMatrix::quantize(w, &spec, None).unwrap();
            for scales in q.scales().chunks(4) {
                assert!(scales.is_sorted_by(|a, b| a >= b) && scales[3] >= 0.0, "{scales:?}");
            }
        }
    }
}

#[test]
fn importance_lowers_the_error_where_it_is() {
    let w = tensor([16, 128], 5);
    let mut h = [0.01f32; 128];
    h[..12].fill(10.0);
    let row = TensorView::from_slice([1, 128], &h).unwrap();
    let part = |importance| {
        let q = BcqMatrix::quantize(w.view(), &BcqSpec::default(), importance).unwrap().dequantize().unwrap();
        let head = |t: &Tensor<f32, 2>| t.view().slice(1, 0..12).unwrap().to_tensor().unwrap();
        relative_error(head(&q).view(), head(&w).view()).unwrap()
    };
    assert!(part(Some(row)) < 0.8 * part(None));
    // One row for all is the same as that row for each.
    let all = row.broadcast_to([16, 128]).unwrap();
    let [a, b] = [row, all].map(|h| BcqMatrix::quantize(w.view(), &BcqSpec::default(), Some(h)).unwrap());
    assert_eq!(a, b);
    // Nothing important: as if all were.
    let none = Tensor::<f32, 2>::zeros([1, 128]).unwrap();
    let [a, b] =
        [Some(none.view()), None].map(|h| BcqMatrix::quantize(w.view(), &BcqSpec::default(), h).unwrap());
    assert_eq!(a, b);
}

#[test]
fn the_published_importance() {
    let w = tensor([16, 128], 6);
    let error_of_large = |exponent, clipping| {
        let spec = BcqSpec { exponent, clipping, ..BcqSpec::default() };
        let back = BcqMatrix::quantize(w.view(), &spec, None).unwrap().dequantize().unwrap();
        let pairs = w.as_slice().iter().zip(back.as_slice()).filter(|(w, _)| w.abs() > 2.0);
        pairs.map(|(w, b)| f64::from(w - b).powi(2)).sum::<f64>()
    };
    let plain = error_of_large(0.0, 1.0);
    assert!(error_of_large(1.0, 1.0) < plain && error_of_large(2.0, 0.9) < plain);
    // Half of the weights pruned: the rest is met better than with all.
    let kept = |pruning| {
        let spec = BcqSpec { pruning, bits: 2, ..BcqSpec::default() };
        let back = BcqMatrix::quantize(w.view(), &spec, None).unwrap().dequantize().unwrap();
        let mut sizes: Vec<f32> = w.as_slice().iter().map(|w| w.abs()).collect();
        sizes.sort_by(f32::total_cmp);
        let pairs = w.as_slice().iter().zip(back.as_slice()).filter(|(w, _)| w.abs() >= sizes[1024]);
        pairs.map(|(w, b)| f64::from(w - b).powi(2)).sum::<f64>()
    };
    assert!(kept(0.5) < 0.7 * kept(0.0));
}

#[test]
fn narrow_scales_are_what_signs_are_chosen_for() {
    let w = tensor([16, 256], 7);
    let fit = |scale_dtype| {
        let spec = BcqSpec { scale_dtype, ..best(3) };
        BcqMatrix::fit(w.view(), &spec, None).unwrap()
    };
    let [full, half, brain] = [ScaleDtype::F32, ScaleDtype::F16, ScaleDtype::Bf16].map(fit);
    assert!(half.rel_sq_error < 1.0005 * full.rel_sq_error && brain.rel_sq_error < 1.02 * full.rel_sq_error);
    assert!(half.matrix.scales().iter().all(|&s| ScaleDtype::F16.round(s) == s));
    assert_eq!(full.matrix.bits_per_weight(), 3.0 + 4.0 * 32.0 / 128.0);
    assert_eq!(half.matrix.bits_per_weight(), 3.0 + 4.0 * 16.0 / 128.0);
    let large = Tensor::from_slice([1, 2], &[1e6f32, -1e6]).unwrap();
    let spec = BcqSpec { scale_dtype: ScaleDtype::F16, ..BcqSpec::default() };
    assert!(matches!(BcqMatrix::quantize(large.view(), &spec, None), Err(Error::Argument { .. })));
}

#[test]
fn threads_do_not_change_the_matrix() {
    let w = tensor([37, 100], 8);
    same_on_any_pool(|| {
        let fit = BcqMatrix::fit(w.view(), &BcqSpec { group: Group::Row, ..best(3) }, None).unwrap();
        (fit.matrix, fit.round_errors)
    });
}

#[test]
fn rounding_by_search_and_symmetric() {
    let mut w = normals(8 * 128, 9);
    w.iter_mut().step_by(128).for_each(|w| *w = 8.0);
    let w = TensorView::from_slice([8, 128], &w).unwrap();
    let error = |symmetric, search| {
        let u = rtn(w, &RtnSpec { bits: 3, symmetric, search, ..RtnSpec::default() }).unwrap();
        let size = |x: f32| f64::from(x).abs().powf(2.4);
        let back = u.dequantize().unwrap();
        let sum: f64 = w.iter().zip(back.as_slice()).map(|(w, b)| size(w - b)).sum();
        (sum, u)
    };
    assert!(error(false, true).0 < error(false, false).0);
    let (sum, symmetric) = error(true, false);
    assert!(error(true, true).0 < sum);
    assert!((0..8).all(|row| symmetric.zero(row, 0) == Some(4)));
    let zeros = rtn(Tensor::<f32, 2>::zeros([1, 3]).unwrap().view(), &RtnSpec::default()).unwrap();
    assert!((zeros.scales()[0] - 2.0 / 15.0).abs() < 1e-7);
    assert_eq!(zeros.dequantize().unwrap().as_slice(), [0.0; 3]);
}

#[test]
fn bad_input_has_its_error() {
    let w = tensor([2, 8], 10);
    let fit = |spec: &BcqSpec, h: Option<TensorView<'_, f32, 2>>| BcqMatrix::quantize(w.view(), spec, h);
    let default = BcqSpec::default;
    for spec in [
        BcqSpec { bits: 0, ..default() },
        BcqSpec { bits: 9, ..default() },
        BcqSpec { group: Group::Size(0), ..default() },
        BcqSpec { init: Init::Uniform, ..default() },
        BcqSpec { init: Init::Best, offset: Offset::Mean, ..default() },
        BcqSpec { exponent: -1.0, ..default() },
        BcqSpec { exponent: f64::NAN, ..default() },
        BcqSpec { clipping: 0.0, ..default() },
        BcqSpec { pruning: 1.0, ..default() },
        BcqSpec { rounds: u32::MAX, ..default() },
    ] {
        assert!(matches!(fit(&spec, None), Err(Error::Argument { .. })), "{spec:?}");
    }
    let h = |value: f32| Tensor::from_slice([1, 8], &[value; 8]).unwrap();
    assert!(matches!(fit(&default(), Some(h(-1.0).view())), Err(Error::Argument { .. })));
    assert!(matches!(fit(&default(), Some(h(f32::NAN).view())), Err(Error::NotFinite { .. })));
    let narrow = Tensor::<f32, 2>::zeros([1, 7]).unwrap();
    assert!(matches!(fit(&default(), Some(narrow.view())), Err(Error::Shape { .. })));
    let mut nan = w.clone();
    nan[[1, 2]] = f32::NAN;
    let Err(Error::NotFinite { index, .. }) = BcqMatrix::quantize(nan.view(), &default(), None) else {
        panic!("NaN")
    };
    assert_eq!(index, [1, 2]);
    assert!(rtn(nan.view(), &RtnSpec::default()).is_err());
    let empty = Tensor::<f32, 2>::zeros([0, 8]).unwrap();
    assert!(matches!(BcqMatrix::quantize(empty.view(), &default(), None), Err(Error::Empty { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn more_bits_never_hurt(k in 1usize..90, group in 1usize..100, seed in 0u64..1000) {
        let w = tensor([2, k], seed);
        let error = |bits| {
            let spec = BcqSpec { group: Group::Size(group), ..best(bits) };
            BcqMatrix::fit(w.view(), &spec, None).unwrap().rel_sq_error
        };
        let errors = [1, 2, 4, 6].map(error);
        prop_assert!(errors.is_sorted_by(|a, b| *b <= a * 1.0001 + 1e-12), "{errors:?}");
    }
}
