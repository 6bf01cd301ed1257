//! Random shapes, views, masks and sizes of scores, against the definition.

use kc_attention::exact::reference;
use kc_attention::{
    AttentionConfig, Layout, Mask, Select, attention, attention_backward, attention_backward_into,
    attention_into,
};
use kc_core::{Error, Isa, Tensor};
use kc_testing::{Tol, assert_close};
use proptest::prelude::*;

use super::{Case, normal, spread, spread_view, tokens_first, with_lse};

/// What the mask does; its axes of length 1 are those that `axes` does not name.
#[derive(Debug, Clone, Copy)]
enum Choice {
    All,
    Keep { axes: [bool; 4] },
    Add { axes: [bool; 4] },
}

#[derive(Debug, Clone)]
struct Given {
    case: Case,
    causal: bool,
    choice: Choice,
    /// Standard deviation of the queries.
    size: f32,
    scale: Option<f32>,
    isa: Isa,
    seed: u64,
}

fn given() -> impl Strategy<Value = Given> {
    // Up to two tiles of queries and three of keys; groups of heads with few and with many queries.
    let shape = (1usize..3, 1usize..4, 1usize..4, 1usize..=130, 1usize..=300, 1usize..=40);
    let axes = proptest::array::uniform4(any::<bool>());
    let choice = prop_oneof![
        Just(Choice::All),
        axes.prop_map(|axes| Choice::Keep { axes }),
        axes.prop_map(|axes| Choice::Add { axes }),
    ];
    let isa = proptest::sample::select(Isa::available().collect::<Vec<_>>());
    let size = prop_oneof![Just(1.0f32), Just(0.0), Just(100.0)];
    let scale = prop_oneof![Just(None), Just(Some(0.0f32)), Just(Some(-0.3))];
    (shape, any::<bool>(), choice, size, scale, isa, 0u64..1000).prop_map(
        |((b, kv, group, nq, nk, d), causal, choice, size, scale, isa, seed)| {
            // Few queries as often as many.
            let nq = if seed % 2 == 0 { nq.div_ceil(8) } else { nq };
            Given { case: Case([b, kv * group, nq], [kv, nk], d), causal, choice, size, scale, isa, seed }
        },
    )
}

/// Masks whose values hide about a third of the keys, and all keys of some rows.
fn masks(given: &Given) -> (Tensor<u8, 4>, Tensor<f32, 4>) {
    let Case([b, hq, nq], [_, nk], _) = given.case;
    let full = [b, hq, nq, nk];
    let axes = match given.choice {
        Choice::All => [false; 4],
        Choice::Keep { axes } | Choice::Add { axes } => axes,
    };
    let shape = std::array::from_fn(|i| if axes[i] { full[i] } else { 1 });
    let noise = normal(shape, given.seed + 7);
    let hidden = |i: [usize; 4]| noise[i] > 0.4 || i[2] % 11 == 5;
    (
        Tensor::from_fn(shape, |i| u8::from(!hidden(i)) * 3).unwrap(),
        Tensor::from_fn(shape, |i| if hidden(i) { f32::NEG_INFINITY } else { noise[i] }).unwrap(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn output_lse_and_gradients_follow_the_definition(given in given()) {
        let Case([b, hq, nq], _, d) = given.case;
        let [mut q, k, v] = given.case.inputs(given.seed);
        q.as_mut_slice().iter_mut().for_each(|x| *x *= given.size);
        let d_o = normal(q.shape(), given.seed + 3);
        let (keep, add) = masks(&given);
        let select = match given.choice {
            Choice::All => Select::All,
            Choice::Keep { .. } => Select::Keep(keep.view()),
            Choice::Add { .. } => Select::Add(add.view()),
        };
        let mask = Mask { causal: given.causal, select };
        let config = AttentionConfig { scale: given.scale, isa: given.isa, ..with_lse() };
        let scale = given.scale.map_or(1.0 / (d as f64).sqrt(), f64::from);

        let (want, want_lse) = reference::attention(q.view(), k.view(), v.view(), &mask, scale).unwrap();
        let found = attention(q.view(), k.view(), v.view(), &mask, &config).unwrap();
        let lse = found.lse.as_ref().unwrap();
        // Scores in f32 err by some units in the last place of the largest.
        let grain = if given.size > 1.0 { 2e-4 } else { 3e-6 };
        assert_close(found.out.as_slice(), want.as_slice(), Tol::new(grain, 10.0 * grain));
        assert_close(lse.as_slice(), want_lse.as_slice(), Tol::new(2e-6, 1e-5));
        for (row, lse) in found.out.as_slice().chunks(d).zip(lse.as_slice()) {
            prop_assert!(*lse > f32::NEG_INFINITY || row.iter().all(|x| *x == 0.0));
        }

        // Views with gaps, written into a view of the other layout: the same bits.
        let data = [spread(&q), spread(&k), spread(&v)];
        let (sq, sk, sv) = (spread_view(&q, &data[0]), spread_view(&k, &data[1]), spread_view(&v, &data[2]));
        let mut turned = Tensor::<f32, 4>::zeros([b, nq, hq, d]).unwrap();
        let out = turned.view_mut().permuted([0, 2, 1, 3]).unwrap();
        attention_into(sq, sk, sv, &mask, &config, out, None).unwrap();
        prop_assert_eq!(&turned, &tokens_first(&found.out));

        // The weights of the gradients come from an lse in f32, whose error grows with it.
        let want = reference::attention_backward(q.view(), k.view(), v.view(), d_o.view(), &mask, scale).unwrap();
        let back = |config: &AttentionConfig, [q, k, v, o, d_o]: [&Tensor<f32, 4>; 5]| {
            let (q, k, v, o) = (q.view(), k.view(), v.view(), o.view());
            attention_backward(q, k, v, o, lse.view(), d_o.view(), &mask, config).unwrap()
        };
        let got = back(&config, [&q, &k, &v, &found.out, &d_o]);
        let size = given.size.max(1.0);
        for (got, want) in [&got.dq, &got.dk, &got.dv].into_iter().zip(&want) {
            assert_close(got.as_slice(), want.as_slice(), Tol::new(1e-5 * f64::from(size), 1e-4 * f64::from(size)));
        }
        let nhd = AttentionConfig { layout: Layout::Nhd, ..config };
        let parts = [&q, &k, &v, &found.out, &d_o].map(tokens_first);
        let other = back(&nhd, parts.each_ref());
        prop_assert_eq!(&other.dq, &tokens_first(&got.dq));
        prop_assert_eq!(&other.dk, &tokens_first(&got.dk));
        prop_assert_eq!(&other.dv, &tokens_first(&got.dv));
    }
}

#[test]
fn gradients_go_where_the_views_say() {
    let [q, k, v] = Case([2, 4, 9], [2, 11], 5).inputs(1);
    let (mask, config) = (Mask::CAUSAL, with_lse());
    let found = attention(q.view(), k.view(), v.view(), &mask, &config).unwrap();
    let (o, lse) = (found.out.view(), found.lse.as_ref().unwrap().view());
    let want = attention_backward(q.view(), k.view(), v.view(), o, lse, q.view(), &mask, &config).unwrap();
    // What the buffers held does not matter, and what lies between their elements stays.
    let mut buffers = [&q, &k, &v].map(|x| vec![7.0f32; 2 * x.len()]);
    let [dq, dk, dv] = &mut buffers;
    let wide = |x: &Tensor<f32, 4>| [x.shape()[0], x.shape()[1], 2 * x.shape()[2], x.shape()[3]];
    fn half<'a>(x: &'a mut [f32], shape: [usize; 4]) -> kc_core::TensorViewMut<'a, f32, 4> {
        let rows = shape[2] / 2;
        kc_core::TensorViewMut::from_slice(shape, x).unwrap().split_at(2, rows).unwrap().0
    }
    let grads = [half(dq, wide(&q)), half(dk, wide(&k)), half(dv, wide(&v))];
    attention_backward_into(q.view(), k.view(), v.view(), o, lse, q.view(), &mask, &config, grads).unwrap();
    for (got, want) in buffers.iter().zip([&want.dq, &want.dk, &want.dv]) {
        let block = want.shape()[2] * want.shape()[3];
        for (got, want) in got.chunks(2 * block).zip(want.as_slice().chunks(block)) {
            assert_eq!(&got[..block], want);
            assert!(got[block..].iter().all(|x| *x == 7.0));
        }
    }
    let mut small = Tensor::<f32, 4>::zeros([2, 4, 9, 4]).unwrap();
    let mut rest = [k.clone(), v.clone()];
    let [dk, dv] = &mut rest;
    let grads = [small.view_mut(), dk.view_mut(), dv.view_mut()];
    let wrong =
        attention_backward_into(q.view(), k.view(), v.view(), o, lse, q.view(), &mask, &config, grads);
    assert!(matches!(wrong, Err(Error::Shape { arg, .. }) if arg == "dq"));
}

#[test]
fn numbers_of_keys_that_nobody_sees_are_looked_at() {
    // One tile of queries packs its keys on the way, hidden or not; no queries at all read no keys.
    for (queries, hidden) in [(40, 300), (3, 300), (0, 0)] {
        let [q, k, mut v] = Case([1, 1, queries], [1, 400], 8).inputs(3);
        v[[0, 0, 350, 4]] = f32::NAN;
        let keep = Tensor::<u8, 4>::from_fn([1, 1, 1, 400], |[_, _, _, j]| u8::from(j < hidden)).unwrap();
        let mask = Mask { causal: false, select: Select::Keep(keep.view()) };
        let found = attention(q.view(), k.view(), v.view(), &mask, &AttentionConfig::default());
        assert!(
            matches!(&found, Err(Error::NotFinite { arg, index, .. }) if arg == "v" && index[..] == [0, 0, 350, 4]),
            "{queries}: {found:?}"
        );
    }
}
