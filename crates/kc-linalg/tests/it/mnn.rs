//! The score: golden data, every level against the reference, traps, bad input, memory.

use kc_core::{Element, Error, Float, KcRng, Tensor, TensorView, bf16, f16};
use kc_linalg::mnn::{MnnConfig, ZeroRows, column_norms, column_norms_into, mnn, mnn_with, reference};
use kc_testing::alloc::measure;
use kc_testing::{
    Tol, assert_close, cycle_251, each_isa, golden_json, golden_tensor, normals, same_on_any_pool, sizes,
    strided,
};
use proptest::prelude::*;

pub(crate) const CASES: [&str; 8] =
    ["minilm_0", "minilm_1", "minilm_2", "minilm_3", "minilm_4", "tall", "wide_top7", "lowrank"];

/// A fixture, its settings and its expected values.
pub(crate) fn case(name: &str) -> (Tensor<f32, 2>, MnnConfig, serde_json::Value) {
    let x = golden_tensor::<f32, 2>(&format!("matrix_nuclear_norm/{name}/x.npy"));
    let case = golden_json(&format!("matrix_nuclear_norm/{name}/case.json"));
    let mut config = MnnConfig::default();
    let args: Vec<&str> = case["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    config.top = args.iter().position(|&a| a == "--top").map(|i| args[i + 1].parse().unwrap());
    (x, config, case["expected"].clone())
}

fn matrix(rows: usize, cols: usize, values: &[f32]) -> Tensor<f32, 2> {
    Tensor::from_slice([rows, cols], values).unwrap()
}

fn convert<T: Float>(x: &[f32]) -> Vec<T> {
    x.iter().map(|&x| T::from_f32(x)).collect()
}

#[test]
fn golden_scores() {
    for name in CASES {
        let (x, config, expected) = case(name);
        each_isa(|isa| {
            let got = mnn_with(isa, x.view(), &config).unwrap();
            assert_close(&[got.raw], &[expected["mnn"].as_f64().unwrap()], Tol::rel(3e-6));
            assert_close(&[got.score], &[expected["mnn_score"].as_f64().unwrap()], Tol::rel(3e-6));
            assert_eq!(got.n_tokens as u64, expected["n_tokens"].as_u64().unwrap());
            assert_eq!(got.dim as u64, expected["dim"].as_u64().unwrap());
            assert_eq!(got.zero_rows, 0);
        });
    }
}

fn check_levels<T: Float + Element>(rows: usize, cols: usize, values: &[f32], tol: f64) {
    let x = Tensor::<T, 2>::from_slice([rows, cols], &convert(values)).unwrap();
    let config = MnnConfig::default();
    let want = reference::mnn(x.view(), &config).unwrap();
    each_isa(|isa| {
        let got = mnn_with(isa, x.view(), &config).unwrap();
        assert_close(&[got.raw], &[want], Tol::rel(tol));
    });
}

#[test]
fn every_level_meets_the_reference() {
    for cols in sizes(16, 64) {
        for rows in [2, 3, 4, 5, 7, 8, 9, 17, 63, 64, 65, 130] {
            if cols < 2 {
                continue;
            }
            for values in [normals(rows * cols, 7), cycle_251(rows * cols)] {
                check_levels::<f32>(rows, cols, &values, 1e-6);
                check_levels::<f64>(rows, cols, &values, 1e-12);
                check_levels::<f16>(rows, cols, &values, 1e-6);
                check_levels::<bf16>(rows, cols, &values, 1e-6);
            }
        }
    }
    // More columns than one strip of sums.
    check_levels::<f32>(9, 2100, &normals(9 * 2100, 1), 1e-6);
    check_levels::<f64>(9, 2100, &normals(9 * 2100, 1), 1e-12);
}

#[test]
fn column_norms_meet_the_reference_in_every_configuration() {
    let x = matrix(70, 37, &normals(70 * 37, 3));
    for (center, normalize) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut config = MnnConfig::default();
        (config.center, config.normalize) = (center, normalize);
        let got = column_norms(x.view(), &config).unwrap();
        assert_close(&got, &reference::column_norms(x.view(), &config).unwrap(), Tol::rel(2e-6));
    }
}

#[test]
fn any_strides_give_the_same_score() {
    let values = normals(11 * 35, 5);
    let views = strided(11, 35, &values, f32::NAN);
    let config = MnnConfig::default();
    let want = mnn(views[0].view(), &config).unwrap().raw;
    for other in &views {
        // Rows backwards are summed in another order.
        assert_close(&[mnn(other.view(), &config).unwrap().raw], &[want], Tol::rel(1e-6));
    }
    let half = strided(11, 35, &convert::<f16>(&values), f16::NAN);
    let want = mnn(half[0].view(), &config).unwrap().raw;
    for other in &half {
        assert_close(&[mnn(other.view(), &config).unwrap().raw], &[want], Tol::rel(1e-6));
    }
}

/// Offsets a hundred times the spread, and a thousand times.
#[test]
fn large_column_offsets_cost_no_digits() {
    for (rows, cols) in [(20, 300), (300, 20), (513, 65)] {
        let mut rng = KcRng::new(2, 0);
        let offsets: Vec<f64> = (0..cols).map(|_| 1000.0 * rng.normal()).collect();
        let x = Tensor::<f32, 2>::from_fn([rows, cols], |[_, j]| (offsets[j] + rng.normal()) as f32).unwrap();
        let want = reference::mnn(x.view(), &MnnConfig::default()).unwrap();
        each_isa(|isa| {
            let got = mnn_with(isa, x.view(), &MnnConfig::default()).unwrap().raw;
            assert_close(&[got], &[want], Tol::rel(1e-6));
        });
    }
}

/// Tokens with activations far above the rest, as the first token of language models has.
#[test]
fn outlier_rows_cost_no_digits() {
    let mut x = matrix(40, 100, &normals(4000, 9));
    for j in 0..100 {
        x[[0, j]] *= 1e4;
        x[[17, j]] *= 1e-6;
    }
    let want = reference::mnn(x.view(), &MnnConfig::default()).unwrap();
    assert_close(&[mnn(x.view(), &MnnConfig::default()).unwrap().raw], &[want], Tol::rel(3e-6));
}

#[test]
fn tiny_and_huge_numbers_neither_vanish_nor_overflow() {
    let values = normals(12 * 33, 4);
    let config = MnnConfig::default();
    let plain = mnn(matrix(12, 33, &values).view(), &config).unwrap().raw;
    for scale in [1e-30f32, 1e-15, 1e15, 1e37] {
        let x = matrix(12, 33, &values.iter().map(|x| x * scale).collect::<Vec<_>>());
        assert_close(&[mnn(x.view(), &config).unwrap().raw], &[plain], Tol::rel(1e-5));
    }
    let wide = Tensor::<f64, 2>::from_fn([12, 33], |[i, j]| f64::from(values[i * 33 + j]) * 1e-290).unwrap();
    assert_close(&[mnn(wide.view(), &config).unwrap().raw], &[plain], Tol::rel(1e-6));
}

/// Differences between rows that f32 cannot hold are summed in f64.
#[test]
fn rows_at_opposite_ends_of_the_range_have_a_mean() {
    for rows in [2, 9, 70] {
        let x = Tensor::<f32, 2>::from_fn([rows, 20], |[i, j]| {
            let sign = if (i + j) % 2 == 0 { 1.0 } else { -1.0 };
            sign * (3e38 - 1e37 * (i * j % 5) as f32)
        })
        .unwrap();
        let want = reference::mnn(x.view(), &MnnConfig::default()).unwrap();
        each_isa(|isa| {
            let got = mnn_with(isa, x.view(), &MnnConfig::default()).unwrap().raw;
            assert_close(&[got], &[want], Tol::rel(1e-6));
        });
    }
}

#[test]
fn threads_do_not_change_bits() {
    for (rows, cols) in [(1000, 70), (70, 1000), (5000, 3)] {
        let x = matrix(rows, cols, &normals(rows * cols, 6));
        each_isa(|isa| {
            same_on_any_pool(|| mnn_with(isa, x.view(), &MnnConfig::default()).unwrap().raw.to_bits());
        });
        same_on_any_pool(|| column_norms(x.view(), &MnnConfig::default()).unwrap());
    }
}

/// Each of these mistakes would pass on some matrix; here each gives another number.
#[test]
fn the_classic_mistakes_are_not_made() {
    let (x, config, expected) = case("minilm_0");
    let want = expected["mnn"].as_f64().unwrap();
    let [rows, dim] = x.shape();
    let differs = |value: f64| assert!((value - want).abs() > 1e-3 * want, "{value} is the right answer");
    let changed = |change: fn(&mut MnnConfig)| {
        let mut config = config;
        change(&mut config);
        mnn(x.view(), &config).unwrap().raw
    };
    let all = column_norms(x.view(), &config).unwrap();
    differs(all.iter().sum());
    differs(changed(|c| c.center = false));
    differs(changed(|c| c.normalize = false));
    let got = mnn(x.view(), &config).unwrap();
    assert_eq!(got.top, rows.min(dim));
    assert_close(&[got.score * rows as f64], &[got.raw], Tol::rel(1e-15));
    // Row-normalised, so the squares of all columns add up to the number of rows.
    assert_close(&[all.iter().map(|c| c * c).sum::<f64>()], &[rows as f64], Tol::rel(1e-6));
}

/// Reading only a sample of the rows would be faster.
#[test]
fn the_last_row_matters() {
    for rows in [5, 64, 1000] {
        let mut x = matrix(rows, 24, &normals(rows * 24, 1));
        let before = mnn(x.view(), &MnnConfig::default()).unwrap().raw;
        x[[rows - 1, 23]] += 3.0;
        assert_ne!(mnn(x.view(), &MnnConfig::default()).unwrap().raw, before);
    }
}

#[test]
fn the_largest_columns_are_summed() {
    let x = matrix(30, 50, &normals(1500, 8));
    let mut norms = column_norms(x.view(), &MnnConfig::default()).unwrap();
    norms.sort_by(|a, b| b.total_cmp(a));
    let mut config = MnnConfig::default();
    for top in [1, 2, 29, 30, 31, 49, 50] {
        config.top = Some(top);
        let got = mnn(x.view(), &config).unwrap();
        assert_eq!(got.top, top);
        assert_close(&[got.raw], &[norms[..top].iter().sum::<f64>()], Tol::rel(1e-12));
    }
    config.length = Some(7);
    let got = mnn(x.view(), &config).unwrap();
    assert_eq!(got.score, got.raw / 7.0);
}

/// Columns of the same norm count one by one, however many of them the last place goes to.
#[test]
fn equal_columns_are_summed_as_often_as_asked() {
    let x = Tensor::<f32, 2>::from_fn([6, 12], |[i, j]| if i == j % 6 { 1.0 } else { 0.0 }).unwrap();
    let norms = column_norms(x.view(), &MnnConfig::default()).unwrap();
    for top in 1..=12 {
        let mut config = MnnConfig::default();
        config.top = Some(top);
        let got = mnn(x.view(), &config).unwrap().raw;
        assert_close(&[got], &[norms[0] * top as f64], Tol::rel(1e-6));
    }
}

#[test]
fn zero_rows_follow_the_policy() {
    let mut config = MnnConfig::default();
    let one = matrix(1, 6, &normals(6, 1));
    // A value whose sums round: the mean of equal rows must still be the row.
    let equal = Tensor::<f64, 2>::from_fn([3, 4], |[_, j]| 0.1 * (j + 1) as f64).unwrap();
    let got = mnn(one.view(), &config).unwrap();
    assert!(got.raw.is_nan() && got.score.is_nan() && got.zero_rows == 1);
    let got = mnn(equal.view(), &config).unwrap();
    assert!(got.raw.is_nan() && got.zero_rows == 3);
    assert!(column_norms(one.view(), &config).unwrap().iter().all(|c| c.is_nan()));

    // Rows a, -a, b, -b and 0: the last is the mean.
    let a = normals(10, 2);
    let mut values = a.clone();
    values.extend(a.iter().map(|x| -x));
    values.extend([0.0; 5]);
    let x = matrix(5, 5, &values);
    assert!(mnn(x.view(), &config).unwrap().raw.is_nan());
    config.zero_rows = ZeroRows::Drop;
    let got = mnn(x.view(), &config).unwrap();
    assert_eq!((got.zero_rows, got.n_tokens, got.top), (1, 5, 5));
    assert_close(&[got.raw], &[reference::mnn(x.view(), &config).unwrap()], Tol::rel(1e-6));
    assert_close(&[got.raw], &[mnn(matrix(4, 5, &values[..20]).view(), &config).unwrap().raw], Tol::rel(1.0));
    config.zero_rows = ZeroRows::Error;
    let error = mnn(x.view(), &config).unwrap_err();
    assert!(matches!(&error, Error::Argument { arg, .. } if arg == "x"), "{error}");
    assert!(error.to_string().contains("row 4"), "{error}");
    // Without normalisation a zero row is like any other.
    config = MnnConfig::default();
    config.normalize = false;
    assert!(mnn(x.view(), &config).unwrap().raw > 0.0);
}

#[test]
fn bad_input_is_refused() {
    let config = MnnConfig::default();
    let empty = Tensor::<f32, 2>::zeros([0, 4]).unwrap();
    assert_eq!(mnn(empty.view(), &config).unwrap_err(), Error::Empty { arg: "x".into() });
    let narrow = Tensor::<f32, 2>::zeros([4, 0]).unwrap();
    assert_eq!(mnn(narrow.view(), &config).unwrap_err(), Error::Empty { arg: "x".into() });
    let values = normals(9 * 40, 1);
    for top in [0, 41, usize::MAX] {
        let mut config = config;
        config.top = Some(top);
        let error = mnn(matrix(9, 40, &values).view(), &config).unwrap_err();
        assert!(matches!(&error, Error::Argument { arg, .. } if arg == "top"), "{error}");
    }
    let mut zero = config;
    zero.length = Some(0);
    assert!(matches!(mnn(matrix(9, 40, &values).view(), &zero), Err(Error::Argument { .. })));
    assert!(matches!(
        column_norms_into(matrix(9, 40, &values).view(), &mut [0.0; 39], &config),
        Err(Error::Shape { .. })
    ));
}

#[test]
fn numbers_that_are_not_finite_are_found() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (row, col) in [(0, 0), (3, 17), (8, 39), (70, 33)] {
            for center in [true, false] {
                let mut config = MnnConfig::default();
                config.center = center;
                let mut x = matrix(71, 40, &normals(71 * 40, 1));
                x[[row, col]] = bad;
                let Err(Error::NotFinite { index, value, .. }) = mnn(x.view(), &config) else {
                    panic!("{bad} at {row}, {col} was accepted");
                };
                assert_eq!((index, value.to_bits()), (vec![row, col], f64::from(bad).to_bits()));
                let half = Tensor::<bf16, 2>::from_slice([71, 40], &convert(x.as_slice())).unwrap();
                assert!(matches!(mnn(half.view(), &config), Err(Error::NotFinite { .. })));
            }
        }
    }
}

/// No temporary of the size of the matrix: memory stays at some vectors of length d for each part of rows.
#[test]
fn nothing_of_the_matrix_size_is_allocated() {
    for (rows, cols) in [(4096, 256), (512, 2048)] {
        let x = matrix(rows, cols, &normals(rows * cols, 1));
        let (_, memory) = measure(|| mnn(x.view(), &MnnConfig::default()).unwrap());
        let parts = rows.div_ceil(64).min(64);
        assert!(memory.peak <= 8 * cols * (2 * parts + 8) + 4096, "{} bytes", memory.peak);
        assert!(memory.peak < rows * cols * 4 / 2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Scaling, shifting all rows, and permuting rows leave the score alone; sum c_j >= the trace bound.
    #[test]
    fn the_score_has_its_invariances(
        rows in 2usize..40, cols in 2usize..40, seed in 0u64..1000, scale in 0.01f64..100.0,
    ) {
        let mut rng = KcRng::new(seed, 0);
        let x = Tensor::<f64, 2>::from_fn([rows, cols], |_| rng.normal()).unwrap();
        let config = MnnConfig::default();
        let want = mnn(x.view(), &config).unwrap().raw;
        let shift: Vec<f64> = (0..cols).map(|_| rng.normal()).collect();
        let order = rng.permutation(rows);
        let moved = Tensor::<f64, 2>::from_fn([rows, cols], |[i, j]| scale * x[[order[i], j]] + shift[j]).unwrap();
        let got = mnn(moved.view(), &config).unwrap().raw;
        prop_assert!((got - want).abs() < 1e-10 * want);
        // Column norms lie between those of equal and of concentrated columns.
        let norms = column_norms(x.view(), &config).unwrap();
        let all: f64 = norms.iter().sum();
        prop_assert!(all >= (rows as f64).sqrt() * (1.0 - 1e-12));
        prop_assert!(all <= ((rows * cols) as f64).sqrt() * (1.0 + 1e-12));
        let single: Vec<f32> = x.as_slice().iter().map(|&x| x as f32).collect();
        let view = TensorView::from_slice([rows, cols], &single).unwrap();
        let want = reference::mnn(view, &config).unwrap();
        prop_assert!((mnn(view, &config).unwrap().raw - want).abs() < 1e-6 * want);
    }
}
