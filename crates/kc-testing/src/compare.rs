//! Comparators that say where and by how much two results differ.

use kc_core::Float;

/// How close two numbers must be: `|got - want| <= abs + rel * |want|`.
#[derive(Debug, Clone, Copy)]
pub struct Tol {
    /// Relative part.
    pub rel: f64,
    /// Absolute part.
    pub abs: f64,
}

impl Tol {
    /// Equal values (NaN equals NaN).
    pub const EXACT: Tol = Tol { rel: 0.0, abs: 0.0 };

    /// A relative tolerance.
    pub const fn rel(rel: f64) -> Self {
        Tol { rel, abs: 0.0 }
    }

    /// An absolute tolerance.
    pub const fn abs(abs: f64) -> Self {
        Tol { rel: 0.0, abs }
    }

    /// Both.
    pub const fn new(rel: f64, abs: f64) -> Self {
        Tol { rel, abs }
    }

    fn accepts(self, got: f64, want: f64) -> bool {
        got == want
            || (got.is_nan() && want.is_nan())
            || (got - want).abs() <= self.abs + self.rel * want.abs()
    }
}

/// Fails, naming the worst element, if any pair differs by more than `tol` or the lengths differ.
///
/// # Panics
/// See above: this is an assertion.
#[track_caller]
pub fn assert_close<A: Float, B: Float>(got: &[A], want: &[B], tol: Tol) {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let mut worst: Option<(usize, f64, f64)> = None;
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let (g, w) = (g.to_f64(), w.to_f64());
        if tol.accepts(g, w) {
            continue;
        }
        let gap = |g: f64, w: f64| if (g - w).is_nan() { f64::INFINITY } else { (g - w).abs() };
        if worst.is_none_or(|(_, wg, ww)| gap(g, w) > gap(wg, ww)) {
            worst = Some((i, g, w));
        }
    }
    if let Some((i, g, w)) = worst {
        panic!(
            "element {i} of {}: got {g:e}, want {w:e} (difference {:e}, allowed {tol:?})",
            got.len(),
            g - w
        );
    }
}

/// The largest absolute difference.
pub fn max_abs_diff<A: Float, B: Float>(got: &[A], want: &[B]) -> f64 {
    got.iter().zip(want).map(|(g, w)| (g.to_f64() - w.to_f64()).abs()).fold(0.0, f64::max)
}

/// The Frobenius norm of the difference over that of `want` (0 if both are 0).
pub fn relative_error<A: Float, B: Float>(got: &[A], want: &[B]) -> f64 {
    let (mut difference, mut size) = (0.0, 0.0);
    for (g, w) in got.iter().zip(want) {
        let (g, w) = (g.to_f64(), w.to_f64());
        difference += (g - w) * (g - w);
        size += w * w;
    }
    if difference == 0.0 { 0.0 } else { (difference / size).sqrt() }
}

/// Units in the last place between two f32; 0 for two NaNs, `u32::MAX` for one.
pub fn ulp_distance_f32(a: f32, b: f32) -> u32 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() && b.is_nan() { 0 } else { u32::MAX };
    }
    let ordered = |x: f32| {
        let bits = x.to_bits() as i32;
        i64::from(if bits < 0 { i32::MIN.wrapping_sub(bits) } else { bits })
    };
    u32::try_from(ordered(a).abs_diff(ordered(b))).unwrap_or(u32::MAX)
}

/// Units in the last place between two f64; 0 for two NaNs, `u64::MAX` for one.
pub fn ulp_distance_f64(a: f64, b: f64) -> u64 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() && b.is_nan() { 0 } else { u64::MAX };
    }
    let ordered = |x: f64| {
        let bits = x.to_bits() as i64;
        i128::from(if bits < 0 { i64::MIN.wrapping_sub(bits) } else { bits })
    };
    u64::try_from(ordered(a).abs_diff(ordered(b))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulps_count_across_zero() {
        assert_eq!(ulp_distance_f32(0.0, -0.0), 0);
        assert_eq!(ulp_distance_f32(f32::from_bits(1), -f32::from_bits(1)), 2);
        assert_eq!(ulp_distance_f64(1.0, 1.0 + f64::EPSILON), 1);
        assert_eq!(ulp_distance_f32(f32::NAN, 1.0), u32::MAX);
    }

    #[test]
    #[should_panic(expected = "element 1 of 3")]
    fn the_worst_element_is_named() {
        assert_close(&[1.0f32, 2.0, 3.0], &[1.0f32, 2.5, 3.1], Tol::rel(1e-3));
    }

    #[test]
    #[should_panic(expected = "got NaN")]
    fn a_nan_is_not_close() {
        assert_close(&[f64::NAN], &[1.0f64], Tol::abs(1e9));
    }
}
