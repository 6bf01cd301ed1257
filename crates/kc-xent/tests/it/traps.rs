//! What is easy to get wrong.

use kc_core::{Isa, Tensor};
use kc_testing::{Tol, assert_close, each_isa, relative_error};
use kc_xent::{
    Filter, Loss, Need, Preset, Reduction, Seeds, Upstream, VocabOrder, XentConfig, XentGrads, XentInput,
    linear_cross_entropy, linear_cross_entropy_backward, linear_cross_entropy_with_grad, reference,
};

use crate::support::{Case, input, zipf};

fn grads(input: &XentInput<'_, f32>, config: &XentConfig) -> XentGrads<f32> {
    let forward = linear_cross_entropy(input, config).expect("a loss");
    linear_cross_entropy_backward(&forward, input, None, Seeds::default(), Need::default(), config)
        .expect("gradients")
}

#[test]
fn huge_logits_do_not_overflow() {
    let mut case = Case::new(20, 300, 16, 1);
    case.e.as_mut_slice().iter_mut().for_each(|x| *x *= 3e3);
    let want = reference::linear_cross_entropy(&case.input(), &XentConfig::default(), &[1.0], &[])
        .expect("a reference");
    assert!(want.loss > 1e4);
    each_isa(|isa| {
        let config = XentConfig { filter: Filter::None, isa, ..XentConfig::default() };
        let forward = linear_cross_entropy(&case.input(), &config).expect("a loss");
        assert_close(&[forward.total()], &[want.loss], Tol::rel(1e-5));
        assert_close(forward.lse.as_slice(), want.lse.as_slice(), Tol::rel(1e-5));
        assert!(
            relative_error(grads(&case.input(), &config).dc.expect("dc").as_slice(), want.dc.as_slice())
                < 1e-2
        );
    });
}

#[test]
fn the_key_is_tested_before_scaling() {
    // With a mean over many tokens every scaled entry is below eps; the blocks must survive all the same.
    let case = Case::new(2000, 40, 8, 2);
    let config = XentConfig { filter: Filter::Value(1e-3), ..XentConfig::default() };
    let found = grads(&case.input(), &config);
    assert_eq!(found.blocks_kept, found.blocks_total);
    assert!(found.dc.expect("dc").as_slice().iter().any(|g| g.abs() > 1e-6));
}

#[test]
fn what_is_left_out_is_small() {
    let case = zipf(300, 2000, 64, 1);
    let eps = 1e-3;
    let exact = grads(&case.input(), &XentConfig { filter: Filter::None, ..XentConfig::default() });
    let config = XentConfig { filter: Filter::Value(eps), ..XentConfig::default() };
    let (_, fused) =
        linear_cross_entropy_with_grad(&case.input(), Seeds::default(), Need::default(), &config)
            .expect("both");
    let exact = exact.dbias.expect("dbias");
    for found in [grads(&case.input(), &config), fused] {
        assert!(found.blocks_kept < found.blocks_total);
        // Each of n entries of a word loses less than eps / n, all of them less than eps.
        for (got, want) in found.dbias.expect("dbias").as_slice().iter().zip(exact.as_slice()) {
            assert!(f64::from((got - want).abs()) <= eps + 1e-6, "{got} {want}");
        }
        assert!(found.dc.is_some());
    }
}

#[test]
fn sorting_changes_blocks_and_not_exact_gradients() {
    let case = zipf(256, 3000, 64, 2);
    let filter = |filter, sort_vocab| XentConfig { filter, sort_vocab, ..XentConfig::default() };
    let exact = grads(&case.input(), &filter(Filter::None, true)).dc.expect("dc");
    assert!(exact == grads(&case.input(), &filter(Filter::None, false)).dc.expect("dc"));
    let sorted = grads(&case.input(), &filter(Filter::Value(1e-3), true));
    let unsorted = grads(&case.input(), &filter(Filter::Value(1e-3), false));
    assert!(sorted.blocks_kept < unsorted.blocks_kept, "{} {}", sorted.blocks_kept, unsorted.blocks_kept);
    assert!(relative_error(sorted.dc.expect("dc").as_slice(), exact.as_slice()) < 5e-3);
    // With nothing below the threshold the order only moves work: the same sums, word by word.
    let all = grads(&case.input(), &filter(Filter::Value(0.0), true));
    assert_eq!(all.blocks_kept, all.blocks_total);
    assert!(all.dc.expect("dc") == exact);
}

#[test]
fn the_filter_saves_a_quarter_of_the_products() {
    let case = zipf(512, 65536, 64, 7);
    let config = XentConfig { filter: Filter::Value(2f64.powi(-12)), ..XentConfig::default() };
    let (_, fused) =
        linear_cross_entropy_with_grad(&case.input(), Seeds::default(), Need::default(), &config)
            .expect("both");
    for found in [grads(&case.input(), &config), fused] {
        // One product for the logits, two for what is kept, against three.
        let share = found.blocks_kept as f64 / found.blocks_total as f64;
        assert!((1.0 + 2.0 * share) / 3.0 < 0.75, "{share}");
    }
    let exact = XentConfig { filter: Filter::None, ..config };
    let found = grads(&case.input(), &exact);
    assert_eq!((found.blocks_kept, found.blocks_total), (4 * 512, 4 * 512));
}

#[test]
fn an_order_serves_again() {
    let case = zipf(256, 3000, 64, 3);
    let config = XentConfig { filter: Filter::Value(1e-3), ..XentConfig::default() };
    let forward = linear_cross_entropy(&case.input(), &config).expect("a loss");
    let order = VocabOrder::by_logits(forward.logit_avg.as_ref().expect("means"));
    let mut bare = forward.clone();
    bare.logit_avg = None;
    let run = |forward, order| {
        linear_cross_entropy_backward(
            forward,
            &case.input(),
            order,
            Seeds::default(),
            Need::default(),
            &config,
        )
        .expect("gradients")
    };
    assert!(run(&bare, Some(&order)) == run(&forward, None));
    assert!(run(&bare, None).blocks_kept > run(&bare, Some(&order)).blocks_kept);
    let short = VocabOrder::new((0..10).collect()).expect("an order");
    let error = linear_cross_entropy_backward(
        &bare,
        &case.input(),
        Some(&short),
        Seeds::default(),
        Need::default(),
        &config,
    );
    assert!(matches!(error, Err(kc_core::Error::Shape { arg, .. }) if arg == "order"));
}

#[test]
fn presets_filter_what_they_say() {
    let case = zipf(256, 3000, 64, 4);
    let of = |preset| XentConfig { filter: Filter::Value(1e-3), ..XentConfig::default() }.with_preset(preset);
    let exact = grads(&case.input(), &of(Preset::CceExact));
    for (preset, e, c) in
        [(Preset::Cce, false, false), (Preset::FullC, false, true), (Preset::FullE, true, false)]
    {
        let apart = grads(&case.input(), &of(preset));
        let (_, fused) =
            linear_cross_entropy_with_grad(&case.input(), Seeds::default(), Need::default(), &of(preset))
                .expect("both");
        for found in [apart, fused] {
            assert!(found.blocks_kept < found.blocks_total);
            let close = |got: &Option<Tensor<f32, 2>>, want: &Option<Tensor<f32, 2>>| {
                relative_error(got.as_ref().expect("one").as_slice(), want.as_ref().expect("one").as_slice())
                    < 1e-6
            };
            assert_eq!((close(&found.de, &exact.de), close(&found.dc, &exact.dc)), (e, c), "{preset:?}");
        }
    }
    assert_eq!(exact.blocks_kept, exact.blocks_total);
}

#[test]
fn smoothing_turns_the_filter_off() {
    let case = zipf(100, 1000, 16, 5);
    let config = XentConfig { filter: Filter::Value(1e-2), label_smoothing: 0.1, ..XentConfig::default() };
    assert_eq!(config.threshold(kc_core::DType::F32), None);
    let found = grads(&case.input(), &config);
    assert_eq!(found.blocks_kept, found.blocks_total);
}

#[test]
fn a_certain_token_keeps_its_lse_gradient() {
    // p of the target is 1 to the last bit: its loss has no gradient, its log-sum-exp has.
    let e = Tensor::from_slice([1, 2], &[40.0f32, 0.0]).expect("e");
    let c = Tensor::from_slice([3, 2], &[1.0f32, 0.0, -1.0, 0.0, -1.0, 1.0]).expect("c");
    let input = input(e.view(), c.view(), &[0]);
    let config = XentConfig { filter: Filter::Value(1e-3), z_loss: 1.0, ..XentConfig::default() };
    let want = reference::linear_cross_entropy(&input, &config, &[1.0], &[]).expect("a reference");
    assert!(want.dc.as_slice()[0].abs() > 100.0);
    let (_, fused) =
        linear_cross_entropy_with_grad(&input, Seeds::default(), Need::default(), &config).expect("both");
    for found in [grads(&input, &config), fused] {
        assert_close(found.dc.expect("dc").as_slice(), want.dc.as_slice(), Tol::new(1e-5, 1e-3));
    }
    // Without it, the certain token has nothing to say and its block goes.
    let config = XentConfig { z_loss: 0.0, ..config };
    assert_eq!(grads(&input, &config).blocks_kept, 0);
}

#[test]
fn the_mean_is_over_what_counts() {
    let mut case = Case::new(10, 20, 4, 6);
    case.targets = vec![-100, 3, -100, -100, 5, -100, -100, -100, -100, -100];
    let config = XentConfig { z_loss: 0.1, ..XentConfig::default() };
    let forward = linear_cross_entropy(&case.input(), &config).expect("a loss");
    assert_eq!((forward.n_valid, &forward.valid[..]), (2, &[1u32, 4][..]));
    let sum =
        linear_cross_entropy(&case.input(), &XentConfig { reduction: Reduction::Sum, ..config.clone() })
            .expect("a loss");
    assert!((forward.total() - sum.total() / 2.0).abs() < 1e-9);
    let squares: f64 = forward.lse.as_slice().iter().map(|x| x * x).sum();
    assert!((forward.z_loss - 0.1 * squares / 2.0).abs() < 1e-9, "ignored tokens have no z-loss");
    let de = grads(&case.input(), &config).de.expect("de");
    for (i, row) in de.as_slice().chunks(4).enumerate() {
        assert_eq!(row.iter().any(|g| *g != 0.0), i == 1 || i == 4, "row {i}");
    }
}

#[test]
fn a_shift_stays_inside_of_a_sequence() {
    let (b, t, v, d) = (3, 5, 12, 6);
    let case = Case::new(b * t, v, d, 7);
    let targets: Vec<i64> = (0..b * t).map(|i| (i % v) as i64).collect();
    let e = Tensor::from_slice([b, t, d], case.e.as_slice()).expect("e");
    let all = Tensor::from_slice([b, t], &targets).expect("targets");
    let batched = XentInput::batched(e.view(), case.c.view(), all.view()).expect("an input");
    let config =
        XentConfig { shift: 2, reduction: Reduction::None, filter: Filter::None, ..XentConfig::default() };
    let forward = linear_cross_entropy(&batched, &config).expect("a loss");
    let Loss::PerToken(losses) = &forward.loss else { panic!("a loss per token") };
    assert_eq!(losses.shape(), [b, t - 2]);
    let found =
        linear_cross_entropy_backward(&forward, &batched, None, Seeds::default(), Need::default(), &config);
    let de = found.expect("gradients").de.expect("de");
    for s in 0..b {
        let (rows, words) = (s * t..(s + 1) * t, &targets[s * t..(s + 1) * t]);
        let part = case.e.view().slice(0, rows.clone()).expect("rows");
        let one = input(part, case.c.view(), words);
        let alone = linear_cross_entropy(&one, &config).expect("a loss");
        let Loss::PerToken(alone) = &alone.loss else { panic!("a loss per token") };
        assert_eq!(alone.as_slice(), &losses.as_slice()[s * 3..(s + 1) * 3]);
        assert!(de.as_slice()[(s * t + 3) * d..(s + 1) * t * d].iter().all(|g| *g == 0.0));
    }
}

#[test]
fn no_token_that_counts() {
    let mut case = Case::new(6, 20, 4, 8);
    case.targets = vec![-100; 6];
    let with = |reduction| XentConfig { reduction, ..XentConfig::default() };
    let mean = linear_cross_entropy(&case.input(), &with(Reduction::Mean)).expect("a loss");
    assert!(mean.total().is_nan() && mean.n_valid == 0);
    assert_eq!(linear_cross_entropy(&case.input(), &with(Reduction::Sum)).expect("a loss").total(), 0.0);
    let none = linear_cross_entropy(&case.input(), &with(Reduction::None)).expect("a loss");
    assert_eq!(none.loss, Loss::PerToken(Tensor::zeros([1, 6]).expect("zeros")));
    let (_, both) = linear_cross_entropy_with_grad(
        &case.input(),
        Seeds::default(),
        Need::default(),
        &XentConfig::default(),
    )
    .expect("both");
    for found in [grads(&case.input(), &XentConfig::default()), both] {
        assert!(
            found
                .de
                .expect("de")
                .as_slice()
                .iter()
                .chain(found.dc.expect("dc").as_slice())
                .all(|g| *g == 0.0)
        );
    }
    case.e = Tensor::zeros([0, 4]).expect("nothing");
    case.targets = Vec::new();
    assert_eq!(linear_cross_entropy(&case.input(), &with(Reduction::Sum)).expect("a loss").total(), 0.0);
}

#[test]
fn nan_goes_through() {
    for isa in Isa::available() {
        let mut case = Case::new(12, 40, 8, 9);
        case.c.as_mut_slice()[17 * 8 + 3] = f32::NAN;
        let config = XentConfig { isa, ..XentConfig::default() };
        assert!(linear_cross_entropy(&case.input(), &config).expect("a loss").total().is_nan());
        let (_, found) =
            linear_cross_entropy_with_grad(&case.input(), Seeds::default(), Need::default(), &config)
                .expect("both");
        assert!(found.de.expect("de").as_slice()[0].is_nan());
        let mut case = Case::new(12, 40, 8, 9);
        case.e.as_mut_slice()[3] = f32::INFINITY;
        let losses =
            linear_cross_entropy(&case.input(), &XentConfig { reduction: Reduction::None, ..config })
                .expect("a loss");
        let Loss::PerToken(losses) = losses.loss else { panic!("a loss per token") };
        assert!(!losses.as_slice()[0].is_finite() && losses.as_slice()[1].is_finite());
    }
}

#[test]
fn a_bias_of_minus_infinity_removes_a_word() {
    let case = Case::new(9, 150, 8, 10);
    let mut bias = case.bias.clone();
    bias[140..].fill(f32::NEG_INFINITY);
    let targets: Vec<i64> = (0..9).map(|i| i * 11).collect();
    let with = input(case.e.view(), case.c.view(), &targets).bias(&bias).expect("a bias");
    let fewer = case.c.view().slice(0, 0..140).expect("rows");
    let without = input(case.e.view(), fewer, &targets).bias(&bias[..140]).expect("a bias");
    let config = XentConfig { filter: Filter::None, sort_vocab: false, ..XentConfig::default() };
    let [a, b] = [&with, &without].map(|input| linear_cross_entropy(input, &config).expect("a loss").total());
    assert!((a - b).abs() < 1e-6);
    let dc = grads(&with, &config).dc.expect("dc");
    assert!(dc.as_slice()[140 * 8..].iter().all(|g| *g == 0.0));
}

#[test]
fn per_token_seeds_stand_at_the_places_of_targets() {
    let case = Case::new(12, 30, 5, 11);
    let config =
        XentConfig { reduction: Reduction::None, shift: 2, filter: Filter::None, ..XentConfig::default() };
    let mut up = vec![0.0f32; 10];
    up[4] = 2.0;
    let seeds = Seeds { loss: Upstream::PerToken(&up), lse: None };
    let (_, found) =
        linear_cross_entropy_with_grad(&case.input(), seeds, Need::default(), &config).expect("both");
    for (i, row) in found.de.expect("de").as_slice().chunks(5).enumerate() {
        assert_eq!(row.iter().any(|g| *g != 0.0), i == 4, "row {i}");
    }
}
