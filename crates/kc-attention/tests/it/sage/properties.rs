//! Every level against the reference, layouts, threads, masks, and what cannot be computed.

use kc_attention::sage::{
    Granularity, PvMode, QkBits, Sage, SageConfig, quantize_k, quantize_q, reference, sage_attention,
    sage_attention_into, sage_attention_varlen,
};
use kc_attention::{Attention, AttentionConfig, Layout, Mask, Select, attention, compare};
use kc_core::{Error, Isa, Tensor, bf16, f16};
use kc_testing::{Tol, alloc, assert_close, each_isa, normals, same_on_any_pool};
use proptest::prelude::*;

const MODES: [PvMode; 5] =
    [PvMode::F32, PvMode::F16 { f16_accum: false }, PvMode::Int8, PvMode::Fp8, PvMode::Fp8F16Acc];
const GRANULARITIES: [Granularity; 5] = [
    Granularity::PerTensor,
    Granularity::PerBlock,
    Granularity::PerWarp,
    Granularity::PerThread,
    Granularity::PerToken,
];

/// Normal numbers with a bias in some channels, so that smoothing matters.
fn inputs([b, h, hk, n, nk, d]: [usize; 6], seed: u64) -> [Tensor<f32, 4>; 3] {
    let make = |shape: [usize; 4], seed: u64, bias: f32| {
        let mut x = Tensor::from_slice(shape, &normals(shape.iter().product(), seed)).unwrap();
        for (i, x) in x.as_mut_slice().iter_mut().enumerate() {
            if i % d % 5 == 1 {
                *x += bias;
            }
        }
        x
    };
    [make([b, h, n, d], seed, 2.0), make([b, hk, nk, d], seed + 1, -3.0), make([b, hk, nk, d], seed + 2, 1.0)]
}

/// The fast result is near the reference, compared with how far that is from exact.
fn assert_near_reference(sizes: [usize; 6], mask: &Mask<'_>, config: &SageConfig) {
    let [q, k, v] = inputs(sizes, 11);
    let plain = reference::sage_attention(q.view(), k.view(), v.view(), mask, config).unwrap();
    each_isa(|isa| {
        let config = SageConfig { isa, lse: true, ..config.clone() };
        let found = sage_attention(q.view(), k.view(), v.view(), mask, &config).unwrap();
        let what = || format!("{sizes:?} {isa} {config:?}");
        let apart = compare(found.out.view(), plain.out.view()).unwrap();
        // Halves and integers round a weight on an edge either way; e4m3 by up to a sixteenth of it.
        let bound = match config.pv {
            PvMode::F32 => 1e-5,
            PvMode::F16 { .. } => 4e-4,
            PvMode::Int8 => 2e-3,
            _ => 6e-3,
        };
        assert!(apart.rel_l1 <= bound, "{}: {apart:?}", what());
        let (lse, want) = (found.lse.unwrap(), plain.lse.clone().unwrap());
        for (a, b) in lse.as_slice().iter().zip(want.as_slice()) {
            assert!(a == b || (a - b).abs() <= 2e-5 * b.abs().max(1.0), "{}: lse {a} {b}", what());
        }
    });
}

#[test]
fn every_mode_and_granularity_is_that_of_the_reference() {
    for bits in [QkBits::Int8, QkBits::Int4] {
        for granularity in GRANULARITIES {
            for pv in MODES {
                let config = SageConfig { bits, granularity, pv, ..SageConfig::default() };
                assert_near_reference([1, 2, 1, 70, 130, 40], &Mask::CAUSAL, &config);
            }
        }
    }
    for (smooth_k, smooth_q, smooth_v) in
        [(false, Some(false), true), (true, Some(true), true), (false, Some(true), false)]
    {
        for pv in MODES {
            let config = SageConfig { pv, smooth_k, smooth_q, smooth_v, ..SageConfig::default() };
            assert_near_reference([1, 1, 1, 150, 100, 33], &Mask::NONE, &config);
        }
    }
}

#[test]
fn odd_sizes() {
    for sizes in [
        [1, 1, 1, 1, 1, 1],
        [2, 3, 1, 2, 3, 2],
        [1, 4, 2, 7, 63, 16],
        [1, 1, 1, 5, 64, 17],
        [1, 1, 1, 6, 65, 128],
        [1, 1, 1, 97, 129, 256],
        [1, 1, 1, 3, 70, 300],
        [1, 1, 1, 3, 70, 416],
    ] {
        for bits in [QkBits::Int8, QkBits::Int4] {
            for mask in [Mask::NONE, Mask::CAUSAL] {
                let smooth_q = Some(false);
                assert_near_reference(sizes, &mask, &SageConfig { bits, smooth_q, ..SageConfig::default() });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_sizes_are_those_of_the_reference(
        kv_heads in 1usize..3, share in 1usize..3, n in 1usize..140, nk in 1usize..200, d in 1usize..80,
        mode in 0usize..5, granularity in 0usize..5, four: bool, causal: bool, smooth: [bool; 3],
    ) {
        let config = SageConfig {
            bits: if four { QkBits::Int4 } else { QkBits::Int8 },
            granularity: GRANULARITIES[granularity],
            pv: MODES[mode],
            smooth_k: smooth[0],
            smooth_q: Some(smooth[1]),
            smooth_v: smooth[2],
            ..SageConfig::default()
        };
        let mask = Mask { causal, ..Mask::NONE };
        assert_near_reference([1, share * kv_heads, kv_heads, n, nk, d], &mask, &config);
    }
}

#[test]
fn results_go_where_they_are_wanted() {
    let [q, k, v] = inputs([2, 4, 2, 130, 70, 20], 71);
    for smooth_q in [false, true] {
        let config = SageConfig { smooth_q: Some(smooth_q), lse: true, blkq: 96, ..SageConfig::default() };
        let sage = Sage::new(q.view(), k.view(), v.view(), &Mask::CAUSAL, &config).unwrap();
        let want = sage.attend().unwrap();
        // Channels before heads before queries, among numbers that stay.
        let mut room = Tensor::<f32, 4>::from_fn([2, 21, 4, 130], |_| 7.0).unwrap();
        let mut lse = Tensor::<f32, 3>::zeros([4, 130, 2]).unwrap();
        let out = room.view_mut().slice(1, 0..20).unwrap().permuted([0, 2, 3, 1]).unwrap();
        sage.attend_into(out, Some(lse.view_mut().permuted([2, 0, 1]).unwrap())).unwrap();
        let out = room.view().slice(1, 0..20).unwrap().permuted([0, 2, 3, 1]).unwrap().to_tensor().unwrap();
        assert_eq!(out, want.out);
        assert_eq!(lse.view().permuted([2, 0, 1]).unwrap().to_tensor().unwrap(), want.lse.unwrap());
        let rest = room.view().slice(1, 20..21).unwrap().to_tensor().unwrap();
        assert!(rest.as_slice().iter().all(|x| *x == 7.0));
        // Nothing but the tasks and the tiles of a thread is allocated.
        let mut again = Tensor::zeros(q.shape()).unwrap();
        let (_, memory) = alloc::measure(|| sage.attend_into(again.view_mut(), None).unwrap());
        assert_eq!(again, want.out);
        assert!(memory.peak < 200_000, "{memory:?}");
    }
    let half = |x: &Tensor<f32, 4>| Tensor::from_fn(x.shape(), |at| f16::from_f32(x[at])).unwrap();
    let [q, k, v] = [&q, &k, &v].map(half);
    let config = SageConfig { layout: Layout::Nhd, ..SageConfig::default() };
    let [q, k, v] = [&q, &k, &v].map(|x| x.view().permuted([0, 2, 1, 3]).unwrap().to_tensor().unwrap());
    let want = sage_attention(q.view(), k.view(), v.view(), &Mask::NONE, &config).unwrap().out;
    let mut out = Tensor::zeros(q.shape()).unwrap();
    let into = |out: &mut Tensor<f16, 4>, lse: Option<&mut Tensor<f32, 3>>| {
        let (out, lse) = (out.view_mut(), lse.map(Tensor::view_mut));
        sage_attention_into(q.view(), k.view(), v.view(), &Mask::NONE, &config, out, lse)
    };
    into(&mut out, None).unwrap();
    assert_eq!(out, want);
    let mut short = Tensor::zeros([2, 130, 4, 19]).unwrap();
    assert!(matches!(into(&mut short, None), Err(Error::Shape { arg, .. }) if arg == "out"));
    let mut lse = Tensor::zeros([2, 130, 4]).unwrap();
    let found = into(&mut out, Some(&mut lse));
    assert!(matches!(found, Err(Error::Shape { arg, .. }) if arg == "lse"));
}

#[test]
fn masks() {
    let sizes = [2, 2, 1, 70, 150, 24];
    let keep: Vec<u8> = (0..70 * 150).map(|i| u8::from(i * 7919 % 5 < 2 && i / 150 != 3)).collect();
    let add: Vec<f32> = (0..2 * 150)
        .map(|i| if i % 7 == 2 { f32::NEG_INFINITY } else { (i % 13) as f32 * 0.3 - 2.0 })
        .collect();
    let keep = Tensor::from_slice([1, 1, 70, 150], &keep).unwrap();
    let add = Tensor::from_slice([1, 2, 1, 150], &add).unwrap();
    for causal in [false, true] {
        for select in [Select::Keep(keep.view()), Select::Add(add.view())] {
            for bits in [QkBits::Int8, QkBits::Int4] {
                let config = SageConfig { bits, ..SageConfig::default() };
                assert_near_reference(sizes, &Mask { causal, select }, &config);
            }
        }
    }
}

#[test]
fn queries_without_keys_get_nothing() {
    for pv in MODES {
        let config = SageConfig { pv, lse: true, smooth_v: true, ..SageConfig::default() };
        let [q, k, v] = inputs([1, 1, 1, 9, 4, 8], 3);
        let found = sage_attention(q.view(), k.view(), v.view(), &Mask::CAUSAL, &config).unwrap();
        let lse = found.lse.unwrap();
        for i in 0..9 {
            let row = &found.out.as_slice()[i * 8..i * 8 + 8];
            assert_eq!(row.iter().all(|x| *x == 0.0), i < 5, "{pv:?} {i}");
            assert_eq!(lse.as_slice()[i] == f32::NEG_INFINITY, i < 5);
            assert!(row.iter().all(|x| x.is_finite()));
        }
        for (b, n) in [(0, 4), (1, 0)] {
            let q = Tensor::<f32, 4>::zeros([b, 1, n, 8]).unwrap();
            let k = Tensor::<f32, 4>::zeros([b, 1, 4, 8]).unwrap();
            let found = sage_attention(q.view(), k.view(), k.view(), &Mask::NONE, &config).unwrap();
            assert!(found.out.is_empty());
        }
    }
}

#[test]
fn huge_scores_and_constants() {
    let [mut q, mut k, v] = inputs([1, 1, 1, 20, 200, 32], 5);
    q.as_mut_slice().iter_mut().for_each(|x| *x *= 300.0);
    k.as_mut_slice().iter_mut().for_each(|x| *x *= 300.0);
    for pv in MODES {
        let config = SageConfig { pv, smooth_k: false, ..SageConfig::default() };
        let plain = reference::sage_attention(q.view(), k.view(), v.view(), &Mask::NONE, &config).unwrap();
        each_isa(|isa| {
            let config = SageConfig { isa, ..config.clone() };
            let found = sage_attention(q.view(), k.view(), v.view(), &Mask::NONE, &config).unwrap();
            let apart = compare(found.out.view(), plain.out.view()).unwrap();
            assert!(apart.rel_l1 < 0.01, "{pv:?} {isa}: {apart:?}");
        });
        // Keys that are all the same weigh the same.
        let same = Tensor::from_fn([1, 1, 200, 32], |_| 7.5f32).unwrap();
        let found = sage_attention(q.view(), same.view(), v.view(), &Mask::NONE, &config).unwrap();
        let mean = |c: usize| (0..200).map(|j| f64::from(v[[0, 0, j, c]])).sum::<f64>() / 200.0;
        let mean: Vec<f64> = (0..32).map(mean).collect();
        assert_close(&found.out.as_slice()[..32], &mean, Tol::abs(if pv == MODES[1] { 1e-4 } else { 0.02 }));
        let zeros = Tensor::<f32, 4>::zeros([1, 1, 200, 32]).unwrap();
        let found = sage_attention(q.view(), k.view(), zeros.view(), &Mask::NONE, &config).unwrap();
        assert!(found.out.as_slice().iter().all(|x| *x == 0.0));
    }
    let huge = Tensor::from_fn([1, 1, 2, 4], |_| 1e30f32).unwrap();
    let config = SageConfig { smooth_k: false, ..SageConfig::default() };
    let error = sage_attention(huge.view(), huge.view(), huge.view(), &Mask::NONE, &config).unwrap_err();
    assert!(matches!(error, Error::Argument { .. }), "{error}");
}

#[test]
fn threads_layouts_and_types() {
    let [q, k, v] = inputs([2, 4, 2, 200, 300, 64], 8);
    for (bits, pv) in [(QkBits::Int8, MODES[1]), (QkBits::Int4, PvMode::Int8), (QkBits::Int4, PvMode::Fp8)] {
        let config = SageConfig { bits, pv, lse: true, ..SageConfig::default() };
        let run = |config: &SageConfig| {
            let Attention { out, lse } =
                sage_attention(q.view(), k.view(), v.view(), &Mask::CAUSAL, config).unwrap();
            (out.into_vec(), lse.unwrap().into_vec())
        };
        let (out, lse) = same_on_any_pool(|| run(&config));
        let swapped = |x: &Tensor<f32, 4>| x.view().permuted([0, 2, 1, 3]).unwrap().to_tensor().unwrap();
        let nhd = SageConfig { layout: Layout::Nhd, ..config.clone() };
        let (q2, k2, v2) = (swapped(&q), swapped(&k), swapped(&v));
        let found = sage_attention(q2.view(), k2.view(), v2.view(), &Mask::CAUSAL, &nhd).unwrap();
        assert_eq!(swapped(&found.out).as_slice(), out);
        assert_eq!(found.lse.unwrap().as_slice(), lse);
        // Halves are widened exactly, so only the output's rounding differs.
        let half = |x: &Tensor<f32, 4>| Tensor::from_fn(x.shape(), |at| f16::from_f32(x[at])).unwrap();
        let short = |x: &Tensor<f32, 4>| Tensor::from_fn(x.shape(), |at| bf16::from_f32(x[at])).unwrap();
        let f = sage_attention(half(&q).view(), half(&k).view(), half(&v).view(), &Mask::CAUSAL, &config);
        let b = sage_attention(short(&q).view(), short(&k).view(), short(&v).view(), &Mask::CAUSAL, &config);
        let want = Tensor::from_slice(q.shape(), &out).unwrap();
        assert!(compare(f.unwrap().out.view(), want.view()).unwrap().rel_l1 < 0.02);
        assert!(compare(b.unwrap().out.view(), want.view()).unwrap().rel_l1 < 0.05);
    }
}

/// A mask that hides the same keys gives the same bits as causality, which skips tiles.
#[test]
fn skipping_tiles_changes_nothing() {
    let [q, k, v] = inputs([1, 1, 1, 300, 300, 64], 21);
    let keep = Tensor::from_fn([1, 1, 300, 300], |[_, _, i, j]| u8::from(j <= i)).unwrap();
    let mask = Mask { causal: false, select: Select::Keep(keep.view()) };
    each_isa(|isa| {
        let config = SageConfig { isa, lse: true, ..SageConfig::default() };
        let run = |mask| sage_attention(q.view(), k.view(), v.view(), mask, &config).unwrap();
        let (causal, masked) = (run(&Mask::CAUSAL), run(&mask));
        let apart = compare(masked.out.view(), causal.out.view()).unwrap();
        assert!(apart.rel_l1 < 1e-6, "{isa}: {apart:?}");
    });
}

#[test]
fn sequences_have_means_of_their_own() {
    let [q, k, v] = inputs([1, 2, 1, 90, 150, 32], 31);
    let config = SageConfig { lse: true, ..SageConfig::default() };
    let tokens = |x: &Tensor<f32, 4>| x.view().permuted([0, 2, 1, 3]).unwrap().outer(0).to_tensor().unwrap();
    let (q3, k3, v3) = (tokens(&q), tokens(&k), tokens(&v));
    let (cu_q, cu_k) = ([0, 20, 20, 60, 90], [0, 30, 40, 150, 150]);
    let found = sage_attention_varlen(q3.view(), k3.view(), v3.view(), &cu_q, &cu_k, true, &config).unwrap();
    let lse = found.lse.unwrap();
    for s in 0..4 {
        let (queries, keys) = (cu_q[s]..cu_q[s + 1], cu_k[s]..cu_k[s + 1]);
        for (head, i) in (0..2).flat_map(|h| queries.clone().map(move |i| (h, i))) {
            assert_eq!(lse[[head, i]] == f32::NEG_INFINITY, keys.is_empty());
        }
        if keys.is_empty() || queries.is_empty() {
            continue;
        }
        let part = |x: &Tensor<f32, 4>, range| x.view().slice(2, range).unwrap().to_tensor().unwrap();
        let (q, k, v) = (part(&q, queries.clone()), part(&k, keys.clone()), part(&v, keys));
        let one = sage_attention(q.view(), k.view(), v.view(), &Mask::CAUSAL, &config).unwrap();
        for head in 0..2 {
            for (row, i) in queries.clone().enumerate() {
                for c in 0..32 {
                    assert_eq!(found.out[[i, head, c]], one.out[[0, head, row, c]]);
                }
            }
        }
    }
    for (cu_q, cu_k) in
        [(vec![1, 90], vec![0, 150]), (vec![0, 90], vec![0, 149]), (vec![0, 50, 40, 90], vec![0, 1, 2, 150])]
    {
        let error = sage_attention_varlen(q3.view(), k3.view(), v3.view(), &cu_q, &cu_k, false, &config);
        assert!(matches!(error, Err(Error::Argument { .. })));
    }
}

#[test]
fn bad_input_is_an_error() {
    let [q, k, v] = inputs([1, 2, 1, 4, 6, 8], 41);
    let run = |q: &Tensor<f32, 4>, k: &Tensor<f32, 4>, v: &Tensor<f32, 4>, config: &SageConfig| {
        sage_attention(q.view(), k.view(), v.view(), &Mask::NONE, config).map(|found| found.out)
    };
    let plain = SageConfig::default();
    for (name, at) in [("q", [0, 1, 2, 3]), ("k", [0, 0, 5, 7]), ("v", [0, 0, 3, 0])] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for pv in MODES {
                let [mut q, mut k, mut v] = [q.clone(), k.clone(), v.clone()];
                let x = [("q", &mut q), ("k", &mut k), ("v", &mut v)].into_iter().find(|(n, _)| *n == name);
                x.unwrap().1[at] = bad;
                let config = SageConfig { pv, ..plain.clone() };
                match run(&q, &k, &v, &config).unwrap_err() {
                    Error::NotFinite { arg, index, .. } => assert_eq!((&*arg, &*index), (name, &at[..])),
                    other => panic!("{other}"),
                }
                // Unchecked, anything may come out, but something does.
                let config = SageConfig { check_finite: false, ..config };
                assert!(run(&q, &k, &v, &config).is_ok() || name != "v");
            }
        }
    }
    let other = Tensor::<f32, 4>::zeros([1, 1, 5, 8]).unwrap();
    assert!(matches!(run(&q, &k, &other, &plain), Err(Error::Shape { arg, .. }) if arg == "v"));
    let three = Tensor::<f32, 4>::zeros([1, 3, 6, 8]).unwrap();
    assert!(matches!(run(&q, &three, &three, &plain), Err(Error::Shape { arg, .. }) if arg == "k"));
    let none = Tensor::<f32, 4>::zeros([1, 1, 0, 8]).unwrap();
    assert!(matches!(run(&q, &none, &none, &plain), Err(Error::Empty { .. })));
    for (config, name) in [
        (SageConfig { warpq: 12, ..plain.clone() }, "warpq"),
        (SageConfig { warpk: 0, ..plain.clone() }, "warpk"),
        (SageConfig { blkq: 100, ..plain.clone() }, "blkq"),
        (SageConfig { blkk: 0, ..plain.clone() }, "blkk"),
        (SageConfig { scale: Some(f32::NAN), ..plain.clone() }, "scale"),
    ] {
        assert!(
            matches!(run(&q, &k, &v, &config), Err(Error::Argument { arg, .. }) if arg == name),
            "{name}"
        );
        if name != "scale" {
            assert!(quantize_q(q.view(), &config).is_err() && quantize_k(k.view(), &config).is_err());
        }
    }
    let keep = Tensor::<u8, 4>::zeros([1, 1, 3, 6]).unwrap();
    let mask = Mask { causal: false, select: Select::Keep(keep.view()) };
    assert!(sage_attention(q.view(), k.view(), v.view(), &mask, &plain).is_err());
    for bad in [f32::NAN, f32::INFINITY] {
        let mut add = Tensor::<f32, 4>::zeros([1, 1, 4, 6]).unwrap();
        add[[0, 0, 2, 5]] = bad;
        let mask = Mask { causal: false, select: Select::Add(add.view()) };
        let found = sage_attention(q.view(), k.view(), v.view(), &mask, &plain);
        assert!(
            matches!(found, Err(Error::NotFinite { arg, index, .. }) if arg == "mask" && index == [0, 0, 2, 5])
        );
    }
}

/// Codes are stored in a byte or half a byte each (two at the levels that multiply words), and nothing of the size of the
/// scores is ever allocated.
#[test]
fn memory_is_that_of_the_codes() {
    let (n, d) = (2048, 64);
    let [q, k, v] = inputs([1, 1, 1, n, n, d], 51);
    let four = SageConfig { bits: QkBits::Int4, pv: PvMode::Int8, isa: Isa::best(), ..SageConfig::default() };
    let eight = SageConfig { bits: QkBits::Int8, ..four.clone() };
    let bytes = |config| Sage::new(q.view(), k.view(), v.view(), &Mask::NONE, config).unwrap().bytes();
    // Values take two bytes, a key's start and factor eight.
    assert!(bytes(&four) <= n * d / 2 + 2 * n * d + 8 * n + 4 * d);
    assert!(bytes(&eight) <= 2 * n * d + 2 * n * d + 8 * n + 4 * d);
    let (_, memory) = alloc::measure(|| {
        sage_attention(q.view(), k.view(), v.view(), &Mask::NONE, &four).unwrap();
    });
    assert!(memory.peak <= 4 * n * d + 3 * n * d + 64 * n + 400_000, "{memory:?}");
}

#[test]
fn errors_fall_from_coarse_to_fine_and_with_smoothing() {
    let [q, k, v] = inputs([1, 4, 4, 512, 512, 64], 61);
    let exact = attention(q.view(), k.view(), v.view(), &Mask::NONE, &AttentionConfig::default()).unwrap();
    let error = |config: SageConfig| {
        let found = sage_attention(q.view(), k.view(), v.view(), &Mask::NONE, &config).unwrap();
        compare(found.out.view(), exact.out.view()).unwrap().rel_l1
    };
    for bits in [QkBits::Int8, QkBits::Int4] {
        let errors = GRANULARITIES.map(|granularity| {
            error(SageConfig { bits, granularity, pv: PvMode::F32, ..SageConfig::default() })
        });
        assert!(errors.windows(2).all(|e| e[0] > 0.98 * e[1]), "{errors:?}");
        assert!(errors[0] > 1.1 * errors[4], "{errors:?}");
        let rough =
            error(SageConfig { bits, smooth_k: false, smooth_q: Some(false), ..SageConfig::default() });
        assert!(rough > 1.2 * error(SageConfig { bits, ..SageConfig::default() }), "{bits:?} {rough}");
    }
}
