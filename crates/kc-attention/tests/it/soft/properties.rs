//! Every level against the definition, invariances, masks, sequences, memory, bad input.

use kc_attention::soft::{
    Grid, Inverse, Landmark, SoftConfig, gaussian_kernel, gaussian_kernel_backward, newton_inverse,
    reference, soft_attention, soft_attention_backward, soft_attention_into, soft_exact,
};
use kc_core::{Error, Isa, Tensor, TensorView};
use kc_testing::{Tol, alloc, assert_close, each_isa, normals, relative_error, same_on_any_pool};

pub(super) fn tensor<const N: usize>(shape: [usize; N], seed: u64) -> Tensor<f32, N> {
    Tensor::from_slice(shape, &normals(shape.iter().product(), seed)).unwrap()
}

/// The largest difference, relative to the largest value. Values below 0.01 are what is left of terms near 1 that cancel.
#[track_caller]
fn close<A: kc_core::Float, B: kc_core::Float>(got: &[A], want: &[B], tol: f64) {
    let size = want.iter().fold(0.01, |m: f64, x| m.max(x.to_f64().abs()));
    assert_close(got, want, Tol::abs(tol * size));
}

/// The first 24 tokens of the first batch entry.
fn cut(x: &Tensor<f32, 4>) -> TensorView<'_, f32, 4> {
    x.view().slice(0, 0..1).unwrap().slice(2, 0..24).unwrap()
}

/// Runs a case on every level and compares result and gradients with the definition.
pub(super) fn compare(
    [q, v, dx]: [TensorView<'_, f32, 4>; 3],
    landmark: &Landmark<'_, f32>,
    config: &SoftConfig<'_, f32>,
    tol: f64,
) {
    let want = reference::soft_attention(q, v, landmark, config).unwrap();
    let slopes = reference::soft_attention_backward(&want, landmark, config, dx).unwrap();
    each_isa(|isa| {
        let config = SoftConfig { isa, ..*config };
        let (x, cache) = soft_attention(q, v, landmark, &config).unwrap();
        close(x.as_slice(), want.x.as_slice(), tol);
        let grads = soft_attention_backward(&cache, dx).unwrap();
        close(grads.dv.as_slice(), slopes.dv.as_slice(), 2.0 * tol);
        if let Some(local) = &grads.d_local {
            close(local.as_slice(), &slopes.d_local, 2.0 * tol);
        }
        if !matches!(landmark, Landmark::MaxPool | Landmark::Random { .. }) {
            close(grads.dq.as_slice(), slopes.dq.as_slice(), 2.0 * tol);
        }
        if let Some(conv) = &grads.d_conv_w {
            close(conv.as_slice(), slopes.d_conv_w.as_slice(), 2.0 * tol);
            close(grads.d_gamma.as_ref().unwrap(), &slopes.d_gamma, 2.0 * tol);
            close(grads.d_beta.as_ref().unwrap(), &slopes.d_beta, 2.0 * tol);
        }
    });
}

#[test]
fn every_level_and_landmark_at_odd_sizes() {
    // Tokens around tiles and pieces of work, channels around a vector, rows and columns left over.
    for (seed, (batch, heads, h, w, r, d)) in [
        (1, 1, 1, 1, 1, 1),
        (1, 2, 5, 7, 2, 3),
        (2, 1, 7, 7, 3, 8),
        (1, 1, 8, 6, 2, 9),
        (2, 2, 7, 9, 4, 16),
        (1, 2, 21, 19, 5, 33),
    ]
    .into_iter()
    .enumerate()
    {
        let (n, seed) = (h * w, seed as u64 * 10);
        let shape = [batch, heads, n, d];
        let [q, v, dx] = [0, 1, 2].map(|i| tensor(shape, seed + i));
        let (conv_w, gamma, beta) =
            (tensor([d, d, r, r], seed + 3), normals(d, seed + 4), normals(d, seed + 5));
        let local = tensor([heads, 3, 3], seed + 6);
        let given = tensor([batch, heads, 11, d], seed + 7);
        let conv = Landmark::Conv { w: conv_w.view(), gamma: &gamma, beta: &beta };
        let inputs = [q.view(), v.view(), dx.view()];
        for landmark in [
            conv,
            Landmark::AvgPool,
            Landmark::MaxPool,
            Landmark::Random { seed: 4 },
            Landmark::Given(given.view()),
        ] {
            let mut config = SoftConfig::new(Grid::Image { h, w }, r);
            compare(inputs, &landmark, &config, 2e-5);
            config.norm = true;
            config.local = Some(local.view());
            config.inverse = Inverse::NewtonBacktrack { iters: 12 };
            compare(inputs, &landmark, &config, 1e-4);
            config.inverse = Inverse::Exact { ridge: 0.1 };
            compare(inputs, &landmark, &config, 2e-5);
        }
    }
}

#[test]
fn strides_do_not_matter() {
    let (q, v) = (tensor([1, 30, 2, 8], 1), tensor([1, 30, 2, 8], 2));
    let config = SoftConfig::new(Grid::Image { h: 5, w: 6 }, 2);
    let turn = |x: &Tensor<f32, 4>| x.view().permuted([0, 2, 1, 3]).unwrap().to_tensor().unwrap();
    let (plain, _) = soft_attention(turn(&q).view(), turn(&v).view(), &Landmark::AvgPool, &config).unwrap();
    let mut out = Tensor::zeros([1, 30, 2, 8]).unwrap();
    let views = [q.view(), v.view()].map(|x| x.permuted([0, 2, 1, 3]).unwrap());
    let to = out.view_mut().permuted([0, 2, 1, 3]).unwrap();
    soft_attention_into(views[0], views[1], &Landmark::AvgPool, &config, to).unwrap();
    assert_eq!(turn(&out), plain);
    // Channels apart.
    let wide = tensor([1, 2, 30, 16], 3);
    let apart = wide.view().step(3, 2).unwrap();
    let (a, _) = soft_attention(apart, apart, &Landmark::AvgPool, &config).unwrap();
    let near = apart.to_tensor().unwrap();
    let (b, _) = soft_attention(near.view(), near.view(), &Landmark::AvgPool, &config).unwrap();
    assert_eq!(a, b);
}

#[test]
fn threads_and_batch_mates_do_not_matter() {
    let (q, v, dx) = (tensor([2, 2, 900, 16], 1), tensor([2, 2, 900, 16], 2), tensor([2, 2, 900, 16], 3));
    let (w, gamma, beta) = (tensor([16, 16, 6, 6], 4), vec![1.0; 16], vec![0.0; 16]);
    let landmark = Landmark::Conv { w: w.view(), gamma: &gamma, beta: &beta };
    let mut config = SoftConfig::new(Grid::Image { h: 30, w: 30 }, 6);
    config.inverse = Inverse::NewtonBacktrack { iters: 20 };
    let (x, dq, conv) = same_on_any_pool(|| {
        let (x, cache) = soft_attention(q.view(), v.view(), &landmark, &config).unwrap();
        let grads = soft_attention_backward(&cache, dx.view()).unwrap();
        (x, grads.dq, grads.d_conv_w)
    });
    assert!(conv.is_some() && dq.shape() == x.shape());
    for entry in 0..2 {
        let one = |x: &Tensor<f32, 4>| x.view().slice(0, entry..entry + 1).unwrap().to_tensor().unwrap();
        let (alone, _) = soft_attention(one(&q).view(), one(&v).view(), &landmark, &config).unwrap();
        assert_eq!(alone, one(&x));
    }
}

#[test]
fn a_shift_of_all_tokens_changes_nothing() {
    let (q, v) = (tensor([1, 1, 100, 12], 1), tensor([1, 1, 100, 12], 2));
    let config = SoftConfig::new(Grid::Image { h: 10, w: 10 }, 2);
    let (x, cache) = soft_attention(q.view(), v.view(), &Landmark::AvgPool, &config).unwrap();
    let moved = Tensor::from_fn(q.shape(), |at| q[at] + 20.0 + at[3] as f32).unwrap();
    let (y, _) = soft_attention(moved.view(), v.view(), &Landmark::AvgPool, &config).unwrap();
    close(y.as_slice(), x.as_slice(), 2e-4);
    // Softmax would have rows that sum to 1.
    let k = cache.kernel().unwrap();
    let row: f64 = (0..25).map(|j| k[[0, 0, 0, j]]).sum();
    assert!((row - 1.0).abs() > 1e-3 && k[[0, 0, 3, 3]] == 1.0);
}

#[test]
fn many_landmarks_give_the_whole_kernel() {
    let (q, v) = (tensor([1, 2, 64, 8], 1), tensor([1, 2, 64, 8], 2));
    let exact = soft_exact(q.view(), v.view()).unwrap();
    let scale = 8f64.powf(-0.25);
    let qs: Vec<f64> = q.as_slice()[..64 * 8].iter().map(|x| f64::from(*x) * scale).collect();
    let k = reference::gaussian(&qs, &qs, 8);
    let want: Vec<f64> = (0..64 * 8)
        .map(|i| (0..64).map(|j| k[i / 8 * 64 + j] * f64::from(v[[0, 0, j, i % 8]])).sum())
        .collect();
    close(&exact.as_slice()[..64 * 8], &want, 2e-6);
    let mut config = SoftConfig::new(Grid::Image { h: 8, w: 8 }, 1);
    config.inverse = Inverse::Pinv { rcond: 1e-10 };
    let (x, _) = soft_attention(q.view(), v.view(), &Landmark::AvgPool, &config).unwrap();
    assert!(relative_error(x.as_slice(), exact.as_slice()) < 1e-5);
    // Fewer landmarks are worse, the more the fewer.
    let error = |ratio| {
        let config = SoftConfig::new(Grid::Image { h: 8, w: 8 }, ratio);
        let (x, _) = soft_attention(q.view(), v.view(), &Landmark::AvgPool, &config).unwrap();
        relative_error(x.as_slice(), exact.as_slice())
    };
    assert!(error(1) < error(2) && error(2) < error(4));
}

#[test]
fn masked_tokens_are_not_there() {
    let shape = [2, 2, 42, 8];
    let (q, v, dx) = (tensor(shape, 1), tensor(shape, 2), tensor(shape, 3));
    let (w, gamma, beta) = (tensor([8, 8, 2, 2], 4), normals(8, 5), normals(8, 6));
    let local = tensor([2, 5, 5], 7);
    // Batch entry 0: the last three rows of a 7 x 6 grid; entry 1: every fifth token.
    let mask = Tensor::from_fn([2, 42], |[b, i]| u8::from(if b == 0 { i < 24 } else { i % 5 != 0 })).unwrap();
    let conv = Landmark::Conv { w: w.view(), gamma: &gamma, beta: &beta };
    for landmark in [conv, Landmark::AvgPool, Landmark::MaxPool, Landmark::Random { seed: 1 }] {
        let mut config = SoftConfig::new(Grid::Image { h: 7, w: 6 }, 2);
        config.mask = Some(mask.view());
        config.local = Some(local.view());
        config.inverse = Inverse::Exact { ridge: 0.1 };
        compare([q.view(), v.view(), dx.view()], &landmark, &config, 2e-5);
        let (x, cache) = soft_attention(q.view(), v.view(), &landmark, &config).unwrap();
        let grads = soft_attention_backward(&cache, dx.view()).unwrap();
        for (b, i) in (0..2 * 42).map(|t| (t / 42, t % 42)).filter(|&(b, i)| mask[[b, i]] == 0) {
            assert!((0..16).all(|c| x[[b, c / 8, i, c % 8]] == 0.0));
            assert!((0..16).all(|c| grads.dq[[b, c / 8, i, c % 8]] == 0.0));
        }
        // What stands there has no influence.
        let other = Tensor::from_fn(shape, |at| if mask[[at[0], at[2]]] == 0 { 9.0 } else { q[at] }).unwrap();
        assert_eq!(soft_attention(other.view(), v.view(), &landmark, &config).unwrap().0, x);
        // Padding below the image is as if it were not there.
        if !matches!(landmark, Landmark::Random { .. }) {
            let small = SoftConfig { grid: Grid::Image { h: 4, w: 6 }, mask: None, ..config };
            let (alone, _) = soft_attention(cut(&q), cut(&v), &landmark, &small).unwrap();
            close(alone.as_slice(), &cut(&x).to_vec(), 2e-6);
        }
    }
    let none = Tensor::from_slice([2, 42], &[0u8; 84]).unwrap();
    let mut config = SoftConfig::new(Grid::Image { h: 7, w: 6 }, 2);
    config.mask = Some(none.view());
    let (x, cache) = soft_attention(q.view(), v.view(), &Landmark::AvgPool, &config).unwrap();
    assert!(x.as_slice().iter().all(|x| *x == 0.0));
    assert!(soft_attention_backward(&cache, dx.view()).unwrap().dq.as_slice().iter().all(|x| *x == 0.0));
}

#[test]
fn sequences_have_patches_in_a_row() {
    let (q, v, dx) = (tensor([1, 2, 29, 8], 1), tensor([1, 2, 29, 8], 2), tensor([1, 2, 29, 8], 3));
    let (w, gamma, beta) = (tensor([8, 8, 1, 4], 4), normals(8, 5), normals(8, 6));
    let local = tensor([2, 1, 5], 7);
    let mut config = SoftConfig::new(Grid::Seq(29), 4);
    config.local = Some(local.view());
    let landmark = Landmark::Conv { w: w.view(), gamma: &gamma, beta: &beta };
    compare([q.view(), v.view(), dx.view()], &landmark, &config, 2e-5);
    let (_, cache) = soft_attention(q.view(), v.view(), &landmark, &config).unwrap();
    assert_eq!(cache.landmarks().unwrap().shape(), [1, 2, 7, 8]);
}

#[test]
fn the_kernel_and_its_gradient() {
    let (a, b, d) = (tensor([50, 5], 1), tensor([9, 5], 2), tensor([50, 9], 3));
    let k = gaussian_kernel(a.view(), b.view()).unwrap();
    let wide = |x: &Tensor<f32, 2>| x.as_slice().iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    close(k.as_slice(), &reference::gaussian(&wide(&a), &wide(&b), 5), 1e-6);
    let (da, db) = gaussian_kernel_backward(a.view(), b.view(), d.view()).unwrap();
    let loss = |a: &[f64], b: &[f64]| {
        reference::gaussian(a, b, 5).iter().zip(wide(&d)).map(|(k, d)| k * d).sum::<f64>()
    };
    let (a64, b64) = (wide(&a), wide(&b));
    kc_testing::assert_gradient(|a| loss(a, &b64), &a64, &wide(&da), 1e-5, 1e-5);
    kc_testing::assert_gradient(|b| loss(&a64, b), &b64, &wide(&db), 1e-5, 1e-5);
}

#[test]
fn large_calls_never_hold_their_kernel() {
    let (side, r, d) = (224, 16, 32);
    let (q, v) = (tensor([1, 2, side * side, d], 1), tensor([1, 2, side * side, d], 2));
    let (w, gamma, beta) = (tensor([d, d, r, r], 3), vec![1.0; d], vec![0.0; d]);
    let landmark = Landmark::Conv { w: w.view(), gamma: &gamma, beta: &beta };
    let config = SoftConfig::new(Grid::Image { h: side, w: side }, r);
    let (x, memory) = alloc::measure(|| soft_attention(q.view(), v.view(), &landmark, &config).unwrap().0);
    let output = x.len() * 4;
    // K1 alone would be 79 MB. The limit counts the result too.
    assert!(memory.peak < 16 << 20, "{} bytes", memory.peak);
    assert!(memory.peak > output, "{} bytes", memory.peak);
}

#[test]
fn bad_input_is_told() {
    let (q, v) = (tensor([1, 2, 12, 4], 1), tensor([1, 2, 12, 4], 2));
    let run = |q: &Tensor<f32, 4>, v: &Tensor<f32, 4>, l: &Landmark<'_, f32>, c: &SoftConfig<'_, f32>| {
        soft_attention(q.view(), v.view(), l, c).map(|_| ()).unwrap_err()
    };
    let config = SoftConfig::new(Grid::Image { h: 3, w: 4 }, 2);
    let pool = Landmark::AvgPool;
    let argument =
        |e: Error, name: &str| assert!(matches!(&e, Error::Argument { arg, .. } if arg == name), "{e}");
    let shape = |e: Error, name: &str| assert!(matches!(&e, Error::Shape { arg, .. } if arg == name), "{e}");
    shape(run(&q, &v, &pool, &SoftConfig { grid: Grid::Image { h: 3, w: 5 }, ..config }), "grid");
    shape(run(&q, &tensor([1, 2, 11, 4], 1), &pool, &config), "v");
    shape(run(&q, &v, &pool, &SoftConfig { grid: Grid::Image { h: usize::MAX, w: 2 }, ..config }), "grid");
    argument(run(&q, &v, &pool, &SoftConfig { ratio: 0, ..config }), "ratio");
    argument(run(&q, &v, &pool, &SoftConfig { ratio: 4, ..config }), "ratio");
    argument(
        run(&q, &v, &pool, &SoftConfig { inverse: Inverse::Exact { ridge: f64::NAN }, ..config }),
        "ridge",
    );
    argument(run(&q, &v, &pool, &SoftConfig { inverse: Inverse::Pinv { rcond: 1.0 }, ..config }), "rcond");
    let (w, short, ones) = (tensor([4, 4, 3, 2], 3), vec![1.0; 3], vec![1.0; 4]);
    let good = tensor([4, 4, 2, 2], 3);
    shape(run(&q, &v, &Landmark::Conv { w: w.view(), gamma: &ones, beta: &ones }, &config), "conv_w");
    shape(run(&q, &v, &Landmark::Conv { w: good.view(), gamma: &short, beta: &ones }, &config), "ln_g");
    shape(run(&q, &v, &Landmark::Conv { w: good.view(), gamma: &ones, beta: &short }, &config), "ln_b");
    shape(run(&q, &v, &Landmark::Given(tensor([1, 1, 2, 4], 1).view()), &config), "landmarks");
    let (one, even) = (tensor([1, 3, 3], 1), tensor([2, 4, 4], 1));
    shape(run(&q, &v, &pool, &SoftConfig { local: Some(one.view()), ..config }), "local");
    argument(run(&q, &v, &pool, &SoftConfig { local: Some(even.view()), ..config }), "local");
    let mask = Tensor::from_slice([1, 11], &[1u8; 11]).unwrap();
    shape(run(&q, &v, &pool, &SoftConfig { mask: Some(mask.view()), ..config }), "mask");
    let e = run(&q, &v, &pool, &SoftConfig { most_landmarks: 1, ..config });
    assert!(matches!(e, Error::TooLarge { need: 2, limit: 1, .. }) && e.to_string().contains("ratio"), "{e}");
    let mut holed = q.clone();
    holed[[0, 1, 2, 3]] = f32::NAN;
    for (q, v, name) in [(&holed, &v, "q"), (&q, &holed, "v")] {
        let e = run(q, v, &pool, &config);
        assert!(
            matches!(&e, Error::NotFinite { arg, index, .. } if arg == name && *index == [0, 1, 2, 3]),
            "{e}"
        );
    }
    assert!(matches!(
        run(&tensor([1, 2, 0, 4], 1), &tensor([1, 2, 0, 4], 1), &pool, &config),
        Error::Shape { .. }
    ));
    // Equal tokens: A is all ones, which only a ridge or a pseudo-inverse makes invertible.
    let same = Tensor::from_fn([1, 2, 12, 4], |_| 1.0).unwrap();
    let e = run(&same, &v, &pool, &SoftConfig { inverse: Inverse::Exact { ridge: 0.0 }, ..config });
    assert!(matches!(e, Error::Singular { index: 1, .. }), "{e}");
    let pinv = SoftConfig { inverse: Inverse::Pinv { rcond: 1e-10 }, ..config };
    assert!(soft_attention(same.view(), v.view(), &pool, &pinv).is_ok());
    assert!(
        soft_attention(tensor([0, 2, 12, 4], 1).view(), tensor([0, 2, 12, 4], 1).view(), &pool, &config)
            .is_ok()
    );
}

#[test]
fn a_diverging_iteration_is_an_error() {
    // A ridge beyond the row sums makes the first step too long.
    let a = Tensor::from_slice([2, 2], &[1.0, 0.1, 0.1, 1.0]).unwrap();
    let e = newton_inverse(a.view(), &Inverse::Newton { iters: 20, ridge: 9.0 }).unwrap_err();
    assert!(matches!(e, Error::NotConverged { residual, .. } if residual.is_nan() || residual > 1.0), "{e}");
    let (q, v) = (tensor([1, 2, 12, 4], 1), tensor([1, 2, 12, 4], 2));
    let mut config = SoftConfig::new(Grid::Image { h: 3, w: 4 }, 1);
    config.inverse = Inverse::Newton { iters: 20, ridge: 100.0 };
    config.isa = Isa::PORTABLE;
    let e = soft_attention(q.view(), v.view(), &Landmark::AvgPool, &config).map(|_| ()).unwrap_err();
    assert!(matches!(&e, Error::NotConverged { what, .. } if what.contains("head 0")), "{e}");
}

#[test]
fn backtracking_loses_the_direction_of_equal_row_sums() {
    // By definition: with alpha = 2 / s^2 the eigenvalue s is mirrored at each step.
    for (values, residual) in [(&[1.0][..], 1.0), (&[1.0, 0.3, 0.3, 1.0], 0.5)] {
        let m = values.len().isqrt();
        let a = Tensor::from_slice([m, m], values).unwrap();
        let (y, report) = newton_inverse(a.view(), &Inverse::NewtonBacktrack { iters: 20 }).unwrap();
        assert!((report.residual - residual).abs() < 1e-6, "{report:?}");
        assert!(y.as_slice().iter().sum::<f64>().abs() < 1e-6);
    }
}
