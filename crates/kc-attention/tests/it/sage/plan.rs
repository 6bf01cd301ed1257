//! Which steps and layers take 8 bits.

use kc_attention::Metrics;
use kc_attention::sage::plan::{plan_by_budget, plan_by_score, plan_by_threshold, score};
use kc_core::{Error, TensorView};

fn view<const N: usize>(shape: [usize; N], x: &[f64]) -> TensorView<'_, f64, N> {
    TensorView::from_slice(shape, x).unwrap()
}

#[test]
fn the_lowest_scores_take_eight_bits_and_ties_go_to_the_first() {
    let scores = [0.9, 0.8, 0.9, 0.8, 0.8, 0.95];
    let plan = |eight| plan_by_score(view([3, 2], &scores), eight).unwrap().into_vec();
    assert_eq!(plan(0), [4; 6]);
    assert_eq!(plan(2), [4, 8, 4, 8, 4, 4]);
    assert_eq!(plan(4), [8, 8, 4, 8, 8, 4]);
    assert_eq!(plan(6), [8; 6]);
    assert!(matches!(plan_by_score(view([3, 2], &scores), 7), Err(Error::Argument { .. })));
    let bad = [0.9, f64::NAN];
    let error = plan_by_score(view([1, 2], &bad), 1).unwrap_err();
    assert!(matches!(error, Error::NotFinite { index, .. } if index == [0, 1]));
    assert_eq!(score(&Metrics { cos: 0.5, rel_l1: 0.25, rmse: 1.0 }), 0.375);
}

#[test]
fn the_worst_sample_decides() {
    let cos = [0.999, 0.9985, 0.99, 0.998, 0.997, 0.999];
    // Two samples of one step with three layers.
    let plan = plan_by_threshold(view([2, 1, 3], &cos), 0.998).unwrap();
    assert_eq!(plan.as_slice(), [4, 8, 8]);
    assert!(matches!(plan_by_threshold(view([0, 1, 3], &[]), 0.998), Err(Error::Empty { .. })));
}

#[test]
fn a_budget_takes_as_few_as_it_needs() {
    let (four, eight) = ([0.5, 0.75, 0.25, 0.75], [1.0; 4]);
    let plan = |target| plan_by_budget(view([2, 2], &four), view([2, 2], &eight), target);
    assert_eq!(plan(0.5).unwrap().as_slice(), [4, 4, 4, 4]);
    assert_eq!(plan(0.75).unwrap().as_slice(), [4, 4, 8, 4]);
    assert_eq!(plan(0.80).unwrap().as_slice(), [8, 4, 8, 4]);
    assert!(matches!(plan(1.5), Err(Error::NotConverged { residual, .. }) if residual == 0.5));
    assert!(plan_by_budget(view([2, 2], &four), view([4, 1], &eight), 0.5).is_err());
}
