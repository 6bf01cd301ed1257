//! The parameters that structured kernels share.

use kc_core::{Error, Result};

/// How smooth a structured kernel is in each dimension.
#[derive(Debug, Clone, PartialEq)]
pub enum Smoothness {
    /// An order `alpha` for each dimension: 1 to 5 shift-invariant, 1 to 4 digitally shift-invariant.
    Orders(Vec<u8>),
    /// A real order `alpha > 0` for each dimension, which can be trained (digitally shift-invariant only).
    Adaptive(Vec<f64>),
    /// Positive factors of the orders 1 to 4 for each dimension: the sum of these kernels.
    Combined(Vec<[f64; 4]>),
}

impl Smoothness {
    /// One order in all of `dims` dimensions.
    pub fn order(alpha: u8, dims: usize) -> Self {
        Smoothness::Orders(vec![alpha; dims])
    }

    /// Dimensions.
    pub fn dims(&self) -> usize {
        match self {
            Smoothness::Orders(all) => all.len(),
            Smoothness::Adaptive(all) => all.len(),
            Smoothness::Combined(all) => all.len(),
        }
    }

    /// Parameters that can be trained in each dimension: 0, 1 or 4.
    pub fn terms(&self) -> usize {
        match self {
            Smoothness::Orders(_) => 0,
            Smoothness::Adaptive(_) => 1,
            Smoothness::Combined(_) => 4,
        }
    }
}

/// The parameters of `K(x, z) = S prod_j (1 + gamma_j kappa_j(x_j, z_j))`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct KernelConfig {
    /// The functions `kappa_j`.
    pub smoothness: Smoothness,
    /// `gamma_j > 0`, one per dimension.
    pub weights: Vec<f64>,
    /// `S > 0`, the integral of the kernel.
    pub scale: f64,
}

impl KernelConfig {
    /// The smoothness with its dimensions `d`, `gamma_j = 2^(1/d) - 1` and `S = 1`.
    pub fn new(smoothness: Smoothness) -> Self {
        let dims = smoothness.dims();
        let weight = (std::f64::consts::LN_2 / dims.max(1) as f64).exp_m1();
        Self { smoothness, weights: vec![weight; dims], scale: 1.0 }
    }

    /// Everything there is to check but the orders' ranges.
    pub(crate) fn check(&self) -> Result<()> {
        let dims = self.smoothness.dims();
        if dims == 0 {
            return Err(Error::empty("alpha"));
        }
        if self.weights.len() != dims {
            return Err(Error::shape("gamma", format!("[{dims}], one per dimension"), &[self.weights.len()]));
        }
        positive("scale", self.scale)?;
        self.weights.iter().try_for_each(|&weight| positive("gamma", weight))?;
        match &self.smoothness {
            Smoothness::Orders(_) => Ok(()),
            Smoothness::Adaptive(all) => all.iter().try_for_each(|&alpha| positive("alpha", alpha)),
            Smoothness::Combined(all) => all.as_flattened().iter().try_for_each(|&a| positive("alpha", a)),
        }
    }

    /// The trainable parameters of the smoothness, dimension by dimension.
    pub(crate) fn terms(&self) -> &[f64] {
        match &self.smoothness {
            Smoothness::Orders(_) => &[],
            Smoothness::Adaptive(all) => all,
            Smoothness::Combined(all) => all.as_flattened(),
        }
    }

    /// The same, to change.
    pub(crate) fn terms_mut(&mut self) -> &mut [f64] {
        match &mut self.smoothness {
            Smoothness::Orders(_) => &mut [],
            Smoothness::Adaptive(all) => all,
            Smoothness::Combined(all) => all.as_flattened_mut(),
        }
    }
}

/// A finite number above 0.
pub(crate) fn positive(arg: &'static str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::argument(arg, "a finite number above 0", value))
}

/// An order in its range.
pub(crate) fn orders(all: &[u8], most: u8) -> Result<()> {
    match all.iter().find(|alpha| !(1..=most).contains(alpha)) {
        Some(alpha) => Err(Error::argument("alpha", format!("1 to {most}"), alpha)),
        None => Ok(()),
    }
}
