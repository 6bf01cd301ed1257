//! Settings of a cubature, from flags or from a JSON file, and the run that they describe.

use std::str::FromStr;

use anyhow::Result;
use clap::ValueEnum;
use kc_core::Error;
use kc_qmc::cubature::{
    BayesConfig, CltConfig, CltVecConfig, Continuation, CredibleBound, Cubature, ErrorRule, Estimate,
    Failure, FailureConfig, GuaranteedConfig, LevelsConfig, MeanGuaranteedConfig, MlmcConfig, MlmcContConfig,
    MlqmcConfig, MlqmcContConfig, Multilevel, MultilevelCubature, ReplicatedConfig, Run,
};
use kc_qmc::periodize::Periodization;
use kc_qmc::{
    DigitalNet, DigitalNetConfig, Halton, HaltonConfig, Iid, IidConfig, Integrand, Lattice, LatticeConfig,
    Seed, Sequence,
};
use serde_json::{Map, Value, json};

use crate::args::Ctx;
use crate::report::{Answer, Usage};

/// What to run, and to which tolerance. What is left out has the default of the algorithm.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Settings {
    /// Algorithm
    #[arg(long, value_enum, value_name = "NAME")]
    pub(super) algo: Algorithm,
    /// Coordinates of a point; for mlmc and mlqmc those of the coarsest level, a power of two
    #[arg(long, value_name = "D")]
    pub(super) dim: usize,
    /// Absolute tolerance, 0 or more [default: 0.01; mlmc, mlqmc: 0.05; pf-gp: 0.005]
    #[arg(long, value_name = "TOL", allow_negative_numbers = true)]
    abs_tol: Option<f64>,
    /// Relative tolerance, 0 or more [default: 0]
    #[arg(long, value_name = "TOL", allow_negative_numbers = true)]
    rel_tol: Option<f64>,
    /// Root mean square tolerance of mlmc and mlqmc, above 0 [default: abs-tol over the normal quantile]
    #[arg(long, value_name = "TOL", allow_negative_numbers = true)]
    rmse_tol: Option<f64>,
    /// Which tolerance must be met [default: either]
    #[arg(long, value_enum, value_name = "RULE")]
    error: Option<Rule>,
    /// First number of points, of each replication and level [default: 1024; rep-t, mc-clt-vec, bayes, mlmc, mlqmc:
    /// 256; pf-gp: 64]
    #[arg(long, value_name = "N")]
    n_init: Option<u64>,
    /// Most points, over all replications and levels [default: 2^30; bayes: 2^22; mlmc, mlqmc: 10^10; pf-gp: 1000]
    #[arg(long, value_name = "N")]
    n_limit: Option<u64>,
    /// Chance that an interval misses, above 0 and below 1 (not net-g, lattice-g) [default: 0.01]
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    alpha: Option<f64>,
    /// Factor on deviations (rep-t, mc) or between tolerances (mlmc-cont, mlqmc-cont), 1 or more [default: 1.2 for
    /// mc-clt and mc-g, 1 for rep-t and mc-clt-vec, 100^(1/9) for continuation]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    inflate: Option<f64>,
    /// Independent randomisations (rep-t: 2 or more, mlqmc: 4 or more) [default: 15 for rep-t, 32 for mlqmc]
    #[arg(long, value_name = "R")]
    replications: Option<usize>,
    /// Points of rep-t and mlqmc [default: sobol]
    #[arg(long, value_enum, value_name = "POINTS")]
    sampler: Option<Sampler>,
    /// How the integrand is made periodic: none, baker, c0, c1, c1sin, c2sin, c3sin [default: baker for lattice-g,
    /// c1sin for bayes-lattice, none for nets]
    #[arg(long, value_name = "NAME")]
    ptransform: Option<Periodization>,
    /// Smoothness of the kernel of bayes-lattice, 1 or 2 [default: 2]
    #[arg(long, value_name = "R")]
    order: Option<u32>,
    /// Interval of bayes-net and bayes-lattice [default: mle]
    #[arg(long, value_enum, value_name = "KIND", ignore_case = true)]
    errbd: Option<Bound>,
    /// Value that means failure (pf-gp)
    #[arg(long, value_name = "Y", allow_negative_numbers = true)]
    threshold: Option<f64>,
    /// On which side of --threshold failure is (pf-gp) [default: above]
    #[arg(long, value_enum, value_name = "SIDE")]
    failure: Option<Side>,
    /// Look whether the coefficients stay inside of the cone (net-g, lattice-g)
    #[arg(long)]
    check_cone: bool,
}

/// The algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Algorithm {
    /// Digital net, bounds from Walsh coefficients
    NetG,
    /// Lattice, bounds from Fourier coefficients
    LatticeG,
    /// Replications, Student interval
    RepT,
    /// Independent points, two samples
    McClt,
    /// Independent points, doubled
    McCltVec,
    /// Independent points, guaranteed
    McG,
    /// Digital net, credible interval
    BayesNet,
    /// Lattice, credible interval
    BayesLattice,
    /// Multilevel Monte Carlo
    Mlmc,
    /// The same with continuation
    MlmcCont,
    /// Multilevel quasi-Monte Carlo
    Mlqmc,
    /// The same with continuation
    MlqmcCont,
    /// Probability of failure, by a Gaussian process
    PfGp,
}

impl Algorithm {
    /// Does it take a multilevel problem?
    pub(super) fn is_multilevel(self) -> bool {
        matches!(self, Self::Mlmc | Self::MlmcCont | Self::Mlqmc | Self::MlqmcCont)
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rule {
    /// It is enough to meet one of the two
    Either,
    /// Both
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sampler {
    /// Sobol' points
    #[value(alias = "dnet")]
    Sobol,
    /// Rank-1 lattice
    Lattice,
    /// Halton points
    Halton,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bound {
    /// Maximum likelihood
    Mle,
    /// Generalised cross validation
    Gcv,
    /// Full Bayes
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    /// The threshold or more
    Above,
    /// The threshold or less
    Below,
}

/// Puts the settings that were given into a configuration.
macro_rules! configure {
    ($settings:expr, $config:ident, $($field:ident),*) => {{
        let mut config = $config::default();
        $(if let Some(value) = $settings.$field { config.$field = value; })*
        config
    }};
}

impl Settings {
    /// From a JSON object whose keys are the flags' names with underscores.
    pub(super) fn from_json(value: &Value, source: &str) -> Result<Self> {
        let Value::Object(map) = value else {
            return Err(Error::parse(source, "expected an object of settings").into());
        };
        let fields = Fields { map, source };
        let known = [
            "algo",
            "dim",
            "seed",
            "outputs",
            "abs_tol",
            "rel_tol",
            "rmse_tol",
            "error",
            "n_init",
            "n_limit",
            "alpha",
            "inflate",
            "replications",
            "sampler",
            "ptransform",
            "order",
            "errbd",
            "check_cone",
            "threshold",
            "failure",
        ];
        if let Some(key) = map.keys().find(|key| !known.contains(&key.as_str())) {
            let message = format!("unknown setting {key:?}; expected {}", known.join(", "));
            return Err(Error::parse(source, message).into());
        }
        Ok(Self {
            algo: fields.choice("algo")?.ok_or_else(|| fields.wrong("algo", "the name of an algorithm"))?,
            dim: fields.count("dim")?.ok_or_else(|| fields.wrong("dim", "a number of coordinates"))? as usize,
            abs_tol: fields.number("abs_tol")?,
            rel_tol: fields.number("rel_tol")?,
            rmse_tol: fields.number("rmse_tol")?,
            error: fields.choice("error")?,
            n_init: fields.count("n_init")?,
            n_limit: fields.count("n_limit")?,
            alpha: fields.number("alpha")?,
            inflate: fields.number("inflate")?,
            replications: fields.count("replications")?.map(|count| count as usize),
            sampler: fields.choice("sampler")?,
            ptransform: fields.text("ptransform")?.map(Periodization::from_str).transpose()?,
            order: match fields.count("order")? {
                Some(order) => Some(u32::try_from(order).map_err(|_| fields.wrong("order", "1 or 2"))?),
                None => None,
            },
            errbd: fields.choice("errbd")?,
            threshold: fields.number("threshold")?,
            failure: fields.choice("failure")?,
            check_cone: match map.get("check_cone") {
                None | Some(Value::Null) => false,
                Some(Value::Bool(flag)) => *flag,
                Some(_) => return Err(fields.wrong("check_cone", "true or false").into()),
            },
        })
    }

    /// The sequence that the algorithm wants, in `self.dim` coordinates.
    pub(super) fn sequence(&self, seed: Seed) -> Result<Box<dyn Sequence>> {
        use Algorithm as A;
        let (dim, algo) = (self.dim, self.algo);
        let replications = match (algo, self.replications) {
            (A::RepT, given) => given.unwrap_or(15),
            (A::Mlqmc | A::MlqmcCont, given) => given.unwrap_or(32),
            (_, None | Some(1)) => 1,
            (_, Some(more)) => {
                let expected = format!("1 for {}", algo.name());
                return Err(Error::argument("replications", expected, more).into());
            }
        };
        let sampler = match algo {
            A::LatticeG | A::BayesLattice => Sampler::Lattice,
            A::RepT | A::Mlqmc | A::MlqmcCont => self.sampler.unwrap_or(Sampler::Sobol),
            A::McClt | A::McCltVec | A::McG | A::Mlmc | A::MlmcCont => {
                return Ok(Box::new(Iid::new(IidConfig::new(dim, seed))?));
            }
            A::NetG | A::BayesNet | A::PfGp => Sampler::Sobol,
        };
        Ok(match sampler {
            Sampler::Sobol => {
                let mut config = DigitalNetConfig::new(dim, seed);
                config.replications = replications;
                Box::new(DigitalNet::new(config)?)
            }
            Sampler::Lattice => {
                let mut config = LatticeConfig::new(dim, seed);
                config.replications = replications;
                Box::new(Lattice::new(config)?)
            }
            Sampler::Halton => {
                let mut config = HaltonConfig::new(dim, seed);
                config.replications = replications;
                Box::new(Halton::new(config)?)
            }
        })
    }

    /// A run on one integrand.
    pub(super) fn start<'a>(&self, sequence: &'a mut dyn Sequence, f: &'a dyn Integrand) -> Result<Run<'a>> {
        use Algorithm as A;
        let s = Given::new(self);
        let cubature: Box<dyn Cubature> = match self.algo {
            A::NetG | A::LatticeG => {
                let mut config = configure!(s, GuaranteedConfig, abs_tol, rel_tol, error, n_init, n_limit);
                config.check_cone = self.check_cone;
                config.periodization = self.ptransform;
                Box::new(config)
            }
            A::RepT => Box::new(configure!(
                s,
                ReplicatedConfig,
                abs_tol,
                rel_tol,
                error,
                n_init,
                n_limit,
                alpha,
                inflate
            )),
            A::McClt => Box::new(configure!(s, CltConfig, abs_tol, rel_tol, n_init, n_limit, alpha, inflate)),
            A::McCltVec => Box::new(configure!(
                s,
                CltVecConfig,
                abs_tol,
                rel_tol,
                error,
                n_init,
                n_limit,
                alpha,
                inflate
            )),
            A::McG => Box::new(configure!(
                s,
                MeanGuaranteedConfig,
                abs_tol,
                rel_tol,
                n_init,
                n_limit,
                alpha,
                inflate
            )),
            A::BayesNet | A::BayesLattice => {
                let mut config =
                    configure!(s, BayesConfig, abs_tol, rel_tol, error, n_init, n_limit, alpha, bound, order);
                config.periodization = self.ptransform;
                Box::new(config)
            }
            A::PfGp => {
                let mut config = configure!(s, FailureConfig, abs_tol, n_init, n_limit, alpha);
                config.threshold =
                    self.threshold.ok_or_else(|| Usage("--threshold: needed for pf-gp".into()))?;
                config.failure = match self.failure {
                    None | Some(Side::Above) => Failure::Above,
                    Some(Side::Below) => Failure::Below,
                };
                Box::new(config)
            }
            A::Mlmc | A::MlmcCont | A::Mlqmc | A::MlqmcCont => {
                return Err(
                    Usage(format!("--algo {}: expected a multilevel integrand", self.algo.name())).into()
                );
            }
        };
        Ok(cubature.start(sequence, f)?)
    }

    /// A run on a multilevel problem.
    pub(super) fn start_levels<'a>(
        &self,
        sequence: &'a mut dyn Sequence,
        problem: &'a dyn Multilevel,
    ) -> Result<Run<'a>> {
        use Algorithm as A;
        let s = Given::new(self);
        let levels = configure!(s, LevelsConfig, abs_tol, rmse_tol, n_init, n_limit, alpha);
        let continuation = configure!(s, Continuation, inflate);
        macro_rules! levels {
            ($type:ident $(, $field:ident)*) => {{
                let mut config = $type::default();
                config.levels = levels;
                $(config.$field = $field;)*
                Box::new(config)
            }};
        }
        let cubature: Box<dyn MultilevelCubature> = match self.algo {
            A::Mlmc => levels!(MlmcConfig),
            A::MlmcCont => levels!(MlmcContConfig, continuation),
            A::Mlqmc => levels!(MlqmcConfig),
            A::MlqmcCont => levels!(MlqmcContConfig, continuation),
            _ => return Err(Usage(format!("--algo {}: takes no levels", self.algo.name())).into()),
        };
        Ok(cubature.start(sequence, problem)?)
    }

    /// Says which flags mean nothing to the algorithm, and when the limit was lowered or reached.
    pub(super) fn warn(&self, estimate: &Estimate, ctx: &Ctx) {
        use Algorithm as A;
        let algo = self.algo;
        let transforms = matches!(algo, A::NetG | A::LatticeG | A::BayesNet | A::BayesLattice);
        let bayes = matches!(algo, A::BayesNet | A::BayesLattice);
        let common = transforms || matches!(algo, A::RepT | A::McCltVec);
        let unused = [
            (
                "rel-tol",
                self.rel_tol.is_some_and(|tol| tol != 0.0) && (algo.is_multilevel() || algo == A::PfGp),
            ),
            ("threshold", self.threshold.is_some() && algo != A::PfGp),
            ("failure", self.failure.is_some() && algo != A::PfGp),
            ("rmse-tol", self.rmse_tol.is_some() && !algo.is_multilevel()),
            ("error", self.error.is_some() && !common),
            ("alpha", self.alpha.is_some() && matches!(algo, A::NetG | A::LatticeG)),
            (
                "inflate",
                self.inflate.is_some() && (transforms || matches!(algo, A::Mlmc | A::Mlqmc | A::PfGp)),
            ),
            ("sampler", self.sampler.is_some() && !matches!(algo, A::RepT | A::Mlqmc | A::MlqmcCont)),
            ("ptransform", self.ptransform.is_some() && !transforms),
            ("order", self.order.is_some() && algo != A::BayesLattice),
            ("errbd", self.errbd.is_some() && !bayes),
            ("check-cone", self.check_cone && !matches!(algo, A::NetG | A::LatticeG)),
        ];
        for (flag, _) in unused.iter().filter(|(_, unused)| *unused) {
            ctx.warn(format_args!("--{flag} means nothing to {}", algo.name()));
        }
        if estimate.clipped && (self.n_limit.is_some() || estimate.exhausted) {
            ctx.warn(format_args!("--n-limit lowered to {}, all that the points have", estimate.n_limit));
        }
        if estimate.exhausted {
            ctx.warn("the tolerance is not met: the limit on points or levels was reached first");
        }
        if estimate.cone_violation.as_ref().is_some_and(|outputs| outputs.contains(&true)) {
            ctx.warn("the coefficients are outside of the cone: the bounds may not hold");
        }
    }
}

/// The settings as the configurations name and type them.
struct Given {
    abs_tol: Option<f64>,
    rel_tol: Option<f64>,
    rmse_tol: Option<Option<f64>>,
    error: Option<ErrorRule>,
    n_init: Option<u64>,
    n_limit: Option<u64>,
    alpha: Option<f64>,
    inflate: Option<f64>,
    bound: Option<CredibleBound>,
    order: Option<u32>,
}

impl Given {
    fn new(settings: &Settings) -> Self {
        Self {
            abs_tol: settings.abs_tol,
            rel_tol: settings.rel_tol,
            rmse_tol: settings.rmse_tol.map(Some),
            error: settings.error.map(|rule| match rule {
                Rule::Either => ErrorRule::Either,
                Rule::Both => ErrorRule::Both,
            }),
            n_init: settings.n_init,
            n_limit: settings.n_limit,
            alpha: settings.alpha,
            inflate: settings.inflate,
            bound: settings.errbd.map(|bound| match bound {
                Bound::Mle => CredibleBound::Mle,
                Bound::Gcv => CredibleBound::Gcv,
                Bound::Full => CredibleBound::Full,
            }),
            order: settings.order,
        }
    }
}

/// Typed values of a JSON object.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    source: &'a str,
}

impl<'a> Fields<'a> {
    fn wrong(&self, key: &str, expected: &str) -> Error {
        let got = self.map.get(key).unwrap_or(&Value::Null);
        Error::parse(self.source, format_args!("{key}: expected {expected}, got {got}"))
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        let number = |value: &Value| value.as_f64().ok_or_else(|| self.wrong(key, "a number"));
        self.get(key).map(number).transpose()
    }

    fn count(&self, key: &str) -> Result<Option<u64>, Error> {
        let count =
            |value: &Value| value.as_u64().ok_or_else(|| self.wrong(key, "a whole number, 0 or more"));
        self.get(key).map(count).transpose()
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| self.wrong(key, "a text"));
        self.get(key).map(text).transpose()
    }

    fn choice<T: ValueEnum>(&self, key: &str) -> Result<Option<T>, Error> {
        let names = || {
            let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            values.map(|value| value.get_name().to_owned()).collect::<Vec<_>>().join(", ")
        };
        let Some(text) = self.text(key)? else { return Ok(None) };
        T::from_str(text, true).map(Some).map_err(|_| self.wrong(key, &names()))
    }
}

/// A list as nested ones of this shape; a single value as itself.
fn nested(values: &[f64], shape: &[usize]) -> Value {
    match (values, shape) {
        ([one], _) => (*one).into(),
        (many, [_, rest @ ..]) if !rest.is_empty() => {
            let size = rest.iter().product::<usize>().max(1);
            many.chunks(size).map(|part| nested(part, rest)).collect::<Vec<Value>>().into()
        }
        (many, _) => many.iter().map(|value| (*value).into()).collect::<Vec<Value>>().into(),
    }
}

/// The keys that every result has; a single output is a number, several are lists of the integrand's shape.
pub(super) fn answer(estimate: &Estimate, shape: &[usize]) -> Answer {
    fn one_or_many<T: Copy + Into<Value>>(values: &[T]) -> Value {
        match values {
            [one] => (*one).into(),
            many => many.iter().map(|value| (*value).into()).collect::<Vec<Value>>().into(),
        }
    }
    let mut answer = Answer::new();
    answer
        .set("solution", nested(&estimate.solution, shape))
        .set("low", nested(&estimate.low, shape))
        .set("high", nested(&estimate.high, shape))
        .set("n_total", estimate.n_total)
        .set("n", one_or_many(&estimate.n))
        .set("exhausted", estimate.exhausted)
        .set("cone_violation", estimate.cone_violation.as_deref().map_or(Value::Null, one_or_many))
        .set("levels", json!(estimate.levels))
        .set("n_level", json!(estimate.n_level));
    answer
}
