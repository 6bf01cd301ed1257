//! Distributions of one variable: quantile, distribution function, density, moments.

use std::f64::consts::{LN_2, PI};
use std::str::FromStr;

use kc_core::{Error, Result};

use crate::special::{
    beta_front, beta_pq, beta_quantile, gamma_front, gamma_pq, gamma_quantile, ln_gamma, normal_cdf,
    normal_quantile, t_cdf, t_ln_pdf, t_quantile,
};

/// A distribution of one variable.
///
/// As text, for instance in the program's parameter files: the family's name, then its parameters in order or by
/// name. Those with a default may be left out.
///
/// ```
/// use kc_qmc::measure::Distribution;
/// let d: Distribution = "expon(rate=0.5)".parse()?;
/// assert_eq!(d, Distribution::Exponential { rate: 0.5 });
/// assert!((d.quantile(0.5) - 2.0 * 2f64.ln()).abs() < 1e-15);
/// assert_eq!(d.mean(), Some(2.0));
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Distribution {
    /// `uniform(low, high)`, by default on `[0, 1]`.
    Uniform {
        /// The lower end.
        low: f64,
        /// The upper end.
        high: f64,
    },
    /// `norm(mean, sd)`, by default standard.
    Normal {
        /// The mean.
        mean: f64,
        /// The standard deviation, positive.
        sd: f64,
    },
    /// `lognorm(mu, sigma)`: the exponential of a normal variable.
    LogNormal {
        /// The mean of the logarithm.
        mu: f64,
        /// The standard deviation of the logarithm, positive.
        sigma: f64,
    },
    /// `expon(rate)`, by default 1.
    Exponential {
        /// Events per unit, positive.
        rate: f64,
    },
    /// `gamma(shape, scale)`, scale 1 by default.
    Gamma {
        /// The shape, positive.
        shape: f64,
        /// The scale, positive.
        scale: f64,
    },
    /// `beta(a, b)`
    Beta {
        /// The power of x plus 1, positive.
        a: f64,
        /// The power of 1 - x plus 1, positive.
        b: f64,
    },
    /// `t(df, loc, scale)`: Student's t, by default around 0 with scale 1.
    StudentT {
        /// Degrees of freedom, positive.
        df: f64,
        /// The centre.
        loc: f64,
        /// The scale, positive.
        scale: f64,
    },
    /// `chi2(df)`
    ChiSquared {
        /// Degrees of freedom, positive.
        df: f64,
    },
    /// `weibull(shape, scale)`, scale 1 by default.
    Weibull {
        /// The shape, positive.
        shape: f64,
        /// The scale, positive.
        scale: f64,
    },
    /// `cauchy(loc, scale)`, by default 0 and 1.
    Cauchy {
        /// The median.
        loc: f64,
        /// The scale, positive.
        scale: f64,
    },
    /// `logistic(loc, scale)`, by default 0 and 1.
    Logistic {
        /// The mean.
        loc: f64,
        /// The scale, positive.
        scale: f64,
    },
    /// `laplace(loc, scale)`, by default 0 and 1.
    Laplace {
        /// The mean.
        loc: f64,
        /// The scale, positive.
        scale: f64,
    },
    /// `triangular(c, loc, scale)`, by default 1/2, 0 and 1: on `[loc, loc + scale]`, mode at `loc + c scale`.
    Triangular {
        /// Where the mode is, strictly between 0 and 1.
        c: f64,
        /// The lower end.
        loc: f64,
        /// The width, positive.
        scale: f64,
    },
    /// `truncnorm(mean, sd, low, high)`: a normal variable given that it is between two ends.
    TruncatedNormal {
        /// The mean before truncation.
        mean: f64,
        /// The standard deviation before truncation, positive.
        sd: f64,
        /// The lower end.
        low: f64,
        /// The upper end.
        high: f64,
    },
    /// `poisson(rate)`: whole numbers from 0.
    Poisson {
        /// The mean, positive, up to 1e9.
        rate: f64,
    },
    /// `binomial(n, p)`: whole numbers from 0 to n.
    Binomial {
        /// Trials, a whole number from 1 to 1e9.
        n: f64,
        /// Probability of success, strictly between 0 and 1.
        p: f64,
    },
    /// `kumaraswamy(a, b)` on `[0, 1]`.
    Kumaraswamy {
        /// Positive.
        a: f64,
        /// Positive.
        b: f64,
    },
    /// `johnsonsu(gamma, xi, delta, lam)`: `xi + lam sinh((z - gamma) / delta)` for a normal `z`.
    JohnsonsSu {
        /// The skewness parameter.
        gamma: f64,
        /// The location.
        xi: f64,
        /// The tail parameter, positive.
        delta: f64,
        /// The scale, positive.
        lambda: f64,
    },
    /// `bernoulli_cont(lam)`: density proportional to `lam^x (1 - lam)^(1 - x)` on `[0, 1]`.
    BernoulliCont {
        /// Strictly between 0 and 1.
        lambda: f64,
    },
    /// `zero_inflated_exp(p_zero, lam)`, by default 0.4 and 1.5: 0 with a probability, else exponential. It has no density.
    ZeroInflatedExp {
        /// The probability of 0, strictly between 0 and 1.
        p_zero: f64,
        /// The rate, positive.
        lambda: f64,
    },
}

/// A family: its names, its parameters with their defaults, and how it is made of them.
type Family = (&'static [&'static str], &'static [(&'static str, Option<f64>)], fn(&[f64]) -> Distribution);

const LOC: (&str, Option<f64>) = ("loc", Some(0.0));
const SCALE: (&str, Option<f64>) = ("scale", Some(1.0));

const FAMILIES: [Family; 20] = {
    use Distribution as D;
    [
        (&["uniform"], &[("low", Some(0.0)), ("high", Some(1.0))], |p| D::Uniform { low: p[0], high: p[1] }),
        (&["norm", "normal"], &[("mean", Some(0.0)), ("sd", Some(1.0))], |p| D::Normal {
            mean: p[0],
            sd: p[1],
        }),
        (&["lognorm", "lognormal"], &[("mu", Some(0.0)), ("sigma", Some(1.0))], |p| D::LogNormal {
            mu: p[0],
            sigma: p[1],
        }),
        (&["expon", "exponential"], &[("rate", Some(1.0))], |p| D::Exponential { rate: p[0] }),
        (&["gamma"], &[("shape", None), SCALE], |p| D::Gamma { shape: p[0], scale: p[1] }),
        (&["beta"], &[("a", None), ("b", None)], |p| D::Beta { a: p[0], b: p[1] }),
        (&["t", "student_t"], &[("df", None), LOC, SCALE], |p| D::StudentT {
            df: p[0],
            loc: p[1],
            scale: p[2],
        }),
        (&["chi2"], &[("df", None)], |p| D::ChiSquared { df: p[0] }),
        (&["weibull"], &[("shape", None), SCALE], |p| D::Weibull { shape: p[0], scale: p[1] }),
        (&["cauchy"], &[LOC, SCALE], |p| D::Cauchy { loc: p[0], scale: p[1] }),
        (&["logistic"], &[LOC, SCALE], |p| D::Logistic { loc: p[0], scale: p[1] }),
        (&["laplace"], &[LOC, SCALE], |p| D::Laplace { loc: p[0], scale: p[1] }),
        (&["triangular", "triang"], &[("c", Some(0.5)), LOC, SCALE], |p| D::Triangular {
            c: p[0],
            loc: p[1],
            scale: p[2],
        }),
        (
            &["truncnorm", "truncated_normal"],
            &[("mean", Some(0.0)), ("sd", Some(1.0)), ("low", None), ("high", None)],
            |p| D::TruncatedNormal { mean: p[0], sd: p[1], low: p[2], high: p[3] },
        ),
        (&["poisson"], &[("rate", None)], |p| D::Poisson { rate: p[0] }),
        (&["binomial", "binom"], &[("n", None), ("p", None)], |p| D::Binomial { n: p[0], p: p[1] }),
        (&["kumaraswamy"], &[("a", None), ("b", None)], |p| D::Kumaraswamy { a: p[0], b: p[1] }),
        (
            &["johnsonsu", "johnsons_su"],
            &[("gamma", Some(1.0)), ("xi", Some(1.0)), ("delta", Some(2.0)), ("lam", Some(2.0))],
            |p| D::JohnsonsSu { gamma: p[0], xi: p[1], delta: p[2], lambda: p[3] },
        ),
        (&["bernoulli_cont"], &[("lam", Some(0.5))], |p| D::BernoulliCont { lambda: p[0] }),
        (&["zero_inflated_exp"], &[("p_zero", Some(0.4)), ("lam", Some(1.5))], |p| D::ZeroInflatedExp {
            p_zero: p[0],
            lambda: p[1],
        }),
    ]
};

fn family(name: &str) -> Result<&'static Family> {
    FAMILIES.iter().find(|(names, ..)| names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|(names, ..)| names[0]).collect();
        Error::argument("marginal", format!("one of {}", known.join(", ")), name)
    })
}

impl FromStr for Distribution {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, arguments) = match text.trim().split_once('(') {
            None => (text.trim(), ""),
            Some((name, rest)) => match rest.strip_suffix(')') {
                Some(arguments) => (name.trim(), arguments),
                None => return Err(Error::argument("marginal", "NAME(p, k=v, ..)", text)),
            },
        };
        let (_, parameters, _) = family(name)?;
        let mut values = vec![None; parameters.len()];
        for (place, part) in arguments.split(',').map(str::trim).filter(|part| !part.is_empty()).enumerate() {
            let (at, value) = match part.split_once('=') {
                Some((key, value)) => {
                    (parameters.iter().position(|(name, _)| *name == key.trim()), value.trim())
                }
                None => (Some(place), part),
            };
            let slot = at.and_then(|at| values.get_mut(at));
            let (Some(slot), Ok(value)) = (slot, value.parse::<f64>()) else {
                let list: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
                let expected = format!("numbers for {}", list.join(", "));
                return Err(Error::argument(format!("marginal {name}"), expected, part));
            };
            *slot = Some(value);
        }
        Self::named(name, |key| {
            parameters.iter().position(|(name, _)| *name == key).and_then(|at| values[at])
        })
    }
}

/// A number of a shape and the range that it must be in.
type Rule = (&'static str, f64, &'static str, fn(f64) -> bool);

impl Distribution {
    /// The names of a family's parameters, in order.
    ///
    /// # Errors
    /// `Argument` for an unknown name of a family.
    pub fn parameters(name: &str) -> Result<Vec<&'static str>> {
        Ok(family(name)?.1.iter().map(|(name, _)| *name).collect())
    }

    /// The distribution of a family, with the parameters that `value` gives and defaults for others.
    ///
    /// # Errors
    /// `Argument` for an unknown name of a family, a parameter that is missing or out of its range.
    pub fn named(name: &str, value: impl Fn(&str) -> Option<f64>) -> Result<Self> {
        let (names, parameters, make) = family(name)?;
        let values: Result<Vec<f64>> = parameters
            .iter()
            .map(|(key, default)| {
                value(key)
                    .or(*default)
                    .ok_or_else(|| Error::argument(format!("{}.{key}", names[0]), "a number", "nothing"))
            })
            .collect();
        let distribution = make(&values?);
        distribution.check()?;
        Ok(distribution)
    }

    /// The family's first name.
    pub fn name(&self) -> &'static str {
        match self {
            Distribution::Uniform { .. } => "uniform",
            Distribution::Normal { .. } => "norm",
            Distribution::LogNormal { .. } => "lognorm",
            Distribution::Exponential { .. } => "expon",
            Distribution::Gamma { .. } => "gamma",
            Distribution::Beta { .. } => "beta",
            Distribution::StudentT { .. } => "t",
            Distribution::ChiSquared { .. } => "chi2",
            Distribution::Weibull { .. } => "weibull",
            Distribution::Cauchy { .. } => "cauchy",
            Distribution::Logistic { .. } => "logistic",
            Distribution::Laplace { .. } => "laplace",
            Distribution::Triangular { .. } => "triangular",
            Distribution::TruncatedNormal { .. } => "truncnorm",
            Distribution::Poisson { .. } => "poisson",
            Distribution::Binomial { .. } => "binomial",
            Distribution::Kumaraswamy { .. } => "kumaraswamy",
            Distribution::JohnsonsSu { .. } => "johnsonsu",
            Distribution::BernoulliCont { .. } => "bernoulli_cont",
            Distribution::ZeroInflatedExp { .. } => "zero_inflated_exp",
        }
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// `Argument` for one that is not finite or out of its range.
    pub fn check(&self) -> Result<()> {
        use Distribution as D;
        const FREE: (&str, fn(f64) -> bool) = ("a number", |_| true);
        const POSITIVE: (&str, fn(f64) -> bool) = ("a positive number", |x| x > 0.0);
        const INNER: (&str, fn(f64) -> bool) =
            ("a number between 0 and 1, ends excluded", |x| x > 0.0 && x < 1.0);
        let rule =
            |name, value, (words, accept): (&'static str, fn(f64) -> bool)| (name, value, words, accept);
        let pair = |low: f64, high: f64| -> Vec<Rule> {
            vec![
                rule("low", low, FREE),
                rule("high", high, FREE),
                rule("high - low", high - low, ("a positive difference", |x| x > 0.0)),
            ]
        };
        let placed = |loc, scale| vec![rule("loc", loc, FREE), rule("scale", scale, POSITIVE)];
        let rules: Vec<Rule> = match *self {
            D::Uniform { low, high } => pair(low, high),
            D::Normal { mean, sd } => vec![rule("mean", mean, FREE), rule("sd", sd, POSITIVE)],
            D::LogNormal { mu, sigma } => vec![rule("mu", mu, FREE), rule("sigma", sigma, POSITIVE)],
            D::Exponential { rate } => vec![rule("rate", rate, POSITIVE)],
            D::Gamma { shape, scale } | D::Weibull { shape, scale } => {
                vec![rule("shape", shape, POSITIVE), rule("scale", scale, POSITIVE)]
            }
            D::Beta { a, b } | D::Kumaraswamy { a, b } => {
                vec![rule("a", a, POSITIVE), rule("b", b, POSITIVE)]
            }
            D::StudentT { df, loc, scale } => {
                let mut rules = placed(loc, scale);
                rules.push(rule("df", df, POSITIVE));
                rules
            }
            D::ChiSquared { df } => vec![rule("df", df, POSITIVE)],
            D::Cauchy { loc, scale } | D::Logistic { loc, scale } | D::Laplace { loc, scale } => {
                placed(loc, scale)
            }
            D::Triangular { c, loc, scale } => {
                let mut rules = placed(loc, scale);
                rules.push(rule("c", c, INNER));
                rules
            }
            D::TruncatedNormal { mean, sd, low, high } => {
                let mut rules = pair(low, high);
                rules.extend([rule("mean", mean, FREE), rule("sd", sd, POSITIVE)]);
                rules
            }
            D::Poisson { rate } => {
                vec![rule("rate", rate, ("a positive number up to 1e9", |x| x > 0.0 && x <= 1e9))]
            }
            D::Binomial { n, p } => vec![
                rule(
                    "n",
                    n,
                    ("a whole number from 1 to 1e9", |x| (1.0..=1e9).contains(&x) && x.fract() == 0.0),
                ),
                rule("p", p, INNER),
            ],
            D::JohnsonsSu { gamma, xi, delta, lambda } => vec![
                rule("gamma", gamma, FREE),
                rule("xi", xi, FREE),
                rule("delta", delta, POSITIVE),
                rule("lam", lambda, POSITIVE),
            ],
            D::BernoulliCont { lambda } => vec![rule("lam", lambda, INNER)],
            D::ZeroInflatedExp { p_zero, lambda } => {
                vec![rule("p_zero", p_zero, INNER), rule("lam", lambda, POSITIVE)]
            }
        };
        rules.into_iter().try_for_each(|(name, value, words, accept)| {
            super::parameter(self.name(), name, value, words, accept)
        })
    }

    /// Lower and upper end of the values.
    pub fn range(&self) -> (f64, f64) {
        use Distribution as D;
        match *self {
            D::Uniform { low, high } | D::TruncatedNormal { low, high, .. } => (low, high),
            D::Normal { .. }
            | D::StudentT { .. }
            | D::Cauchy { .. }
            | D::Logistic { .. }
            | D::Laplace { .. }
            | D::JohnsonsSu { .. } => (f64::NEG_INFINITY, f64::INFINITY),
            D::LogNormal { .. }
            | D::Exponential { .. }
            | D::Gamma { .. }
            | D::ChiSquared { .. }
            | D::Weibull { .. }
            | D::Poisson { .. }
            | D::ZeroInflatedExp { .. } => (0.0, f64::INFINITY),
            D::Beta { .. } | D::Kumaraswamy { .. } | D::BernoulliCont { .. } => (0.0, 1.0),
            D::Triangular { loc, scale, .. } => (loc, loc + scale),
            D::Binomial { n, .. } => (0.0, n),
        }
    }

    /// True for whole-numbered distributions, whose density is the probability of each number.
    pub fn is_discrete(&self) -> bool {
        matches!(self, Distribution::Poisson { .. } | Distribution::Binomial { .. })
    }

    /// The smallest value with at least the probability `u` at or below it, for `u` in `[0, 1]`; NaN elsewhere.
    pub fn quantile(&self, u: f64) -> f64 {
        use Distribution as D;
        let upper = 1.0 - u;
        if !(0.0..=1.0).contains(&u) {
            return f64::NAN;
        }
        match *self {
            D::Uniform { low, high } => low + (high - low) * u,
            D::Normal { mean, sd } => mean + sd * normal_quantile(u),
            D::LogNormal { mu, sigma } => (mu + sigma * normal_quantile(u)).exp(),
            D::Exponential { rate } => -(-u).ln_1p() / rate,
            D::Gamma { shape, scale } => scale * gamma_quantile(shape, u, upper),
            D::Beta { a, b } => beta_quantile(a, b, u, upper).0,
            D::StudentT { df, loc, scale } => loc + scale * t_quantile(u, df),
            D::ChiSquared { df } => 2.0 * gamma_quantile(0.5 * df, u, upper),
            D::Weibull { shape, scale } => scale * (-(-u).ln_1p()).powf(1.0 / shape),
            D::Cauchy { loc, scale } => loc + scale * t_quantile(u, 1.0),
            D::Logistic { loc, scale } => loc + scale * (u.ln() - (-u).ln_1p()),
            D::Laplace { loc, scale } => {
                if u < 0.5 {
                    loc + scale * (2.0 * u).ln()
                } else {
                    loc - scale * (2.0 * upper).ln()
                }
            }
            D::Triangular { c, loc, scale } => {
                if u <= c {
                    loc + scale * (u * c).sqrt()
                } else {
                    loc + scale * (1.0 - (upper * (1.0 - c)).sqrt())
                }
            }
            D::TruncatedNormal { low, high, .. } if u == 0.0 || u == 1.0 => {
                if u == 0.0 {
                    low
                } else {
                    high
                }
            }
            D::TruncatedNormal { mean, sd, low, high } => {
                let (a, b) = ((low - mean) / sd, (high - mean) / sd);
                // From the side on which probabilities are small.
                let z = if a > 0.0 {
                    let (from, to) = (normal_cdf(-b), normal_cdf(-a));
                    -normal_quantile(from + upper * (to - from))
                } else {
                    let (from, to) = (normal_cdf(a), normal_cdf(b));
                    normal_quantile(from + u * (to - from))
                };
                (mean + sd * z).clamp(low, high)
            }
            D::Poisson { rate } if u == 1.0 => rate * f64::INFINITY,
            D::Poisson { rate } => {
                let z = normal_quantile(u);
                self.smallest_integer(u, rate + rate.sqrt() * z + (z * z - 1.0) / 6.0, f64::INFINITY)
            }
            D::Binomial { n, p } => {
                let guess = n * p + (n * p * (1.0 - p)).sqrt() * normal_quantile(u);
                self.smallest_integer(u, guess, n)
            }
            D::Kumaraswamy { a, b } => (-((-u).ln_1p() / b).exp_m1()).powf(1.0 / a),
            D::JohnsonsSu { gamma, xi, delta, lambda } => {
                lambda * ((normal_quantile(u) - gamma) / delta).sinh() + xi
            }
            D::BernoulliCont { lambda } => {
                let odds = (2.0 * lambda - 1.0) / (1.0 - lambda);
                if odds == 0.0 { u } else { (odds * u).ln_1p() / odds.ln_1p() }
            }
            D::ZeroInflatedExp { p_zero, lambda } => {
                if u <= p_zero {
                    0.0
                } else {
                    -((p_zero - u) / (1.0 - p_zero)).ln_1p() / lambda
                }
            }
        }
    }

    /// The smallest whole number up to `most` whose distribution function reaches `u`: from a guess by steps that
    /// double, then by halving.
    fn smallest_integer(&self, u: f64, guess: f64, most: f64) -> f64 {
        let reaches = |k: f64| k >= most || (k >= 0.0 && self.cdf(k) >= u);
        let guess = if guess.is_finite() { guess.round().clamp(0.0, most.min(1e15)) } else { 0.0 };
        let (mut below, mut above, mut step) = (guess, guess, 1.0);
        while !reaches(above) {
            below = above;
            above = (above + step).min(most);
            step *= 2.0;
        }
        while reaches(below) && below >= 0.0 {
            above = below;
            below = if below == 0.0 { -1.0 } else { (below - step).max(0.0) };
            step *= 2.0;
        }
        while above - below > 1.0 {
            let middle = ((above + below) / 2.0).floor();
            if reaches(middle) {
                above = middle;
            } else {
                below = middle;
            }
        }
        above
    }

    /// The probability of values up to `x`.
    pub fn cdf(&self, x: f64) -> f64 {
        use Distribution as D;
        let (from, to) = self.range();
        if x.is_nan() {
            return x;
        }
        if x < from || x >= to {
            return if x < from { 0.0 } else { 1.0 };
        }
        match *self {
            D::Uniform { low, high } => (x - low) / (high - low),
            D::Normal { mean, sd } => normal_cdf((x - mean) / sd),
            D::LogNormal { mu, sigma } => normal_cdf((x.ln() - mu) / sigma),
            D::Exponential { rate } => -(-rate * x).exp_m1(),
            D::Gamma { shape, scale } => gamma_pq(shape, x / scale).0,
            D::Beta { a, b } => beta_pq(a, b, x, 1.0 - x).0,
            D::StudentT { df, loc, scale } => t_cdf((x - loc) / scale, df),
            D::ChiSquared { df } => gamma_pq(0.5 * df, 0.5 * x).0,
            D::Weibull { shape, scale } => -(-(x / scale).powf(shape)).exp_m1(),
            D::Cauchy { loc, scale } => t_cdf((x - loc) / scale, 1.0),
            D::Logistic { loc, scale } => 1.0 / (1.0 + (-(x - loc) / scale).exp()),
            D::Laplace { loc, scale } => {
                let z = (x - loc) / scale;
                if z < 0.0 { 0.5 * z.exp() } else { 1.0 - 0.5 * (-z).exp() }
            }
            D::Triangular { c, loc, scale } => {
                let z = (x - loc) / scale;
                if z <= c { z * z / c } else { 1.0 - (1.0 - z) * (1.0 - z) / (1.0 - c) }
            }
            D::TruncatedNormal { mean, sd, low, high } => {
                let (a, b, z) = ((low - mean) / sd, (high - mean) / sd, (x - mean) / sd);
                if a > 0.0 {
                    1.0 - (normal_cdf(-z) - normal_cdf(-b)) / (normal_cdf(-a) - normal_cdf(-b))
                } else {
                    (normal_cdf(z) - normal_cdf(a)) / (normal_cdf(b) - normal_cdf(a))
                }
            }
            D::Poisson { rate } => gamma_pq(x.floor() + 1.0, rate).1,
            D::Binomial { n, p } => beta_pq(n - x.floor(), x.floor() + 1.0, 1.0 - p, p).0,
            D::Kumaraswamy { a, b } => -(b * (-x.powf(a)).ln_1p()).exp_m1(),
            D::JohnsonsSu { gamma, xi, delta, lambda } => {
                normal_cdf(gamma + delta * ((x - xi) / lambda).asinh())
            }
            D::BernoulliCont { lambda } => {
                let odds = (2.0 * lambda - 1.0) / (1.0 - lambda);
                if odds == 0.0 { x } else { (x * odds.ln_1p()).exp_m1() / odds }
            }
            D::ZeroInflatedExp { p_zero, lambda } => p_zero - (1.0 - p_zero) * (-lambda * x).exp_m1(),
        }
    }

    /// The logarithm of the density, or of the probability for whole-numbered distributions; -infinity outside of the
    /// range; `None` if there is no density.
    pub fn ln_density(&self, x: f64) -> Option<f64> {
        use Distribution as D;
        let (from, to) = self.range();
        if !(x >= from && x <= to) || (self.is_discrete() && x.fract() != 0.0) {
            return if matches!(self, D::ZeroInflatedExp { .. }) { None } else { Some(f64::NEG_INFINITY) };
        }
        let bell = |z: f64| -0.5 * z * z - 0.5 * (2.0 * PI).ln();
        Some(match *self {
            D::Uniform { low, high } => -(high - low).ln(),
            D::Normal { mean, sd } => bell((x - mean) / sd) - sd.ln(),
            D::LogNormal { mu, sigma } if x > 0.0 => bell((x.ln() - mu) / sigma) - sigma.ln() - x.ln(),
            D::LogNormal { .. } => f64::NEG_INFINITY,
            D::Exponential { rate } => rate.ln() - rate * x,
            D::Gamma { shape, scale } => gamma_ln_density(shape, x / scale) - scale.ln(),
            D::Beta { a, b } => beta_ln_density(a, b, x),
            D::StudentT { df, loc, scale } => t_ln_pdf((x - loc) / scale, df) - scale.ln(),
            D::ChiSquared { df } => gamma_ln_density(0.5 * df, 0.5 * x) - LN_2,
            D::Weibull { shape, scale } => {
                let z = x / scale;
                (shape / scale).ln() + power_ln(shape - 1.0, z) - z.powf(shape)
            }
            D::Cauchy { loc, scale } => {
                let z = (x - loc) / scale;
                -(PI * scale).ln() - (z * z).ln_1p()
            }
            D::Logistic { loc, scale } => {
                let z = ((x - loc) / scale).abs();
                -z - scale.ln() - 2.0 * (-z).exp().ln_1p()
            }
            D::Laplace { loc, scale } => -(2.0 * scale).ln() - ((x - loc) / scale).abs(),
            D::Triangular { c, loc, scale } => {
                let z = (x - loc) / scale;
                (2.0 / scale * if z < c { z / c } else { (1.0 - z) / (1.0 - c) }).ln()
            }
            D::TruncatedNormal { mean, sd, low, high } => {
                let (a, b) = ((low - mean) / sd, (high - mean) / sd);
                let mass =
                    if a > 0.0 { normal_cdf(-a) - normal_cdf(-b) } else { normal_cdf(b) - normal_cdf(a) };
                bell((x - mean) / sd) - sd.ln() - mass.ln()
            }
            D::Poisson { rate } => {
                if x == 0.0 {
                    -rate
                } else {
                    gamma_front(x, rate).ln()
                }
            }
            D::Binomial { n, p } => {
                if x == 0.0 {
                    n * (-p).ln_1p()
                } else if x == n {
                    n * p.ln()
                } else {
                    // As a beta density, of which n + 1 are the binomial's sum.
                    beta_front(x, n - x, p, 1.0 - p).ln() + (n / (x * (n - x))).ln()
                }
            }
            D::Kumaraswamy { a, b } => {
                (a * b).ln()
                    + power_ln(a - 1.0, x)
                    + if b == 1.0 { 0.0 } else { (b - 1.0) * (-x.powf(a)).ln_1p() }
            }
            D::JohnsonsSu { gamma, xi, delta, lambda } => {
                let z = (x - xi) / lambda;
                bell(gamma + delta * z.asinh()) + (delta / lambda).ln() - 0.5 * (z * z).ln_1p()
            }
            D::BernoulliCont { lambda } => {
                let eta = logit(lambda);
                let spread = if eta == 0.0 { 1.0 } else { eta / eta.exp_m1() };
                spread.ln() + eta * x
            }
            D::ZeroInflatedExp { .. } => return None,
        })
    }

    /// The mean; `None` if it does not exist (or has no closed form here).
    pub fn mean(&self) -> Option<f64> {
        use Distribution as D;
        Some(match *self {
            D::Uniform { low, high } => 0.5 * low + 0.5 * high,
            D::Normal { mean, .. } => mean,
            D::LogNormal { mu, sigma } => (mu + 0.5 * sigma * sigma).exp(),
            D::Exponential { rate } => 1.0 / rate,
            D::Gamma { shape, scale } => shape * scale,
            D::Beta { a, b } => a / (a + b),
            D::StudentT { df, loc, .. } => return (df > 1.0).then_some(loc),
            D::ChiSquared { df } => df,
            D::Weibull { shape, scale } => scale * ln_gamma(1.0 + 1.0 / shape).exp(),
            D::Cauchy { .. } => return None,
            D::Logistic { loc, .. } | D::Laplace { loc, .. } => loc,
            D::Triangular { c, loc, scale } => loc + scale * (1.0 + c) / 3.0,
            D::TruncatedNormal { mean, sd, .. } => mean + sd * self.truncated_moments().0,
            D::Poisson { rate } => rate,
            D::Binomial { n, p } => n * p,
            D::Kumaraswamy { a, b } => kumaraswamy_moment(a, b, 1.0),
            D::JohnsonsSu { gamma, xi, delta, lambda } => {
                xi - lambda * (0.5 / (delta * delta)).exp() * (gamma / delta).sinh()
            }
            D::BernoulliCont { lambda } => bernoulli_moments(lambda).0,
            D::ZeroInflatedExp { p_zero, lambda } => (1.0 - p_zero) / lambda,
        })
    }

    /// The variance; `None` if it does not exist (or has no closed form here).
    pub fn variance(&self) -> Option<f64> {
        use Distribution as D;
        Some(match *self {
            D::Uniform { low, high } => (high - low) * (high - low) / 12.0,
            D::Normal { sd, .. } => sd * sd,
            D::LogNormal { mu, sigma } => (2.0 * mu + sigma * sigma).exp() * (sigma * sigma).exp_m1(),
            D::Exponential { rate } => 1.0 / (rate * rate),
            D::Gamma { shape, scale } => shape * scale * scale,
            D::Beta { a, b } => a * b / ((a + b) * (a + b) * (a + b + 1.0)),
            D::StudentT { df, scale, .. } => return (df > 2.0).then(|| scale * scale * df / (df - 2.0)),
            D::ChiSquared { df } => 2.0 * df,
            D::Weibull { shape, scale } => {
                let moment = |k: f64| ln_gamma(1.0 + k / shape).exp();
                scale * scale * (moment(2.0) - moment(1.0) * moment(1.0))
            }
            D::Cauchy { .. } => return None,
            D::Logistic { scale, .. } => (PI * scale) * (PI * scale) / 3.0,
            D::Laplace { scale, .. } => 2.0 * scale * scale,
            D::Triangular { c, scale, .. } => scale * scale * (1.0 - c + c * c) / 18.0,
            D::TruncatedNormal { sd, .. } => sd * sd * self.truncated_moments().1,
            D::Poisson { rate } => rate,
            D::Binomial { n, p } => n * p * (1.0 - p),
            D::Kumaraswamy { a, b } => kumaraswamy_moment(a, b, 2.0) - kumaraswamy_moment(a, b, 1.0).powi(2),
            D::JohnsonsSu { gamma, delta, lambda, .. } => {
                let omega = 1.0 / (delta * delta);
                0.5 * lambda * lambda * omega.exp_m1() * (omega.exp() * (2.0 * gamma / delta).cosh() + 1.0)
            }
            D::BernoulliCont { lambda } => bernoulli_moments(lambda).1,
            D::ZeroInflatedExp { p_zero, lambda } => (1.0 - p_zero * p_zero) / (lambda * lambda),
        })
    }

    /// Mean and variance of a truncated normal variable in units of its deviation, from its mean.
    fn truncated_moments(&self) -> (f64, f64) {
        let Distribution::TruncatedNormal { mean, sd, low, high } = *self else { return (0.0, 0.0) };
        let (a, b) = ((low - mean) / sd, (high - mean) / sd);
        let mass = if a > 0.0 { normal_cdf(-a) - normal_cdf(-b) } else { normal_cdf(b) - normal_cdf(a) };
        let (at_a, at_b) = (crate::special::normal_pdf(a) / mass, crate::special::normal_pdf(b) / mass);
        let shift = at_a - at_b;
        (shift, 1.0 + a * at_a - b * at_b - shift * shift)
    }
}

/// `power ln(x)`, 0 for the power 0 whatever x is.
fn power_ln(power: f64, x: f64) -> f64 {
    if power == 0.0 { 0.0 } else { power * x.ln() }
}

fn gamma_ln_density(shape: f64, x: f64) -> f64 {
    if x == 0.0 {
        return power_ln(shape - 1.0, x) - if shape == 1.0 { 0.0 } else { ln_gamma(shape) };
    }
    gamma_front(shape, x).ln() + (shape / x).ln()
}

fn beta_ln_density(a: f64, b: f64, x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return power_ln(a - 1.0, x) + power_ln(b - 1.0, 1.0 - x) + ln_gamma(a + b)
            - ln_gamma(a)
            - ln_gamma(b);
    }
    beta_front(a, b, x, 1.0 - x).ln() - x.ln() - (-x).ln_1p()
}

/// `b B(1 + k/a, b)`
fn kumaraswamy_moment(a: f64, b: f64, k: f64) -> f64 {
    let first = 1.0 + k / a;
    b * (ln_gamma(first) + ln_gamma(b) - ln_gamma(first + b)).exp()
}

/// `ln(x / (1 - x))`
fn logit(x: f64) -> f64 {
    ((2.0 * x - 1.0) / (1.0 - x)).ln_1p()
}

/// Mean and variance of the density proportional to `exp(eta x)` on `[0, 1]`; near 0 by series.
fn bernoulli_moments(lambda: f64) -> (f64, f64) {
    let eta = logit(lambda);
    let squared = eta * eta;
    if eta.abs() < 0.05 {
        let mean = 0.5 + eta / 12.0 * (1.0 - squared / 60.0 * (1.0 - squared / 42.0));
        return (mean, 1.0 / 12.0 - squared / 240.0 * (1.0 - squared * 240.0 / 6048.0));
    }
    let half = (0.5 * eta).sinh();
    (-1.0 / (-eta).exp_m1() - 1.0 / eta, 1.0 / squared - 0.25 / (half * half))
}
