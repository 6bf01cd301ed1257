//! Roots of unity: exact to half a unit each, in small tables that are made once.

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

use kc_core::{Complex, Float};

/// `exp(-2 pi i k / n)`, from an angle of at most `pi / 4`.
pub fn root_of_unity(k: usize, n: usize) -> Complex<f64> {
    // All in eighths of a turn: 8 k = octant n + rest.
    let eight = 8 * (k % n) as u128;
    let (octant, rest) = ((eight / n as u128) as u32, (eight % n as u128) as f64);
    let angle = |part: f64| part / (8.0 * n as f64) * TAU;
    // sin and cos of an eighth turn are equal, which their approximations need not be.
    let sin_cos =
        |part: f64| if part == n as f64 { (FRAC_1_SQRT_2, FRAC_1_SQRT_2) } else { angle(part).sin_cos() };
    // The angle is measured from the nearest multiple of a quarter turn.
    let (turn, (sin, cos)) = match octant % 2 {
        0 => (octant / 2, sin_cos(rest)),
        _ => {
            let (sin, cos) = sin_cos(n as f64 - rest);
            (octant / 2, (cos, sin))
        }
    };
    match turn {
        0 => Complex::new(cos, -sin),
        1 => Complex::new(-sin, -cos),
        2 => Complex::new(-cos, sin),
        _ => Complex::new(sin, cos),
    }
}

/// Units of a table of roots.
pub(crate) const FINE: usize = 64;

/// The roots of a pass over four rows of `h` numbers: `u`, `u^2`, `u^3` with `u = exp(-2 pi i k / 4h)`, `k = 0 .. h`.
///
/// The one for unit `fine + FINE coarse` is the product of two entries.
pub(crate) struct Roots<T, const L: usize> {
    /// Powers 1, 2, 3 for each of the first units of a row.
    pub(crate) fine: Vec<[[[T; L]; 2]; 3]>,
    /// Powers 1, 2, 3 for the first number of each run of [`FINE`] units; empty if the other table is all.
    pub(crate) coarse: Vec<[[T; 2]; 3]>,
}

impl<T: Float, const L: usize> Roots<T, L> {
    /// The tables for rows of `h` numbers.
    pub(crate) fn new(h: usize) -> Self {
        let root = |k: usize| root_of_unity(k, 4 * h);
        let units = h / L;
        let unit = |power: usize, j: usize| {
            let root = |l: usize| root(power * (j * L + l));
            [
                std::array::from_fn(|l| T::from_f64(root(l).re)),
                std::array::from_fn(|l| T::from_f64(root(l).im)),
            ]
        };
        let fine = (0..units.min(FINE)).map(|j| [1, 2, 3].map(|power| unit(power, j))).collect();
        let start = |j: usize| {
            let z = [1, 2, 3].map(|power| root(power * j * FINE * L));
            z.map(|z| [T::from_f64(z.re), T::from_f64(z.im)])
        };
        let coarse = if units > FINE { (0..units / FINE).map(start).collect() } else { Vec::new() };
        Self { fine, coarse }
    }

    /// `exp(-2 pi i k / 4h)` for `k` below `2h`.
    pub(crate) fn root(&self, k: usize) -> Complex<f64> {
        let h = self.fine.len() * self.coarse.len().max(1) * L;
        let (quarter, k) = (k / h, k % h);
        let [re, im] = self.fine[k / L % FINE][0];
        let fine = Complex::new(re[k % L].to_f64(), im[k % L].to_f64());
        let z = match self.coarse.get(k / L / FINE) {
            Some([[re, im], ..]) => fine * Complex::new(re.to_f64(), im.to_f64()),
            None => fine,
        };
        if quarter == 0 { z } else { Complex::new(z.im, -z.re) }
    }
}
