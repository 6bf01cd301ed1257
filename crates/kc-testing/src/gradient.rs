//! Gradients against differences.

/// Fails if `gradient` differs from central differences of `f` at `x` by more than `tol`, relative to the
/// largest entry of the gradient.
///
/// # Panics
/// See above: this is an assertion.
#[track_caller]
pub fn assert_gradient(f: impl Fn(&[f64]) -> f64, x: &[f64], gradient: &[f64], step: f64, tol: f64) {
    assert_eq!(x.len(), gradient.len(), "lengths differ");
    let scale = gradient.iter().fold(f64::MIN_POSITIVE, |m, g| m.max(g.abs()));
    let mut at = x.to_vec();
    for i in 0..x.len() {
        at[i] = x[i] + step;
        let up = f(&at);
        at[i] = x[i] - step;
        let down = f(&at);
        at[i] = x[i];
        let difference = (up - down) / (2.0 * step);
        let gap = (difference - gradient[i]).abs() / scale;
        assert!(gap <= tol, "entry {i}: gradient {:e}, difference {difference:e} (gap {gap:e})", gradient[i]);
    }
}
