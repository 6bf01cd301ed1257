//! Any input and any options against the definition; gradients over what an earlier call left.

use kc_core::{Float, Isa, Tensor, bf16};
use kc_testing::{Tol, assert_close, relative_error, same_on_any_pool, strided, uniforms};
use kc_xent::{
    Embedding, Filter, Loss, Need, Reduction, Seeds, Upstream, XentConfig, XentForward, XentGrads, XentInput,
    linear_cross_entropy, linear_cross_entropy_backward, linear_cross_entropy_backward_into,
    linear_cross_entropy_with_grad, linear_cross_entropy_with_grad_into, reference,
};
use proptest::prelude::*;

use crate::support::{Case, input};

/// Everything but the numbers.
#[derive(Debug, Clone)]
struct Setting {
    n: usize,
    v: usize,
    d: usize,
    seed: u64,
    /// Every so many tokens is ignored; 0 for none.
    ignored: usize,
    bias: bool,
    layouts: [usize; 2],
    per_token: bool,
    by_lse: bool,
    config: XentConfig,
}

fn settings() -> impl Strategy<Value = Setting> {
    let sizes = (1usize..260, 1usize..320, 1usize..150, any::<u64>(), 0usize..5);
    let shape = (any::<bool>(), 0usize..5, 0usize..5, any::<bool>(), any::<bool>());
    let softcap = prop_oneof![Just(None), Just(Some(3.0)), Just(Some(30.0))];
    let smoothing = prop_oneof![3 => Just(0.0), 1 => 0.05f64..0.9, 1 => Just(1.0)];
    let reduction = prop_oneof![Just(Reduction::Mean), Just(Reduction::Sum), Just(Reduction::None)];
    let options =
        (softcap, smoothing, reduction, 0usize..4, any::<bool>(), prop_oneof![Just(0.0), Just(1e-2)]);
    (sizes, shape, options).prop_map(
        |(
            (n, v, d, seed, ignored),
            (bias, e, c, per_token, by_lse),
            (softcap, label_smoothing, reduction, shift, weights, z_loss),
        )| {
            let class_weights = weights.then(|| uniforms(v, 0.1, 2.0, seed ^ 5));
            let shift = shift.min(n - 1);
            let config = XentConfig {
                softcap,
                label_smoothing,
                reduction,
                shift,
                class_weights,
                z_loss,
                filter: Filter::None,
                ..XentConfig::default()
            };
            let per_token = per_token && reduction == Reduction::None;
            Setting { n, v, d, seed, ignored, bias, layouts: [e, c], per_token, by_lse, config }
        },
    )
}

impl Setting {
    /// Calls `body` with the input, and with the gradients by the losses and by the log-sum-exps.
    fn with(&self, body: impl FnOnce(&XentInput<'_, f32>, &[f32], &[f32])) {
        let mut case = Case::new(self.n, self.v, self.d, self.seed % 1000);
        for (i, target) in case.targets.iter_mut().enumerate() {
            let counts = self.ignored == 0 || i % self.ignored != 0;
            *target = if counts { (i * 7919 % self.v) as i64 } else { -100 };
        }
        let e = strided(self.n, self.d, case.e.as_slice(), f32::NAN);
        let c = strided(self.v, self.d, case.c.as_slice(), f32::NAN);
        let [at_e, at_c] = self.layouts;
        let bare = input(e[at_e].view(), c[at_c].view(), &case.targets);
        let places = self.n - self.config.shift;
        let up = if self.per_token { uniforms(places, -1.0, 1.0, self.seed ^ 1) } else { vec![0.7] };
        let lse = if self.by_lse { uniforms(places, -0.2, 0.2, self.seed ^ 2) } else { Vec::new() };
        if self.bias {
            body(&bare.bias(&case.bias).expect("a bias"), &up, &lse);
        } else {
            body(&bare, &up, &lse);
        }
    }
}

fn seeds<'a>(up: &'a [f32], lse: &'a [f32], per_token: bool) -> Seeds<'a> {
    let loss = if per_token { Upstream::PerToken(up) } else { Upstream::Scalar(f64::from(up[0])) };
    Seeds { loss, lse: (!lse.is_empty()).then_some(lse) }
}

/// Both ways to gradients.
fn both_ways<T: Embedding>(
    input: &XentInput<'_, T>,
    config: &XentConfig,
    seeds: Seeds<'_>,
) -> [(XentForward, XentGrads<T::Sum>); 2] {
    let need = Need::default();
    let forward = linear_cross_entropy(input, config).expect("a loss");
    let apart = linear_cross_entropy_backward(&forward, input, None, seeds, need, config).expect("gradients");
    let together = linear_cross_entropy_with_grad(input, seeds, need, config).expect("both");
    [(forward, apart), together]
}

fn wide<F: Float>(values: &[F]) -> Vec<f64> {
    values.iter().map(|x| x.to_f64()).collect()
}

/// The norm of the difference over that of the wanted values, or over a small one if they vanish.
fn lost<F: Float>(got: &[F], want: &[f64]) -> f64 {
    let (mut difference, mut norm) = (0.0, 0.0f64);
    for (got, want) in got.iter().zip(want) {
        difference += (got.to_f64() - want).powi(2);
        norm += want * want;
    }
    difference.sqrt() / norm.sqrt().max(1e-3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn exact_gradients_are_those_of_the_definition(setting in settings()) {
        setting.with(|input, up, lse| {
            let (up64, lse64) = (wide(up), wide(lse));
            let want = reference::linear_cross_entropy(input, &setting.config, &up64, &lse64).expect("one");
            for isa in Isa::available() {
                let config = XentConfig { isa, ..setting.config.clone() };
                for (forward, grads) in both_ways(input, &config, seeds(up, lse, setting.per_token)) {
                    let tol = Tol::new(1e-5, 1e-4);
                    match &forward.loss {
                        Loss::Scalar(loss) => assert_close(&[*loss], &[want.loss], tol),
                        Loss::PerToken(losses) => {
                            assert_close(losses.as_slice(), want.losses.as_slice(), tol);
                        }
                    }
                    assert_close(forward.lse.as_slice(), want.lse.as_slice(), tol);
                    assert_close(&[forward.z_loss], &[want.z_loss], tol);
                    // A loss of NaN (no token counts) has gradients of 0.
                    assert!(lost(grads.de.expect("de").as_slice(), want.de.as_slice()) < 2e-5);
                    assert!(lost(grads.dc.expect("dc").as_slice(), want.dc.as_slice()) < 2e-5);
                    if let Some(dbias) = &grads.dbias {
                        assert!(lost(dbias.as_slice(), &want.dbias) < 2e-5);
                    }
                    assert_eq!(grads.blocks_kept, grads.blocks_total);
                }
            }
        });
    }

    #[test]
    fn a_filter_drops_less_than_it_says(setting in settings(), eps in 1e-4f64..0.3) {
        setting.with(|input, up, lse| {
            let seeds = seeds(up, lse, setting.per_token);
            let exact = both_ways(input, &setting.config, seeds);
            let config = XentConfig { filter: Filter::Value(eps), ..setting.config.clone() };
            let mean = if config.reduction == Reduction::Mean { exact[0].0.total_weight } else { 1.0 };
            // What every token may lose of a word's gradient: eps times its seeds, and what rounding adds.
            let each: Vec<f64> = exact[0].0.valid.iter().map(|&at| {
                let at = at as usize;
                let target = input_target(&setting, at);
                let weight = config.class_weights.as_ref().map_or(1.0, |w| f64::from(w[target]));
                let up = f64::from(if setting.per_token { up[at] } else { up[0] });
                let n = if config.reduction == Reduction::Mean { exact[0].0.n_valid as f64 } else { 1.0 };
                let by_lse = 2.0 * config.z_loss * exact[0].0.lse.as_slice()[at] * up / n
                    + lse.get(at).map_or(0.0, |g| f64::from(*g));
                eps * ((up * weight / mean).abs() + by_lse.abs())
            }).collect();
            let most: f64 = each.iter().sum::<f64>() * 1.001 + 1e-4;
            for (_, grads) in both_ways(input, &config, seeds) {
                let whole = &exact[1].1;
                assert!(grads.blocks_kept <= grads.blocks_total);
                if let (Some(got), Some(want)) = (&grads.dbias, &whole.dbias) {
                    for (got, want) in got.as_slice().iter().zip(want.as_slice()) {
                        assert!(f64::from((got - want).abs()) <= most, "{got} {want} {most}");
                    }
                }
                // |E| is below 3 * 6 / sqrt(d) for all draws of these sizes.
                let bound = most * 18.0 / (setting.d as f64).sqrt();
                let (got, want) = (grads.dc.expect("dc"), whole.dc.as_ref().expect("dc"));
                for (got, want) in got.as_slice().iter().zip(want.as_slice()) {
                    assert!(f64::from((got - want).abs()) <= bound, "{got} {want} {bound}");
                }
                if config.label_smoothing > 0.0 {
                    assert_eq!(grads.blocks_kept, grads.blocks_total);
                }
            }
        });
    }

    #[test]
    fn used_memory_gives_the_same_bits(setting in settings(), filtered in any::<bool>()) {
        setting.with(|input, up, lse| {
            let seeds = seeds(up, lse, setting.per_token);
            let filter = if filtered { Filter::Value(1e-2) } else { Filter::None };
            let config = XentConfig { filter, ..setting.config.clone() };
            let [(forward, apart), (fused, together)] = both_ways(input, &config, seeds);
            let mut used = XentGrads::zeros(input, Need::default()).expect("memory");
            let poison = |grads: &mut XentGrads<f32>| {
                for gradient in [&mut grads.de, &mut grads.dc] {
                    gradient.as_mut().expect("one").as_mut_slice().fill(f32::NAN);
                }
                if let Some(dbias) = &mut grads.dbias {
                    dbias.as_mut_slice().fill(f32::NAN);
                }
            };
            poison(&mut used);
            linear_cross_entropy_backward_into(&forward, input, None, seeds, &config, &mut used).expect("one");
            assert!(used == apart);
            poison(&mut used);
            let again = linear_cross_entropy_with_grad_into(input, seeds, &config, &mut used).expect("both");
            assert!(used == together);
            assert_eq!(again.lse, fused.lse);
            used.de = None;
            linear_cross_entropy_with_grad_into(input, seeds, &config, &mut used).expect("both");
            assert!(used.de.is_none());
            let (got, want) = (used.dc.expect("dc"), together.dc.expect("dc"));
            assert!(relative_error(got.as_slice(), want.as_slice()) < 1e-5 || want.as_slice().iter().all(|g| *g == 0.0));
        });
    }
}

/// The target at a place of the results, as [`Setting::with`] draws it.
fn input_target(setting: &Setting, at: usize) -> usize {
    (at + setting.config.shift) * 7919 % setting.v
}

#[test]
fn large_panels_do_not_depend_on_threads_or_gaps_between_tokens() {
    // 300 tokens of 160 dimensions: most logits stand in dC, the others in small panels.
    let mut case = Case::new(380, 700, 160, 12);
    case.targets
        .iter_mut()
        .enumerate()
        .for_each(|(i, t)| *t = if i % 4 == 1 { -100 } else { (i % 700) as i64 });
    let config = XentConfig { filter: Filter::None, shift: 2, ..XentConfig::default() };
    let bits = same_on_any_pool(|| {
        let (_, grads) =
            linear_cross_entropy_with_grad(&case.input(), Seeds::default(), Need::default(), &config)
                .expect("both");
        [grads.de.expect("de").into_vec(), grads.dc.expect("dc").into_vec()].concat()
    });
    // The same tokens without those that do not count.
    let kept: Vec<usize> = (0..378).filter(|i| case.targets[i + 2] >= 0).collect();
    let rows =
        Tensor::from_fn([kept.len(), 160], |[i, k]| case.e.as_slice()[kept[i] * 160 + k]).expect("rows");
    let targets: Vec<i64> = kept.iter().map(|i| case.targets[i + 2]).collect();
    let dense = input(rows.view(), case.c.view(), &targets).bias(&case.bias).expect("a bias");
    let config = XentConfig { shift: 0, ..config };
    let (_, grads) =
        linear_cross_entropy_with_grad(&dense, Seeds::default(), Need::default(), &config).expect("both");
    let (de, dc) = bits.split_at(380 * 160);
    assert!(grads.dc.expect("dc").as_slice() == dc);
    let mut want = vec![0.0; 380 * 160];
    for (row, &i) in grads.de.expect("de").as_slice().chunks(160).zip(&kept) {
        want[i * 160..(i + 1) * 160].copy_from_slice(row);
    }
    assert!(de == want);
}

#[test]
fn large_panels_of_every_type() {
    fn check<T: Embedding>(tol: f64) {
        let case = Case::new(150, 300, 130, 13);
        let narrow = |from: &Tensor<f32, 2>| {
            let values: Vec<T> = from.as_slice().iter().map(|&x| T::from_f32(x)).collect();
            Tensor::from_slice(from.shape(), &values).expect("a tensor")
        };
        let (e, c) = (narrow(&case.e), narrow(&case.c));
        let input = input(e.view(), c.view(), &case.targets);
        for isa in Isa::available() {
            let config = XentConfig { filter: Filter::None, isa, ..XentConfig::default() };
            let want = reference::linear_cross_entropy(&input, &config, &[1.0], &[]).expect("a reference");
            let (_, grads) =
                linear_cross_entropy_with_grad(&input, Seeds::default(), Need::default(), &config)
                    .expect("both");
            assert!(lost(grads.de.expect("de").as_slice(), want.de.as_slice()) < tol);
            assert!(lost(grads.dc.expect("dc").as_slice(), want.dc.as_slice()) < tol);
        }
    }
    check::<f32>(1e-5);
    check::<bf16>(1e-5);
    check::<kc_core::f16>(1e-5);
    check::<f64>(1e-12);
}

#[test]
fn words_too_many_to_keep_the_logits_of_a_few_tokens() {
    // Not even the logits of 8 tokens can be kept: those of 8 stand in dC, those of the others are computed twice.
    let case = Case::new(30, 235_000, 8, 14);
    for need in [Need::default(), Need { c: false, ..Need::default() }] {
        let config = XentConfig { filter: Filter::None, ..XentConfig::default() };
        let want = reference::linear_cross_entropy(&case.input(), &config, &[1.0], &[]).expect("one");
        let (_, grads) =
            linear_cross_entropy_with_grad(&case.input(), Seeds::default(), need, &config).expect("both");
        assert!(lost(grads.de.expect("de").as_slice(), want.de.as_slice()) < 1e-5);
        assert_eq!(grads.dc.is_some(), need.c);
        if let Some(dc) = &grads.dc {
            assert!(lost(dc.as_slice(), want.dc.as_slice()) < 1e-5);
        }
        assert!(lost(grads.dbias.expect("dbias").as_slice(), &want.dbias) < 1e-5);
    }
}

#[test]
fn used_memory_of_another_input_is_refused() {
    let (case, other) = (Case::new(6, 10, 4, 1), Case::new(7, 10, 5, 1));
    let config = XentConfig::default();
    let with = |grads: &mut XentGrads<f32>| {
        linear_cross_entropy_with_grad_into(&case.input(), Seeds::default(), &config, grads)
    };
    let zeros = |input: &XentInput<'_, f32>| XentGrads::zeros(input, Need::default()).expect("memory");
    let refused = |result: kc_core::Result<XentForward>, name: &str| matches!(result, Err(kc_core::Error::Shape { arg, .. }) if arg == name);
    assert!(refused(with(&mut zeros(&other.input())), "grads.de"));
    let mut grads = zeros(&other.input());
    grads.de = None;
    assert!(refused(with(&mut grads), "grads.dc"));
    let mut grads = zeros(&case.input());
    let bare = input(case.e.view(), case.c.view(), &case.targets);
    let found = linear_cross_entropy_with_grad_into(&bare, Seeds::default(), &config, &mut grads);
    assert!(refused(found, "grads.dbias"));
    let forward = linear_cross_entropy(&bare, &config).expect("a loss");
    let found =
        linear_cross_entropy_backward_into(&forward, &bare, None, Seeds::default(), &config, &mut grads);
    assert!(matches!(found, Err(kc_core::Error::Shape { arg, .. }) if arg == "grads.dbias"));
}
