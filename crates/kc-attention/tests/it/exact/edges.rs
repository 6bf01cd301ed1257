//! Extreme and wrong input.

use kc_attention::{AttentionConfig, Layout, Mask, Select, attention, attention_into};
use kc_core::{Error, Tensor, TensorView};
use kc_testing::{Tol, assert_close, each_isa};

use super::{Case, normal, with_lse};

#[test]
fn queries_without_keys_give_zero() {
    each_isa(|isa| {
        for (nq, nk) in [(300, 100), (7, 3), (30, 1)] {
            let [q, k, v] = Case([1, 2, nq], [1, nk], 16).inputs(1);
            let config = AttentionConfig { isa, ..with_lse() };
            let got = attention(q.view(), k.view(), v.view(), &Mask::CAUSAL, &config).unwrap();
            let lse = got.lse.unwrap();
            for i in 0..nq {
                let blind = i + nk < nq;
                assert_eq!(lse[[0, 1, i]] == f32::NEG_INFINITY, blind, "query {i} of {nq}");
                assert_eq!((0..16).all(|c| got.out[[0, 1, i, c]] == 0.0), blind);
            }
        }
    });
}

#[test]
fn masks_that_hide_everything() {
    let [q, k, v] = Case([2, 2, 20], [1, 200], 8).inputs(2);
    let none = Tensor::<u8, 4>::zeros([1, 1, 1, 1]).unwrap();
    let infinite = Tensor::from_fn([1, 1, 20, 1], |_| f32::NEG_INFINITY).unwrap();
    for select in [Select::Keep(none.view()), Select::Add(infinite.view())] {
        let mask = Mask { causal: false, select };
        let got = attention(q.view(), k.view(), v.view(), &mask, &with_lse()).unwrap();
        assert!(got.out.as_slice().iter().all(|x| *x == 0.0));
        assert!(got.lse.unwrap().as_slice().iter().all(|x| *x == f32::NEG_INFINITY));
    }
}

#[test]
fn huge_scores_pick_the_largest() {
    each_isa(|isa| {
        let q = Tensor::from_fn([1, 1, 40, 4], |[_, _, i, _]| 100.0 + i as f32).unwrap();
        let k = Tensor::from_fn([1, 1, 300, 4], |[_, _, j, _]| j as f32).unwrap();
        let v = normal([1, 1, 300, 4], 3);
        let config = AttentionConfig { isa, ..with_lse() };
        let got = attention(q.view(), k.view(), v.view(), &Mask::NONE, &config).unwrap();
        for i in 0..40 {
            for c in 0..4 {
                assert_eq!(got.out[[0, 0, i, c]], v[[0, 0, 299, c]]);
            }
            assert_close(
                &[got.lse.as_ref().unwrap()[[0, 0, i]]],
                &[(100.0 + i as f64) * 598.0],
                Tol::rel(1e-6),
            );
        }
        // The other way round: scores down to -1e5, the first key wins.
        let k = Tensor::from_fn([1, 1, 300, 4], |[_, _, j, _]| -(j as f32)).unwrap();
        let got = attention(q.view(), k.view(), v.view(), &Mask::NONE, &config).unwrap();
        assert_eq!(got.out[[0, 0, 5, 1]], v[[0, 0, 0, 1]]);
    });
}

#[test]
fn equal_keys_average_the_values() {
    let q = normal([1, 1, 10, 8], 1);
    let k = Tensor::from_fn([1, 1, 500, 8], |_| 3.0f32).unwrap();
    let v = Tensor::from_fn([1, 1, 500, 8], |[_, _, j, _]| j as f32).unwrap();
    let got = attention(q.view(), k.view(), v.view(), &Mask::NONE, &with_lse()).unwrap();
    assert_close(got.out.as_slice(), vec![249.5f32; 80].as_slice(), Tol::rel(1e-6));
}

#[test]
fn nothing_in_gives_nothing_out() {
    for shape in [[0, 2, 5, 4], [3, 2, 0, 4], [3, 0, 5, 4]] {
        let [b, _, _, d] = shape;
        let q = Tensor::<f32, 4>::zeros(shape).unwrap();
        let k = Tensor::<f32, 4>::zeros([b, 2, 7, d]).unwrap();
        let got = attention(q.view(), k.view(), k.view(), &Mask::CAUSAL, &with_lse()).unwrap();
        assert_eq!(got.out.shape(), shape);
        assert_eq!(got.lse.unwrap().len(), 0);
    }
}

#[test]
fn the_scale_is_that_of_the_channels_or_the_callers() {
    let [q, k, v] = Case([1, 1, 9], [1, 11], 20).inputs(4);
    let plain = attention(q.view(), k.view(), v.view(), &Mask::NONE, &with_lse()).unwrap();
    let given = AttentionConfig { scale: Some(1.0 / 20f32.sqrt()), ..with_lse() };
    let given = attention(q.view(), k.view(), v.view(), &Mask::NONE, &given).unwrap();
    assert_close(plain.out.as_slice(), given.out.as_slice(), Tol::abs(1e-6));
    let zero = AttentionConfig { scale: Some(0.0), ..with_lse() };
    let zero = attention(q.view(), k.view(), v.view(), &Mask::NONE, &zero).unwrap();
    assert_close(zero.lse.unwrap().as_slice(), [11f64.ln(); 9].as_slice(), Tol::rel(1e-6));
}

#[test]
fn wrong_input_is_told_by_name() {
    let t = |shape| normal(shape, 1);
    let run = |q: [usize; 4], k: [usize; 4], v: [usize; 4]| {
        attention(t(q).view(), t(k).view(), t(v).view(), &Mask::NONE, &with_lse()).map(|_| ())
    };
    let shape = |r: kc_core::Result<()>, name: &str| {
        assert!(matches!(&r, Err(Error::Shape { arg, .. }) if arg == name), "{r:?}");
    };
    shape(run([1, 2, 3, 4], [2, 2, 3, 4], [2, 2, 3, 4]), "k");
    shape(run([1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 5]), "k");
    shape(run([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 5, 4]), "v");
    shape(run([1, 3, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]), "k");
    assert!(matches!(run([1, 2, 3, 4], [1, 2, 0, 4], [1, 2, 0, 4]), Err(Error::Empty { .. })));
    assert!(matches!(run([1, 2, 3, 0], [1, 2, 3, 0], [1, 2, 3, 0]), Err(Error::Empty { .. })));

    let [q, k, v] = Case([1, 2, 3], [1, 300], 4).inputs(1);
    for scale in [f32::NAN, f32::INFINITY] {
        let config = AttentionConfig { scale: Some(scale), ..with_lse() };
        let found = attention(q.view(), k.view(), v.view(), &Mask::NONE, &config);
        assert!(matches!(found, Err(Error::Argument { arg, .. }) if arg == "scale"));
    }
    let narrow = normal([1, 1, 3, 299], 1);
    let mask = Mask { causal: false, select: Select::Add(narrow.view()) };
    let found = attention(q.view(), k.view(), v.view(), &mask, &with_lse());
    assert!(matches!(found, Err(Error::Shape { arg, .. }) if arg == "mask"));
    let bad = Tensor::from_fn([1, 1, 3, 300], |i| if i == [0, 0, 2, 7] { f32::NAN } else { 0.0 }).unwrap();
    let mask = Mask { causal: false, select: Select::Add(bad.view()) };
    let found = attention(q.view(), k.view(), v.view(), &mask, &with_lse());
    assert!(
        matches!(found, Err(Error::NotFinite { arg, index, .. }) if arg == "mask" && index == [0, 0, 2, 7])
    );

    let mut small = Tensor::<f32, 4>::zeros([1, 2, 3, 3]).unwrap();
    let found = attention_into(
        q.view(),
        k.view(),
        v.view(),
        &Mask::NONE,
        &AttentionConfig::default(),
        small.view_mut(),
        None,
    );
    assert!(matches!(found, Err(Error::Shape { arg, .. }) if arg == "out"));
}

#[test]
fn numbers_that_are_not_finite_are_found_where_they_are() {
    // Decoding and tiles, contiguous and not, in any tensor.
    for (nq, nk) in [(1, 3000), (130, 200)] {
        let case = Case([2, 2, nq], [1, nk], 24);
        for which in 0..3 {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for causal in [false, true] {
                    let mut inputs = case.inputs(5);
                    let [_, h, n, _] = inputs[which].shape();
                    let at = [1, h - 1, n - 1, 23];
                    inputs[which][at] = bad;
                    let [q, k, v] = &inputs;
                    let mask = Mask { causal, ..Mask::NONE };
                    let found = attention(q.view(), k.view(), v.view(), &mask, &with_lse());
                    let name = ["q", "k", "v"][which];
                    let ok = matches!(&found, Err(Error::NotFinite { arg, index, .. }) if arg == name && index == &at);
                    assert!(ok, "{name} {bad}: {found:?}");
                }
            }
        }
    }
    // Nothing is hidden if nobody checks.
    let [q, mut k, v] = Case([1, 1, 8], [1, 40], 8).inputs(1);
    k[[0, 0, 17, 3]] = f32::NAN;
    let config = AttentionConfig { check_finite: false, ..with_lse() };
    let got = attention(q.view(), k.view(), v.view(), &Mask::NONE, &config).unwrap();
    assert!(got.out.as_slice().iter().all(|x| x.is_nan()));
}

#[test]
fn the_layout_decides_which_axis_holds_the_heads() {
    let q = normal([1, 6, 2, 8], 1);
    let k = normal([1, 9, 2, 8], 2);
    let config = AttentionConfig { layout: Layout::Nhd, ..with_lse() };
    let found = attention(q.view(), k.view(), k.view(), &Mask::NONE, &config).unwrap();
    assert_eq!(found.lse.unwrap().shape(), [1, 2, 6]);
    let found = attention(q.view(), k.view(), k.view(), &Mask::NONE, &with_lse());
    assert!(found.is_err(), "6 heads over 9");
}

#[test]
fn views_that_repeat_are_read_as_they_are() {
    let one = normal([1, 1, 1, 8], 1);
    let q = one.view().broadcast_to([1, 3, 10, 8]).unwrap();
    let k = normal([1, 1, 50, 8], 2);
    let reversed: TensorView<'_, f32, 4> = k.view().step(2, -1).unwrap();
    let found = attention(q, reversed, reversed, &Mask::NONE, &with_lse()).unwrap().out;
    let want = attention(q, k.view(), k.view(), &Mask::NONE, &with_lse()).unwrap().out;
    assert_close(found.as_slice(), want.as_slice(), Tol::abs(1e-6));
    assert!(found.as_slice().chunks(8).all(|row| row == &found.as_slice()[..8]));
}
