//! Digitally shift-invariant kernels in base 2: functions of the exclusive or of the digits, for digital nets.
//!
//! Points are integers of `t` bits, the first binary digit of a coordinate the most significant one; coordinates in
//! floating point are floored to `t` digits. With `delta = x xor z`, `x = delta 2^-t`, `b = -floor(log2 x)` and
//! `s_v = 2^(-v b)` (at `delta = 0`: `b = 0`, `s_v = 0`):
//!
//! ```text
//! K(x, z) = S prod_j (1 + gamma_j kappa_{alpha_j}(x_j xor z_j))
//! kappa_1 = 1 - 3 s_1
//! kappa_2 = -b x + 5/2 (1 - s_1) - 1
//! kappa_3 = b x^2 - 5 (1 - s_1) x + 43/18 (1 - s_2) - 1
//! kappa_4 = -2/3 b x^3 + 5 (1 - s_1) x^2 - 43/9 (1 - s_2) x + 701/294 (1 - s_3) + b (W/48 - 1/42) - 1
//!           W = sum_{a < t} (-1)^(digit a) 2^(-3 a)
//! ```
//!
//! For `alpha` from 2 these are the sums `sum_k wal_k(x) 2^-mu_alpha(k)` of Walsh functions, `mu_alpha` the sum of the
//! `alpha` highest positions of digits of `k`; their spaces hold functions with `alpha` derivatives. `W` sums all digits
//! here (QMCPy stops at `1e-8`, which changes kernels by `1e-9`).
//!
//! With [adaptive](crate::Smoothness::Adaptive) smoothness, a real `alpha > 0`:
//! `kappa = v - (v + 1) 2^(alpha (1 - b))`, `v = 2^(alpha + 1) / (2^(alpha + 1) - 2)`, `v` at 0.
//!
//! `floor(log2 x)` comes from the integer: floating-point logarithms are wrong next to powers of two.
//!
//! "Derivatives" of order `b` (of both arguments together) have the factors
//! `1_{b = 0} + gamma (-2)^b (1_{b > 0} + kappa_{alpha - b})`, while `alpha - b >= 2`.

use std::ops::Range;

use kc_core::{Error, Isa, Result, Tensor};
use kc_qmc::Sequence;

use crate::config::{KernelConfig, Smoothness, orders};
use crate::derivative::Term;
use crate::ft::Transform;
use crate::kernel::{Kernel, not_structured};
use crate::multitask::not_shifted;
use crate::points::Points;

mod portable;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod x86;

use portable::Kappa;

/// Highest order.
pub const MAX_ORDER: u8 = 4;

/// A digitally shift-invariant kernel on integers of `bits` bits.
///
/// ```
/// use kc_kernel::{KernelConfig, Smoothness, dsi::DsiKernel};
/// let kernel = DsiKernel::new(32, KernelConfig::new(Smoothness::order(1, 1)))?;
/// // gamma = 1; one half and zero differ in the first digit: 1 + (1 - 3/2)
/// assert_eq!(kernel.eval(&[1 << 31], &[0])?, 0.5);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct DsiKernel {
    config: KernelConfig,
    bits: u32,
}

impl DsiKernel {
    /// A kernel with these parameters on points of `bits` bits, 1 to 64.
    ///
    /// # Errors
    /// `Argument` for `bits` or an order (1 to 4) out of range, weights, scale or smoothness that are not positive;
    /// `Shape` for weights that are not one per dimension.
    pub fn new(bits: u32, config: KernelConfig) -> Result<Self> {
        if !(1..=64).contains(&bits) {
            return Err(Error::argument("t", "1 to 64 bits", bits));
        }
        config.check()?;
        if let Smoothness::Orders(all) = &config.smoothness {
            orders(all, MAX_ORDER)?;
        }
        if let Smoothness::Adaptive(all) = &config.smoothness
            && let Some(alpha) = all.iter().find(|alpha| !(1e-6..=500.0).contains(*alpha))
        {
            return Err(Error::argument("alpha", "a real number from 1e-6 to 500", alpha));
        }
        Ok(Self { config, bits })
    }

    /// Bits of a coordinate.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// `K(x, z)`.
    ///
    /// # Errors
    /// `Shape` for arguments of other dimensions, `Argument` for integers of more than `bits` bits.
    pub fn eval(&self, x: &[u64], z: &[u64]) -> Result<f64> {
        crate::product::eval(self, x, z)
    }

    /// The first `bits` binary digits of `x` modulo 1.
    ///
    /// # Errors
    /// `NotFinite` for NaN or infinity.
    pub fn digits(&self, x: f64) -> Result<u64> {
        if !x.is_finite() {
            return Err(Error::not_finite("x", &[], x));
        }
        // x - floor(x) is 1 for tiny negative numbers.
        let part = (x - x.floor()).min(1.0 - f64::EPSILON / 2.0);
        Ok((part * (self.bits as f64).exp2()) as u64)
    }

    /// The functions `kappa` of a dimension with their factors.
    fn kappas(&self, dim: usize) -> ([(Kappa, f64); 4], usize) {
        let mut all = [(Kappa::One, 0.0); 4];
        match &self.config.smoothness {
            Smoothness::Orders(orders) => {
                all[0] = (Kappa::of_order(orders[dim]), 1.0);
                (all, 1)
            }
            Smoothness::Adaptive(alpha) => {
                all[0] = (Kappa::Adaptive(alpha[dim]), 1.0);
                (all, 1)
            }
            Smoothness::Combined(factors) => {
                for (p, (kappa, factor)) in all.iter_mut().enumerate() {
                    (*kappa, *factor) = (Kappa::of_order(p as u8 + 1), factors[dim][p]);
                }
                (all, 4)
            }
        }
    }

    fn add(&self, isa: Isa, (kappa, factor): (Kappa, f64), x: &[u64], z: u64, out: &mut [f64]) {
        #[cfg(target_arch = "x86_64")]
        if isa.level() >= kc_core::Level::Avx2 {
            return x86::add(isa, kappa, factor, self.bits, x, z, out);
        }
        let _ = isa;
        portable::add(kappa, factor, self.bits, x, z, out);
    }
}

impl Kernel for DsiKernel {
    type Point = u64;
    const TRANSFORM: Transform = Transform::Walsh;

    fn config(&self) -> &KernelConfig {
        &self.config
    }

    fn with_config(&self, config: KernelConfig) -> Result<Self> {
        Self::new(self.bits, config)
    }

    fn diagonal(&self) -> f64 {
        let mut value = [0.0];
        let mut product = self.config.scale;
        for dim in 0..self.dims() {
            self.factor(Isa::PORTABLE, dim, &[0], 0, &mut value);
            product *= 1.0 + self.config.weights[dim] * value[0];
        }
        product
    }

    fn check_point(&self, x: u64) -> Result<()> {
        if self.bits < 64 && x >> self.bits != 0 {
            return Err(Error::argument("x", format!("integers below 2^{}", self.bits), x));
        }
        Ok(())
    }

    fn check_structure(&self, points: &Points<u64>) -> Result<()> {
        for dim in 0..points.dims() {
            let x = points.column(dim);
            for i in 1..points.len() {
                let top = 1 << i.ilog2();
                if x[i] ^ x[0] != (x[top] ^ x[0]) ^ (x[i - top] ^ x[0]) {
                    return Err(not_structured("a digital net", format!("another value at [{i}, {dim}]")));
                }
            }
        }
        Ok(())
    }

    fn check_shifted(&self, points: &Points<u64>, other: &Points<u64>) -> Result<()> {
        for dim in 0..points.dims() {
            let (x, z) = (points.column(dim), other.column(dim));
            if let Some(i) = (1..z.len()).find(|&i| x[i] ^ x[0] != z[i] ^ z[0]) {
                return Err(not_shifted(i, dim));
            }
        }
        Ok(())
    }

    fn draw(&self, sequence: &mut dyn Sequence, rows: Range<u64>) -> Result<(Vec<u64>, Tensor<f64, 3>)> {
        let count = usize::try_from(rows.end.saturating_sub(rows.start)).unwrap_or(usize::MAX);
        let mut digits: Tensor<u64, 2> = Tensor::zeros([count, sequence.dim()])?;
        let bits = sequence.fill_digits(rows, digits.as_mut_slice())?;
        let unit = (-f64::from(bits)).exp2();
        let shape = [1, count, sequence.dim()];
        let coordinates: Vec<f64> = digits.as_slice().iter().map(|&x| x as f64 * unit).collect();
        let coordinates = Tensor::from_slice(shape, &coordinates)?;
        let mut digits = digits.into_vec();
        // The kernel's first digit is the sequence's.
        digits.iter_mut().for_each(|x| {
            *x = if bits <= self.bits { *x << (self.bits - bits) } else { *x >> (bits - self.bits) };
        });
        Ok((digits, coordinates))
    }

    fn factor(&self, isa: Isa, dim: usize, x: &[u64], z: u64, out: &mut [f64]) {
        out.fill(0.0);
        let (kappas, count) = self.kappas(dim);
        kappas[..count].iter().for_each(|&kappa| self.add(isa, kappa, x, z, out));
    }

    fn slope(&self, isa: Isa, dim: usize, term: usize, x: &[u64], z: u64, out: &mut [f64]) {
        out.fill(0.0);
        match &self.config.smoothness {
            Smoothness::Orders(_) => {}
            Smoothness::Adaptive(alpha) => self.add(isa, (Kappa::AdaptiveSlope(alpha[dim]), 1.0), x, z, out),
            Smoothness::Combined(_) => self.add(isa, self.kappas(dim).0[term], x, z, out),
        }
    }

    fn multiply(&self, isa: Isa, dim: usize, x: &[u64], z: u64, v: &mut [f64]) {
        let weight = self.config.weights[dim];
        if let ([(kappa, _), ..], 1) = self.kappas(dim) {
            #[cfg(target_arch = "x86_64")]
            if isa.level() >= kc_core::Level::Avx2 {
                return x86::multiply(isa, kappa, weight, self.bits, x, z, v);
            }
            return portable::multiply(kappa, weight, self.bits, x, z, v);
        }
        let mut kappa = [0.0; BLOCK];
        for (x, v) in x.chunks(BLOCK).zip(v.chunks_mut(BLOCK)) {
            let kappa = &mut kappa[..x.len()];
            self.factor(isa, dim, x, z, kappa);
            for (v, kappa) in v.iter_mut().zip(kappa) {
                let p = weight * *kappa;
                *v += p + *v * p;
            }
        }
    }

    fn check_derivative(&self, left: &Term, right: &Term) -> Result<()> {
        let alphas = crate::derivative::orders(self, left, right)?;
        for (j, &alpha) in alphas.iter().enumerate() {
            let order = u32::from(left.orders[j]) + u32::from(right.orders[j]);
            if order > 0 && order + 2 > u32::from(alpha) {
                let most = alpha.saturating_sub(2);
                return Err(Error::argument("derivative", format!("at most {most} in dimension {j}"), order));
            }
        }
        Ok(())
    }

    fn derivative(&self, left: &Term, right: &Term, x: &[u64], z: &[u64]) -> f64 {
        let Smoothness::Orders(alphas) = &self.config.smoothness else { return f64::NAN };
        let mut product = self.config.scale * left.factor * right.factor;
        for (j, &alpha) in alphas.iter().enumerate() {
            let order = left.orders[j] + right.orders[j];
            let mut kappa = [0.0];
            portable::add(Kappa::of_order(alpha - order), 1.0, self.bits, &x[j..=j], z[j], &mut kappa);
            let (none, some) = (f64::from(u8::from(order == 0)), f64::from(u8::from(order > 0)));
            product *= none + self.config.weights[j] * (-2f64).powi(i32::from(order)) * (some + kappa[0]);
        }
        product
    }
}

/// Values that are worked on together.
const BLOCK: usize = 256;
