//! Measures against golden points and densities, moments and each other.

use kc_core::{Error, Tensor};
use kc_qmc::measure::{
    AcceptanceRejection, BridgeOrder, BrownianConfig, BrownianMotion, Copula, CopulaMeasure, Covariance,
    Decomposition, Distribution, Gaussian, GeometricBrownianMotion, Lebesgue, Marginals, MaternConfig,
    OutputOrder, ProductMeasure, RejectionConfig, StudentT, Uniform, UniformTriangle, matern_correlation,
    matern_gp, open_interval,
};
use kc_qmc::{Family, Measure, Order, Randomize, Sequence};
use kc_testing::{Tol, assert_close, golden_json, golden_tensor};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// Transforms the golden points and compares both points and densities.
fn compare(name: &str, measure: &dyn Measure, case: &Value) {
    let u: Tensor<f64, 2> = golden_tensor("qmcpy/tm_u.npy");
    let want: Tensor<f64, 2> = golden_tensor(&format!("qmcpy/tm_{name}.npy"));
    let mut t = vec![0.0; u.as_slice().len()];
    measure.transform(u.as_slice(), &mut t).unwrap();
    assert_close(&t, want.as_slice(), Tol::rel(1e-12));
    let mut density = vec![0.0; 16];
    measure.density(&t, &mut density).unwrap();
    assert_close(&density, &numbers(&case["weight"]), Tol::rel(1e-12));
}

#[test]
fn uniform_is_the_golden_one() {
    let case = &golden_json("qmcpy/tm_cases.json")["uniform"];
    compare("uniform", &Uniform::new(4, &numbers(&case["lower"]), &numbers(&case["upper"])).unwrap(), case);
}

#[test]
fn gaussians_are_the_golden_ones() {
    for (name, decomposition) in [("pca", Decomposition::Pca), ("cholesky", Decomposition::Cholesky)] {
        let name = format!("gaussian_{name}");
        let case = &golden_json("qmcpy/tm_cases.json")[&name];
        let covariance = Covariance::Matrix(numbers(&case["cov"]));
        let measure = Gaussian::new(4, &numbers(&case["mean"]), covariance, decomposition).unwrap();
        compare(&name, &measure, case);
    }
}

fn brownian(case: &Value, decomposition: Decomposition) -> BrownianConfig {
    let mut config = BrownianConfig::default();
    config.t_final = number(&case["t_final"]);
    config.initial = number(&case["initial"]);
    config.drift = number(&case["drift"]);
    config.diffusion = number(&case["diffusion"]);
    config.decomposition = decomposition;
    config
}

#[test]
fn brownian_motions_are_the_golden_ones() {
    for (name, decomposition) in [
        ("brownian_pca", Decomposition::Pca),
        ("brownian_cholesky", Decomposition::Cholesky),
        ("brownian_brownianbridge", Decomposition::Bridge),
    ] {
        let case = &golden_json("qmcpy/tm_cases.json")[name];
        compare(name, &BrownianMotion::new(4, &brownian(case, decomposition)).unwrap(), case);
    }
    let case = &golden_json("qmcpy/tm_cases.json")["gbm_pca"];
    compare("gbm_pca", &GeometricBrownianMotion::new(4, &brownian(case, Decomposition::Pca)).unwrap(), case);
}

#[test]
fn a_matern_process_is_the_golden_one() {
    let case = &golden_json("qmcpy/tm_cases.json")["matern_gp"];
    let mut config = MaternConfig::default();
    config.length_scale = number(&case["length_scale"]);
    config.nu = number(&case["nu"]);
    config.variance = number(&case["variance"]);
    config.mean = vec![number(&case["mean"])];
    config.nugget = number(&case["nugget"]);
    compare("matern_gp", &matern_gp(&numbers(&case["points"]), 1, &config).unwrap(), case);
}

#[test]
fn a_t_distribution_is_the_golden_one() {
    let case = &golden_json("qmcpy/tm_cases.json")["student_t"];
    let measure =
        StudentT::new(&numbers(&case["loc"]), &numbers(&case["shape"]), number(&case["df"])).unwrap();
    compare("student_t", &measure, case);
}

#[test]
fn marginals_are_the_golden_ones() {
    let cases = &golden_json("qmcpy/tm_cases.json");
    let case = &cases["kumaraswamy"];
    let pairs = numbers(&case["a"]).into_iter().zip(numbers(&case["b"]));
    let list = pairs.map(|(a, b)| Distribution::Kumaraswamy { a, b }).collect();
    compare("kumaraswamy", &Marginals::new(list).unwrap(), case);

    let case = &cases["johnsons_su"];
    let [gamma, xi, delta, lambda] = ["gamma", "xi", "delta", "lam"].map(|name| number(&case[name]));
    let measure = Marginals::iid(4, Distribution::JohnsonsSu { gamma, xi, delta, lambda }).unwrap();
    compare("johnsons_su", &measure, case);

    let case = &cases["bernoulli_cont"];
    let list =
        numbers(&case["lam"]).into_iter().map(|lambda| Distribution::BernoulliCont { lambda }).collect();
    compare("bernoulli_cont", &Marginals::new(list).unwrap(), case);
}

#[test]
fn copulas_are_the_golden_ones() {
    let cases = &golden_json("qmcpy/tm_cases.json");
    for name in ["gaussian", "student", "clayton", "gumbel", "frank"] {
        let name = format!("{name}_copula");
        let case = &cases[&name];
        let list =
            case["marginals"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().parse().unwrap());
        let (list, theta): (Vec<Distribution>, _) = (list.collect(), || number(&case["theta"]));
        let copula = match name.as_str() {
            "gaussian_copula" => Copula::gaussian(4, &numbers(&case["correlation"])),
            "student_copula" => Copula::student(4, &numbers(&case["correlation"]), number(&case["df"])),
            "clayton_copula" => Copula::clayton(4, theta()),
            "gumbel_copula" => Copula::gumbel(4, theta()),
            _ => Copula::frank(4, theta()),
        };
        compare(&name, &CopulaMeasure::new(copula.unwrap(), list).unwrap(), case);
    }
}

#[test]
fn paths_are_the_golden_ones() {
    let u: Tensor<f64, 2> = golden_tensor("qmcpy/tm_u.npy");
    let cases = golden_json("qmcpy/integrands.json");
    for case in cases["brownian"].as_array().unwrap() {
        let (dim, parameters) = (case["dim"].as_u64().unwrap() as usize, &case["params"]);
        let points: Vec<f64> =
            u.as_slice().chunks_exact(4).flat_map(|row| (0..dim).map(|j| row[j % 4])).collect();
        let mut config = BrownianConfig::default();
        let set = |key: &str, place: &mut f64| *place = parameters[key].as_f64().unwrap_or(*place);
        set("t_final", &mut config.t_final);
        set("initial_value", &mut config.initial);
        set("drift", &mut config.drift);
        set("diffusion", &mut config.diffusion);
        config.decomposition = match parameters["decomp_type"].as_str().unwrap() {
            "Cholesky" => Decomposition::Cholesky,
            "BrownianBridge" => Decomposition::Bridge,
            _ => Decomposition::Pca,
        };
        config.monitoring_times = parameters.get("monitoring_times").map(numbers);
        if parameters["bridge_vdc_gray_ordering"] == false {
            config.bridge_order = BridgeOrder::AsGiven;
        }
        if parameters["bridge_output_order"] == "input" {
            config.output_order = OutputOrder::Input;
        }
        let motion = BrownianMotion::new(dim, &config).unwrap();
        assert_close(motion.times(), &numbers(&case["times"]), Tol::rel(1e-15));
        let mut paths = vec![0.0; points.len()];
        motion.transform(&points, &mut paths).unwrap();
        assert_close(&paths, &numbers(&case["points"]), Tol { abs: 1e-12, ..Tol::rel(1e-12) });
    }
}

/// Multiples of powers of the generalised golden ratio, under the tent transform.
fn lattice(dim: usize, n: usize) -> Vec<f64> {
    let phi = (0..64).fold(2.0f64, |x, _| (1.0 + x).powf(1.0 / (dim as f64 + 1.0)));
    (0..n * dim)
        .map(|at| {
            let x = (0.5 + (at / dim + 1) as f64 * phi.powi(-(at as i32 % dim as i32 + 1))).fract();
            1.0 - 2.0 * (x - 0.5).abs()
        })
        .collect()
}

fn every_family() -> Vec<Distribution> {
    [
        "uniform(-1, 3)",
        "norm(1, 2)",
        "lognorm(0.2, 0.4)",
        "expon(2)",
        "gamma(2.5, 0.5)",
        "beta(2, 3)",
        "t(12, 1, 2)",
        "chi2(5)",
        "weibull(1.7, 2)",
        "cauchy(1, 2)",
        "logistic(1, 0.5)",
        "laplace(1, 0.5)",
        "triangular(0.3, 1, 2)",
        "truncnorm(0, 1, 0.5, 2)",
        "truncnorm(0, 1, -3, 0.2)",
        "poisson(3.3)",
        "binomial(9, 0.3)",
        "kumaraswamy(2, 3)",
        "johnsonsu(1, 2, 1.5, 0.7)",
        "bernoulli_cont(0.2)",
        "bernoulli_cont(0.5)",
        "bernoulli_cont(0.500001)",
        "zero_inflated_exp(0.4, 1.5)",
    ]
    .map(|text| text.parse().unwrap())
    .to_vec()
}

#[test]
fn quantiles_and_distribution_functions_are_inverse() {
    for distribution in every_family() {
        for i in 1..200 {
            let u = f64::from(i) / 200.0;
            let (x, next) = (distribution.quantile(u), distribution.quantile(u + 0.004));
            assert!(x <= next, "{distribution:?} at {u}");
            let back = distribution.cdf(x);
            if distribution.is_discrete() {
                assert!(
                    x.fract() == 0.0 && back >= u && distribution.cdf(x - 1.0) < u,
                    "{distribution:?} at {u}"
                );
            } else if x > 0.0 || !matches!(distribution, Distribution::ZeroInflatedExp { .. }) {
                assert!((back - u).abs() < 1e-12, "{distribution:?} at {u}: {back}");
            }
        }
        let (low, high) = distribution.range();
        assert_eq!((distribution.quantile(0.0), distribution.quantile(1.0)), (low, high), "{distribution:?}");
        assert!(distribution.quantile(1.5).is_nan() && distribution.quantile(f64::NAN).is_nan());
        assert_eq!((distribution.cdf(low - 1.0), distribution.cdf(high + 1.0)), (0.0, 1.0));
    }
}

#[test]
fn densities_are_derivatives_and_probabilities_are_differences() {
    for distribution in every_family() {
        for i in 1..40 {
            let x = distribution.quantile(f64::from(i) / 40.0);
            let Some(log) = distribution.ln_density(x) else { continue };
            let (want, tolerance) = if distribution.is_discrete() {
                (distribution.cdf(x) - distribution.cdf(x - 1.0), 1e-12)
            } else {
                let h = 1e-5;
                ((distribution.cdf(x + h) - distribution.cdf(x - h)) / (2.0 * h), 1e-5)
            };
            assert!((log.exp() - want).abs() < tolerance * (1.0 + want), "{distribution:?} at {x}: {want}");
        }
    }
    let outside: Distribution = "expon".parse().unwrap();
    assert_eq!(outside.ln_density(-1.0), Some(f64::NEG_INFINITY));
    let mixed: Distribution = "zero_inflated_exp".parse().unwrap();
    assert_eq!(mixed.ln_density(1.0), None);
}

#[test]
fn moments_are_those_of_the_points() {
    let n = 1 << 14;
    for distribution in every_family() {
        let (Some(mean), Some(variance)) = (distribution.mean(), distribution.variance()) else { continue };
        let values: Vec<f64> =
            (0..n).map(|i| distribution.quantile((f64::from(i) + 0.5) / f64::from(n))).collect();
        let got = values.iter().sum::<f64>() / f64::from(n);
        let spread = values.iter().map(|x| (x - got).powi(2)).sum::<f64>() / f64::from(n);
        assert!((got - mean).abs() < 2e-3 * (1.0 + variance.sqrt()), "{distribution:?}: {got} and {mean}");
        assert!((spread - variance).abs() < 2e-2 * variance, "{distribution:?}: {spread} and {variance}");
    }
    let cauchy: Distribution = "cauchy".parse().unwrap();
    assert_eq!((cauchy.mean(), cauchy.variance()), (None, None));
    let heavy: Distribution = "t(2)".parse().unwrap();
    assert_eq!((heavy.mean(), heavy.variance()), (Some(0.0), None));
}

/// Means, covariances and the integral of the density of a measure, against what its points give.
fn check_moments(measure: &dyn Measure, tolerance: f64) {
    let (dim, n) = (measure.dim(), 1 << 16);
    let mut t = vec![0.0; n * dim];
    measure.transform(&lattice(dim, n), &mut t).unwrap();
    let average = |f: &dyn Fn(&[f64]) -> f64| t.chunks_exact(dim).map(f).sum::<f64>() / n as f64;
    let mean = measure.mean().unwrap();
    let variance = measure.variance().unwrap();
    for i in 0..dim {
        let scale = variance[i].sqrt();
        let got = average(&|t| t[i]);
        assert!((got - mean[i]).abs() < tolerance * scale, "{}: mean {got}", measure.fingerprint());
        let Some(covariance) = measure.covariance() else { continue };
        assert!((covariance[i * dim + i] - variance[i]).abs() < 1e-12 * variance[i]);
        for j in 0..dim {
            let (got, want) = (average(&|t| (t[i] - mean[i]) * (t[j] - mean[j])), covariance[i * dim + j]);
            let scale = scale * variance[j].sqrt();
            assert!((got - want).abs() < tolerance * scale, "{}: {got} and {want}", measure.fingerprint());
        }
    }
}

#[test]
fn empirical_moments_are_the_closed_forms() {
    let matrix = vec![2.0, 0.5, 0.5, 1.0];
    check_moments(&Uniform::new(2, &[-1.0, 0.0], &[1.0]).unwrap(), 1e-3);
    for decomposition in [Decomposition::Pca, Decomposition::Cholesky] {
        let covariance = Covariance::Matrix(matrix.clone());
        check_moments(&Gaussian::new(2, &[1.0, 2.0], covariance, decomposition).unwrap(), 5e-3);
        let covariance = Covariance::Diagonal(vec![1.0, 4.0]);
        check_moments(&Gaussian::new(2, &[1.0], covariance, decomposition).unwrap(), 5e-3);
    }
    check_moments(&StudentT::new(&[1.0, 2.0], &matrix, 9.0).unwrap(), 2e-2);
    check_moments(&UniformTriangle, 1e-3);
    let points = [0.0, 0.0, 1.0, 0.5];
    let mut config = MaternConfig::default();
    config.nu = 1.1;
    config.variance = 3.0;
    check_moments(&matern_gp(&points, 2, &config).unwrap(), 5e-3);
    let blocks: Vec<Box<dyn Measure>> =
        vec![Box::new(UniformTriangle), Box::new(Marginals::new(vec!["expon".parse().unwrap()]).unwrap())];
    check_moments(&ProductMeasure::new(blocks).unwrap(), 1e-2);
    let list: Vec<Distribution> = vec!["norm(1,2)".parse().unwrap(), "expon".parse().unwrap()];
    let copula = Copula::clayton(2, 2.0).unwrap();
    check_moments(&CopulaMeasure::new(copula, list).unwrap(), 1e-2);
}

#[test]
fn constructions_of_a_path_have_the_same_law() {
    for (dim, times) in [(4, None), (5, Some(vec![0.6, 1.9, 0.3, 0.8, 1.1])), (1, None)] {
        let mut laws = Vec::new();
        for decomposition in [Decomposition::Pca, Decomposition::Cholesky, Decomposition::Bridge] {
            let mut config = BrownianConfig::default();
            config.t_final = 2.0;
            config.initial = 1.0;
            config.drift = 0.4;
            config.diffusion = 0.3;
            config.decomposition = decomposition;
            config.monitoring_times = times.clone();
            let motion = BrownianMotion::new(dim, &config).unwrap();
            check_moments(&motion, 1.5e-2);
            // Columns of the map, found by moving one normal coordinate at a time, give the covariance exactly.
            let centre = vec![0.5; dim];
            let mut from = vec![0.0; dim];
            motion.transform(&centre, &mut from).unwrap();
            let mut covariance = vec![0.0; dim * dim];
            for k in 0..dim {
                let (mut u, mut t) = (centre.clone(), vec![0.0; dim]);
                u[k] = kc_qmc::special::normal_cdf(1.0);
                motion.transform(&u, &mut t).unwrap();
                for at in 0..dim * dim {
                    covariance[at] += (t[at / dim] - from[at / dim]) * (t[at % dim] - from[at % dim]);
                }
            }
            assert_close(&covariance, &motion.covariance().unwrap(), Tol::rel(1e-12));
            let path: Vec<f64> = (0..dim).map(|j| 1.0 + 0.1 * j as f64).collect();
            let mut density = [0.0];
            motion.density(&path, &mut density).unwrap();
            laws.push(density[0]);
            let law = Gaussian::new(
                dim,
                &motion.mean().unwrap(),
                Covariance::Matrix(motion.covariance().unwrap()),
                Decomposition::Cholesky,
            );
            let mut want = [0.0];
            law.unwrap().density(&path, &mut want).unwrap();
            assert_close(&density, &want, Tol::rel(1e-12));
            config.drift = 0.1;
            check_moments(&GeometricBrownianMotion::new(dim, &config).unwrap(), 3e-2);
        }
        assert_close(&laws, &[laws[0]; 3], Tol::rel(1e-13));
    }
}

#[test]
fn densities_integrate_to_one() {
    let matrix = vec![1.0, 0.5, 0.5, 1.0];
    let pair = |text: &str| -> Vec<Distribution> { vec![text.parse().unwrap(); 2] };
    let copulas = [
        Copula::gaussian(2, &matrix),
        Copula::student(2, &matrix, 4.0),
        Copula::clayton(2, 1.5),
        Copula::gumbel(2, 1.5),
        Copula::gumbel(2, 1.0),
        Copula::frank(2, 3.0),
        Copula::frank(2, -3.0),
        Copula::frank(2, 1e-6),
    ];
    let mut measures: Vec<Box<dyn Measure>> = vec![
        Box::new(
            Gaussian::new(2, &[1.0, 2.0], Covariance::Matrix(matrix.clone()), Decomposition::Pca).unwrap(),
        ),
        Box::new(StudentT::new(&[1.0, 2.0], &matrix, 6.0).unwrap()),
        Box::new(UniformTriangle),
    ];
    for copula in copulas {
        measures.push(Box::new(CopulaMeasure::new(copula.unwrap(), pair("beta(2,2)")).unwrap()));
    }
    for measure in measures {
        // Draws from a wider measure, weighted by the density: the mean weight is 1.
        let wide: Box<dyn Measure> = if measure.range()[0].0 == 0.0 {
            Box::new(Uniform::unit(2).unwrap())
        } else {
            Box::new(StudentT::new(&[1.0, 2.0], &[4.0, 0.0, 0.0, 4.0], 3.0).unwrap())
        };
        let n = 1 << 14;
        let (mut t, mut inner, mut outer) = (vec![0.0; 2 * n], vec![0.0; n], vec![0.0; n]);
        wide.transform(&lattice(2, n), &mut t).unwrap();
        measure.density(&t, &mut inner).unwrap();
        wide.density(&t, &mut outer).unwrap();
        let total = inner.iter().zip(&outer).map(|(a, b)| a / b).sum::<f64>() / n as f64;
        assert!((total - 1.0).abs() < 8e-3, "{}: {total}", measure.fingerprint());
    }
}

#[test]
fn margins_of_copulas_are_uniform_and_extreme_parameters_hold() {
    let matrix = vec![1.0, 0.5, 0.2, 0.5, 1.0, 0.3, 0.2, 0.3, 1.0];
    let (dim, n) = (3, 1 << 12);
    let u = lattice(dim, n);
    for copula in [
        Copula::gaussian(3, &matrix),
        Copula::student(3, &matrix, 4.0),
        Copula::clayton(3, 1e-3),
        Copula::clayton(3, 1.5),
        Copula::clayton(3, 60.0),
        Copula::gumbel(3, 1.0),
        Copula::gumbel(3, 1.5),
        Copula::gumbel(3, 20.0),
        Copula::frank(3, 1e-3),
        Copula::frank(3, 3.0),
        Copula::frank(3, 30.0),
    ] {
        let copula = copula.unwrap();
        let mut v = vec![0.0; u.len()];
        copula.transform(&u, &mut v).unwrap();
        assert!(v.iter().all(|v| *v > 0.0 && *v < 1.0), "{copula:?}");
        for j in 0..dim {
            let mut column: Vec<f64> = v.iter().skip(j).step_by(dim).copied().collect();
            column.sort_by(f64::total_cmp);
            let distance = |(i, v): (usize, &f64)| (v - (i as f64 + 0.5) / n as f64).abs();
            let largest = column.iter().enumerate().map(distance).fold(0.0, f64::max);
            assert!(largest < 0.03, "{copula:?}: {largest}");
        }
    }
    // A negative parameter turns dependence around.
    let copula = Copula::frank(2, -8.0).unwrap();
    let u = lattice(2, n);
    let mut v = vec![0.0; u.len()];
    copula.transform(&u, &mut v).unwrap();
    let product = v.chunks_exact(2).map(|v| (v[0] - 0.5) * (v[1] - 0.5)).sum::<f64>() / n as f64;
    assert!((-1.0 / 12.0..-0.05).contains(&product), "{product}");
}

#[test]
fn ends_of_the_interval_are_errors_or_moved() {
    let mut t = [0.0; 2];
    let list: Vec<Box<dyn Measure>> = vec![
        Box::new(Gaussian::iid(2, 0.0, 1.0).unwrap()),
        Box::new(BrownianMotion::new(2, &BrownianConfig::default()).unwrap()),
        Box::new(Marginals::iid(2, "norm".parse().unwrap()).unwrap()),
        Box::new(Marginals::iid(2, "cauchy".parse().unwrap()).unwrap()),
    ];
    for measure in &list {
        for bad in [0.0, 1.0, -0.1, 1.1, f64::NAN] {
            for u in [[bad, 0.5], [0.5, bad]] {
                let error = measure.transform(&u, &mut t).unwrap_err();
                assert!(matches!(&error, Error::Argument { arg, .. } if arg == "u"), "{error}");
            }
        }
        let mut u = [0.0, 1.0];
        open_interval(&mut u);
        measure.transform(&u, &mut t).unwrap();
    }
    for measure in [
        Box::new(Uniform::unit(2).unwrap()) as Box<dyn Measure>,
        Box::new(UniformTriangle),
        Box::new(StudentT::new(&[0.0; 2], &[1.0, 0.0, 0.0, 1.0], 3.0).unwrap()),
        Box::new(Marginals::iid(2, "beta(1,2)".parse().unwrap()).unwrap()),
    ] {
        measure.transform(&[0.0, 1.0], &mut t).unwrap();
        assert!(measure.transform(&[0.5, 1.5], &mut t).is_err());
        assert!(measure.transform(&[f64::NAN, 0.5], &mut t).is_err());
    }
}

#[test]
fn bad_parameters_are_refused() {
    fn argument<T>(result: Result<T, Error>) {
        assert!(matches!(result.map(|_| ()), Err(Error::Argument { .. })));
    }
    fn shape<T>(result: Result<T, Error>) {
        assert!(matches!(result.map(|_| ()), Err(Error::Shape { .. })));
    }
    fn empty<T>(result: Result<T, Error>) {
        assert!(matches!(result.map(|_| ()), Err(Error::Empty { .. })));
    }
    fn singular<T>(result: Result<T, Error>) {
        assert!(matches!(result.map(|_| ()), Err(Error::Singular { .. })));
    }
    empty(Uniform::unit(0));
    argument(Uniform::new(1, &[1.0], &[1.0]));
    argument(Uniform::new(1, &[0.0], &[f64::INFINITY]));
    shape(Uniform::new(3, &[0.0, 1.0], &[2.0]));

    let gaussian =
        |mean: &[f64], covariance, decomposition| Gaussian::new(2, mean, covariance, decomposition);
    let matrix = |m: &[f64]| Covariance::Matrix(m.to_vec());
    empty(Gaussian::iid(0, 0.0, 1.0));
    argument(gaussian(&[0.0], Covariance::Scalar(-1.0), Decomposition::Pca));
    argument(gaussian(&[f64::NAN], Covariance::Scalar(1.0), Decomposition::Pca));
    argument(gaussian(&[0.0], matrix(&[1.0, 2.0, 2.0, 1.0]), Decomposition::Pca));
    singular(gaussian(&[0.0], matrix(&[1.0, 2.0, 2.0, 1.0]), Decomposition::Cholesky));
    shape(gaussian(&[0.0], matrix(&[1.0; 3]), Decomposition::Pca));
    shape(gaussian(&[0.0; 3], Covariance::Scalar(1.0), Decomposition::Pca));
    let nan = gaussian(&[0.0], matrix(&[1.0, f64::NAN, 0.0, 1.0]), Decomposition::Pca);
    assert!(matches!(nan, Err(Error::NotFinite { .. })));
    let bridge = gaussian(&[0.0], Covariance::Scalar(1.0), Decomposition::Bridge);
    assert!(matches!(bridge, Err(Error::Unsupported { .. })));
    // A covariance of lower rank has a density on what it spans.
    let line = gaussian(&[0.0], matrix(&[1.0, 1.0, 1.0, 1.0]), Decomposition::Pca).unwrap();
    let (mut t, mut density) = ([0.0; 2], [0.0]);
    line.transform(&[0.7, 0.2], &mut t).unwrap();
    assert!((t[0] - t[1]).abs() < 1e-7);
    line.density(&[0.0, 0.0], &mut density).unwrap();
    assert_close(&density, &[1.0 / (4.0 * std::f64::consts::PI).sqrt()], Tol::rel(1e-12));

    let change = |set: &dyn Fn(&mut BrownianConfig)| {
        let mut config = BrownianConfig::default();
        config.initial = 1.0;
        set(&mut config);
        (BrownianMotion::new(2, &config).map(|_| ()), GeometricBrownianMotion::new(2, &config).map(|_| ()))
    };
    for (motion, geometric) in [
        change(&|c| c.t_final = 0.0),
        change(&|c| c.t_final = f64::INFINITY),
        change(&|c| c.diffusion = 0.0),
        change(&|c| c.drift = f64::NAN),
        change(&|c| c.monitoring_times = Some(vec![0.5, 0.5])),
        change(&|c| c.monitoring_times = Some(vec![0.0, 0.5])),
        change(&|c| c.monitoring_times = Some(vec![0.5, 1.5])),
    ] {
        argument(motion);
        argument(geometric);
    }
    shape(change(&|c| c.monitoring_times = Some(vec![0.5])).0);
    argument(change(&|c| c.initial = 0.0).1);
    empty(BrownianMotion::new(0, &BrownianConfig::default()));

    let identity = [1.0, 0.0, 0.0, 1.0];
    empty(StudentT::new(&[], &[], 3.0));
    argument(StudentT::new(&[0.0; 2], &identity, 0.0));
    singular(StudentT::new(&[0.0; 2], &[1.0, 2.0, 2.0, 1.0], 3.0));
    shape(StudentT::new(&[0.0; 2], &[1.0; 3], 3.0));

    argument(Copula::gaussian(2, &[1.0, 0.5, 0.4, 1.0]));
    argument(Copula::gaussian(2, &[2.0, 0.5, 0.5, 1.0]));
    singular(Copula::gaussian(2, &[1.0, 1.0, 1.0, 1.0]));
    shape(Copula::gaussian(3, &identity));
    argument(Copula::student(2, &identity, -1.0));
    argument(Copula::clayton(2, 0.0));
    argument(Copula::gumbel(2, 0.9));
    argument(Copula::frank(2, 0.0));
    argument(Copula::frank(3, -1.0));
    empty(Copula::clayton(0, 1.0));
    shape(CopulaMeasure::new(Copula::clayton(2, 1.0).unwrap(), vec!["norm".parse().unwrap()]));

    empty(Marginals::new(Vec::new()));
    for text in ["norm(0, 0)", "beta(0, 1)", "triangular(1)", "binomial(2.5, 0.5)", "poisson(-1)", "t(inf)"] {
        argument(text.parse::<Distribution>());
    }
    for text in
        ["norm(0", "unknown(1)", "gamma", "norm(a=1)", "norm(1,2,3)", "norm(x)", "truncnorm(0,1,2,1)", ""]
    {
        argument(text.parse::<Distribution>());
    }
    argument(Marginals::new(vec![Distribution::Exponential { rate: f64::NAN }]));
    empty(ProductMeasure::new(Vec::new()));
    argument(Lebesgue::on(vec![(1.0, 1.0)]));
    empty(Lebesgue::real(0));
    let volume = Lebesgue::real(1).unwrap();
    assert!(matches!(volume.transform(&[0.5], &mut [0.0]), Err(Error::Unsupported { .. })));

    let mut config = MaternConfig::default();
    empty(matern_gp(&[], 1, &config));
    shape(matern_gp(&[1.0; 3], 2, &config));
    config.nu = 0.0;
    argument(matern_gp(&[1.0, 2.0], 1, &config));

    let measure = Gaussian::iid(2, 0.0, 1.0).unwrap();
    shape(measure.transform(&[0.5; 3], &mut [0.0; 3]));
    shape(measure.transform(&[0.5; 4], &mut [0.0; 2]));
    shape(measure.density(&[0.5; 3], &mut [0.0]));
    shape(measure.density(&[0.5; 4], &mut [0.0]));
    let mixed = Marginals::iid(1, "zero_inflated_exp".parse().unwrap()).unwrap();
    assert!(matches!(mixed.density(&[0.5], &mut [0.0]), Err(Error::Unsupported { .. })));
    let counts = CopulaMeasure::new(Copula::clayton(2, 1.0).unwrap(), vec!["poisson(2)".parse().unwrap(); 2]);
    assert!(matches!(counts.unwrap().density(&[1.0; 2], &mut [0.0]), Err(Error::Unsupported { .. })));
}

#[test]
fn matern_correlations_agree_between_closed_forms_and_bessel_functions() {
    for r in [0.01, 0.3, 1.0, 2.5, 8.0] {
        for nu in [0.5, 1.5, 2.5] {
            let close = matern_correlation(nu * (1.0 + 1e-12), r);
            assert!((close - matern_correlation(nu, r)).abs() < 1e-10);
        }
        assert!((matern_correlation(500.0, r) - matern_correlation(f64::INFINITY, r)).abs() < 1e-2);
    }
}

/// The points of a lattice as a sequence.
struct Driver(usize);

impl Sequence for Driver {
    fn dim(&self) -> usize {
        self.0
    }
    fn replications(&self) -> usize {
        1
    }
    fn limit(&self) -> u128 {
        1 << 14
    }
    fn family(&self) -> Family {
        Family::Kronecker
    }
    fn order(&self) -> Order {
        Order::Natural
    }
    fn randomize(&self) -> Randomize {
        Randomize::None
    }
    fn fingerprint(&self) -> String {
        "driver".into()
    }
    fn fill(&mut self, rows: std::ops::Range<u64>, out: &mut [f64]) -> Result<(), Error> {
        let all = lattice(self.0, rows.end as usize);
        out.copy_from_slice(&all[rows.start as usize * self.0..]);
        Ok(())
    }
    fn spawn(&mut self, _: &[usize]) -> Result<Vec<Box<dyn Sequence>>, Error> {
        Err(Error::unsupported("spawn", "not here"))
    }
}

#[test]
fn accepted_points_follow_the_density() {
    let mut config = RejectionConfig::default();
    config.bound = 2.0;
    let cube =
        || AcceptanceRejection::new(Driver(2), Uniform::unit(1).unwrap(), |x: &[f64]| 2.0 * x[0], &config);
    let all = cube().unwrap().next_points(1000).unwrap();
    assert!(!all.short && all.points.len() == 1000);
    let mean = all.points.iter().sum::<f64>() / 1000.0;
    assert!((mean - 2.0 / 3.0).abs() < 0.01, "{mean}");
    assert!(all.points.iter().zip(&all.weights).all(|(x, w)| *w == 2.0 * x));
    // In pieces, and again from the start.
    let mut sampler = cube().unwrap();
    let pieces: Vec<f64> =
        [10, 300, 1, 689].into_iter().flat_map(|count| sampler.next_points(count).unwrap().points).collect();
    assert_eq!(pieces, all.points);
    sampler.restart();
    assert_eq!(sampler.next_points(5).unwrap().points, all.points[..5]);

    // On the line: N(0, 1) through N(0, 4), whose density bounds it up to the factor 2.
    let normal = |t: &[f64]| kc_qmc::special::normal_pdf(t[0]);
    let wide = Gaussian::iid(1, 0.0, 4.0).unwrap();
    let mut line = AcceptanceRejection::new(Driver(2), wide, normal, &config).unwrap();
    let points = line.next_points(2000).unwrap().points;
    let variance = points.iter().map(|x| x * x).sum::<f64>() / 2000.0;
    assert!((variance - 1.0).abs() < 0.03, "{variance}");
}

#[test]
fn acceptance_rejection_refuses_and_gives_up() {
    let mut config = RejectionConfig::default();
    config.bound = 2.0;
    let unit = || Uniform::unit(1).unwrap();
    let new =
        |config: &RejectionConfig, driver| AcceptanceRejection::new(driver, unit(), |x: &[f64]| x[0], config);
    assert!(matches!(new(&config, Driver(3)), Err(Error::Shape { .. })));
    let mut bad = config.clone();
    bad.bound = 0.0;
    assert!(matches!(new(&bad, Driver(2)), Err(Error::Argument { .. })));
    // More than the driver has.
    assert!(matches!(new(&config, Driver(2)).unwrap().next_points(1 << 14), Err(Error::TooLarge { .. })));
    // A density above its bound, or not a number.
    let mut above = AcceptanceRejection::new(Driver(2), unit(), |_: &[f64]| 3.0, &config).unwrap();
    assert!(matches!(above.next_points(4), Err(Error::Argument { .. })));
    let mut nan = AcceptanceRejection::new(Driver(2), unit(), |_: &[f64]| f64::NAN, &config).unwrap();
    assert!(matches!(nan.next_points(4), Err(Error::NotFinite { .. })));
    // Nothing is accepted: short, not endless.
    let mut none = AcceptanceRejection::new(Driver(2), unit(), |_: &[f64]| 0.0, &config).unwrap();
    let got = none.next_points(4).unwrap();
    assert!(got.short && got.points.is_empty());
}
