//! Memory: what calls hold, what they leave to the next, and room for gradients.

use kc_attention::soft::{
    Grid, Landmark, SoftConfig, SoftGrads, SoftWorkspace, soft_attention, soft_attention_backward,
    soft_attention_backward_into, soft_attention_into,
};
use kc_core::{Error, Tensor};
use kc_testing::alloc;

use super::properties::tensor;

#[test]
fn a_loop_with_a_workspace_takes_no_large_blocks_and_changes_no_bit() {
    let (side, r, d) = (56, 8, 32);
    let shape = [1, 2, side * side, d];
    let [q, v, dx] = [1, 2, 3].map(|seed| tensor(shape, seed));
    let (w, gamma, beta) = (tensor([d, d, r, r], 4), vec![1.0; d], vec![0.0; d]);
    let local = tensor([2, 3, 3], 5);
    let landmark = Landmark::Conv { w: w.view(), gamma: &gamma, beta: &beta };
    let workspace = SoftWorkspace::default();
    let grid = Grid::Image { h: side, w: side };
    let own = SoftConfig { local: Some(local.view()), ..SoftConfig::new(grid, r) };
    let config = SoftConfig { workspace: Some(&workspace), ..own };
    let (want, cache) = soft_attention(q.view(), v.view(), &landmark, &own).unwrap();
    let slopes = soft_attention_backward(&cache, dx.view()).unwrap();
    let (mut grads, mut x) = (SoftGrads::zeros(&cache).unwrap(), Tensor::zeros(shape).unwrap());
    let mut call = |q: &Tensor<f32, 4>| {
        let (_, memory) = alloc::measure(|| {
            let out = x.view_mut();
            let cache = soft_attention_into(q.view(), v.view(), &landmark, &config, out).unwrap();
            soft_attention_backward_into(&cache, dx.view(), &mut grads).unwrap();
        });
        memory.peak
    };
    // Another call first: what it leaves must not be seen.
    let first = call(&dx);
    let held = workspace.bytes();
    let second = call(&q);
    assert_eq!(workspace.bytes(), held, "blocks went back");
    // The kernels have 1.4 MB; weights of the convolution and their gradients 1.1 MB.
    assert!(held > 2 << 20, "{held} bytes");
    assert!(first > second + (2 << 20) && second < 768 << 10, "{first} and {second} bytes");
    assert_eq!(x, want);
    assert_eq!((&grads.dq, &grads.dv), (&slopes.dq, &slopes.dv));
    assert_eq!((&grads.d_conv_w, &grads.d_local), (&slopes.d_conv_w, &slopes.d_local));
    assert_eq!((&grads.d_gamma, &grads.d_beta), (&slopes.d_gamma, &slopes.d_beta));
}

#[test]
fn a_workspace_outlives_its_calls_and_keeps_a_bounded_number_of_blocks() {
    let workspace = SoftWorkspace::default();
    for n in 1..60 {
        let q = tensor([1, 1, n, 8], n as u64);
        let config = SoftConfig { workspace: Some(&workspace), ..SoftConfig::new(Grid::Seq(n), 1) };
        let (_, cache) = soft_attention(q.view(), q.view(), &Landmark::AvgPool, &config).unwrap();
        let twin = cache.clone();
        drop((cache, twin));
    }
    // At most 16 blocks of 59 tokens and 64 landmarks.
    assert!((1..=16 * 59 * 64 * 4).contains(&workspace.bytes()), "{} bytes", workspace.bytes());
}

#[test]
fn room_for_other_gradients_is_refused() {
    let (q, w) = (tensor([1, 2, 36, 8], 1), tensor([8, 8, 2, 2], 2));
    let (gamma, beta) = (vec![1.0; 8], vec![0.0; 8]);
    let conv = Landmark::Conv { w: w.view(), gamma: &gamma, beta: &beta };
    let config = SoftConfig::new(Grid::Image { h: 6, w: 6 }, 2);
    let (_, plain) = soft_attention(q.view(), q.view(), &Landmark::AvgPool, &config).unwrap();
    let (_, cache) = soft_attention(q.view(), q.view(), &conv, &config).unwrap();
    let mut grads = SoftGrads::zeros(&plain).unwrap();
    assert!(grads.d_conv_w.is_none() && grads.d_landmarks.is_none());
    let e = soft_attention_backward_into(&cache, q.view(), &mut grads).unwrap_err();
    assert!(matches!(&e, Error::Shape { arg, .. } if arg == "grads"), "{e}");
    let mut grads = SoftGrads::zeros(&cache).unwrap();
    assert!(soft_attention_backward_into(&cache, q.view(), &mut grads).is_ok());
    let e = soft_attention_backward_into(&cache, q.view().slice(2, 0..35).unwrap(), &mut grads).unwrap_err();
    assert!(matches!(&e, Error::Shape { arg, .. } if arg == "dx"), "{e}");
}

#[test]
fn memory_is_linear_in_tokens_forward_and_backward() {
    let d = 16;
    // 49 landmarks at both sizes, whose kernels would have 9 and 35 MB: too large to be kept.
    let beyond = |side: usize| {
        let shape = [1, 2, side * side, d];
        let [q, v, dx] = [1, 2, 3].map(|seed| tensor(shape, seed));
        let config = SoftConfig::new(Grid::Image { h: side, w: side }, side / 7);
        let mut x = Tensor::zeros(shape).unwrap();
        let (_, forward) = alloc::measure(|| {
            soft_attention_into(q.view(), v.view(), &Landmark::AvgPool, &config, x.view_mut())
                .map(|_| ())
                .unwrap();
        });
        let (_, cache) = soft_attention(q.view(), v.view(), &Landmark::AvgPool, &config).unwrap();
        let mut grads = SoftGrads::zeros(&cache).unwrap();
        let (_, backward) = alloc::measure(|| {
            soft_attention_backward_into(&cache, dx.view(), &mut grads).unwrap();
        });
        (forward.peak, backward.peak)
    };
    let ((small, small_back), (large, large_back)) = (beyond(140), beyond(280));
    // Four times the tokens: no more than partial sums, of which there are at most 16 for each head.
    assert!(large < small + (64 << 10) && large < 1 << 20, "{small} and {large} bytes");
    assert!(
        large_back < small_back + (64 << 10) && large_back < 1 << 20,
        "{small_back} and {large_back} bytes"
    );
}
