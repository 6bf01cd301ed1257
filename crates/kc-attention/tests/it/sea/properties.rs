//! Against the definition at odd sizes and every level; causality, padding, batches, memory, bad input.

use kc_attention::sea::*;
use kc_core::{Error, KcRng, Tensor, TensorView};
use kc_testing::alloc::measure;
use kc_testing::{Tol, assert_close, each_isa, normals, same_on_any_pool};
use proptest::prelude::*;

use super::support::inputs;

fn random(shape: [usize; 4], seed: u64) -> Tensor<f32, 4> {
    Tensor::from_slice(shape, &normals(shape.iter().product(), seed)).unwrap()
}

fn qkv(shape: [usize; 4], seed: u64) -> [Tensor<f32, 4>; 3] {
    [0, 1, 2].map(|i| random(shape, 10 * seed + i))
}

fn views(x: &[Tensor<f32, 4>; 3]) -> [TensorView<'_, f32, 4>; 3] {
    [x[0].view(), x[1].view(), x[2].view()]
}

/// Parameters with nothing at its neutral value.
fn params(config: &SeaConfig, seed: u64) -> SeaParams<f32> {
    let mut p = SeaParams::<f32>::init(config, seed).unwrap();
    let mut rng = KcRng::new(seed, 9);
    for (name, values) in p.entries_mut() {
        if name.contains("ln") || name == "scale_b" {
            values.iter_mut().for_each(|x| *x += 0.3 * rng.normal() as f32);
        }
    }
    p
}

fn layer(config: &SeaConfig, seed: u64) -> SeaLayer<f32> {
    SeaLayer::new(config.clone(), params(config, seed)).unwrap()
}

fn config(heads: usize, head_dim: usize, t_m: usize, k: f64, causal: bool) -> SeaConfig {
    SeaConfig { heads, head_dim, t_m, k, causal, max_len: 300, ..SeaConfig::default() }
}

/// The definition on every batch entry: results, and columns of every row and head.
fn defined(layer: &SeaLayer<f32>, x: &[Tensor<f32, 4>; 3], lengths: &[usize]) -> Vec<reference::Reference> {
    let [_, h, t, d] = x[0].shape();
    let of = |n: usize| {
        let wide =
            |x: &Tensor<f32, 4>| Tensor::from_fn([h, t, d], |[i, j, c]| f64::from(x[[n, i, j, c]])).unwrap();
        let [q, k, v] = [&x[0], &x[1], &x[2]].map(wide);
        reference::forward(layer.config(), &layer.params().cast(), [q.view(), k.view(), v.view()], lengths[n])
            .unwrap()
    };
    (0..lengths.len()).map(of).collect()
}

fn is_defined(layer: &SeaLayer<f32>, x: &[Tensor<f32, 4>; 3], lengths: Option<&[usize]>) {
    let [n, h, t, d] = x[0].shape();
    let all = lengths.map_or_else(|| vec![t; n], <[usize]>::to_vec);
    let want = defined(layer, x, &all);
    let given = inputs(views(x), lengths);
    let trace = layer.trace(&given).unwrap();
    let fast = layer.forward(&given).unwrap();
    for (n, want) in want.iter().enumerate() {
        let (cells, line) = (h * t * layer.config().t_m, h * t * d);
        assert_close(
            &trace.est_score.as_slice()[n * cells..(n + 1) * cells],
            &want.est_score,
            Tol::new(1e-4, 2e-4),
        );
        // A cell at the edge of the choice may fall on either side in f32; then nothing after it can be compared.
        if trace.kept.as_slice()[n * cells..(n + 1) * cells] != want.keep {
            let (got, want_keep) = (&trace.kept.as_slice()[n * cells..(n + 1) * cells], &want.keep);
            let differ = got.iter().zip(want_keep).filter(|(a, b)| a != b).count();
            assert!(differ * 500 <= cells + 4 * 500, "{differ} of {cells} cells differ");
            continue;
        }
        for (t, heads) in want.entries.iter().enumerate() {
            let cols: Vec<u32> = heads
                .iter()
                .enumerate()
                .flat_map(|(head, cols)| cols.iter().map(move |c| (head * x[0].shape()[2] + c) as u32))
                .collect();
            assert_eq!(trace.probs.cols()[trace.probs.row(n, t)], cols, "row {t}");
        }
        assert_close(&trace.out.as_slice()[n * line..(n + 1) * line], &want.out, Tol::new(1e-4, 1e-4));
        assert_close(&fast.out.as_slice()[n * line..(n + 1) * line], &want.out, Tol::new(1e-4, 1e-4));
    }
}

#[test]
fn every_level_is_the_definition_at_odd_sizes() {
    for (causal, heads, d, t_m, k, t) in [
        (true, 1, 4, 4, 1.0, 1),
        (true, 3, 7, 12, 2.5, 45),
        (true, 12, 8, 16, 3.0, 70),
        (false, 1, 5, 2, 1.0, 1),
        (false, 2, 9, 10, 3.0, 31),
        (false, 3, 8, 16, 4.0, 50),
    ] {
        let config = config(heads, d, t_m, k, causal);
        let x = qkv([2, heads, t, d], t as u64);
        let lengths = [t, t.div_ceil(3)];
        each_isa(|isa| is_defined(&layer(&config, 3).at(isa), &x, (!causal).then_some(&lengths[..])));
    }
}

#[test]
fn spans_groups_and_gates_are_those_of_the_definition() {
    for group in Group::ALL {
        for (max_span, partial_scaler, mask_padding) in
            [(Span::All, true, true), (Span::At(2), false, false), (Span::K, true, true)]
        {
            let base = config(2, 8, 8, 3.0, false);
            let config =
                SeaConfig { group, max_span, partial_scaler, mask_padding, scale: Some(0.6), ..base };
            is_defined(&layer(&config, 5), &qkv([2, 2, 41, 8], 7), Some(&[41, 30]));
        }
    }
    let config = SeaConfig { max_span: Span::All, oversample: 1.5, ..config(2, 8, 8, 3.0, true) };
    is_defined(&layer(&config, 5), &qkv([1, 2, 90, 8], 8), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn random_layers_are_those_of_the_definition(
        heads in 1usize..4, d in 2usize..11, cells in 1usize..5, k in 0.3f64..9.0, t in 1usize..60, causal: bool, seed in 0u64..99,
    ) {
        let config = config(heads, d, 4 * cells, k, causal);
        is_defined(&layer(&config, seed), &qkv([1, heads, t, d], seed), None);
    }
}

/// Beyond a segment, so that streams start in the middle of the sequence.
#[test]
fn segments_meet_without_a_seam() {
    let config = SeaConfig { max_len: 1300, ..config(2, 8, 16, 4.0, true) };
    let (layer, x) = (layer(&config, 1), qkv([1, 2, 1300, 8], 1));
    let given = inputs(views(&x), None);
    let (trace, fast) = (layer.trace(&given).unwrap(), layer.forward(&given).unwrap());
    let gap = kc_testing::max_abs_diff(fast.out.as_slice(), trace.out.as_slice());
    // A cell at the edge of the choice may fall on either side; it moves a few results by a little.
    let moved = fast
        .out
        .as_slice()
        .iter()
        .zip(trace.out.as_slice())
        .filter(|(a, b)| (**a - **b).abs() > 1e-4)
        .count();
    assert!(moved * 200 < fast.out.len(), "{moved} of {} results, {gap}", fast.out.len());
}

/// Over the edges of tiles, with an odd number of rows, padding, and one tile of padding alone.
#[test]
fn tiles_meet_without_a_seam() {
    for (t, lengths) in [(387, [387, 200]), (256, [1, 256]), (129, [128, 100])] {
        for (group, mask_padding) in [(Group::CausalBatch, true), (Group::Query, false)] {
            let config = SeaConfig { group, mask_padding, ..config(2, 8, 16, 6.0, false) };
            let (layer, x) = (layer(&config, 1), qkv([2, 2, t, 8], 1));
            let given = inputs(views(&x), Some(&lengths));
            let (trace, fast) = (layer.trace(&given).unwrap(), layer.forward(&given).unwrap());
            let pairs = fast.out.as_slice().iter().zip(trace.out.as_slice());
            // A cell at the edge of the choice may fall on either side; it moves a few results by a little.
            let moved = pairs.filter(|(a, b)| (**a - **b).abs() > 1e-4).count();
            assert!(moved * 200 < fast.out.len(), "{t}: {moved} of {} results", fast.out.len());
            assert_eq!(fast.nnz, trace.probs.nnz_per_batch());
        }
    }
}

#[test]
fn later_tokens_change_nothing_before_them() {
    let config = SeaConfig { max_len: 700, ..config(2, 8, 16, 4.0, true) };
    let layer = layer(&config, 2);
    let x = qkv([1, 2, 700, 8], 2);
    let before = layer.forward(&inputs(views(&x), None)).unwrap().out;
    for at in [5, 31, 32, 500, 517, 699] {
        let mut y = x.clone();
        for x in &mut y {
            for h in 0..2 {
                for c in 0..8 {
                    x[[0, h, at, c]] += 3.0;
                }
            }
        }
        let after = layer.forward(&inputs(views(&y), None)).unwrap().out;
        let mut changed = false;
        for h in 0..2 {
            for t in 0..700 {
                for c in 0..8 {
                    let same = before[[0, h, t, c]].to_bits() == after[[0, h, t, c]].to_bits();
                    assert!(same || t >= at, "token {t} sees token {at}");
                    changed |= !same;
                }
            }
        }
        assert!(changed);
    }
}

#[test]
fn padding_does_not_matter_where_it_must_not() {
    let lengths = [40, 23];
    for (mask_padding, tensors) in [(true, vec![0, 1, 2]), (false, vec![2])] {
        let config = SeaConfig { mask_padding, ..config(2, 8, 16, 4.0, false) };
        let layer = layer(&config, 2);
        let x = qkv([2, 2, 40, 8], 3);
        let before = layer.forward(&inputs(views(&x), Some(&lengths))).unwrap().out;
        let mut y = x.clone();
        for i in tensors {
            for (h, t, c) in (0..2).flat_map(|h| (23..40).flat_map(move |t| (0..8).map(move |c| (h, t, c)))) {
                y[i][[1, h, t, c]] = 1e3;
            }
        }
        let after = layer.forward(&inputs(views(&y), Some(&lengths))).unwrap().out;
        for h in 0..2 {
            for t in 0..23 {
                for c in 0..8 {
                    assert_eq!(before[[1, h, t, c]].to_bits(), after[[1, h, t, c]].to_bits(), "{h} {t} {c}");
                }
            }
        }
    }
}

#[test]
fn batches_strides_and_threads_do_not_matter() {
    for causal in [true, false] {
        let config = SeaConfig { max_len: 600, ..config(2, 8, 16, 4.0, causal) };
        let layer = layer(&config, 4);
        let x = qkv([3, 2, 600, 8], 4);
        let all = same_on_any_pool(|| layer.forward(&inputs(views(&x), None)).unwrap().out);
        let one = views(&x).map(|x| x.slice(0, 1..2).unwrap());
        let alone = layer.forward(&inputs(one, None)).unwrap().out;
        assert_eq!(alone.as_slice(), &all.as_slice()[2 * 600 * 8..2 * 2 * 600 * 8]);
        let turned = [0, 1, 2].map(|i| {
            let x: Tensor<f32, 4> =
                Tensor::from_fn([3, 600, 2, 8], |[n, t, h, c]| x[i][[n, h, t, c]]).unwrap();
            x
        });
        let strided = [0, 1, 2].map(|i| turned[i].view().permuted([0, 2, 1, 3]).unwrap());
        assert_eq!(layer.forward(&inputs(strided, None)).unwrap().out, all);
    }
}

#[test]
fn decoding_is_the_last_row_of_the_whole() {
    let config = config(3, 8, 16, 4.0, true);
    each_isa(|isa| {
        let layer = layer(&config, 6).at(isa);
        let x = qkv([2, 3, 90, 8], 6);
        let whole = layer.forward(&inputs(views(&x), None)).unwrap().out;
        let mut state = layer.state(2).unwrap();
        let empty = state.state_bytes();
        for t in 0..90 {
            let [q, k, v] = views(&x).map(|x| x.slice(2, t..t + 1).unwrap());
            let row = layer.decode(&mut state, q, k, v).unwrap();
            let want = whole.view().slice(2, t..t + 1).unwrap().to_vec();
            assert_close(row.as_slice(), &want, Tol::abs(1e-4));
        }
        assert_eq!((state.tokens(), state.state_bytes()), (90, empty), "the state does not grow");
        assert!(state.cache_bytes() >= 2 * 2 * 3 * 90 * 8 * 4);
    });
    let bidirectional = SeaConfig { causal: false, ..config };
    assert!(matches!(layer(&bidirectional, 1).state(1), Err(Error::Unsupported { .. })));
}

#[test]
fn memory_is_linear_in_the_tokens() {
    // A [H, T, T] matrix alone would be 16 GiB, one of [H, T, t_m] 64 MiB; the result is 16 MiB.
    for (causal, most) in [(true, 64 << 20), (false, 48 << 20)] {
        let peak = |t: usize| {
            let config = SeaConfig { max_len: t, nb_factor: 8.0, ..config(4, 32, 128, 16.0, causal) };
            let layer = layer(&config, 1);
            let x = qkv([1, 4, t, 32], 1);
            let (out, memory) = measure(|| layer.forward(&inputs(views(&x), None)).unwrap());
            assert!(out.out.as_slice().iter().all(|x| x.is_finite()));
            memory.peak
        };
        let (short, long) = (peak(8192), peak(32768));
        assert!(long < most, "{causal}: {long}");
        assert!((long as f64) < 4.4 * short as f64, "{causal}: {short} {long}");
    }
}

#[test]
fn own_tensors_of_the_estimator_are_used() {
    own_tensors_are_used(true);
    own_tensors_are_used(false);
}

fn own_tensors_are_used(causal: bool) {
    let config = config(2, 8, 16, 4.0, causal);
    let layer = layer(&config, 8);
    let (x, y) = (qkv([1, 2, 60, 8], 8), qkv([1, 2, 60, 8], 9));
    let with = |own| SeaInputs { estimator: Some(own), ..inputs(views(&x), None) };
    let plain = layer.forward(&inputs(views(&x), None)).unwrap();
    assert_eq!(layer.forward(&with(views(&x))).unwrap().out, plain.out);
    let other = layer.forward(&with(views(&y))).unwrap();
    assert_close(other.out.as_slice(), layer.trace(&with(views(&y))).unwrap().out.as_slice(), Tol::abs(1e-4));
    assert_ne!(other.out, plain.out);
    let (_, _, cache) = layer.forward_train(&with(views(&y)), None).unwrap();
    let grads = layer.backward(&cache, x[0].view()).unwrap();
    let [q, ..] = grads.estimator.unwrap();
    assert!(q.as_slice().iter().any(|x| *x != 0.0));
}

#[test]
fn bad_input_is_named() {
    let good = config(2, 8, 16, 4.0, true);
    let named = |found: Error, what: &str| assert!(format!("{found}").starts_with(what), "{found}");
    for (config, what) in [
        (SeaConfig { t_m: 18, ..good.clone() }, "t_m"),
        (SeaConfig { t_m: 15, causal: false, ..good.clone() }, "t_m"),
        (SeaConfig { k: 0.0, ..good.clone() }, "k"),
        (SeaConfig { k: f64::NAN, ..good.clone() }, "k"),
        (SeaConfig { nb_factor: -1.0, ..good.clone() }, "nb_factor"),
        (SeaConfig { heads: 0, ..good.clone() }, "heads"),
        (SeaConfig { group: Group::Head, ..good.clone() }, "group"),
        (SeaConfig { max_span: Span::At(0), ..good.clone() }, "max_span"),
        (SeaConfig { t_m: 1 << 30, ..good.clone() }, "t_m"),
    ] {
        named(SeaParams::<f32>::init(&config, 0).unwrap_err(), what);
    }
    let mut short = params(&good, 1);
    short.c1_w.pop();
    named(SeaLayer::new(good.clone(), short).unwrap_err(), "c1_w");
    let mut nan = params(&good, 1);
    nan.enc_b[3] = f32::NAN;
    assert!(matches!(SeaLayer::new(good.clone(), nan), Err(Error::NotFinite { .. })));
    named(SeaParams::<f32>::from_tensors(&good, |_| None).unwrap_err(), "proj");

    let layer = layer(&good, 1);
    let x = qkv([1, 2, 20, 8], 1);
    let fails = |x: &[Tensor<f32, 4>; 3], lengths: Option<&[usize]>| {
        layer.forward(&inputs(views(x), lengths)).unwrap_err()
    };
    named(fails(&x, Some(&[20])), "lengths");
    named(fails(&qkv([1, 2, 301, 8], 1), None), "q");
    named(fails(&qkv([1, 3, 20, 8], 1), None), "q");
    named(fails(&[x[0].clone(), random([1, 2, 19, 8], 1), x[2].clone()], None), "k");
    let mut bad = x.clone();
    bad[2][[0, 1, 7, 3]] = f32::INFINITY;
    assert!(matches!(fails(&bad, None), Error::NotFinite { index, .. } if index == [0, 1, 7, 3]));
    assert!(matches!(fails(&qkv([1, 2, 0, 8], 1), None), Error::Empty { .. }));
    let both = SeaLayer::new(
        SeaConfig { causal: false, ..good.clone() },
        params(&SeaConfig { causal: false, ..good }, 1),
    )
    .unwrap();
    for lengths in [&[0usize][..], &[21], &[20, 20]] {
        named(both.forward(&inputs(views(&x), Some(lengths))).unwrap_err(), "lengths");
    }
    let scores = random([1, 2, 20, 19], 1);
    let teacher = Teacher { scores: scores.view(), context: None };
    let given = inputs(views(&x), None);
    named(layer.forward_train(&given, Some(&teacher)).unwrap_err(), "teacher_scores");
}

#[test]
fn what_overflows_is_an_error() {
    for (causal, size) in [(true, 1e30), (false, 1e30), (true, 3e38), (false, 3e38)] {
        let layer = layer(&config(2, 8, 16, 4.0, causal), 1);
        let mut x = qkv([1, 2, 20, 8], 1);
        x.iter_mut().flat_map(|x| x.as_mut_slice()).for_each(|x| *x = size * x.clamp(-1.0, 1.0));
        let found = layer.forward(&inputs(views(&x), None));
        assert!(matches!(found, Err(Error::NotFinite { .. })), "{causal} {size}: {found:?}");
    }
}

#[test]
fn linear_attention_is_its_definition() {
    let (q, k, v) = (random([1, 2, 33, 6], 1), random([1, 2, 33, 6], 2), random([1, 2, 33, 9], 3));
    let proj = Tensor::<f32, 2>::from_slice([11, 6], &normals(66, 4)).unwrap();
    let dash = |x: &Tensor<f32, 4>, h: usize, t: usize, i: usize| -> f64 {
        (0..6).map(|c| f64::from(proj[[i, c]] * x[[0, h, t, c]])).sum::<f64>() * 6f64.powf(-0.25)
    };
    let square = |x: &Tensor<f32, 4>, h: usize, t: usize| -> f64 {
        (0..6).map(|c| f64::from(x[[0, h, t, c]]).powi(2)).sum::<f64>() / (2.0 * 6f64.sqrt())
    };
    for (features, causal) in [(Features::Softmax, false), (Features::Relu, true), (Features::Relu, false)] {
        let got = linear_attention(q.view(), k.view(), v.view(), proj.view(), features, causal).unwrap();
        for h in 0..2 {
            let most = (0..33 * 11).map(|i| dash(&k, h, i / 11, i % 11)).fold(f64::MIN, f64::max);
            let map = |x: &Tensor<f32, 4>, t: usize, i: usize, is_key: bool| -> f64 {
                let own = (0..11).map(|i| dash(x, h, t, i)).fold(f64::MIN, f64::max);
                match features {
                    Features::Relu => dash(x, h, t, i).max(0.0) + 1e-3,
                    Features::Softmax => {
                        (dash(x, h, t, i) - square(x, h, t) - if is_key { most } else { own }).exp() + 1e-4
                    }
                }
            };
            for t in 0..33 {
                let weight =
                    |s: usize| (0..11).map(|i| map(&q, t, i, false) * map(&k, s, i, true)).sum::<f64>();
                let weights: Vec<f64> = (0..if causal { t + 1 } else { 33 }).map(weight).collect();
                let floor =
                    if causal { 1e-6 * (0..11).map(|i| map(&q, t, i, false)).sum::<f64>() } else { 0.0 };
                let below = weights.iter().sum::<f64>() + floor;
                for c in 0..9 {
                    let sum: f64 =
                        weights.iter().enumerate().map(|(s, w)| w * f64::from(v[[0, h, s, c]])).sum();
                    assert!(
                        (f64::from(got[[0, h, t, c]]) - sum / below).abs() < 1e-5,
                        "{features:?} {causal} {t}"
                    );
                }
            }
        }
    }
    assert!(linear_attention(q.view(), v.view(), v.view(), proj.view(), Features::Relu, true).is_err());
}

#[test]
fn jitter_moves_edges_and_nothing_else() {
    let config = SeaConfig { max_span: Span::All, ..config(1, 4, 8, 2.0, true) };
    let keep = Kept::new([1, 1, 64, 8], (0..512).map(|i| i % 8 == i / 8 % 8).collect()).unwrap();
    let still = stretch_mask(&keep, &[64], &config, None).unwrap();
    let moved = stretch_mask(&keep, &[64], &config, Some(1)).unwrap();
    assert_ne!(still.cols(), moved.cols());
    for t in 0..64 {
        let row = &moved.cols()[moved.row(0, t)];
        assert!(row.is_sorted() && row.iter().all(|&c| c as usize <= t));
        let size = still.row(0, t).len();
        assert!(row.len().abs_diff(size) <= 1, "{t}");
    }
    // All cells together still cover every column once.
    let all = Kept::new([1, 1, 64, 8], vec![true; 512]).unwrap();
    let whole = stretch_mask(&all, &[64], &config, Some(1)).unwrap();
    assert!((0..64).all(|t| whole.row(0, t).len() == t + 1));
}

#[test]
fn covered_mass_counts_what_the_mask_holds() {
    let scores = random([1, 2, 10, 10], 3);
    let all: Vec<u32> =
        (0..10).flat_map(|t| (0..2).flat_map(move |h| (0..=t).map(move |j| h * 10 + j))).collect();
    let lengths: Vec<u32> = (0..10).map(|t| 2 * (t + 1)).collect();
    let full = kc_sparse::FlatCsr::<f32>::from_rows([1, 2, 10, 10], &lengths, all).unwrap();
    let mass = |mask: &kc_sparse::FlatCsr<f32>| covered_mass(mask, scores.view(), &[10], true).unwrap();
    assert!((mass(&full) - 1.0).abs() < 1e-6);
    let one: Vec<u32> = vec![0; 10];
    let first = kc_sparse::FlatCsr::<f32>::from_rows([1, 2, 10, 10], &[1; 10], one).unwrap();
    let want: f64 = (0..10)
        .map(|t| {
            let row: Vec<f64> = (0..=t).map(|j| f64::from(scores[[0, 0, t, j]]).exp()).collect();
            row[0] / row.iter().sum::<f64>()
        })
        .sum::<f64>()
        / 20.0;
    assert!((mass(&first) - want).abs() < 1e-6);
}
