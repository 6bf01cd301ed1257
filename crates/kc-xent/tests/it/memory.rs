//! Logits are never stored: what is allocated at most.

use kc_testing::alloc::measure;
use kc_xent::{
    Filter, Need, Seeds, XentConfig, linear_cross_entropy, linear_cross_entropy_backward,
    linear_cross_entropy_with_grad,
};

use crate::support::Case;

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
fn the_logits_of_8192_tokens_and_131072_words_would_take_4_gib() {
    let case = Case::new(8192, 131_072, 2, 2);
    let config = XentConfig { filter: Filter::None, ..XentConfig::default() };
    let (forward, memory) = measure(|| linear_cross_entropy(&case.input(), &config));
    assert!(forward.expect("a loss").total() > 0.0);
    assert!(memory.peak < 2 * MIB, "{}", memory.peak);
}
