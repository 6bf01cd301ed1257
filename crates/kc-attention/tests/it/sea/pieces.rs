//! The steps by themselves, against plain definitions on random inputs: choice of cells, stretching, sparse attention.

use kc_attention::sea::*;
use kc_core::{Error, KcRng, Tensor};
use kc_sparse::FlatCsr;
use kc_testing::{Tol, assert_close, each_isa, normals};
use proptest::prelude::*;

/// The largest `budget` cells (rounded half to even, at least 1), ties to the lower place in `group`.
fn largest(prob: &[f32], group: &[usize], budget: f64, keep: &mut [bool]) {
    let mut order = group.to_vec();
    order.sort_by(|&a, &b| prob[b].total_cmp(&prob[a]));
    let floor = budget.floor();
    let even = if budget - floor == 0.5 { floor + floor % 2.0 } else { budget.round() };
    let many = (even as usize).clamp(1, group.len());
    order[..many].iter().for_each(|&at| keep[at] = true);
}

/// A mask of random columns; some rows and heads have none.
fn mask(shape @ [n, h, rows, keys]: [usize; 4], share: f64, seed: u64) -> FlatCsr<f32> {
    let mut rng = KcRng::new(seed, 7);
    let (mut lengths, mut cols) = (Vec::new(), Vec::new());
    for _ in 0..n * rows {
        let before = cols.len();
        cols.extend((0..(h * keys) as u32).filter(|_| rng.uniform() < share));
        lengths.push((cols.len() - before) as u32);
    }
    FlatCsr::from_rows(shape, &lengths, cols).unwrap()
}

fn random(shape: [usize; 4], seed: u64) -> Tensor<f32, 4> {
    Tensor::from_slice(shape, &normals(shape.iter().product(), seed)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn kept_cells_are_the_largest_of_their_group(
        heads in 1usize..4, rows in 1usize..20, cells in 1usize..9, k in 0.1f64..12.0, oversample in 0.5f64..2.0,
        levels in 1u64..40, group in 0usize..5, short in 0.0f64..1.0, seed: u64,
    ) {
        let causal = group == 4;
        let group = Group::ALL[group % 4];
        let t_m = 4 * cells;
        let config = SeaConfig { heads, head_dim: 4, t_m, k, oversample, causal, group, ..SeaConfig::default() };
        let mut rng = KcRng::new(seed, 0);
        // Few levels make ties, and 0 is one of them.
        let prob = Tensor::from_fn([1, heads, rows, t_m], |_| rng.below(levels) as f32 / 64.0).unwrap();
        let len = if causal { rows } else { ((rows as f64 * short) as usize).clamp(1, rows) };
        let kept = topk_mask(prob.view(), &[len], &config).unwrap();
        let at = |h: usize, t: usize, b: usize| (h * rows + t) * t_m + b;
        let row = |h: usize, t: usize| (0..t_m).map(move |b| at(h, t, b));
        let (budget, all) = (k * oversample * t_m as f64, heads as f64);
        let mut want = vec![false; prob.len()];
        let mut choose = |cells: Vec<usize>, budget| largest(prob.as_slice(), &cells, budget, &mut want);
        match group {
            Group::CausalBatch => (0..len).for_each(|t| {
                let width = if causal { t + 1 } else { len };
                choose((0..heads).flat_map(|h| row(h, t)).collect(), all * budget / width as f64);
            }),
            Group::Query => (0..heads * len).for_each(|i| choose(row(i / len, i % len).collect(), budget / len as f64)),
            Group::Head => (0..heads).for_each(|h| choose((0..len).flat_map(|t| row(h, t)).collect(), budget)),
            Group::Batch => {
                choose((0..heads * len).flat_map(|i| row(i / len, i % len)).collect(), all * budget);
            }
        }
        prop_assert_eq!(kept.as_slice(), want);
    }

    #[test]
    fn stretched_cells_are_the_columns_of_the_definition(
        heads in 1usize..4, rows in 1usize..70, cells in 1usize..6, span in 0usize..6, causal: bool, seed: u64,
    ) {
        let t_m = 4 * cells;
        let max_span = [Span::K, Span::All, Span::At(1), Span::At(2), Span::At(3), Span::At(50)][span];
        let most = [4, usize::MAX, 1, 2, 3, 50][span];
        let config = SeaConfig { heads, head_dim: 4, t_m, k: 4.7, causal, max_span, ..SeaConfig::default() };
        let mut rng = KcRng::new(seed, 0);
        let keep: Vec<bool> = (0..heads * rows * t_m).map(|_| rng.below(3) == 0).collect();
        let len = if causal { rows } else { 1 + rng.below(rows as u64) as usize };
        let kept = Kept::new([1, heads, rows, t_m], keep).unwrap();
        let csr = stretch_mask(&kept, &[len], &config, None).unwrap();
        prop_assert_eq!(csr.shape(), [1, heads, rows, rows]);
        for t in 0..rows {
            let width = if causal { t + 1 } else { len };
            let edge = |x: usize| (x as f64 * width as f64 / t_m as f64 + 0.5).floor() as usize;
            let mut want = Vec::new();
            for (h, b) in (0..heads).flat_map(|h| (0..t_m).map(move |b| (h, b))) {
                if t < len && kept.get([0, h, t, b]) {
                    let (start, end) = (edge(b), edge(b + 1));
                    let n = (end - start).min(most);
                    want.extend((0..n).map(|i| (h * rows + end - 1 - i * (end - start) / n) as u32));
                }
            }
            want.sort_unstable();
            prop_assert_eq!(&csr.cols()[csr.row(0, t)], want);
        }
    }

    #[test]
    fn sparse_attention_is_softmax_on_the_entries(
        n in 1usize..3, h in 1usize..4, rows in 1usize..12, keys in 1usize..20, d in 1usize..40, share in 0.0f64..1.0,
        scale in -1.0f64..1.0, size in prop::sample::select(vec![1.0f32, 30.0]), seed in 0u64..1000,
    ) {
        let mask = mask([n, h, rows, keys], share, seed);
        let mut q = random([n, h, rows, d], 3 * seed);
        q.as_mut_slice().iter_mut().for_each(|x| *x *= size);
        let (k, v) = (random([n, h, keys, d], 3 * seed + 1), random([n, h, keys, d], 3 * seed + 2));
        let mut want = vec![0.0f64; q.len()];
        let mut probs = vec![0.0f64; mask.nnz()];
        for (n, i) in (0..n).flat_map(|n| (0..rows).map(move |i| (n, i))) {
            for (head, part) in mask.heads(n, i) {
                let at: Vec<usize> = mask.cols()[part.clone()].iter().map(|&c| c as usize - head * keys).collect();
                let score = |j: usize| -> f64 {
                    (0..d).map(|c| f64::from(q[[n, head, i, c]]) * f64::from(k[[n, head, j, c]])).sum::<f64>() * scale
                };
                let most = at.iter().map(|&j| score(j)).fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = at.iter().map(|&j| (score(j) - most).exp()).sum();
                for (&j, p) in at.iter().zip(&mut probs[part]) {
                    *p = (score(j) - most).exp() / sum;
                    for c in 0..d {
                        want[((n * h + head) * rows + i) * d + c] += *p * f64::from(v[[n, head, j, c]]);
                    }
                }
            }
        }
        each_isa(|isa| {
            let got = sparse_attention_with(isa, q.view(), k.view(), v.view(), &mask, scale).unwrap();
            let tol = if size > 1.0 { 2e-3 } else { 2e-5 };
            assert_close(got.out.as_slice(), &want, Tol::abs(tol));
            assert_close(got.probs.values(), &probs, Tol::abs(tol));
        });
    }
}

#[test]
fn gradients_of_sparse_attention_are_slopes() {
    let mask = mask([2, 2, 5, 7], 0.4, 1);
    let wide =
        |x: Tensor<f32, 4>| -> Tensor<f64, 4> { Tensor::from_fn(x.shape(), |at| f64::from(x[at])).unwrap() };
    let x = [([2, 2, 5, 3], 1), ([2, 2, 7, 3], 2), ([2, 2, 7, 3], 3)]
        .map(|(shape, seed)| wide(random(shape, seed)));
    let dy = wide(random([2, 2, 5, 3], 4));
    let run = |x: &[Tensor<f64, 4>; 3]| {
        sparse_attention(x[0].view(), x[1].view(), x[2].view(), &mask, 0.7).unwrap()
    };
    let value = |x: &[Tensor<f64, 4>; 3]| -> f64 {
        run(x).out.as_slice().iter().zip(dy.as_slice()).map(|(a, b)| a * b).sum()
    };
    let probs = run(&x).probs;
    let views = [x[0].view(), x[1].view(), x[2].view()];
    let grads = sparse_attention_backward(views[0], views[1], views[2], &probs, 0.7, dy.view()).unwrap();
    for (i, grad) in [grads.q, grads.k, grads.v].iter().enumerate() {
        for at in 0..grad.len() {
            let moved = |by: f64| {
                let mut x = x.clone();
                x[i].as_mut_slice()[at] += by;
                value(&x)
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - grad.as_slice()[at]).abs() < 1e-8, "{i} {at}");
        }
    }
}

#[test]
fn masks_of_other_shapes_are_refused() {
    let mask = mask([1, 2, 5, 7], 0.4, 1);
    let (q, k) = (random([1, 2, 5, 3], 1), random([1, 2, 7, 3], 2));
    let fails = |q: &Tensor<f32, 4>, k: &Tensor<f32, 4>, v: &Tensor<f32, 4>| {
        sparse_attention(q.view(), k.view(), v.view(), &mask, 1.0).unwrap_err()
    };
    for (q, k, v) in [(&k, &k, &k), (&q, &q, &k), (&q, &k, &q), (&q, &random([1, 2, 7, 4], 3), &k)] {
        assert!(matches!(fails(q, k, v), Error::Shape { .. }));
    }
    let found = sparse_attention(q.view(), k.view(), k.view(), &mask, f64::NAN);
    assert!(matches!(found, Err(Error::Argument { arg, .. }) if arg == "scale"));
    let mut bad = k.clone();
    bad[[0, 1, 6, 2]] = f32::NAN;
    assert!(matches!(fails(&q, &bad, &k), Error::NotFinite { index, .. } if index == [0, 1, 6, 2]));
    for cols in [[3i64, 3], [3, 2], [0, 14], [-1, 2]] {
        let found = FlatCsr::new([1, 2, 1, 7], &[0, 2], &cols, vec![1.0f32; 2]);
        assert!(found.is_err(), "{cols:?}");
    }
}
