//! Integrands: golden values, exact integrals by lattice sums, the adapters, sensitivity indices.

use kc_core::{Error, Tensor};
use kc_qmc::integrand::{
    AsianMean, AsianRule, Barrier, BoxIntegral, Chain, Coefficients, Cubic3, FinancialOption, FourBranch2d,
    Genz, GenzFamily, Hartmann6, ImportanceSampled, Ishigami, Keister, Linear0, LogisticRegression,
    Multimodal2d, NegExp, OptionConfig, OptionKind, SensitivityIndices, Side, Sin1d, Subsets, Transformed,
    from_fn, vector_from_fn,
};
use kc_qmc::measure::{Covariance, Decomposition, Distribution, Gaussian, Lebesgue, Marginals, Uniform};
use kc_qmc::{Integrand, Measure};
use kc_testing::{Tol, assert_close, golden_json, golden_tensor, same_on_any_pool};
use serde_json::Value;

/// The mean of each output over a Kronecker lattice under the tent transform.
fn mean(f: &dyn Integrand, n: usize) -> Vec<f64> {
    let u = lattice(f.dim(), n);
    let mut y = vec![0.0; f.outputs() * n];
    f.evaluate(&u, &vec![true; f.outputs()], &mut y).unwrap();
    y.chunks_exact(n).map(|y| y.iter().sum::<f64>() / n as f64).collect()
}

/// Multiples of powers of the generalised golden ratio.
fn lattice(dim: usize, n: usize) -> Vec<f64> {
    let phi = (0..64).fold(2.0f64, |x, _| (1.0 + x).powf(1.0 / (dim as f64 + 1.0)));
    (0..n * dim)
        .map(|at| {
            let x = (0.5 + (at / dim + 1) as f64 * phi.powi(-(at as i32 % dim as i32 + 1))).fract();
            1.0 - 2.0 * (x - 0.5).abs()
        })
        .collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn option(dim: usize, parameters: &Value) -> Box<dyn Integrand> {
    let mut config = OptionConfig::default();
    let word = |key: &str| parameters[key].as_str().unwrap_or_default();
    let number = |key: &str, default| parameters[key].as_f64().unwrap_or(default);
    config.kind = match word("option") {
        "EUROPEAN" => OptionKind::European,
        "BARRIER" => OptionKind::Barrier,
        "LOOKBACK" => OptionKind::Lookback,
        "DIGITAL" => OptionKind::Digital,
        _ => OptionKind::Asian,
    };
    config.side = if word("call_put") == "PUT" { Side::Put } else { Side::Call };
    config.mean =
        if word("asian_mean") == "GEOMETRIC" { AsianMean::Geometric } else { AsianMean::Arithmetic };
    let right = word("asian_mean_quadrature_rule") == "RIGHT";
    config.rule = if right { AsianRule::Right } else { AsianRule::Trapezoidal };
    config.barrier = if word("barrier_in_out") == "OUT" { Barrier::Out } else { Barrier::In };
    config.decomposition = match word("decomp_type") {
        "Cholesky" => Decomposition::Cholesky,
        "BrownianBridge" => Decomposition::Bridge,
        _ => Decomposition::Pca,
    };
    config.rate = number("interest_rate", 0.0);
    config.strike = number("strike_price", 35.0);
    config.start = number("start_price", 30.0);
    config.volatility = number("volatility", 0.5);
    config.t_final = number("t_final", 1.0);
    config.barrier_price = number("barrier_price", 38.0);
    Box::new(FinancialOption::on_cube(dim, &config).unwrap())
}

fn named(name: &str, dim: usize, parameters: &Value) -> Box<dyn Integrand> {
    let number = |key: &str, default| parameters[key].as_f64().unwrap_or(default);
    let ishigami = || Ishigami::on_cube(number("a", 7.0), number("b", 0.1)).unwrap();
    let subsets = if parameters["indices"] == "all" { Subsets::All } else { Subsets::Singletons };
    if let Some(rest) = name.strip_prefix("genz-") {
        let (family, kind) = rest.split_once('-').unwrap();
        let coefficients = Coefficients::from_kind(kind.parse().unwrap()).unwrap();
        return Box::new(Genz::new(dim, family.parse().unwrap(), coefficients).unwrap());
    }
    match name {
        "keister" => Box::new(Keister::on_cube(dim).unwrap()),
        "ishigami" => Box::new(ishigami()),
        "box" => Box::new(BoxIntegral::new(dim, &numbers(&parameters["s"])).unwrap()),
        "linear0" => Box::new(Linear0::on_cube(dim).unwrap()),
        "sin1d" => Box::new(Sin1d::on_cube(number("k", 1.0)).unwrap()),
        "multimodal2d" => Box::new(Multimodal2d::on_cube().unwrap()),
        "fourbranch2d" => Box::new(FourBranch2d::on_cube().unwrap()),
        "bayesian-lr" => Box::new(
            LogisticRegression::on_cube(
                dim,
                &numbers(&parameters["features"]),
                &numbers(&parameters["labels"]),
                &numbers(&parameters["prior_mean"]),
                Covariance::Scalar(number("prior_covariance", 10.0)),
            )
            .unwrap(),
        ),
        "option" => option(dim, parameters),
        "sensitivity(ishigami)" => Box::new(SensitivityIndices::new(ishigami(), subsets).unwrap()),
        "sensitivity(box)" => {
            let function = BoxIntegral::new(dim / 2, &numbers(&parameters["s"])).unwrap();
            Box::new(SensitivityIndices::new(function, subsets).unwrap())
        }
        other => panic!("{other}"),
    }
}

#[test]
fn values_are_the_golden_ones() {
    let u: Tensor<f64, 2> = golden_tensor("qmcpy/tm_u.npy");
    let cases = golden_json("qmcpy/integrands.json");
    let cases = cases["integrands"].as_array().unwrap();
    assert!(cases.len() > 60);
    for case in cases {
        let (name, dim) = (case["name"].as_str().unwrap(), case["dim"].as_u64().unwrap() as usize);
        let points: Vec<f64> =
            u.as_slice().chunks_exact(4).flat_map(|row| (0..dim).map(|j| row[j % 4])).collect();
        let f = named(name, dim, &case["params"]);
        let want = numbers(&case["values"]);
        assert_eq!((f.dim(), f.outputs() * 16), (dim, want.len()), "{name}");
        let mut got = vec![0.0; want.len()];
        f.evaluate(&points, &vec![true; f.outputs()], &mut got).unwrap();
        assert_close(&got, &want, Tol { abs: 1e-12, ..Tol::rel(1e-12) });
        assert!(f.fingerprint().is_some());
    }
}

#[test]
fn keister_by_recurrence_is_what_sums_give() {
    for dim in 1..=4 {
        let got = mean(&Keister::on_cube(dim).unwrap(), 1 << 16)[0];
        let want = Keister::exact(dim);
        assert!((got - want).abs() < 2e-3 * want.abs().max(1.0), "d = {dim}: {got} and {want}");
    }
    assert!((Keister::exact(1) - 1.380_388_447_043_143).abs() < 1e-14);
    assert!((Keister::exact(3) - 2.168_309_102_165_481).abs() < 1e-14);
}

#[test]
fn genz_integrals_are_what_sums_give() {
    for family in GenzFamily::ALL {
        for coefficients in [Coefficients::Linear, Coefficients::Quadratic, Coefficients::Exponential] {
            for dim in [1, 2, 4] {
                let f = Genz::new(dim, family, coefficients).unwrap();
                let (got, want) = (mean(&f, 1 << 16)[0], f.exact());
                let tolerance = if family == GenzFamily::Discontinuous { 2e-3 } else { 1e-4 };
                assert!((got - want).abs() < tolerance * want.abs().max(0.1), "{f:?}: {got} and {want}");
            }
        }
    }
}

#[test]
fn exact_integrals_of_the_small_functions() {
    let near = |f: &dyn Integrand, want: &[f64], tolerance: f64| {
        for (got, want) in mean(f, 1 << 16).iter().zip(want) {
            assert!((got - want).abs() < tolerance, "{:?}: {got} and {want}", f.fingerprint());
        }
    };
    near(&Linear0::on_cube(3).unwrap(), &[0.0], 1e-4);
    near(&Sin1d::on_cube(0.4).unwrap(), &[Sin1d::exact(0.4)], 1e-5);
    assert_eq!(Sin1d::exact(2.0), 0.0);
    near(&Multimodal2d::on_cube().unwrap(), &[Multimodal2d::exact()], 1e-3);
    near(&Hartmann6, &[Hartmann6::exact()], 1e-3);
    near(&NegExp::new(2).unwrap(), &[-(1f64.exp_m1().powi(2))], 1e-4);
    near(&Ishigami::on_cube(7.0, 0.1).unwrap(), &[Ishigami::exact(7.0)], 1e-2);
    near(&Cubic3::new(4).unwrap(), &Cubic3::EXACT, 1e-3);
    // Box integrals in three dimensions, of which the first two are Robbins' and Bailey's constants.
    near(
        &BoxIntegral::new(3, &[1.0, -1.0, 0.0, 2.0]).unwrap(),
        &[0.960_591_956, 1.190_038_682, 1.0, 1.0],
        1e-4,
    );
}

#[test]
fn option_prices_in_closed_form_are_what_sums_give() {
    let mut config = OptionConfig::default();
    config.rate = 0.03;
    for kind in [OptionKind::European, OptionKind::Digital, OptionKind::Asian] {
        for side in [Side::Call, Side::Put] {
            config.kind = kind;
            config.side = side;
            config.mean = AsianMean::Geometric;
            config.rule = AsianRule::Right;
            let f = FinancialOption::on_cube(4, &config).unwrap();
            let (got, want) = (mean(&f, 1 << 17)[0], f.function().exact().unwrap());
            assert!((got - want).abs() < 1e-2, "{kind:?} {side:?}: {got} and {want}");
        }
    }
    config.mean = AsianMean::Arithmetic;
    assert_eq!(FinancialOption::new(4, &config).unwrap().exact(), None);
}

#[test]
fn a_put_on_the_right_mean_pays_strike_minus_mean() {
    let mut config = OptionConfig::default();
    config.side = Side::Put;
    config.rule = AsianRule::Right;
    let option = FinancialOption::new(2, &config).unwrap();
    assert_eq!(option.payoff(&[20.0, 30.0]), 10.0);
    assert_eq!(option.payoff(&[40.0, 50.0]), 0.0);
    assert_eq!(option.payoff(&[]), 0.0);
}

#[test]
fn importance_sampling_gives_the_golden_values() {
    let u: Tensor<f64, 2> = golden_tensor("qmcpy/tm_u.npy");
    let cases = golden_json("qmcpy/tm_cases.json");
    let compare = |name: &str, f: &dyn Integrand| {
        let mut y = [0.0; 16];
        f.evaluate(u.as_slice(), &[true], &mut y).unwrap();
        assert_close(&y, &numbers(&cases[name]["values"]), Tol::rel(1e-12));
    };
    let bell = from_fn(4, |t: &[f64]| (-t.iter().map(|t| t * t).sum::<f64>()).exp());
    let sampler = Gaussian::iid(4, 0.0, 1.5).unwrap();
    let f = ImportanceSampled::new(Lebesgue::real(4).unwrap(), sampler, bell).unwrap();
    compare("lebesgue_over_gaussian", &f);
    let (got, exact) = (mean(&f, 1 << 16)[0], std::f64::consts::PI.powi(2));
    assert!((got - exact).abs() < 0.02 * exact, "{got} and {exact}");

    let exp = from_fn(4, |t: &[f64]| t.iter().sum::<f64>().exp());
    let sampler = Marginals::iid(4, Distribution::Kumaraswamy { a: 2.0, b: 3.0 }).unwrap();
    let f = ImportanceSampled::new(Uniform::unit(4).unwrap(), sampler, exp).unwrap();
    compare("uniform_through_kumaraswamy", &f);
}

#[test]
fn chains_multiply_their_jacobians() {
    // The mean of t^2 under N(0, 1), by Kumaraswamy points that go through a wider normal.
    let chain = Chain::new(vec![
        Box::new(Marginals::iid(1, Distribution::Kumaraswamy { a: 1.2, b: 1.1 }).unwrap())
            as Box<dyn Measure>,
        Box::new(Gaussian::iid(1, 0.0, 1.5).unwrap()),
    ])
    .unwrap();
    let square = from_fn(1, |t: &[f64]| t[0] * t[0]);
    let f = ImportanceSampled::new(Gaussian::iid(1, 0.0, 1.0).unwrap(), chain, square).unwrap();
    let got = mean(&f, 1 << 16)[0];
    assert!((got - 1.0).abs() < 1e-3, "{got}");
}

#[test]
fn ranges_that_do_not_match_are_refused() {
    let gaussian = || Gaussian::iid(1, 0.0, 1.0).unwrap();
    let g = || from_fn(1, |t: &[f64]| t[0]);
    let refused =
        |result: Result<(), Error>| assert!(matches!(result, Err(Error::Argument { .. })), "{result:?}");
    let links: Vec<Box<dyn Measure>> = vec![Box::new(gaussian()), Box::new(gaussian())];
    refused(Chain::new(links).map(|_| ()));
    refused(ImportanceSampled::new(gaussian(), Uniform::unit(1).unwrap(), g()).map(|_| ()));
    refused(ImportanceSampled::new(Lebesgue::real(1).unwrap(), Uniform::unit(1).unwrap(), g()).map(|_| ()));
    assert!(matches!(Chain::new(Vec::new()), Err(Error::Empty { .. })));
    assert!(matches!(Transformed::new(Gaussian::iid(2, 0.0, 1.0).unwrap(), g()), Err(Error::Shape { .. })));
    let two = Gaussian::iid(2, 0.0, 1.0).unwrap();
    assert!(matches!(ImportanceSampled::new(gaussian(), two, g()), Err(Error::Shape { .. })));
}

#[test]
fn blocks_of_any_size_give_the_same_bits() {
    let f = FinancialOption::on_cube(37, &OptionConfig::default()).unwrap();
    let n = 4096 + 3;
    let u = lattice(37, n);
    let whole = same_on_any_pool(|| {
        let mut y = vec![0.0; n];
        f.evaluate(&u, &[true], &mut y).unwrap();
        y
    });
    for rows in [1, 5, 64, 1000] {
        for (u, want) in u.chunks(37 * rows).zip(whole.chunks(rows)) {
            let mut y = vec![0.0; want.len()];
            f.evaluate(u, &[true], &mut y).unwrap();
            assert_eq!(y, want);
        }
    }
    // Several outputs are put together from pieces.
    let two = vector_from_fn(37, 2, |t: &[f64], out: &mut [f64]| (out[0], out[1]) = (t[0], t[36]));
    let f = Transformed::new(Uniform::unit(37).unwrap(), two).unwrap();
    let mut y = vec![0.0; 2 * n];
    f.evaluate(&u, &[true; 2], &mut y).unwrap();
    for (i, row) in u.chunks_exact(37).enumerate() {
        assert_eq!((y[i], y[n + i]), (row[0], row[36]));
    }
}

#[test]
fn finished_outputs_are_left_alone() {
    let f = BoxIntegral::new(2, &[1.0, 2.0]).unwrap();
    let mut y = [7.0; 2];
    f.evaluate(&[0.6, 0.8], &[false, true], &mut y).unwrap();
    assert_eq!(y, [7.0, 1.0]);
    // Without an unfinished index of a set, the function is not called for it.
    use std::sync::atomic::{AtomicUsize, Ordering};
    let calls = AtomicUsize::new(0);
    let counted = from_fn(3, |t: &[f64]| {
        calls.fetch_add(1, Ordering::Relaxed);
        t[0]
    });
    let f = SensitivityIndices::new(counted, Subsets::Singletons).unwrap();
    let mut active = vec![false; 18];
    let mut unfinished = vec![false; 6];
    unfinished[1] = true;
    f.needs(&unfinished, &mut active);
    assert_eq!(active.iter().filter(|&&flag| flag).count(), 3);
    f.evaluate(&[0.5; 6], &active, &mut [0.0; 18]).unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[test]
fn sensitivity_indices_of_ishigami_are_exact() {
    for subsets in [Subsets::Singletons, Subsets::All] {
        let f = SensitivityIndices::new(Ishigami::on_cube(7.0, 0.1).unwrap(), subsets).unwrap();
        let individual = mean(&f, 1 << 18);
        let count = f.subsets().len();
        let (mut low, mut high) = (vec![0.0; 2 * count], vec![0.0; 2 * count]);
        f.bound(&individual, &individual, &mut low, &mut high);
        for (set, subset) in f.subsets().iter().enumerate() {
            let subset = [subset[0], subset[1], subset[2]];
            let (closed, total) = Ishigami::exact_indices(7.0, 0.1, subset).unwrap();
            for (got, want) in [(low[set], closed), (high[count + set], total)] {
                assert!((got - want).abs() < 0.01, "{subset:?}: {got} and {want}");
            }
        }
    }
    let golden = golden_json("qmcpy/cub_cases.json");
    let case =
        golden.as_array().unwrap().iter().find(|case| case["integrand"] == "sensitivity(ishigami)").unwrap();
    let want = numbers(&case["exact"]);
    for j in 0..3 {
        let subset = [0, 1, 2].map(|k| k == j);
        let (closed, total) = Ishigami::exact_indices(7.0, 0.1, subset).unwrap();
        assert!((closed - want[j]).abs() < 1e-15 && (total - want[3 + j]).abs() < 1e-15);
    }
    assert_eq!(Ishigami::exact_indices(7.0, 0.1, [true; 3]), None);
}

#[test]
fn bounds_of_ratios() {
    let f = LogisticRegression::on_cube(1, &[], &[1.0], &[0.0], Covariance::Scalar(1.0)).unwrap();
    let (mut low, mut high) = ([0.0], [0.0]);
    f.bound(&[-1.0, 2.0], &[3.0, 4.0], &mut low, &mut high);
    assert_eq!((low, high), ([-0.5], [1.5]));
    f.bound(&[-1.0, -2.0], &[3.0, 4.0], &mut low, &mut high);
    assert_eq!((low, high), ([f64::NEG_INFINITY], [f64::INFINITY]));
    // A variance that may be zero says nothing about an index.
    let f = SensitivityIndices::new(from_fn(2, |t: &[f64]| t[0]), Subsets::Singletons).unwrap();
    let (mut low, mut high) = ([9.0; 4], [9.0; 4]);
    f.bound(&[1.0; 12], &[1.0; 12], &mut low, &mut high);
    assert_eq!((low, high), ([0.0; 4], [1.0; 4]));
}

#[test]
fn bad_arguments_are_refused() {
    fn argument<T>(result: Result<T, Error>) {
        assert!(matches!(result.map(|_| ()), Err(Error::Argument { .. })));
    }
    fn empty<T>(result: Result<T, Error>) {
        assert!(matches!(result.map(|_| ()), Err(Error::Empty { .. })));
    }
    fn shape<T>(result: Result<T, Error>) {
        assert!(matches!(result.map(|_| ()), Err(Error::Shape { .. })));
    }
    empty(Keister::on_cube(0));
    empty(Genz::new(0, GenzFamily::Gaussian, Coefficients::Linear));
    argument(Coefficients::from_kind(4));
    argument("peak".parse::<GenzFamily>());
    argument(Genz::with_coefficients(GenzFamily::Gaussian, &[-1.0], &[0.5]));
    shape(Genz::with_coefficients(GenzFamily::Gaussian, &[1.0], &[0.5, 0.5]));
    argument(Sin1d::on_cube(0.0));
    argument(Ishigami::on_cube(f64::NAN, 0.1));
    empty(BoxIntegral::new(3, &[]));
    argument(BoxIntegral::new(3, &[f64::INFINITY]));
    argument(Cubic3::new(2));
    empty(FinancialOption::new(0, &OptionConfig::default()));
    for set in [
        |c: &mut OptionConfig| c.volatility = 0.0,
        |c: &mut OptionConfig| c.start = -1.0,
        |c: &mut OptionConfig| c.strike = f64::NAN,
        |c: &mut OptionConfig| c.t_final = 0.0,
        |c: &mut OptionConfig| c.payout = 0.0,
        |c: &mut OptionConfig| c.rate = f64::INFINITY,
    ] {
        let mut config = OptionConfig::default();
        set(&mut config);
        argument(FinancialOption::new(2, &config));
    }
    let prior = || Covariance::Scalar(1.0);
    shape(LogisticRegression::on_cube(2, &[1.0, 2.0], &[1.0], &[0.0], prior()));
    argument(LogisticRegression::on_cube(2, &[1.0], &[0.5], &[0.0], prior()));
    empty(LogisticRegression::on_cube(2, &[], &[], &[0.0], prior()));
    let nan = LogisticRegression::on_cube(2, &[f64::NAN], &[1.0], &[0.0], prior());
    assert!(matches!(nan.map(|_| ()), Err(Error::NotFinite { .. })));
    let line = |dim| from_fn(dim, |t: &[f64]| t[0]);
    argument(SensitivityIndices::new(line(1), Subsets::Singletons));
    argument(SensitivityIndices::new(line(17), Subsets::All));
    argument(SensitivityIndices::new(line(2), Subsets::List(vec![vec![true, true]])));
    shape(SensitivityIndices::new(line(2), Subsets::List(vec![vec![true]])));
    empty(SensitivityIndices::new(line(2), Subsets::List(Vec::new())));

    let f = Keister::on_cube(2).unwrap();
    shape(f.evaluate(&[0.5; 3], &[true], &mut [0.0]));
    shape(f.evaluate(&[0.5; 2], &[true; 2], &mut [0.0]));
    shape(f.evaluate(&[0.5; 2], &[true], &mut [0.0; 2]));
    argument(f.evaluate(&[0.5, 0.0], &[true], &mut [0.0]));
    f.evaluate(&[], &[true], &mut []).unwrap();
}
