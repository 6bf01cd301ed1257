//! Processes of several tasks.

use kc_core::{Error, Result, Tensor};
use rayon::prelude::*;

use super::{MultiGram, Tasks};
use crate::config::positive;
use crate::gp::Cubature;
use crate::kernel::Kernel;
use crate::points::Points;
use crate::product;

/// A Gaussian process of several tasks, conditioned on the values of all.
///
/// ```
/// use kc_kernel::derivative::Term;
/// use kc_kernel::multitask::{MultiGp, Tasks};
/// use kc_kernel::{KernelConfig, Points, SiKernel, Smoothness};
/// use kc_core::TensorView;
///
/// // A function and its derivative at four points of [0, 1).
/// let kernel = SiKernel::new(KernelConfig::new(Smoothness::order(3, 1)))?;
/// let x = TensorView::from_slice([4, 1], &[0.0, 0.5, 0.25, 0.75])?;
/// let points = Points::from_rows(&kernel, x)?;
/// let tasks = Tasks::Derivatives(vec![vec![Term::value(1)], vec![Term::derivative(&[1])]]);
/// let tau = std::f64::consts::TAU;
/// let y = [vec![0.0, 0.0, 1.0, -1.0], vec![tau, -tau, 0.0, 0.0]]; // sin 2 pi x
/// let gp = MultiGp::new(kernel.clone(), tasks, vec![points.clone(), points], &y, 1e-8)?;
/// let at = Points::from_rows(&kernel, TensorView::from_slice([1, 1], &[0.1])?)?;
/// assert!((gp.mean(0, &at)?[0] - (0.1 * tau).sin()).abs() < 1e-2);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MultiGp<K: Kernel> {
    pub(super) kernel: K,
    pub(super) tasks: Tasks,
    pub(super) points: Vec<Points<K::Point>>,
    pub(super) gram: MultiGram,
    pub(super) noise: Vec<f64>,
    pub(super) coefficients: Vec<Vec<f64>>,
    pub(super) mll: f64,
}

impl<K: Kernel> MultiGp<K> {
    /// A process of tasks with points and values each. The noise of task `l` is `noise` times the mean of its kernel on
    /// the diagonal over that of task 0; it is doubled until the matrix is positive definite.
    ///
    /// # Errors
    /// As [`MultiGram::new`] and [`MultiGram::mul`]; `Argument` for noise that is not positive.
    pub fn new(
        kernel: K,
        tasks: Tasks,
        points: Vec<Points<K::Point>>,
        y: &[Vec<f64>],
        noise: f64,
    ) -> Result<Self> {
        positive("noise", noise)?;
        let gram = MultiGram::new(&kernel, &tasks, &points)?;
        let means: Vec<f64> =
            gram.traces().iter().zip(gram.sizes()).map(|(trace, &n)| trace / n as f64).collect();
        if let Some(at) = means.iter().position(|mean| mean.is_nan() || *mean <= 0.0) {
            return Err(Error::Singular { arg: "K".into(), index: at });
        }
        let mut noise: Vec<f64> = means.iter().map(|mean| noise * mean / means[0]).collect();
        let factor = loop {
            match gram.factor(&noise) {
                Err(Error::Singular { .. }) if noise[0] < 1e300 => noise.iter_mut().for_each(|v| *v *= 2.0),
                other => break other?,
            }
        };
        let coefficients = factor.solve(y)?;
        let n: usize = gram.sizes().iter().sum();
        let mll =
            -0.5 * (factor.quadratic(y)? + factor.log_det() + n as f64 * (2.0 * std::f64::consts::PI).ln());
        drop(factor);
        Ok(Self { kernel, tasks, points, gram, noise, coefficients, mll })
    }

    /// The matrix.
    pub fn gram(&self) -> &MultiGram {
        &self.gram
    }

    /// The noise of each task.
    pub fn noise(&self) -> &[f64] {
        &self.noise
    }

    /// `(K + noise)^-1 y`, a list for each task.
    pub fn coefficients(&self) -> &[Vec<f64>] {
        &self.coefficients
    }

    /// The marginal log-likelihood.
    pub fn mll(&self) -> f64 {
        self.mll
    }

    /// Means of a task at the points `x`.
    ///
    /// # Errors
    /// `Index` for a task that is not there, `Shape` for points of other dimensions.
    pub fn mean(&self, task: usize, x: &Points<K::Point>) -> Result<Vec<f64>> {
        self.check(task, x)?;
        let one = |i: usize| {
            let columns = self.columns(task, &x.point(i));
            let product = |(k, c): (&Vec<f64>, &Vec<f64>)| k.iter().zip(c).map(|(k, c)| k * c).sum::<f64>();
            columns.iter().zip(&self.coefficients).map(product).sum()
        };
        Ok((0..x.len()).into_par_iter().map(one).collect())
    }

    /// Variances of a task at the points `x`, from 0.
    ///
    /// # Errors
    /// As [`mean`](Self::mean).
    pub fn variance(&self, task: usize, x: &Points<K::Point>) -> Result<Vec<f64>> {
        self.check(task, x)?;
        let factor = self.gram.factor(&self.noise)?;
        let one = |i: usize| {
            let x = Points::single(&x.point(i));
            let mut prior = [0.0];
            self.tasks.column(&self.kernel, [task, task], &x, &x.point(0), &mut prior);
            Ok((prior[0] - factor.quadratic(&self.columns(task, &x.point(0)))?).max(0.0))
        };
        (0..x.len()).into_par_iter().map(one).collect()
    }

    /// The integrals of related tasks over the cube: means of all tasks, and their covariances.
    ///
    /// # Errors
    /// `Unsupported` for derivatives.
    pub fn cubature(&self) -> Result<(Vec<f64>, Tensor<f64, 2>)> {
        let Tasks::Related { count, matrix } = &self.tasks else {
            return Err(Error::unsupported("integrals of derivatives", "they are differences of values"));
        };
        let scale = self.kernel.config().scale;
        let weights = |task: usize| -> Vec<Vec<f64>> {
            let column = |(l, &n): (usize, &usize)| vec![scale * matrix[task * count + l]; n];
            self.gram.sizes().iter().enumerate().map(column).collect()
        };
        let inner = |a: &[Vec<f64>], b: &[Vec<f64>]| -> f64 {
            a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| a * b).sum()
        };
        let factor = self.gram.factor(&self.noise)?;
        let means = (0..*count).map(|task| inner(&weights(task), &self.coefficients)).collect();
        let mut covariance = Tensor::zeros([*count, *count])?;
        for l in 0..*count {
            let solved = factor.solve(&weights(l))?;
            for m in 0..*count {
                covariance[[l, m]] = scale * matrix[l * count + m] - inner(&solved, &weights(m));
            }
        }
        Ok((means, covariance))
    }

    /// The integral of one related task.
    ///
    /// # Errors
    /// As [`cubature`](Self::cubature), and `Index`.
    pub fn cubature_of(&self, task: usize) -> Result<Cubature> {
        let (means, covariance) = self.cubature()?;
        match means.get(task) {
            Some(&mean) => Ok(Cubature { mean: vec![mean], variance: covariance[[task, task]].max(0.0) }),
            None => Err(Error::index("task", &[], task, means.len())),
        }
    }

    /// The kernel between all data and a point of a task.
    fn columns(&self, task: usize, x: &[K::Point]) -> Vec<Vec<f64>> {
        let column = |(l, points): (usize, &Points<K::Point>)| {
            let mut out = vec![0.0; points.len()];
            self.tasks.column(&self.kernel, [l, task], points, x, &mut out);
            out
        };
        self.points.iter().enumerate().map(column).collect()
    }

    fn check(&self, task: usize, x: &Points<K::Point>) -> Result<()> {
        if task >= self.tasks.count() {
            return Err(Error::index("task", &[], task, self.tasks.count()));
        }
        product::same_dims("x", x, self.kernel.dims())
    }
}
