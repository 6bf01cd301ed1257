//! When to stop: the rule that all algorithms share.

use kc_core::{Error, Result};

use crate::Integrand;

/// How the absolute and the relative tolerance make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ErrorRule {
    /// It is enough to meet one of the two: `max(abs, rel |v|)`.
    #[default]
    Either,
    /// Both must be met: `min(abs, rel |v|)`.
    Both,
}

/// Tolerances and their rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tolerance {
    pub(super) absolute: f64,
    pub(super) relative: f64,
    pub(super) rule: ErrorRule,
}

impl Tolerance {
    /// Checked: neither is negative or NaN, and some error is allowed.
    ///
    /// # Errors
    /// `Argument` otherwise.
    pub(super) fn new(absolute: f64, relative: f64, rule: ErrorRule) -> Result<Self> {
        for (name, value) in [("abs_tol", absolute), ("rel_tol", relative)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::argument(name, "a finite number, 0 or more", value));
            }
        }
        let allowed = match rule {
            ErrorRule::Either => absolute.max(relative),
            ErrorRule::Both => absolute.min(relative),
        };
        if allowed == 0.0 {
            let expected = match rule {
                ErrorRule::Either => "abs_tol or rel_tol above 0",
                ErrorRule::Both => "abs_tol and rel_tol above 0 (the rule is `both`)",
            };
            return Err(Error::argument("abs_tol", expected, format!("{absolute} and {relative}")));
        }
        Ok(Self { absolute, relative, rule })
    }

    /// The tolerance at the value `v`.
    pub(super) fn at(&self, v: f64) -> f64 {
        let relative = self.relative * v.abs();
        match self.rule {
            ErrorRule::Either => self.absolute.max(relative),
            ErrorRule::Both => self.absolute.min(relative),
        }
    }
}

/// What the bounds of the moment say.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Decision {
    /// Combined bounds and answers, Q each.
    pub(super) low: Vec<f64>,
    pub(super) high: Vec<f64>,
    pub(super) solution: Vec<f64>,
    /// Combined outputs that have met their tolerance.
    pub(super) done: Vec<bool>,
    /// Individual outputs that are still needed, P.
    pub(super) active: Vec<bool>,
}

/// Maps individual bounds to combined ones and compares them with the tolerance: done if
/// `H - L <= tol(L) + tol(H)`, answer `(L + H + tol(L) - tol(H)) / 2`. A bound that is not finite is not done and
/// its answer is NaN.
pub(super) fn decide(
    tolerance: &Tolerance,
    integrand: &dyn Integrand,
    low: &[f64],
    high: &[f64],
) -> Decision {
    let combined = integrand.combined();
    let mut decision = Decision {
        low: vec![f64::NAN; combined],
        high: vec![f64::NAN; combined],
        solution: vec![f64::NAN; combined],
        done: vec![false; combined],
        active: vec![false; integrand.outputs()],
    };
    integrand.bound(low, high, &mut decision.low, &mut decision.high);
    for k in 0..combined {
        let (l, h) = (decision.low[k], decision.high[k]);
        if l.is_finite() && h.is_finite() {
            let (at_low, at_high) = (tolerance.at(l), tolerance.at(h));
            decision.solution[k] = 0.5 * (l + h + at_low - at_high);
            decision.done[k] = h - l <= at_low + at_high;
        }
    }
    let unfinished: Vec<bool> = decision.done.iter().map(|done| !done).collect();
    integrand.needs(&unfinished, &mut decision.active);
    decision
}

/// The level `alpha_i` of each individual interval such that each combined one has level `alpha`: the least of
/// `alpha / (number of individual outputs that k depends on)` over the combined outputs k that depend on i.
pub(super) fn individual_alphas(integrand: &dyn Integrand, alpha: f64) -> Vec<f64> {
    let (outputs, combined) = (integrand.outputs(), integrand.combined());
    let mut alphas = vec![1.0f64; outputs];
    let (mut unfinished, mut needed) = (vec![false; combined], vec![false; outputs]);
    for k in 0..combined {
        unfinished.fill(false);
        unfinished[k] = true;
        needed.fill(false);
        integrand.needs(&unfinished, &mut needed);
        let count = needed.iter().filter(|n| **n).count();
        for (slot, _) in alphas.iter_mut().zip(&needed).filter(|(_, needed)| **needed) {
            *slot = slot.min(alpha / count as f64);
        }
    }
    alphas
}

/// `alpha`, checked.
///
/// # Errors
/// Not inside of (0, 1).
pub(super) fn check_alpha(alpha: f64) -> Result<()> {
    if alpha > 0.0 && alpha < 1.0 {
        return Ok(());
    }
    Err(Error::argument("alpha", "a number above 0 and below 1", alpha))
}

/// `inflate`, checked.
///
/// # Errors
/// Below 1 or not finite.
pub(super) fn check_inflate(inflate: f64) -> Result<()> {
    if inflate >= 1.0 && inflate.is_finite() {
        return Ok(());
    }
    Err(Error::argument("inflate", "a finite number, 1 or more", inflate))
}

/// `n_init`, checked: a power of two, `least` or more.
///
/// # Errors
/// `Argument` otherwise.
pub(super) fn check_n_init(n_init: u64, least: u64) -> Result<()> {
    if n_init.is_power_of_two() && n_init >= least && n_init <= 1 << 32 {
        return Ok(());
    }
    Err(Error::argument("n_init", format!("a power of two, {least} to 2^32"), n_init))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair;

    impl Integrand for Pair {
        fn dim(&self) -> usize {
            1
        }
        fn outputs(&self) -> usize {
            2
        }
        fn evaluate(&self, _: &[f64], _: &[bool], _: &mut [f64]) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn relative_tolerance_moves_the_answer_towards_zero() {
        let tolerance = Tolerance::new(0.0, 0.5, ErrorRule::Either).unwrap();
        let d = decide(&tolerance, &Pair, &[1.0, -1.0], &[3.0, 3.0]);
        assert_eq!(d.done, [true, false]); // 2 <= 0.5 + 1.5; 4 > 0.5 + 1.5
        assert_eq!(d.solution, [1.5, 0.5]); // (1 + 3 + 0.5 - 1.5) / 2; a sign change inside
        assert_eq!(d.active, [false, true]);
    }

    #[test]
    fn bounds_that_are_not_finite_are_not_done() {
        let tolerance = Tolerance::new(1.0, 0.0, ErrorRule::Either).unwrap();
        let d = decide(&tolerance, &Pair, &[f64::NEG_INFINITY, 0.0], &[1.0, f64::NAN]);
        assert_eq!(d.done, [false, false]);
        assert!(d.solution.iter().all(|s| s.is_nan()));
    }

    #[test]
    fn tolerances_are_checked() {
        use ErrorRule::{Both, Either};
        for (a, r, rule) in [
            (0.0, 0.0, Either),
            (-1.0, 1.0, Either),
            (f64::NAN, 1.0, Either),
            (1.0, 0.0, Both),
            (1.0, -0.1, Both),
        ] {
            assert!(matches!(Tolerance::new(a, r, rule), Err(Error::Argument { .. })), "{a} {r}");
        }
        let both = Tolerance::new(0.1, 0.5, Both).unwrap();
        assert_eq!((both.at(-1.0), both.at(0.1)), (0.1, 0.05));
    }

    #[test]
    fn identity_leaves_alpha_whole() {
        assert_eq!(individual_alphas(&Pair, 0.01), [0.01, 0.01]);
    }
}
