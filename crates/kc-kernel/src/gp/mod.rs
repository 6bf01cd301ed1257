//! Gaussian processes on lattices and digital nets: fitting and predicting in `O(n log n)`.
//!
//! A process with mean 0 and kernel `K` is conditioned on `y_i = f(x_i) + noise` at the first `n = 2^m` points of a
//! lattice ([`SiKernel`]) or a digital net ([`DsiKernel`]). With the eigenvalues `lambda` of the Gram matrix,
//! `L = lambda + xi` and the transform `Y` of `y` (see [`crate::ft`]):
//!
//! | Quantity | Formula | Cost |
//! |---|---|---|
//! | coefficients | `c = ift(Y / L)` | `n log n` |
//! | mean at `x` | `sum_i K(x, x_i) c_i` | `n d` |
//! | variance at `x` | `K(x, x) - sum abs2(ft k(x)) / L` | `n (d + log n)` |
//! | mean of the integral | `S sum_i c_i` | 1 |
//! | variance of the integral | `S - S^2 n / L_0 = S (L_0 - n S) / L_0` | 1 |
//! | [`Loss::Mll`] | `-1/2 (sum abs2(Y) / L + sum log L + n log 2 pi)` | `n` |
//! | [`Loss::Gcv`] | `abs2(c) / (tr (K + xi)^-1 / n)^2` | `n` |
//! | [`Loss::Loo`] | `sum_i (c_i / mean(1/L))^2`: for one task equal to the above | `n` |
//!
//! Gradients by the logarithms of all parameters come from one more transform, whatever their number: the derivative
//! of a loss by the eigenvalues becomes one by the first column of the matrix (`sqrt(n) ift`), and is then taken
//! backwards through the product over the dimensions.
//!
//! Points and values can grow: [`FastGp::next_points`] gives the next points of the sequence, [`FastGp::add_values`] takes
//! their values, and only the new half is transformed. Several outputs share the eigenvalues.
//!
//! ```
//! use kc_kernel::{KernelConfig, Smoothness, si::SiKernel};
//! use kc_kernel::gp::{FastGp, FitConfig, GpConfig, Loss};
//! use kc_qmc::lattice::{Lattice, LatticeConfig};
//!
//! let kernel = SiKernel::new(KernelConfig::new(Smoothness::order(2, 2)))?;
//! let lattice = Lattice::new(LatticeConfig::new(2, 7u64))?;
//! let mut gp = FastGp::lattice(lattice, kernel, &GpConfig::default())?;
//! let x = gp.next_points(256)?;
//! let f = |x: &[f64]| (6.283 * x[0]).sin() + x[1] * (1.0 - x[1]);
//! let y: Vec<f64> = x.as_slice().chunks(2).map(f).collect();
//! gp.add_values(&y)?;
//! gp.fit(Loss::Mll, &FitConfig::default())?;
//! let integral = gp.cubature()?;
//! assert!((integral.mean[0] - 1.0 / 6.0).abs() < 1e-3);
//! # Ok::<(), kc_core::Error>(())
//! ```

use kc_core::{Error, Result, Tensor};
use kc_qmc::{Family, Order, Randomize, Sequence};

use crate::config::positive;
use crate::dsi::DsiKernel;
use crate::ft::{Gram, Spectrum, check_values, column, power_of_two, sum};
use crate::kernel::{Kernel, not_structured};
use crate::points::Points;
use crate::si::SiKernel;

mod dense;
mod loss;
mod optimizer;
mod predict;
mod train;

pub use dense::DenseGp;
pub use loss::{Gradient, Loss};
pub use optimizer::Optimizer;
pub use predict::Cubature;
pub use train::{Fit, FitConfig, Parameter};

/// What to do about a matrix that rounding has made indefinite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nugget {
    /// Nothing: it is an error.
    #[default]
    Fixed,
    /// Double the noise until all eigenvalues are positive.
    Adaptive,
}

/// Settings of a process.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct GpConfig {
    /// Variance `xi > 0` of the noise; `None` is `1e-8` on lattices, `1e-16` on nets.
    pub noise: Option<f64>,
    /// What becomes of it where it is too small.
    pub nugget: Nugget,
}

/// A Gaussian process on the points of a lattice or net.
pub struct FastGp<K: Kernel> {
    kernel: K,
    noise: f64,
    nugget: Nugget,
    sequence: Option<Box<dyn Sequence>>,
    /// All points that were given out.
    points: Points<K::Point>,
    /// Values of the first points, one list for each output.
    y: Vec<Vec<f64>>,
    /// Their transforms.
    spectra: Vec<Spectrum>,
    /// The transform of the first column of `K - S` at these points, and its sum.
    column: Option<(Spectrum, f64)>,
    gram: Option<Gram>,
}

impl<K: Kernel> std::fmt::Debug for FastGp<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FastGp")
            .field("kernel", &self.kernel)
            .field("noise", &self.noise)
            .field("n", &self.len())
            .field("outputs", &self.outputs())
            .finish_non_exhaustive()
    }
}

impl FastGp<SiKernel> {
    /// A process on a lattice, without data yet.
    ///
    /// # Errors
    /// `Argument` for a sequence that is not a lattice in natural order, shifted or not, with one replication, or noise
    /// that is not positive; `Shape` for another number of dimensions.
    pub fn lattice(sequence: impl Sequence + 'static, kernel: SiKernel, config: &GpConfig) -> Result<Self> {
        let good = sequence.family() == Family::Lattice
            && matches!(sequence.randomize(), Randomize::None | Randomize::Shift);
        Self::on(Box::new(sequence), good, "a lattice", kernel, config)
    }
}

impl FastGp<DsiKernel> {
    /// A process on a digital net in base 2, without data yet.
    ///
    /// # Errors
    /// `Argument` for a sequence that is not a digital net in natural order with one replication, randomised by one
    /// digital shift, matrix scrambling or both (nested scrambling destroys the structure), or noise that is not positive;
    /// `Shape` for another number of dimensions.
    pub fn net(sequence: impl Sequence + 'static, kernel: DsiKernel, config: &GpConfig) -> Result<Self> {
        use Randomize::{Ds, Lms, LmsDs, None};
        let good = sequence.family() == Family::DigitalNet
            && matches!(sequence.randomize(), None | Ds | Lms | LmsDs);
        Self::on(Box::new(sequence), good, "a digital net", kernel, config)
    }
}

impl<K: Kernel> FastGp<K> {
    fn on(
        sequence: Box<dyn Sequence>,
        good: bool,
        what: &'static str,
        kernel: K,
        config: &GpConfig,
    ) -> Result<Self> {
        if !good || sequence.order() != Order::Natural || sequence.replications() != 1 {
            let got = format!(
                "{:?} in {:?} order, randomised by {:?}, {} replications",
                sequence.family(),
                sequence.order(),
                sequence.randomize(),
                sequence.replications()
            );
            return Err(not_structured(what, got));
        }
        if sequence.dim() != kernel.dims() {
            return Err(Error::shape("points", format!("[n, {}]", kernel.dims()), &[sequence.dim()]));
        }
        Ok(Self { sequence: Some(sequence), ..Self::empty(kernel, config)? })
    }

    fn empty(kernel: K, config: &GpConfig) -> Result<Self> {
        let default = match K::TRANSFORM {
            crate::Transform::Fourier => 1e-8,
            crate::Transform::Walsh => 1e-16,
        };
        let noise = config.noise.unwrap_or(default);
        positive("noise", noise)?;
        Ok(Self {
            points: Points::new(kernel.dims()),
            kernel,
            noise,
            nugget: config.nugget,
            sequence: None,
            y: Vec::new(),
            spectra: Vec::new(),
            column: None,
            gram: None,
        })
    }

    /// A process with data at given points; it cannot grow.
    ///
    /// # Errors
    /// As [`Gram::new`] for the points, as [`add_values`](Self::add_values) for `y`, `Argument` for noise that is not
    /// positive.
    pub fn from_data(kernel: K, points: Points<K::Point>, y: &[f64], config: &GpConfig) -> Result<Self> {
        crate::product::same_dims("x", &points, kernel.dims())?;
        power_of_two(points.len())?;
        kernel.check_structure(&points)?;
        let mut gp = Self { points, ..Self::empty(kernel, config)? };
        gp.add_values(y)?;
        Ok(gp)
    }

    /// Points with values.
    pub fn len(&self) -> usize {
        self.y.first().map_or(0, Vec::len)
    }

    /// True while there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.y.len()
    }

    /// The kernel, with fitted parameters once [`fit`](Self::fit) has run.
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// Variance of the noise.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// The points that were given out.
    pub fn points(&self) -> &Points<K::Point> {
        &self.points
    }

    /// Extends the points to `n`, a power of two, and gives the coordinates of the new ones, `(new, d)`.
    ///
    /// # Errors
    /// `Argument` if `n` is not a power of two or not more than there are; `Unsupported` for a process from given
    /// points; the errors of the sequence.
    pub fn next_points(&mut self, n: usize) -> Result<Tensor<f64, 2>> {
        power_of_two(n)?;
        let have = self.points.len();
        if n <= have {
            return Err(Error::argument("n", format!("more than the {have} points there are"), n));
        }
        let Some(sequence) = &mut self.sequence else {
            return Err(Error::unsupported("more points", "this process was made from given points"));
        };
        let (rows, dims) = (have as u64..n as u64, self.kernel.dims());
        let (points, coordinates) = self.kernel.draw(sequence.as_mut(), rows)?;
        self.points.extend(&points);
        coordinates.reshape([n - have, dims])
    }

    /// The values at the points that were given out and have none yet: row by row, `(new, outputs)`. The number of outputs
    /// is that of the first values.
    ///
    /// # Errors
    /// `Shape` if the length is not a multiple of the number of new points (the outputs times it, later on), `NotFinite` for
    /// NaN or infinity.
    pub fn add_values(&mut self, y: &[f64]) -> Result<()> {
        let (have, n) = (self.len(), self.points.len());
        let new = n - have;
        let outputs = if have > 0 { self.outputs() } else { (y.len() / new.max(1)).max(1) };
        if new == 0 {
            return Err(Error::shape("y", "no values: all points have theirs", &[y.len()]));
        }
        check_values("y", y, new * outputs)?;
        let column = |o: usize| -> Vec<f64> { y.iter().skip(o).step_by(outputs).copied().collect() };
        let mut spectra = Vec::with_capacity(outputs);
        for o in 0..outputs {
            spectra.push(grown(self.spectra.get(o), have, &column(o), K::TRANSFORM)?);
        }
        // The first column has grown too, unless it must be made anyway.
        self.column = match self.column.take() {
            Some((spectrum, excess)) => {
                let more = crate::ft::column(&self.kernel, &self.points, have..n);
                Some((grown(Some(&spectrum), have, &more, K::TRANSFORM)?, excess + sum(&more)))
            }
            None => None,
        };
        self.y.resize_with(outputs, Vec::new);
        self.y.iter_mut().enumerate().for_each(|(o, y)| y.extend(column(o)));
        self.spectra = spectra;
        self.refresh()
    }

    /// Sets the parameters of the kernel and the noise.
    ///
    /// # Errors
    /// As for a new kernel; `Argument` for noise that is not positive.
    pub fn set_parameters(&mut self, config: crate::KernelConfig, noise: f64) -> Result<()> {
        positive("noise", noise)?;
        self.kernel = self.kernel.with_config(config)?;
        self.noise = noise;
        self.column = None;
        if self.is_empty() { Ok(()) } else { self.refresh() }
    }

    /// Makes the eigenvalues for the present data and parameters.
    fn refresh(&mut self) -> Result<()> {
        let n = self.len();
        let (spectrum, excess) = match self.column.take() {
            Some(column) => column,
            None => {
                let column = column(&self.kernel, &self.points, 0..n);
                (K::TRANSFORM.forward(&column)?, sum(&column))
            }
        };
        let gram = Gram::of_column(&self.kernel, &spectrum, excess, n)?;
        self.column = Some((spectrum, excess));
        if self.nugget == Nugget::Adaptive {
            self.noise = adapted(&gram, self.noise)?;
        }
        self.gram = Some(gram);
        Ok(())
    }

    /// The Gram matrix at the points with values.
    ///
    /// # Errors
    /// `Empty` while there are no values.
    pub fn gram(&self) -> Result<&Gram> {
        self.gram.as_ref().ok_or_else(|| Error::empty("y"))
    }

    /// `(K + noise)^-1 y` for each output.
    ///
    /// # Errors
    /// `Empty` while there are no values, `Singular` for a matrix that is not positive definite.
    pub fn coefficients(&self) -> Result<Vec<Vec<f64>>> {
        let shifted = self.gram()?.shifted(self.noise)?;
        self.spectra.iter().map(|y| y.scaled(|k| 1.0 / shifted[k]).inverse(self.len())).collect()
    }
}

/// The noise doubled until the matrix is positive definite.
fn adapted(gram: &Gram, mut noise: f64) -> Result<f64> {
    // Doubling passes any eigenvalue within the range of f64.
    for _ in 0..2100 {
        match gram.shifted(noise) {
            Err(Error::Singular { .. }) => noise *= 2.0,
            Err(other) => return Err(other),
            Ok(_) => return Ok(noise),
        }
    }
    Err(Error::Singular { arg: "K".into(), index: 0 })
}

/// The transform of `old` values followed by `new` ones, from that of the old.
fn grown(old: Option<&Spectrum>, have: usize, new: &[f64], transform: crate::Transform) -> Result<Spectrum> {
    let Some(old) = old else { return transform.forward(new) };
    let (mut spectrum, mut at) = (old.clone(), 0);
    while at < new.len() {
        let half = have + at;
        let next = transform.forward(&new[at..at + half])?;
        spectrum = spectrum.doubled(next, 2 * half)?;
        at += half;
    }
    Ok(spectrum)
}
