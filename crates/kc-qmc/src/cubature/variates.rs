//! Control variates: functions with known means that take variance away.

use kc_core::{Error, Result};

use crate::Integrand;

/// Functions with known integrals. The cubature estimates the integral of `f - beta (cv - mean)`, with
/// coefficients `beta` by least squares.
#[derive(Clone)]
#[non_exhaustive]
pub struct ControlVariates<'a> {
    /// The functions, K of them, each with the dimensions and outputs of the integrand.
    pub functions: Vec<&'a dyn Integrand>,
    /// Their integrals, shape (K, outputs), row-major.
    pub means: Vec<f64>,
    /// Fit the coefficients again after each doubling (net-g), instead of once.
    pub refit: bool,
}

impl std::fmt::Debug for ControlVariates<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let functions = self.functions.len();
        f.debug_struct("ControlVariates").field("functions", &functions).field("means", &self.means).finish()
    }
}

impl<'a> ControlVariates<'a> {
    /// Functions and their integrals, shape (functions, outputs).
    pub fn new(functions: Vec<&'a dyn Integrand>, means: Vec<f64>) -> Self {
        Self { functions, means, refit: false }
    }

    /// None.
    pub(super) fn none() -> Self {
        Self::new(Vec::new(), Vec::new())
    }

    pub(super) fn check(&self, integrand: &dyn Integrand) -> Result<()> {
        let (dim, outputs) = (integrand.dim(), integrand.outputs());
        for (k, function) in self.functions.iter().enumerate() {
            let got = [function.dim(), function.outputs()];
            if got != [dim, outputs] {
                return Err(Error::shape(
                    format!("control variate {k}"),
                    format!("[{dim}, {outputs}] (dimensions, outputs) like the integrand"),
                    &got,
                ));
            }
        }
        let count = self.functions.len() * outputs;
        if self.means.len() != count {
            let expected = format!("[{}, {outputs}] (functions, outputs)", self.functions.len());
            return Err(Error::shape("control variate means", expected, &[self.means.len()]));
        }
        match self.means.iter().position(|mean| !mean.is_finite()) {
            Some(at) => {
                Err(Error::not_finite("control variate means", &[at / outputs, at % outputs], self.means[at]))
            }
            None => Ok(()),
        }
    }
}

/// The integrand and its control variates, evaluated at the same points: outputs (1 + K, P).
pub(super) struct Controlled<'a> {
    pub(super) integrand: &'a dyn Integrand,
    pub(super) variates: ControlVariates<'a>,
}

impl Controlled<'_> {
    /// Which of all outputs are wanted when these outputs of the integrand are.
    pub(super) fn active(&self, wanted: &[bool]) -> Vec<bool> {
        wanted.repeat(1 + self.variates.functions.len())
    }

    /// Known means of the variates of one output.
    pub(super) fn means(&self, output: usize) -> impl Iterator<Item = f64> {
        self.variates.means.iter().copied().skip(output).step_by(self.integrand.outputs())
    }
}

impl Integrand for Controlled<'_> {
    fn dim(&self) -> usize {
        self.integrand.dim()
    }

    fn outputs(&self) -> usize {
        self.integrand.outputs() * (1 + self.variates.functions.len())
    }

    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        let outputs = self.integrand.outputs();
        let size = out.len() / (1 + self.variates.functions.len());
        let (first, rest) = out.split_at_mut(size);
        self.integrand.evaluate(u, &active[..outputs], first)?;
        for (function, out) in self.variates.functions.iter().zip(rest.chunks_exact_mut(size)) {
            function.evaluate(u, &active[..outputs], out)?;
        }
        Ok(())
    }

    fn fingerprint(&self) -> Option<String> {
        let mut text = self.integrand.fingerprint()?;
        for (k, function) in self.variates.functions.iter().enumerate() {
            text += &format!(" - cv{k} {}", function.fingerprint()?);
        }
        if !self.variates.functions.is_empty() {
            text += &format!(" means {:?} refit {}", self.variates.means, self.variates.refit);
        }
        Some(text)
    }
}

/// The coefficients that minimise `|y - X beta|`, by Householder reflections with the largest column first;
/// columns that depend on others get 0.
pub(super) fn least_squares(mut columns: Vec<Vec<f64>>, mut y: Vec<f64>) -> Vec<f64> {
    let (count, rows) = (columns.len(), y.len());
    let mut order: Vec<usize> = (0..count).collect();
    let norm = |v: &[f64]| super::sums::sum_of(v, |x| x * x).sqrt();
    let largest = columns.iter().map(|c| norm(c)).fold(0.0, f64::max);
    let mut diagonal = Vec::with_capacity(count);
    for step in 0..count.min(rows) {
        let Some(pivot) =
            (step..count).max_by(|a, b| norm(&columns[*a][step..]).total_cmp(&norm(&columns[*b][step..])))
        else {
            break;
        };
        columns.swap(step, pivot);
        order.swap(step, pivot);
        let (head, rest) = columns.split_at_mut(step + 1);
        let column = &mut head[step][step..];
        let length = norm(column);
        if length <= largest * 1e-13 {
            break;
        }
        let r = if column[0] > 0.0 { -length } else { length };
        column[0] -= r;
        let scale = 2.0 / super::sums::sum_of(column, |x| x * x);
        let reflect = |target: &mut [f64]| {
            let dot: f64 = column.iter().zip(&*target).map(|(a, b)| a * b).sum();
            target.iter_mut().zip(&*column).for_each(|(t, c)| *t -= scale * dot * c);
        };
        rest.iter_mut().for_each(|other| reflect(&mut other[step..]));
        reflect(&mut y[step..]);
        diagonal.push(r);
    }
    let mut beta = vec![0.0; count];
    for step in (0..diagonal.len()).rev() {
        let known: f64 = (step + 1..diagonal.len()).map(|k| columns[k][step] * beta[order[k]]).sum();
        beta[order[step]] = (y[step] - known) / diagonal[step];
    }
    beta
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coefficients_of_an_exact_fit_are_found() {
        let columns: Vec<Vec<f64>> =
            (0..3).map(|k| (0..50).map(|i| ((i * (k + 2) * 7) % 23) as f64 - 11.0).collect()).collect();
        let y = (0..50).map(|i| 2.0 * columns[0][i] - 0.5 * columns[1][i] + 4.0 * columns[2][i]).collect();
        for (got, expected) in least_squares(columns, y).iter().zip([2.0, -0.5, 4.0]) {
            assert!((got - expected).abs() < 1e-13);
        }
    }

    #[test]
    fn dependent_and_empty_columns_get_nothing() {
        let a: Vec<f64> = (1..=10).map(f64::from).collect();
        let beta =
            least_squares(vec![a.clone(), a.clone(), vec![0.0; 10]], a.iter().map(|v| 3.0 * v).collect());
        assert!((beta[0] + beta[1] - 3.0).abs() < 1e-13 && beta[0] * beta[1] == 0.0);
        assert_eq!(beta[2], 0.0);
        assert!(least_squares(Vec::new(), a).is_empty());
    }
}
