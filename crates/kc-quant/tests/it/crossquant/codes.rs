//! Codes on every level against the definition, bad input, traps.

use kc_core::{Error, Isa, KcRng, Tensor, TensorView};
use kc_quant::crossquant::*;
use kc_testing::alloc::measure;
use kc_testing::{cycle_251, each_isa, normals, same_on_any_pool, sizes, strided};
use proptest::prelude::*;

fn view(shape: [usize; 2], data: &[f32]) -> TensorView<'_, f32, 2> {
    TensorView::from_slice(shape, data).unwrap()
}

/// Normals with some zeros and a few large columns.
fn activations(t: usize, k: usize, seed: u64) -> Vec<f32> {
    let mut x = normals(t * k, seed);
    for (i, x) in x.iter_mut().enumerate() {
        if i % 7 == 3 {
            *x = 0.0;
        }
        if i % k % 64 == 5 {
            *x *= 60.0;
        }
    }
    x
}

fn assert_is_reference(isa: Isa, x: TensorView<'_, f32, 2>, spec: &CrossSpec) {
    let mut got = CrossCodes::new();
    quantize_with(isa, x, spec, &mut got).unwrap();
    let want = reference::quantize(x, spec).unwrap();
    let what = format!("{isa} {:?} {spec:?}", x.shape());
    assert_eq!(got.codes(), want.codes, "{what}");
    assert_eq!((got.row(), got.col()), (&want.row[..], &want.col[..]), "{what}");
    assert_eq!((got.clipped(), got.lost()), (want.clipped, want.lost), "{what}");
    let len = x.len().max(1) as f64;
    assert_eq!(got.kernel().share, want.zeros as f64 / len, "{what}");
    assert_eq!(got.exact_zeros(), want.exact_zeros as f64 / len, "{what}");
}

fn specs(k: usize) -> Vec<CrossSpec> {
    let mut all = Vec::new();
    for (bits, alpha) in [(8, 0.15), (8, 0.0), (4, 0.5), (2, 1.0), (3, 0.85)] {
        for row in [RowFactor::Absmax, RowFactor::Tight] {
            let calibrated = (0..k).map(|j| if j % 9 == 4 { 0.0 } else { 0.3 + (j % 5) as f32 }).collect();
            for columns in [Columns::Dynamic, Columns::Static(calibrated)] {
                all.push(CrossSpec { bits, alpha, row, columns });
            }
        }
    }
    all
}

#[test]
fn every_level_is_the_reference_at_every_size() {
    each_isa(|isa| {
        for k in sizes(16, 64).into_iter().chain([97, 300]) {
            for t in [0, 1, 2, 5] {
                let x = activations(t, k.max(1), 1 + k as u64);
                specs(k).iter().for_each(|spec| assert_is_reference(isa, view([t, k], &x[..t * k]), spec));
            }
        }
        let x = cycle_251(70 * 67);
        specs(67).iter().for_each(|spec| assert_is_reference(isa, view([70, 67], &x), spec));
    });
}

#[test]
fn strides_do_not_matter() {
    let x = activations(9, 41, 3);
    for layout in strided(9, 41, &x, f32::NAN) {
        each_isa(|isa| specs(41).iter().for_each(|spec| assert_is_reference(isa, layout.view(), spec)));
    }
}

#[test]
fn tiny_and_huge_magnitudes_are_defined() {
    for scale in [1e-44f32, 1e-40, 1e-37, 1e-20, 1e20, 1e37] {
        let x: Vec<f32> = activations(6, 70, 4).into_iter().map(|x| (x * scale).clamp(-3e38, 3e38)).collect();
        each_isa(|isa| specs(70).iter().for_each(|spec| assert_is_reference(isa, view([6, 70], &x), spec)));
    }
}

#[test]
fn ties_go_to_even_on_every_level() {
    // Largest magnitude 127 and alpha 1: the step is exactly 1.
    let mut x: Vec<f32> = (0..256).map(|i| (i % 120) as f32 + 0.5).collect();
    x[77] = 127.0;
    let spec = CrossSpec { alpha: 1.0, ..CrossSpec::default() };
    each_isa(|isa| {
        let mut codes = CrossCodes::new();
        quantize_with(isa, view([1, 256], &x), &spec, &mut codes).unwrap();
        assert_eq!(codes.codes()[..5], [0, 2, 2, 4, 4]);
        assert!(x.iter().zip(codes.codes()).all(|(x, q)| x.round_ties_even() == f32::from(*q)));
    });
}

/// Quotients a few units of the last place from where codes change, for every code and many steps.
#[test]
fn neighbours_of_ties_round_as_the_definition_says() {
    let mut rng = KcRng::new(11, 0);
    for (bits, limit) in [(8, 127), (4, 7), (2, 1)] {
        for _ in 0..40 {
            let k = 3 * (2 * limit as usize + 3);
            let maxima: Vec<f32> = (0..k).map(|_| (3.0 * rng.normal()).exp() as f32).collect();
            let mut spec = CrossSpec { bits, alpha: 0.4, ..CrossSpec::default() };
            spec.columns = Columns::Static(maxima);
            let col = reference::quantize(view([0, k], &[]), &spec).unwrap().col;
            // The row's largest magnitude sets its factor and sits in a column of its own.
            let (top, at) = (1e3 * (rng.normal().exp() as f32), k / 2);
            let r = (f64::from(top).powf(spec.alpha) / f64::from(limit)) as f32;
            let x: Vec<f32> = (0..k)
                .map(|j| {
                    let tie = (r * col[j]) * ((j / 3) as f32 - limit as f32 - 1.5);
                    let x = f32::from_bits(tie.to_bits() + (j % 3) as u32 - 1);
                    if j == at { top } else { x.clamp(-top, top) }
                })
                .collect();
            each_isa(|isa| assert_is_reference(isa, view([1, k], &x), &spec));
        }
    }
}

/// Quotients beyond every integer, and columns of step 0 beside them.
#[test]
fn codes_far_out_of_range_become_its_ends() {
    let x: Vec<f32> = activations(3, 131, 8).into_iter().map(|x| x * 1e36).collect();
    for small in [1e-18f32, 1e-6, 1.0] {
        let maxima = (0..131).map(|j| if j % 9 == 4 { 0.0 } else { small }).collect();
        let spec = CrossSpec { columns: Columns::Static(maxima), ..CrossSpec::default() };
        each_isa(|isa| assert_is_reference(isa, view([3, 131], &x), &spec));
    }
}

#[test]
fn numbers_that_are_not_finite_are_found_with_static_columns() {
    for row in [RowFactor::Absmax, RowFactor::Tight] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 31, 64, 139] {
                let mut x = activations(2, 70, 3);
                x[at] = bad;
                let maxima = (0..70).map(|j| (j % 4) as f32).collect();
                let spec = CrossSpec { row, columns: Columns::Static(maxima), ..CrossSpec::default() };
                each_isa(|isa| {
                    let found = quantize_with(isa, view([2, 70], &x), &spec, &mut CrossCodes::new());
                    let Err(Error::NotFinite { index, .. }) = found else { panic!("{row:?} {bad} {at}") };
                    assert_eq!(index, [at / 70, at % 70]);
                });
            }
        }
    }
}

#[test]
fn the_blend_lies_between_its_ends() {
    let mut x = normals(64 * 256, 5);
    x.iter_mut().skip(7).step_by(256).for_each(|x| *x *= 60.0);
    let x = view([64, 256], &x);
    let report = kernel_report(x, &CrossSpec { bits: 4, ..CrossSpec::default() }).unwrap();
    let [token, blend, column] = [report.per_token, report.kernel, report.per_column].map(|k| k.nonzero);
    assert!(token > 0.8 && blend < 0.5 * token && column < blend, "{token} {blend} {column}");
    for (alpha, end) in [(1.0, report.per_token), (0.0, report.per_column)] {
        assert_eq!(
            kernel_report(x, &CrossSpec { bits: 4, alpha, ..CrossSpec::default() }).unwrap().kernel,
            end
        );
    }
    // Per-token is not a per-tensor step under another name: it is blind to the size of a token.
    let mut y = x.to_vec();
    y[..256].iter_mut().for_each(|y| *y *= 1024.0);
    let spec = CrossSpec { alpha: 1.0, ..CrossSpec::default() };
    assert_eq!(quantize(x, &spec).unwrap().codes(), quantize(view([64, 256], &y), &spec).unwrap().codes());
}

#[test]
fn zeros_after_a_relu_are_not_a_loss() {
    let x: Vec<f32> = normals(32 * 64, 6).into_iter().map(|x| x.max(0.0)).collect();
    let report = kernel_report(view([32, 64], &x), &CrossSpec::default()).unwrap();
    assert!(report.kernel.share > 0.4 && report.kernel.nonzero < 0.05);
    assert!((report.kernel.share - report.kernel.nonzero - report.exact_zeros).abs() < 1e-12);
}

#[test]
fn static_columns_are_used_and_clipping_is_counted() {
    let x = normals(40 * 32, 7);
    let small = Columns::Static(vec![0.5; 32]);
    let absmax =
        quantize(view([40, 32], &x), &CrossSpec { columns: small.clone(), ..CrossSpec::default() }).unwrap();
    assert!(absmax.clipped() > 100 && absmax.col().iter().all(|d| *d == 0.5f64.powf(0.85) as f32));
    let tight = CrossSpec { columns: small, row: RowFactor::Tight, ..CrossSpec::default() };
    assert_eq!(quantize(view([40, 32], &x), &tight).unwrap().clipped(), 0);
}

#[test]
fn a_channel_that_calibration_never_saw_is_lost_and_counted() {
    let x = [1.0f32, 2.0, 0.0, 4.0];
    for row in [RowFactor::Absmax, RowFactor::Tight] {
        let spec = CrossSpec { columns: Columns::Static(vec![0.0, 4.0]), row, ..CrossSpec::default() };
        let codes = quantize(view([2, 2], &x), &spec).unwrap();
        assert_eq!((codes.codes()[0], codes.lost()), (0, 1));
        assert!(codes.dequantize().unwrap().as_slice().iter().all(|y| y.is_finite()));
    }
}

#[test]
fn zero_rows_and_columns_give_zeros() {
    let mut x = normals(8 * 40, 8);
    x[..40].fill(0.0);
    x.iter_mut().skip(3).step_by(40).for_each(|x| *x = 0.0);
    for alpha in [0.0, 0.15, 1.0] {
        let codes = quantize(view([8, 40], &x), &CrossSpec { alpha, ..CrossSpec::default() }).unwrap();
        let back = codes.dequantize().unwrap();
        assert!(back.as_slice().iter().all(|y| y.is_finite()));
        assert!(codes.codes()[..40].iter().all(|q| *q == 0) && codes.lost() == 0);
    }
}

#[test]
fn one_token_is_its_own_column() {
    let x = normals(50, 9);
    let codes = quantize(view([1, 50], &x), &CrossSpec { alpha: 0.0, ..CrossSpec::default() }).unwrap();
    assert!(codes.codes().iter().all(|q| q.abs() == 127));
}

#[test]
fn removing_the_kernel_touches_nothing_else() {
    let x = activations(20, 80, 10);
    let spec = CrossSpec { bits: 4, ..CrossSpec::default() };
    let codes = quantize(view([20, 80], &x), &spec).unwrap();
    let bare = remove_kernel(view([20, 80], &x), &spec).unwrap();
    for ((x, q), y) in x.iter().zip(codes.codes()).zip(bare.as_slice()) {
        assert_eq!(*y, if *q == 0 { 0.0 } else { *x });
    }
}

#[test]
fn threads_change_nothing() {
    let x = activations(300, 700, 11);
    for row in [RowFactor::Absmax, RowFactor::Tight] {
        same_on_any_pool(|| {
            let codes = quantize(view([300, 700], &x), &CrossSpec { row, ..CrossSpec::default() }).unwrap();
            (codes.codes().to_vec(), codes.row().to_vec(), codes.col().to_vec(), codes.kernel())
        });
    }
}

#[test]
fn a_second_call_allocates_nothing() {
    let x = activations(64, 128, 12);
    let (memory, first) = {
        let mut codes = CrossCodes::new();
        let ((), first) =
            measure(|| quantize_into(view([64, 128], &x), &CrossSpec::default(), &mut codes).unwrap());
        (measure(|| quantize_into(view([64, 128], &x), &CrossSpec::default(), &mut codes).unwrap()).1, first)
    };
    assert_eq!(memory.count, 0);
    assert!(first.peak < 2 * 64 * 128, "{first:?}");
}

#[test]
fn bad_input_is_named() {
    let x = [1.0f32, 2.0, f32::NAN, 4.0];
    let spec = CrossSpec::default();
    for columns in [Columns::Dynamic, Columns::Static(vec![1.0; 2])] {
        for row in [RowFactor::Absmax, RowFactor::Tight] {
            let spec = CrossSpec { columns: columns.clone(), row, ..spec.clone() };
            let error = quantize(view([2, 2], &x), &spec).unwrap_err();
            assert!(matches!(&error, Error::NotFinite { index, .. } if *index == [1, 0]), "{error}");
        }
    }
    let x = view([2, 2], &[1.0, 2.0, 3.0, 4.0]);
    for alpha in [-0.1, 1.1, f64::NAN] {
        let error = quantize(x, &CrossSpec { alpha, ..spec.clone() }).unwrap_err();
        assert!(matches!(&error, Error::Argument { arg, .. } if arg == "alpha"), "{error}");
        assert!(matches!(sweep(x, None, &spec, &[alpha]), Err(Error::Argument { .. })));
    }
    for bits in [0, 1, 9, 255] {
        let error = quantize(x, &CrossSpec { bits, ..spec.clone() }).unwrap_err();
        assert!(matches!(&error, Error::Argument { arg, .. } if arg == "bits"), "{error}");
    }
    let with =
        |columns: Vec<f32>| quantize(x, &CrossSpec { columns: Columns::Static(columns), ..spec.clone() });
    assert!(matches!(with(vec![1.0]), Err(Error::Shape { .. })));
    assert!(matches!(with(vec![1.0, -1.0]), Err(Error::Argument { .. })));
    assert!(matches!(with(vec![1.0, f32::INFINITY]), Err(Error::NotFinite { .. })));
    assert!(matches!(sweep(x, None, &spec, &[]), Err(Error::Empty { .. })));
    let wrong: Tensor<i8, 2> = Tensor::zeros([2, 3]).unwrap();
    assert!(matches!(kernel_of(wrong.view(), x), Err(Error::Shape { .. })));
    let empty = quantize(view([0, 5], &[]), &spec).unwrap();
    assert_eq!((empty.shape(), empty.codes().len(), empty.kernel().share), ([0, 5], 0, 0.0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_clips_with_own_columns(seed in 0u64..1000, t in 1usize..12, k in 1usize..90, alpha in 0.0f64..=1.0, bits in 2u8..=8) {
        let x = activations(t, k, seed);
        let mut errors = Vec::new();
        for row in [RowFactor::Absmax, RowFactor::Tight] {
            let codes = quantize(view([t, k], &x), &CrossSpec { bits, alpha, row, columns: Columns::Dynamic }).unwrap();
            prop_assert_eq!((codes.clipped(), codes.lost()), (0, 0));
            // Each element is within half a step of its code.
            let back = codes.dequantize().unwrap();
            for (i, (x, y)) in x.iter().zip(back.as_slice()).enumerate() {
                let step = codes.row()[i / k] * codes.col()[i % k];
                prop_assert!((x - y).abs() <= 0.50001 * step + 1e-6 * x.abs());
            }
            errors.push(codes.row().to_vec());
        }
        prop_assert!(errors[1].iter().zip(&errors[0]).all(|(tight, absmax)| *tight <= absmax * (1.0 + 1e-6)));
    }

    #[test]
    fn powers_of_two_scale_through(seed in 0u64..1000, power in -30i32..30) {
        let x = activations(5, 33, seed);
        let scaled: Vec<f32> = x.iter().map(|x| x * 2f32.powi(power)).collect();
        let spec = CrossSpec { alpha: 1.0, ..CrossSpec::default() };
        let (a, b) = (quantize(view([5, 33], &x), &spec).unwrap(), quantize(view([5, 33], &scaled), &spec).unwrap());
        prop_assert_eq!(a.codes(), b.codes());
    }
}

#[test]
fn random_order_of_tokens_changes_only_their_order() {
    let (t, k) = (30, 50);
    let x = activations(t, k, 13);
    let order = KcRng::new(1, 0).permutation(t);
    let shuffled: Vec<f32> = order.iter().flat_map(|&i| x[i * k..i * k + k].to_vec()).collect();
    let (a, b) = (
        quantize(view([t, k], &x), &CrossSpec::default()),
        quantize(view([t, k], &shuffled), &CrossSpec::default()),
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    for (to, from) in order.into_iter().enumerate() {
        assert_eq!(b.codes()[to * k..to * k + k], a.codes()[from * k..from * k + k]);
    }
}
