//! All golden runs: the same number of points, the same answer, the same bounds.

use kc_qmc::cubature::{
    BayesConfig, CltConfig, CltVecConfig, ControlVariates, CredibleBound, Cubature, ErrorRule, Estimate,
    GuaranteedConfig, MeanGuaranteedConfig, MlmcConfig, MlmcContConfig, MlqmcConfig, MlqmcContConfig,
    MultilevelCubature, MultilevelOption, ReplicatedConfig,
};
use kc_qmc::integrand::{
    AsianMean, AsianRule, BoxIntegral, Coefficients, Cubic3, FinancialOption, Genz, GenzFamily, Ishigami,
    Keister, Linear0, LogisticRegression, NegExp, OptionConfig, OptionKind, SensitivityIndices, Side,
    Subsets, vector_from_fn,
};
use kc_qmc::measure::{Covariance, Decomposition};
use kc_qmc::{
    DigitalNet, DigitalNetConfig, Halton, HaltonConfig, Iid, IidConfig, Integrand, Lattice, LatticeConfig,
    Sequence,
};
use kc_testing::golden_json;
use serde_json::Value;

fn number(case: &Value, key: &str) -> Option<f64> {
    case[key].as_f64()
}

fn dim(case: &Value) -> usize {
    case["d"].as_u64().unwrap() as usize
}

fn list(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(list).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

fn option(case: &Value) -> OptionConfig {
    let mut config = OptionConfig::default();
    config.kind = match case["option"].as_str().unwrap() {
        "EUROPEAN" => OptionKind::European,
        "ASIAN" => OptionKind::Asian,
        "BARRIER" => OptionKind::Barrier,
        "LOOKBACK" => OptionKind::Lookback,
        "DIGITAL" => OptionKind::Digital,
        other => panic!("{other}"),
    };
    let empty = serde_json::Map::new();
    for (key, value) in case["options"].as_object().unwrap_or(&empty) {
        match (key.as_str(), value.as_str()) {
            ("call_put", Some("PUT")) => config.side = Side::Put,
            ("interest_rate", _) => config.rate = value.as_f64().unwrap(),
            ("decomp_type", Some("Cholesky")) => config.decomposition = Decomposition::Cholesky,
            ("decomp_type", Some("BrownianBridge")) => config.decomposition = Decomposition::Bridge,
            ("asian_mean", Some("GEOMETRIC")) => config.mean = AsianMean::Geometric,
            ("asian_mean_quadrature_rule", Some("RIGHT")) => config.rule = AsianRule::Right,
            other => panic!("{other:?}"),
        }
    }
    config
}

fn integrand(case: &Value) -> Box<dyn Integrand> {
    let d = dim(case);
    let genz = |family, kind| Box::new(Genz::new(d, family, Coefficients::from_kind(kind).unwrap()).unwrap());
    match case["integrand"].as_str().unwrap() {
        "keister" => Box::new(Keister::on_cube(d).unwrap()),
        "genz-oscillatory-1" => genz(GenzFamily::Oscillatory, 1),
        "genz-oscillatory-3" => genz(GenzFamily::Oscillatory, 3),
        "genz-corner-2" => genz(GenzFamily::CornerPeak, 2),
        "linear0" => Box::new(Linear0::on_cube(d).unwrap()),
        "option" => Box::new(FinancialOption::on_cube(d, &option(case)).unwrap()),
        "sensitivity(ishigami)" => Box::new(
            SensitivityIndices::new(Ishigami::on_cube(7.0, 0.1).unwrap(), Subsets::Singletons).unwrap(),
        ),
        "bayesian-lr" => {
            let covariance = Covariance::Scalar(number(case, "prior_covariance").unwrap());
            let mean = vec![number(case, "prior_mean").unwrap(); d];
            let (features, labels) = (list(&case["features"]), list(&case["labels"]));
            Box::new(LogisticRegression::on_cube(d, &features, &labels, &mean, covariance).unwrap())
        }
        "box" => Box::new(BoxIntegral::new(d, &list(&case["s"])).unwrap()),
        "neg-exp" => Box::new(NegExp::new(d).unwrap()),
        other if other.starts_with("cubic3") => Box::new(Cubic3::new(d).unwrap()),
        other => panic!("{other}"),
    }
}

/// The sequence of a case; sensitivity indices get one in twice the dimensions, spawned from that of the function.
fn sequence(case: &Value, f: &dyn Integrand) -> Box<dyn Sequence> {
    let mut sequence = root(case);
    if f.dim() == dim(case) { sequence } else { sequence.spawn(&[f.dim()]).unwrap().remove(0) }
}

fn root(case: &Value) -> Box<dyn Sequence> {
    let (d, seed) = (dim(case), case["seed"].as_u64().unwrap());
    let replications = case["replications"].as_u64().unwrap_or(1) as usize;
    match (case["algo"].as_str().unwrap(), case["sampler"].as_str()) {
        ("lattice-g" | "bayes-lattice", _) | (_, Some("lattice")) => {
            let mut config = LatticeConfig::new(d, seed);
            config.replications = replications;
            Box::new(Lattice::new(config).unwrap())
        }
        ("mc-clt" | "mc-clt-vec" | "mc-g", _) => Box::new(Iid::new(IidConfig::new(d, seed)).unwrap()),
        (_, Some("halton")) => {
            let mut config = HaltonConfig::new(d, seed);
            config.replications = replications;
            Box::new(Halton::new(config).unwrap())
        }
        _ => Box::new(net(d, seed, replications)),
    }
}

fn net(dim: usize, seed: u64, replications: usize) -> DigitalNet {
    let mut config = DigitalNetConfig::new(dim, seed);
    config.replications = replications;
    DigitalNet::new(config).unwrap()
}

/// Abs, relative tolerance and rule of a case.
fn tolerances(case: &Value) -> (f64, f64, ErrorRule) {
    let rule = if case["error"] == "both" { ErrorRule::Both } else { ErrorRule::Either };
    (number(case, "abs_tol").unwrap(), number(case, "rel_tol").unwrap_or(0.0), rule)
}

macro_rules! config {
    ($type:ident, $case:expr) => {{
        let mut config = $type::default();
        let (absolute, relative, rule) = tolerances($case);
        config.abs_tol = absolute;
        config.rel_tol = relative;
        config.error = rule;
        config
    }};
}

macro_rules! config_mc {
    ($type:ident, $case:expr) => {{
        let mut config = $type::default();
        (config.abs_tol, config.rel_tol, _) = tolerances($case);
        config
    }};
}

fn cubature(case: &Value) -> Box<dyn Cubature> {
    match case["algo"].as_str().unwrap() {
        "lattice-g" | "net-g" => Box::new(config!(GuaranteedConfig, case)),
        "rep-student-t" => Box::new(config!(ReplicatedConfig, case)),
        "mc-clt" => Box::new(config_mc!(CltConfig, case)),
        "mc-g" => Box::new(config_mc!(MeanGuaranteedConfig, case)),
        "mc-clt-vec" => Box::new(config!(CltVecConfig, case)),
        "bayes-lattice" | "bayes-sobol" => {
            let mut config = config!(BayesConfig, case);
            config.bound = match case["errbd"].as_str().unwrap() {
                "MLE" => CredibleBound::Mle,
                "GCV" => CredibleBound::Gcv,
                "FULL" => CredibleBound::Full,
                other => panic!("{other}"),
            };
            Box::new(config)
        }
        other => panic!("{other}"),
    }
}

fn run(case: &Value) -> Estimate {
    let f = integrand(case);
    let mut sequence = sequence(case, &*f);
    let cubature = cubature(case);
    let Some(refit) = case["update_cv_coeffs"].as_bool() else {
        return cubature.integrate(&mut *sequence, &*f).unwrap();
    };
    let power = |p: i32| {
        vector_from_fn(4, 3, move |u: &[f64], out: &mut [f64]| {
            out.iter_mut().zip(u).for_each(|(y, u)| *y = u.powi(p));
        })
    };
    let (first, second) = (power(1), power(2));
    let means = [[0.5; 3], [1.0 / 3.0; 3]].concat();
    let mut variates = ControlVariates::new(vec![&first, &second], means);
    variates.refit = refit;
    cubature.start_controlled(&mut *sequence, &*f, &variates).unwrap().finish().unwrap()
}

fn close(what: &str, got: &[f64], want: &Value, case: &Value) {
    let want = list(want);
    assert_eq!(got.len(), want.len(), "{what} of {case}");
    for (got, want) in got.iter().zip(&want) {
        assert!((got - want).abs() <= 1e-8 * want.abs().max(1e-3), "{what}: {got} not {want} in {case}");
    }
}

#[test]
fn cases_of_one_level() {
    let all = golden_json("qmcpy/cub_cases.json");
    let mut seen = 0;
    for case in all.as_array().unwrap().iter().filter(|case| case["d_coarsest"].is_null()) {
        let expect = &case["expect"];
        let got = run(case);
        let n_total = expect["n_total"].as_u64().unwrap();
        assert!(!got.exhausted);
        seen += 1;
        if case["algo"].as_str().unwrap().starts_with("bayes") {
            let exact = number(case, "exact").unwrap();
            assert!((got.solution[0] - exact).abs() <= number(case, "abs_tol").unwrap(), "{case}");
            assert!([n_total / 2, n_total, 2 * n_total].contains(&got.n_total), "{} in {case}", got.n_total);
            if got.n_total == n_total {
                close("solution", &got.solution, &expect["solution"], case);
                let width = (got.high[0] - got.low[0])
                    / (number(expect, "high").unwrap() - number(expect, "low").unwrap());
                assert!((width - 1.0).abs() < 0.05, "width {width} times that of {case}");
            }
            continue;
        }
        assert_eq!(got.n_total, n_total, "{case}");
        close("solution", &got.solution, &expect["solution"], case);
        let bound = |side: &str| match &expect[format!("comb_bound_{side}")] {
            Value::Null => expect[format!("bound_{side}")].clone(),
            other => other.clone(),
        };
        if case["update_cv_coeffs"] == true {
            // With coefficients that are refitted the reference takes its bounds from the integrand alone, as if there
            // were no variates; ours come from what the variates leave, and are met with fewer points.
            let tolerance = number(case, "abs_tol").unwrap();
            assert!(got.high.iter().zip(&got.low).all(|(high, low)| high - low <= 2.0 * tolerance));
            assert_eq!(got.n, [8192, 8192, 16384]);
            continue;
        }
        if case["option"] == "DIGITAL" && case["algo"] == "net-g" {
            // The payoff has two values, so that many coefficients are equal. The reference divides by the root of 2
            // in each pass of its transform, and the rounding errors order what is equal; here equal is equal.
            let want = 0.5
                * (number(expect, "comb_bound_high").unwrap() - number(expect, "comb_bound_low").unwrap());
            let half = 0.5 * (got.high[0] - got.low[0]);
            assert!((half / want - 1.0).abs() < 5e-3, "half width {half} instead of {want}");
            continue;
        }
        close("low", &got.low, &bound("low"), case);
        close("high", &got.high, &bound("high"), case);
        if let Some(n) = case["n"].as_array() {
            assert_eq!(got.n, n.iter().map(|n| n.as_u64().unwrap()).collect::<Vec<_>>(), "{case}");
        }
    }
    assert_eq!(seen, 65);
}

#[test]
fn cases_of_several_levels() {
    let all = golden_json("qmcpy/cub_cases.json");
    let mut seen = 0;
    for case in all.as_array().unwrap().iter().filter(|case| !case["d_coarsest"].is_null()) {
        let coarsest = case["d_coarsest"].as_u64().unwrap() as usize;
        let problem = MultilevelOption::new(option(case), coarsest).unwrap();
        let replications = case["replications"].as_u64().unwrap() as usize;
        let rmse_tol = number(case, "rmse_tol");
        let seed = case["seed"].as_u64().unwrap();
        let mut iid = Iid::new(IidConfig::new(dim(case), seed)).unwrap();
        let mut net = net(dim(case), seed, replications);
        macro_rules! run {
            ($type:ident, $sequence:expr) => {{
                let mut config = $type::default();
                config.levels.rmse_tol = rmse_tol;
                config.integrate(&mut $sequence, &problem).unwrap()
            }};
        }
        let got = match case["algo"].as_str().unwrap() {
            "mlmc" => run!(MlmcConfig, iid),
            "mlmc-cont" => run!(MlmcContConfig, iid),
            "mlqmc" => run!(MlqmcConfig, net),
            "mlqmc-cont" => run!(MlqmcContConfig, net),
            other => panic!("{other}"),
        };
        let expect = &case["expect"];
        let n_level: Vec<u64> =
            expect["n_level"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        assert_eq!(got.n_level, Some(n_level), "{case}");
        assert_eq!(got.n_total, expect["n_total"].as_u64().unwrap());
        assert_eq!(got.levels, case["levels"].as_u64().map(|l| l as usize));
        close("solution", &got.solution, &expect["solution"], case);
        seen += 1;
    }
    assert_eq!(seen, 4);
}
