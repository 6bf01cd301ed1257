//! Universal random features: complex features of `f(w . x + b)` for any `f` with a known spectrum.
//!
//! If `f(z) = integral tau(xi) exp(2 pi i xi z) dxi` and `xi` has density `p`, then with `c = tau / p`
//!
//! ```text
//! f(w . x + b) = E[c exp(2 pi i xi b) exp(2 pi i xi w . x)]          z_k = 2 pi i xi_k
//! Phi_k(x)    = A exp(-lam |g_k|^2 + r a_k  g_k . x - a_k^2  |x|^2 / 2)                       a_k  = z_k^s
//! Psi_k(w, b) = A exp(-lam |g_k|^2 + r a'_k g_k . w - a'_k^2 |w|^2 / 2) c_k exp(z_k b)        a'_k = z_k^(1 - s)
//! ```
//!
//! with `A = m^-1/2 (1 + 4 lam)^(d/4)`, `r = sqrt(1 + 4 lam)` and principal powers; `Re(Phi Psi^T)`, **without**
//! conjugation, is unbiased for every split `s` and `lam > -1/4`. Each feature has its own `xi_k` and `g_k`.
//!
//! The split matters: for wide spectra `s = 1/2` shares the growth between both sides. The spectra `Lorentz` and `Sech`
//! have infinite variance (their tails `exp(-2 pi |xi|)` meet features that grow like `exp(2 pi |xi| |x| |w|)`):
//! keep `|x| |w|` well below 1.
//!
//! Features are stored in halves: real parts, then imaginary parts ([`to_complex`](crate::to_complex)). A row costs
//! `m d` multiplications, `m` exponentials, sines and cosines.
//!
//! Source: "Scalable Neural Network Kernels" (2023), section 3.

use std::f64::consts::PI;

use kc_core::math::{self, Function, Real};
use kc_core::{Complex, Error, KcRng, Result, TensorView, TensorViewMut};

use crate::{FeatureMap, MOST_EXPONENT, Projection, Scalar, check_finite, overflow, scratch, square_length};

type C = Complex<f64>;

/// The Fourier spectrum of a function of one variable.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Spectrum {
    /// `cos z`
    #[default]
    Cos,
    /// `sin z`
    Sin,
    /// `exp(-z^2 / 2)`
    Gauss,
    /// `sin z / z`
    Sinc,
    /// `1 / (1 + z^2)`
    Lorentz,
    /// `1 / cosh z`
    Sech,
    /// Frequencies and coefficients, one for each feature.
    Samples {
        /// Frequencies.
        xi: Vec<f64>,
        /// `tau / p` at each.
        c: Vec<C>,
    },
    /// A sum over a grid: `f(z) = sum_j tau_j exp(2 pi i grid_j z)`, drawn in proportion to `|tau|`.
    Table {
        /// Frequencies.
        grid: Vec<f64>,
        /// Coefficients.
        tau: Vec<C>,
    },
}

impl Spectrum {
    /// Those that have a name.
    pub const NAMED: [(&'static str, Spectrum); 6] = [
        ("cos", Spectrum::Cos),
        ("sin", Spectrum::Sin),
        ("gauss", Spectrum::Gauss),
        ("sinc", Spectrum::Sinc),
        ("lorentz", Spectrum::Lorentz),
        ("sech", Spectrum::Sech),
    ];

    /// The function itself at `z`.
    pub fn value(&self, z: f64) -> f64 {
        let sum = |xi: &[f64], c: &[C]| -> f64 {
            xi.iter().zip(c).map(|(xi, c)| (c * C::from_polar(1.0, 2.0 * PI * xi * z)).re).sum()
        };
        match self {
            Spectrum::Cos => z.cos(),
            Spectrum::Sin => z.sin(),
            Spectrum::Gauss => (-0.5 * z * z).exp(),
            Spectrum::Sinc => {
                if z == 0.0 {
                    1.0
                } else {
                    z.sin() / z
                }
            }
            Spectrum::Lorentz => 1.0 / (1.0 + z * z),
            Spectrum::Sech => 1.0 / z.cosh(),
            Spectrum::Samples { xi, c } => sum(xi, c) / xi.len() as f64,
            Spectrum::Table { grid, tau } => sum(grid, tau),
        }
    }

    /// `m` frequencies with their coefficients. With `antithetic`, every second one is the negative of the one before.
    ///
    /// # Errors
    /// `Shape` if samples are not `m`, or a table's two lengths differ; `Empty`; `NotFinite`; `Argument` for samples
    /// that should be made antithetic, or a table whose sum is 0.
    pub fn draw(&self, m: usize, antithetic: bool, seed: u64) -> Result<(Vec<f64>, Vec<C>)> {
        if m == 0 {
            return Err(Error::empty("m"));
        }
        let finite = |xi: &[f64], c: &[C]| match xi
            .iter()
            .zip(c)
            .position(|(xi, c)| !(xi.is_finite() && c.re.is_finite() && c.im.is_finite()))
        {
            Some(k) => Err(Error::not_finite("spectrum", &[k], xi[k])),
            None => Ok(()),
        };
        if let Spectrum::Samples { xi, c } = self {
            for (name, len) in [("xi", xi.len()), ("c", c.len())] {
                if len != m {
                    return Err(Error::shape(name, format!("[{m}], one for each feature"), &[len]));
                }
            }
            if antithetic {
                return Err(Error::argument("antithetic", "false with given samples", antithetic));
            }
            finite(xi, c)?;
            return Ok((xi.clone(), c.clone()));
        }
        let mut total = 0.0;
        let mut cumulated = Vec::new();
        if let Spectrum::Table { grid, tau } = self {
            if grid.len() != tau.len() {
                return Err(Error::shape("tau", format!("[{}], as grid has", grid.len()), &[tau.len()]));
            }
            finite(grid, tau)?;
            for tau in tau {
                total += tau.norm();
                cumulated.push(total);
            }
            if total <= 0.0 {
                return Err(Error::argument("tau", "a spectrum other than 0", total));
            }
        }
        let mut rng = KcRng::new(seed, 3);
        let one = C::new(1.0, 0.0);
        let mut drawn: Vec<(f64, C)> = Vec::with_capacity(m);
        for k in 0..m {
            if antithetic && k % 2 == 1 {
                // The spectrum of a real function at -xi is the conjugate of that at xi.
                let (xi, c) = drawn[k - 1];
                drawn.push((-xi, c.conj()));
                continue;
            }
            let u = rng.uniform();
            drawn.push(match self {
                Spectrum::Cos => (if u < 0.5 { 0.5 / PI } else { -0.5 / PI }, one),
                Spectrum::Sin if u < 0.5 => (0.5 / PI, C::new(0.0, -1.0)),
                Spectrum::Sin => (-0.5 / PI, C::new(0.0, 1.0)),
                Spectrum::Gauss => (rng.normal() / (2.0 * PI), one),
                Spectrum::Sinc => ((2.0 * u - 1.0) / (2.0 * PI), one),
                Spectrum::Lorentz => {
                    // An exponential variable with a random sign.
                    let size = -(1.0 - (2.0 * u - 1.0).abs()).max(f64::MIN_POSITIVE).ln() / (2.0 * PI);
                    (size.copysign(u - 0.5), one)
                }
                Spectrum::Sech => {
                    let inside = u.clamp(f64::EPSILON, 1.0 - f64::EPSILON);
                    ((PI * inside / 2.0).tan().ln() / (PI * PI), one)
                }
                Spectrum::Table { grid, tau } => {
                    let at = cumulated.partition_point(|&sum| sum <= u * total).min(grid.len() - 1);
                    (grid[at], tau[at] / tau[at].norm() * total)
                }
                Spectrum::Samples { .. } => unreachable!("samples are not drawn"),
            });
        }
        Ok(drawn.into_iter().unzip())
    }
}

/// Which factor of a product the features belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// Inputs.
    #[default]
    X,
    /// Weights.
    W,
}

/// The exponents of one side, feature by feature.
#[derive(Debug, Clone)]
struct Exponents<T> {
    /// Factor of `g . x`: `r a`.
    linear: [Vec<T>; 2],
    /// Factor of `-|x|^2`: `a^2 / 2`.
    square: [Vec<T>; 2],
    /// Factor of the exponential.
    factor: [Vec<T>; 2],
}

/// The map of both sides.
#[derive(Debug, Clone)]
pub struct Universal<T: Scalar> {
    projection: Projection<T>,
    xi: Vec<f64>,
    c: Vec<C>,
    split: f64,
    lam: f64,
    /// `2 pi xi`, the imaginary factor of `b`.
    turns: Vec<T>,
    /// `-lam |g|^2`
    constant: Vec<T>,
    sides: [Exponents<T>; 2],
}

/// A gradient on its way back: by `z = G x` `[n, m]`, the factor of `-x` in that by `x`, by `b`, and the real parts of
/// `t` (what a gradient by `G` needs besides), summed over the rows.
pub(crate) struct Back<T: Scalar> {
    pub(crate) along: Vec<f64>,
    pub(crate) bias: Vec<T>,
    pub(crate) real_sums: Vec<f64>,
}

impl<T: Scalar> Universal<T> {
    /// Frequencies `xi` and coefficients `c` for each direction of `projection`, which both sides share.
    ///
    /// # Errors
    /// `Shape` if `xi` or `c` is not one for each direction; `Argument` for a split outside of 0 to 1 or `lam <= -1/4`;
    /// `NotFinite`.
    pub fn new(projection: Projection<T>, xi: Vec<f64>, c: Vec<C>, split: f64, lam: f64) -> Result<Self> {
        let (m, d) = (projection.outputs(), projection.inputs());
        if !(0.0..=1.0).contains(&split) {
            return Err(Error::argument("split", "0 to 1", split));
        }
        if !(lam > -0.25 && lam.is_finite()) {
            return Err(Error::argument("lam", "a number above -0.25", lam));
        }
        let (xi, c) = Spectrum::Samples { xi, c }.draw(m, false, 0)?;
        let constant: Vec<T> = if lam == 0.0 {
            vec![T::ZERO; m]
        } else {
            let g = projection.to_matrix()?;
            (0..m).map(|k| T::from_f64(-lam * square_length(g.view().row(k)))).collect()
        };
        let amplitude = (m as f64).powf(-0.5) * (1.0 + 4.0 * lam).powf(0.25 * d as f64);
        if !amplitude.is_finite() {
            return Err(Error::argument("lam", format!("a number whose power fits with {d} inputs"), lam));
        }
        let side = |power: f64, side: Side| {
            let mut all = Exponents {
                linear: Default::default(),
                square: Default::default(),
                factor: Default::default(),
            };
            let mut push = |to: fn(&mut Exponents<T>) -> &mut [Vec<T>; 2], z: C| {
                let [re, im] = to(&mut all);
                re.push(T::from_f64(z.re));
                im.push(T::from_f64(z.im));
            };
            for (&xi, &c) in xi.iter().zip(&c) {
                let a = power_of_imaginary(2.0 * PI * xi, power);
                push(|e| &mut e.linear, a * (1.0 + 4.0 * lam).sqrt());
                push(|e| &mut e.square, a * a * 0.5);
                push(|e| &mut e.factor, if side == Side::X { C::new(amplitude, 0.0) } else { c * amplitude });
            }
            all
        };
        let sides = [side(split, Side::X), side(1.0 - split, Side::W)];
        let turns = xi.iter().map(|xi| T::from_f64(2.0 * PI * xi)).collect();
        Ok(Self { projection, xi, c, split, lam, turns, constant, sides })
    }

    /// The directions.
    pub fn projection(&self) -> &Projection<T> {
        &self.projection
    }

    /// The frequencies.
    pub fn xi(&self) -> &[f64] {
        &self.xi
    }

    /// The coefficients.
    pub fn c(&self) -> &[C] {
        &self.c
    }

    /// `s`
    pub fn split(&self) -> f64 {
        self.split
    }

    /// `lam`
    pub fn lam(&self) -> f64 {
        self.lam
    }

    /// Features of some rows of one side in halves, `2 m` each; `b` counts for [`Side::W`] only.
    ///
    /// # Errors
    /// `Shape`, `NotFinite`; `Argument` if an exponent is above 80.
    pub fn fill_side(
        &self,
        side: Side,
        rows: TensorView<'_, T, 2>,
        b: Option<&[T]>,
        first: usize,
        out: &mut [T],
    ) -> Result<()> {
        let name = if side == Side::X { "x" } else { "w" };
        check_finite(name, rows, first)?;
        let (m, isa) = (self.projection.outputs(), self.projection.isa());
        let Exponents { linear, square, factor } = &self.sides[usize::from(side == Side::W)];
        scratch::with(rows.rows() * m, |z: &mut [T]| {
            self.projection.apply_into(rows, TensorViewMut::from_slice([rows.rows(), m], z)?)?;
            for (i, (z, out)) in z.chunks_exact_mut(m).zip(out.chunks_exact_mut(2 * m)).enumerate() {
                let length = T::from_f64(square_length(rows.row(i)));
                let bias = b.map_or(T::ZERO, |b| b[i]);
                let (re, im) = out.split_at_mut(m);
                for (((re, &z), &c), (&l, &q)) in
                    re.iter_mut().zip(&*z).zip(&self.constant).zip(linear[0].iter().zip(&square[0]))
                {
                    *re = l * z - q * length + c;
                }
                for (((im, &z), &t), (&l, &q)) in
                    im.iter_mut().zip(&*z).zip(&self.turns).zip(linear[1].iter().zip(&square[1]))
                {
                    *im = l * z - q * length + t * bias;
                }
                if let Some((_, most)) = math::min_max_with(isa, re)
                    && (most.to_f64() > MOST_EXPONENT || Real::is_nan(most))
                {
                    return Err(overflow(name, first + i, most.to_f64()));
                }
                math::apply_in_place(isa, Function::Exp, re);
                math::apply(isa, Function::Sin, im, z)?;
                math::apply_in_place(isa, Function::Cos, im);
                for (((re, im), &sin), (&fr, &fi)) in
                    re.iter_mut().zip(&mut *im).zip(&*z).zip(factor[0].iter().zip(&factor[1]))
                {
                    let (size, cos) = (*re, *im);
                    *re = size * (cos * fr - sin * fi);
                    *im = size * (cos * fi + sin * fr);
                }
                if math::first_non_finite(out).is_some() {
                    // An angle, or a size times its coefficient.
                    return Err(overflow(name, first + i, f64::INFINITY));
                }
            }
            Ok(())
        })
    }

    /// From features and the gradient by them (both in halves) to that by `z = G x`, written to `dz` `[n, m]`.
    pub(crate) fn backward_side(&self, side: Side, features: &[T], gradient: &[T], dz: &mut [T]) -> Back<T> {
        let m = self.projection.outputs();
        let Exponents { linear, square, .. } = &self.sides[usize::from(side == Side::W)];
        let mut back = Back { along: Vec::new(), bias: Vec::new(), real_sums: vec![0.0; m] };
        for ((f, g), dz) in
            features.chunks_exact(2 * m).zip(gradient.chunks_exact(2 * m)).zip(dz.chunks_exact_mut(m))
        {
            let (mut along, mut bias) = (0.0, 0.0);
            for k in 0..m {
                // t = (dL/dRe - i dL/dIm) phi
                let re = g[k] * f[k] + g[m + k] * f[m + k];
                let im = g[k] * f[m + k] - g[m + k] * f[k];
                dz[k] = re * linear[0][k] - im * linear[1][k];
                along += 2.0 * (re * square[0][k] - im * square[1][k]).to_f64();
                bias -= (im * self.turns[k]).to_f64();
                back.real_sums[k] += re.to_f64();
            }
            back.along.push(along);
            back.bias.push(T::from_f64(bias));
        }
        back
    }
}

/// The principal `power` of `i y`.
fn power_of_imaginary(y: f64, power: f64) -> C {
    if y == 0.0 {
        return C::new(if power == 0.0 { 1.0 } else { 0.0 }, 0.0);
    }
    C::from_polar(y.abs().powf(power), power * PI / 2.0 * y.signum())
}

impl<T: Scalar> FeatureMap<T> for Universal<T> {
    fn inputs(&self) -> usize {
        self.projection.inputs()
    }

    fn width(&self) -> usize {
        2 * self.projection.outputs()
    }

    fn fill(&self, rows: TensorView<'_, T, 2>, first: usize, out: &mut [T]) -> Result<()> {
        self.fill_side(Side::X, rows, None, first, out)
    }
}
