//! Which layers and steps take 8 bits: plans from comparisons on sample inputs.
//!
//! A plan holds 4 or 8 for each `[step, layer]`. Scores compare a kernel with exact attention, such as
//! [`score`]`(`[`compare`](crate::compare())`)`: 1 is exact.
//!
//! ```
//! use kc_attention::sage::plan::{plan_by_budget, plan_by_score};
//! use kc_core::TensorView;
//! let four = TensorView::from_slice([2, 2], &[0.90, 0.97, 0.95, 0.90])?;
//! assert_eq!(plan_by_score(four, 2)?.as_slice(), [8, 4, 4, 8]);
//! let eight = TensorView::from_slice([2, 2], &[1.0; 4])?;
//! assert_eq!(plan_by_budget(four, eight, 0.955)?.as_slice(), [8, 4, 4, 4]);
//! # Ok::<(), kc_core::Error>(())
//! ```

use kc_core::{Error, Result, Tensor, TensorView};

use crate::Metrics;

/// `cos (1 - rel_l1)`: 1 for an exact result.
pub fn score(metrics: &Metrics) -> f64 {
    metrics.cos * (1.0 - metrics.rel_l1)
}

/// 8 bits for the `eight` lowest scores of the 4-bit kernel, `[steps, layers]`, and 4 for the rest. Of equal scores the
/// lower step comes first, then the lower layer.
///
/// # Errors
/// `Argument` if there are not so many; `NotFinite`.
pub fn plan_by_score(scores: TensorView<'_, f64, 2>, eight: usize) -> Result<Tensor<u8, 2>> {
    if eight > scores.len() {
        return Err(Error::argument("eight", format!("at most {}, as many as scores", scores.len()), eight));
    }
    let mut plan = Tensor::from_fn(scores.shape(), |_| 4u8)?;
    for at in order(scores)?.into_iter().take(eight) {
        plan.as_mut_slice()[at] = 8;
    }
    Ok(plan)
}

/// 4 bits where the worst cosine of all samples, `[samples, steps, layers]`, is at least `threshold` (0.998 in the first
/// paper), else 8.
///
/// # Errors
/// `Empty` without samples; `NotFinite`.
pub fn plan_by_threshold(cos: TensorView<'_, f64, 3>, threshold: f64) -> Result<Tensor<u8, 2>> {
    let [samples, steps, layers] = cos.shape();
    if samples == 0 {
        return Err(Error::empty("cos"));
    }
    check("cos", cos)?;
    Tensor::from_fn(
        [steps, layers],
        |[t, l]| {
            if (0..samples).all(|s| cos.at([s, t, l]) >= threshold) { 4 } else { 8 }
        },
    )
}

/// The plan with the fewest 8s whose mean score reaches `target`: those of [`plan_by_score`] with scores `four` where it
/// says 4 and `eight` where it says 8.
///
/// # Errors
/// `Shape` if the shapes differ; `NotFinite`; `NotConverged` if not even 8 bits everywhere reach the target, with what is
/// missing.
pub fn plan_by_budget(
    four: TensorView<'_, f64, 2>,
    eight: TensorView<'_, f64, 2>,
    target: f64,
) -> Result<Tensor<u8, 2>> {
    if four.shape() != eight.shape() {
        return Err(Error::shape("eight", format!("{:?} to match four", four.shape()), &eight.shape()));
    }
    check("eight", eight)?;
    if four.is_empty() {
        return plan_by_score(four, 0);
    }
    let order = order(four)?;
    let (low, high) = (four.to_vec(), eight.to_vec());
    let count = low.len() as f64;
    let mean = |chosen: usize| {
        let (eight, four) = order.split_at(chosen);
        let sum = eight.iter().map(|&i| high[i]).sum::<f64>() + four.iter().map(|&i| low[i]).sum::<f64>();
        sum / count
    };
    match (0..=low.len()).find(|&chosen| mean(chosen) >= target) {
        Some(chosen) => plan_by_score(four, chosen),
        None => Err(Error::NotConverged {
            what: "a plan that reaches the target".into(),
            iterations: low.len(),
            residual: target - mean(low.len()),
        }),
    }
}

/// Positions by rising score.
fn order(scores: TensorView<'_, f64, 2>) -> Result<Vec<usize>> {
    check("scores", scores)?;
    let scores = scores.to_vec();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(a.cmp(&b)));
    Ok(order)
}

fn check<const N: usize>(arg: &'static str, x: TensorView<'_, f64, N>) -> Result<()> {
    match x.iter().position(|x| !x.is_finite()) {
        Some(at) => {
            let shape = x.shape();
            let mut index = vec![0; N];
            let mut rest = at;
            for axis in (0..N).rev() {
                index[axis] = rest % shape[axis];
                rest /= shape[axis];
            }
            Err(Error::not_finite(arg, &index, x.iter().nth(at).unwrap_or(f64::NAN)))
        }
        None => Ok(()),
    }
}
