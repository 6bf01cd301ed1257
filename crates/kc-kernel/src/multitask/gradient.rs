//! Derivatives of the marginal log-likelihood of related tasks.
//!
//! With `a = (K + xi)^-1 y` the derivative along `dK` is `(a^T dK a - tr((K + xi)^-1 dK)) / 2`. `dK` has the blocks of
//! the Gram matrix, so only those entries of the inverse count that stand where its blocks have theirs. They come from
//! the factors `K + xi = L D L^H` backwards (K. Takahashi, J. Fagan, M. Chen, 1973): with the rows `u` of `L^H`,
//!
//! ```text
//! Z_pq(k) = - sum_{r > p} u_pr(k) Z_rq(k)        Z_pp(k) = 1 / d_p(k) - sum_{r > p} u_pr(k) conj Z_pr(k)
//! ```
//!
//! at the cost of one more factorisation.

use kc_core::{Complex, Error, Isa, Result};

use super::{MultiFactor, MultiGp, MultiGram, Tasks, backward, place};
use crate::kernel::Kernel;
use crate::product;

/// The marginal log-likelihood of related tasks and its derivatives.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MultiGradient {
    /// The marginal log-likelihood.
    pub value: f64,
    /// By `log S`.
    pub scale: f64,
    /// By `log gamma_j`.
    pub weights: Vec<f64>,
    /// By the logarithms of the parameters of the smoothness, dimension by dimension; empty for orders.
    pub smoothness: Vec<f64>,
    /// By the logarithm of each task's noise.
    pub noise: Vec<f64>,
    /// By each entry of the task matrix on its own, row by row; symmetric.
    pub tasks: Vec<f64>,
}

impl MultiGradient {
    /// The derivatives by the entries of `F` and by `log v`, where the task matrix is `F F^T + diag(v)` (see
    /// [`Tasks::low_rank`]).
    ///
    /// # Errors
    /// `Shape` if `v` has not one value per task, or `F` is not as many rows.
    pub fn low_rank(&self, factor: &[f64], diagonal: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
        let count = self.noise.len();
        if diagonal.len() != count {
            return Err(Error::shape("diagonal", format!("[{count}], one per task"), &[diagonal.len()]));
        }
        if !factor.len().is_multiple_of(count) {
            return Err(Error::shape("factor", format!("{count} rows"), &[factor.len()]));
        }
        let by_diagonal = diagonal.iter().enumerate().map(|(l, v)| v * self.tasks[l * count + l]).collect();
        Ok((self.by_factor(factor, count), by_diagonal))
    }

    /// The derivatives by the entries of `L` on and below the diagonal, where the task matrix is `L L^T` (see
    /// [`Tasks::triangular`]); zeros above.
    ///
    /// # Errors
    /// `Shape` if `L` is not square of one row per task.
    pub fn triangular(&self, factor: &[f64]) -> Result<Vec<f64>> {
        let count = self.noise.len();
        if Some(factor.len()) != count.checked_mul(count) {
            return Err(Error::shape("factor", format!("{count} rows of {count}"), &[factor.len()]));
        }
        let mut all = self.by_factor(factor, count);
        for (l, row) in all.chunks_exact_mut(count).enumerate() {
            row[l + 1..].fill(0.0);
        }
        Ok(all)
    }

    /// `2 M F` for the derivatives `M` by the entries of `F F^T`.
    fn by_factor(&self, factor: &[f64], count: usize) -> Vec<f64> {
        let rank = factor.len() / count;
        let entry = |l: usize, r: usize| -> f64 {
            2.0 * (0..count).map(|m| self.tasks[l * count + m] * factor[m * rank + r]).sum::<f64>()
        };
        (0..factor.len()).map(|at| entry(at / rank, at % rank)).collect()
    }
}

impl MultiFactor<'_> {
    /// The entries of the inverse where the matrix has its own, in the same blocks.
    fn inverse_blocks(&self) -> Vec<Vec<Complex<f64>>> {
        let count = self.gram.order.len();
        let mut inverse: Vec<Vec<Complex<f64>>> =
            self.blocks.iter().map(|block| vec![Complex::default(); block.len()]).collect();
        for p in (0..count).rev() {
            let pivots = &self.blocks[place(count, p, p)];
            let sizes = |q: usize| self.blocks[place(count, q, q)].len();
            for q in (p..count).rev() {
                let mut own = vec![Complex::default(); pivots.len()];
                for r in p + 1..count {
                    let row = &self.blocks[place(count, p, r)];
                    // The entry (k mod n_r, k mod n_q) of the inverse: its block stands on this side of the diagonal or
                    // on the other.
                    let (block, n, conjugate) = match q {
                        q if q == p => (place(count, p, r), pivots.len(), true),
                        q if q < r => (place(count, q, r), sizes(q), true),
                        q => (place(count, r, q), sizes(r), false),
                    };
                    for (k, own) in own.iter_mut().enumerate() {
                        let z = inverse[block][k % n];
                        *own -= row[k] / pivots[k].re * if conjugate { z.conj() } else { z };
                    }
                }
                if q == p {
                    own.iter_mut().zip(pivots).for_each(|(own, pivot)| own.re += 1.0 / pivot.re);
                }
                inverse[place(count, p, q)] = own;
            }
        }
        inverse
    }
}

impl<K: Kernel> MultiGp<K> {
    /// The marginal log-likelihood and its derivatives by all parameters.
    ///
    /// # Errors
    /// `Unsupported` for derivatives of one function: they share no task matrix.
    pub fn gradient(&self) -> Result<MultiGradient> {
        let Tasks::Related { count, matrix } = &self.tasks else {
            return Err(Error::unsupported("gradients of derivative tasks", "they have no task matrix"));
        };
        let count = *count;
        let dims = self.kernel.dims();
        let ones = Tasks::Related { count, matrix: vec![1.0; count * count] };
        let base = MultiGram::new(&self.kernel, &ones, &self.points)?;
        let inverse = self.gram.factor(&self.noise)?.inverse_blocks();
        let a = self.gram.transformed(&self.coefficients)?;

        let mut gradient = MultiGradient {
            value: self.mll,
            scale: 0.0,
            weights: vec![0.0; dims],
            smoothness: Vec::new(),
            noise: vec![0.0; count],
            tasks: vec![0.0; count * count],
        };
        let mut parameters: Vec<f64> = Vec::new();
        for (p, &left) in self.gram.order.iter().enumerate() {
            for (q, &right) in self.gram.order.iter().enumerate().skip(p) {
                let at = place(count, p, q);
                let n = a[q].len();
                // The derivative by the conjugate of the block's entries; a pair off the diagonal counts twice.
                let by_block: Vec<Complex<f64>> =
                    (0..a[p].len()).map(|k| 0.5 * (a[p][k] * a[q][k % n].conj() - inverse[at][k])).collect();
                let along = |block: &[Complex<f64>]| -> f64 {
                    by_block.iter().zip(block).map(|(g, b)| g.re * b.re + g.im * b.im).sum()
                };
                let by_entry = along(&base.blocks[at]);
                gradient.tasks[left * count + right] = by_entry;
                gradient.tasks[right * count + left] = by_entry;
                if p == q {
                    gradient.noise[left] = self.noise[left] * by_block.iter().map(|g| g.re).sum::<f64>();
                }
                let times = if p == q { 1.0 } else { 2.0 };
                gradient.scale += times * matrix[left * count + right] * by_entry;
                // Back to the column of the block, and through the product over the dimensions.
                let by = times * matrix[left * count + right] * (n as f64).sqrt();
                let mut column = backward(self.gram.transform, by_block)?;
                column.iter_mut().for_each(|v| *v *= by);
                let (x, z) = (&self.points[left], self.points[right].point(0));
                let found = product::backward(Isa::best(), &self.kernel, x, &z, &column);
                parameters.resize(found.len(), 0.0);
                parameters.iter_mut().zip(found).for_each(|(sum, v)| *sum += v);
            }
        }
        gradient.weights.copy_from_slice(&parameters[..dims]);
        gradient.smoothness = parameters[dims..].to_vec();
        Ok(gradient)
    }
}
