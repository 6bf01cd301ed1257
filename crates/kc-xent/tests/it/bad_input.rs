//! Each row of the table of bad input.

use kc_core::{Error, Tensor, TensorView};
use kc_xent::{
    Filter, Need, Reduction, Seeds, Upstream, XentConfig, XentInput, linear_cross_entropy,
    linear_cross_entropy_with_grad, partition, shard_forward, top_k,
};

use crate::support::{Case, input};

fn is_argument(result: Result<impl Sized, Error>, name: &str) -> bool {
    matches!(result, Err(Error::Argument { arg, .. }) if arg == name)
}

fn is_shape(result: Result<impl Sized, Error>, name: &str) -> bool {
    matches!(result, Err(Error::Shape { arg, .. }) if arg == name)
}

#[test]
fn shapes() {
    let case = Case::new(6, 10, 4, 1);
    let five = TensorView::from_slice([5], &case.targets[..5]).expect("targets");
    assert!(is_shape(XentInput::new(case.e.view(), case.c.view(), five), "targets"));
    let narrow = case.c.view().slice(1, 0..3).expect("columns");
    let six = TensorView::from_slice([6], &case.targets).expect("targets");
    assert!(is_shape(XentInput::new(case.e.view(), narrow, six), "c"));
    assert!(is_shape(input(case.e.view(), case.c.view(), &case.targets).bias(&case.bias[1..]), "bias"));
    let none = Tensor::<f32, 2>::zeros([0, 4]).expect("no words");
    assert!(matches!(XentInput::new(case.e.view(), none.view(), six), Err(Error::Empty { .. })));
    let flat = Tensor::<f32, 2>::zeros([6, 0]).expect("no columns");
    assert!(matches!(XentInput::new(flat.view(), flat.view(), six), Err(Error::Empty { .. })));
    let weights = Some(vec![1.0; 9]);
    assert!(is_shape(
        linear_cross_entropy(&case.input(), &XentConfig { class_weights: weights, ..XentConfig::default() }),
        "class_weights"
    ));
}

#[test]
fn options() {
    let case = Case::new(6, 10, 4, 2);
    let run = |config: XentConfig| linear_cross_entropy(&case.input(), &config);
    let base = XentConfig::default;
    for cap in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(is_argument(run(XentConfig { softcap: Some(cap), ..base() }), "softcap"));
    }
    for a in [-0.1, 1.1, f64::NAN] {
        assert!(is_argument(run(XentConfig { label_smoothing: a, ..base() }), "label_smoothing"));
    }
    for eps in [-1e-9, f64::NAN] {
        assert!(is_argument(run(XentConfig { filter: Filter::Value(eps), ..base() }), "filter_eps"));
    }
    for shift in [6, 7, usize::MAX] {
        assert!(is_argument(run(XentConfig { shift, ..base() }), "shift"));
    }
    for block in [(0, 1), (1, 0), (1025, 1)] {
        assert!(is_argument(run(XentConfig { block, ..base() }), "block"));
    }
    let mut weights = vec![1.0; 10];
    weights[3] = -0.5;
    assert!(is_argument(run(XentConfig { class_weights: Some(weights), ..base() }), "class_weights"));
    assert!(is_argument(run(XentConfig { z_loss: f64::NAN, ..base() }), "z_loss"));
}

#[test]
fn targets() {
    let mut case = Case::new(6, 10, 4, 3);
    for bad in [10, -1, i64::MAX, i64::MIN] {
        case.targets[4] = bad;
        let found = linear_cross_entropy(&case.input(), &XentConfig::default());
        assert!(
            matches!(found, Err(Error::Argument { arg, got, .. }) if arg == "targets" && got == format!("{bad} at 4"))
        );
    }
    case.targets[4] = -1;
    let config = XentConfig { ignore_index: -1, ..XentConfig::default() };
    assert!(is_argument(linear_cross_entropy(&case.input(), &config), "targets"), "-100 is no word either");
}

#[test]
fn seeds() {
    let case = Case::new(6, 10, 4, 4);
    let run = |seeds, reduction| {
        let config = XentConfig { reduction, ..XentConfig::default() };
        linear_cross_entropy_with_grad(&case.input(), seeds, Need::default(), &config)
    };
    let five = [1.0; 5];
    let per_token = Seeds { loss: Upstream::PerToken(&five), lse: None };
    assert!(is_shape(run(per_token, Reduction::None), "grad_out"));
    let lse = Seeds { loss: Upstream::Scalar(1.0), lse: Some(&five) };
    assert!(is_shape(run(lse, Reduction::Mean), "grad_lse"));
    let six = [1.0; 6];
    let per_token = Seeds { loss: Upstream::PerToken(&six), lse: None };
    assert!(is_argument(run(per_token, Reduction::Mean), "grad_out"));
}

#[test]
fn finite_only_if_asked() {
    let mut case = Case::new(6, 10, 4, 5);
    case.c.as_mut_slice()[7] = f32::NAN;
    let config = XentConfig { check_finite: true, ..XentConfig::default() };
    let found = linear_cross_entropy(&case.input(), &config);
    assert!(matches!(found, Err(Error::NotFinite { arg, index, .. }) if arg == "c" && index == [7]));
}

#[test]
fn others() {
    let case = Case::new(6, 10, 4, 6);
    assert!(is_argument(top_k(&case.input(), 0, &XentConfig::default()), "k"));
    assert!(is_argument(top_k(&case.input(), 11, &XentConfig::default()), "k"));
    assert!(is_argument(partition(10, 3, 3), "rank"));
    assert!(is_argument(shard_forward(&case.input(), 5, 14, &XentConfig::default()), "start"));
}
