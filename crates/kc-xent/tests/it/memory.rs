//! Logits are never stored: what is allocated at most.

use kc_core::{Tensor, bf16};
use kc_testing::alloc::measure;
use kc_xent::{
    Embedding, Filter, Need, Seeds, XentConfig, XentGrads, linear_cross_entropy,
    linear_cross_entropy_backward, linear_cross_entropy_with_grad, linear_cross_entropy_with_grad_into,
};

use crate::support::{Case, input};

const MIB: usize = 1 << 20;

#[test]
fn both_passes_stay_below_8_mib() {
    for (n, v, d) in [(2048, 32768, 16), (256, 131_072, 16), (64, 32768, 256)] {
        let case = Case::new(n, v, d, 1);
        let gradients = (n * d + v * d + v) * size_of::<f32>();
        for filter in [Filter::None, Filter::Value(1e-4)] {
            let config = XentConfig { filter, ..XentConfig::default() };
            let input = case.input();
            let (found, together) = measure(|| {
                linear_cross_entropy_with_grad(&input, Seeds::default(), Need::default(), &config)
            });
            found.expect("both");
            assert!(together.peak < gradients + 8 * MIB, "{n} x {v}: {} beyond", together.peak - gradients);
            let (forward, once) = measure(|| linear_cross_entropy(&input, &config));
            assert!(once.peak < 3 * MIB, "{n} x {v}: {} forward", once.peak);
            let forward = forward.expect("a loss");
            let (found, back) = measure(|| {
                linear_cross_entropy_backward(
                    &forward,
                    &input,
                    None,
                    Seeds::default(),
                    Need::default(),
                    &config,
                )
            });
            found.expect("gradients");
            assert!(back.peak < gradients + 8 * MIB, "{n} x {v}: {} beyond", back.peak - gradients);
        }
    }
}

#[test]
fn large_panels_stay_below_8_mib() {
    fn check<T: Embedding<Sum = f32>>(n: usize, v: usize, d: usize) {
        let case = Case::new(n, v, d, 3);
        let narrow = |from: &Tensor<f32, 2>| {
            let values: Vec<T> = from.as_slice().iter().map(|&x| T::from_f32(x)).collect();
            Tensor::from_slice(from.shape(), &values).expect("a tensor")
        };
        let (e, c) = (narrow(&case.e), narrow(&case.c));
        let input = input(e.view(), c.view(), &case.targets);
        let gradients = (n * d + v * d) * size_of::<f32>();
        let config = XentConfig { filter: Filter::None, ..XentConfig::default() };
        let (found, memory) =
            measure(|| linear_cross_entropy_with_grad(&input, Seeds::default(), Need::default(), &config));
        found.expect("both");
        assert!(
            memory.peak < gradients + 8 * MIB,
            "{n} x {v} x {d} {}: {} beyond",
            T::DTYPE,
            memory.peak - gradients
        );
        let mut used = XentGrads::zeros(&input, Need::default()).expect("memory");
        let (found, memory) =
            measure(|| linear_cross_entropy_with_grad_into(&input, Seeds::default(), &config, &mut used));
        found.expect("both");
        assert!(memory.peak < 8 * MIB, "{n} x {v} x {d}: {}", memory.peak);
    }
    // The logits of 1024 tokens stand in dC, those of the others in small panels.
    check::<f32>(1400, 3000, 1024);
    check::<bf16>(1400, 3000, 1024);
    // Words for which a small panel is as large as it may be.
    check::<f32>(700, 32768, 512);
    // Wide embeddings: 320 tokens, and some in small panels.
    check::<f32>(450, 3000, 4096);
    // Logits computed twice.
    check::<f32>(800, 215_000, 64);
}

#[test]
fn the_logits_of_8192_tokens_and_131072_words_would_take_4_gib() {
    let case = Case::new(8192, 131_072, 2, 2);
    let config = XentConfig { filter: Filter::None, ..XentConfig::default() };
    let (forward, memory) = measure(|| linear_cross_entropy(&case.input(), &config));
    assert!(forward.expect("a loss").total() > 0.0);
    assert!(memory.peak < 2 * MIB, "{}", memory.peak);
}
