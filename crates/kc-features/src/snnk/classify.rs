//! Logistic regression on bundled features, by Newton's method.

use kc_core::{Error, Result, Tensor, TensorView};
use kc_gemm::gemm;

use super::bundle::{Bundle, Bundled};
use super::fit::{bundled, check_ridge, solve_ridge, wide};
use crate::{FeatureMap, Scalar};

/// Most unknowns (classes times features): their second derivatives are a square matrix.
const MOST_UNKNOWNS: usize = 8192;

/// How to fit a classifier.
#[derive(Debug, Clone, PartialEq)]
pub struct LogisticConfig {
    /// Factor of `|psi|^2 / 2`, positive: without it classes that can be told apart have no best parameter.
    pub ridge: f64,
    /// The largest entry of the gradient at the end, relative to that at zero.
    pub tolerance: f64,
    /// Newton steps at most.
    pub steps: usize,
}

impl Default for LogisticConfig {
    fn default() -> Self {
        Self { ridge: 1.0, tolerance: 1e-8, steps: 50 }
    }
}

/// A fitted classifier: the class with the largest output is the answer.
#[derive(Debug, Clone)]
pub struct Logistic<T: Scalar> {
    /// One output for each class: logarithms of chances, up to a common constant.
    pub network: Bundled<T>,
    /// The loss that was reached: `-sum ln p + ridge |psi|^2 / 2`.
    pub loss: f64,
    /// Newton steps that were taken.
    pub steps: usize,
}

/// Fits `psi` `[classes, width]` to labels `0..classes` by softmax regression: Newton steps with the whole matrix of
/// second derivatives, halved until the loss falls. `O(n (K m)^2 / 2 + (K m)^3 / 3)` for a step.
///
/// # Errors
/// `Shape`, `Empty`, `NotFinite`; `Index` for a label that is not a class; `Argument` for a ridge that is not positive
/// or fewer than two classes; `TooLarge` beyond 8192 unknowns; `NotConverged`.
pub fn fit_logistic<T: Scalar>(
    bundle: &Bundle<T>,
    x: TensorView<'_, T, 2>,
    labels: &[usize],
    classes: usize,
    config: &LogisticConfig,
) -> Result<Logistic<T>> {
    if labels.len() != x.rows() {
        return Err(Error::shape("labels", format!("[{}], as x has rows", x.rows()), &[labels.len()]));
    }
    if labels.is_empty() {
        return Err(Error::empty("x"));
    }
    if classes < 2 {
        return Err(Error::argument("classes", "at least 2", classes));
    }
    if let Some(i) = labels.iter().position(|&label| label >= classes) {
        return Err(Error::index("labels", &[i], labels[i], classes));
    }
    if check_ridge(config.ridge)? == 0.0 {
        return Err(Error::argument("ridge", "a positive number", config.ridge));
    }
    let m = bundle.width();
    let unknowns = m.saturating_mul(classes);
    if unknowns > MOST_UNKNOWNS {
        return Err(Error::too_large("classes", unknowns as u64, MOST_UNKNOWNS as u64, "unknowns"));
    }
    let problem = Problem { f: wide(bundle.apply(x)?.view())?, labels, classes, ridge: config.ridge };
    let mut c = Tensor::zeros([classes, m])?;
    let (mut loss, mut p) = problem.loss(&c)?;
    let mut first = None;
    for step in 0..=config.steps {
        let gradient = problem.gradient(&c, &p)?;
        let largest = gradient.as_slice().iter().fold(0.0, |most: f64, g| most.max(g.abs()));
        let first = *first.get_or_insert(largest);
        if largest <= config.tolerance * first {
            let network = bundled(bundle, &c.view().transposed().to_tensor()?)?;
            return Ok(Logistic { network, loss, steps: step });
        }
        if step == config.steps {
            return Err(Error::NotConverged {
                what: "fit_logistic".into(),
                iterations: step,
                residual: largest / first,
            });
        }
        let direction = solve_ridge(problem.curvature(&p)?, gradient.reshape([unknowns, 1])?, config.ridge)?;
        let mut length = 1.0;
        loop {
            let mut trial = c.clone();
            for (x, d) in trial.as_mut_slice().iter_mut().zip(direction.as_slice()) {
                *x -= length * d;
            }
            let (trial_loss, trial_p) = problem.loss(&trial)?;
            // Near the optimum the gain drowns in rounding: a tiny loss is no reason to shorten the step.
            if trial_loss <= loss + 1e-12 * loss.abs() || length < 1e-6 {
                (c, loss, p) = (trial, trial_loss, trial_p);
                break;
            }
            length *= 0.5;
        }
    }
    unreachable!("the last step returns")
}

struct Problem<'a> {
    f: Tensor<f64, 2>,
    labels: &'a [usize],
    classes: usize,
    ridge: f64,
}

impl Problem<'_> {
    /// The loss, and the chances `[n, classes]`.
    fn loss(&self, c: &Tensor<f64, 2>) -> Result<(f64, Tensor<f64, 2>)> {
        let mut p = gemm(self.f.view(), c.view().transposed())?;
        let mut loss = 0.5 * self.ridge * c.as_slice().iter().map(|x| x * x).sum::<f64>();
        for (row, &label) in p.as_mut_slice().chunks_exact_mut(self.classes).zip(self.labels) {
            let normaliser = kc_core::math::log_sum_exp(row);
            loss += normaliser - row[label];
            row.iter_mut().for_each(|z| *z = (*z - normaliser).exp());
        }
        Ok((loss, p))
    }

    fn gradient(&self, c: &Tensor<f64, 2>, p: &Tensor<f64, 2>) -> Result<Tensor<f64, 2>> {
        let mut error = p.clone();
        for (row, &label) in error.as_mut_slice().chunks_exact_mut(self.classes).zip(self.labels) {
            row[label] -= 1.0;
        }
        let mut gradient = gemm(error.view().transposed(), self.f.view())?;
        for (g, c) in gradient.as_mut_slice().iter_mut().zip(c.as_slice()) {
            *g += self.ridge * c;
        }
        Ok(gradient)
    }

    /// Second derivatives without the ridge, `[K m, K m]`: blocks `F^T diag(p_k (delta_kl - p_l)) F`.
    fn curvature(&self, p: &Tensor<f64, 2>) -> Result<Tensor<f64, 2>> {
        let ([n, m], classes) = (self.f.shape(), self.classes);
        let mut all = Tensor::zeros([classes * m, classes * m])?;
        for k in 0..classes {
            for l in 0..=k {
                let mut scaled = self.f.clone();
                for (i, row) in scaled.as_mut_slice().chunks_exact_mut(m).enumerate() {
                    let weight = p[[i, k]] * (f64::from(u8::from(k == l)) - p[[i, l]]);
                    row.iter_mut().for_each(|x| *x *= weight);
                }
                debug_assert_eq!(scaled.shape(), [n, m]);
                let block = gemm(self.f.view().transposed(), scaled.view())?;
                let mut place = |row: usize, column: usize| -> Result<()> {
                    let at = all.view_mut().slice(0, row * m..(row + 1) * m)?;
                    at.slice(1, column * m..(column + 1) * m)?.copy_from(block.view())
                };
                place(k, l)?;
                place(l, k)?;
            }
        }
        Ok(all)
    }
}
