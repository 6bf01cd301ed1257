//! The common rule, through whole runs.

use std::ops::ControlFlow;

use kc_core::{Error, Result};
use kc_qmc::cubature::{
    BayesConfig, CltVecConfig, CredibleBound, Cubature, ErrorRule, Failure, FailureConfig, GuaranteedConfig,
    ReplicatedConfig,
};
use kc_qmc::integrand::{from_fn, vector_from_fn};
use kc_qmc::{Iid, IidConfig, Integrand};

use super::{Counted, lattice, net};

#[test]
fn finished_outputs_are_not_evaluated_again() {
    let f = Counted::default();
    let mut config = GuaranteedConfig::default();
    config.abs_tol = 1e-3;
    let got = config.integrate(&mut net(2, 1), &f).unwrap();
    assert_eq!(got.n, f.asked());
    assert!(got.n[0] < got.n[2] && got.n_total == got.n[2], "{:?}", got.n);
    for k in 0..3 {
        assert!(got.high[k] - got.low[k] <= 2e-3);
    }
}

/// The ratio of two integrals, and the first of them: both individual outputs stay active as long as the ratio does.
struct Ratio;

impl Integrand for Ratio {
    fn dim(&self) -> usize {
        2
    }
    fn outputs(&self) -> usize {
        2
    }
    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        assert_eq!(active, [true, true]);
        let rows = u.len() / 2;
        for (i, u) in u.chunks_exact(2).enumerate() {
            out[i] = (3.0 * u[0]).sin();
            out[rows + i] = 1.0 + (u[0] * u[1]).exp();
        }
        Ok(())
    }
    fn bound(&self, low: &[f64], high: &[f64], combined_low: &mut [f64], combined_high: &mut [f64]) {
        (combined_low[0], combined_high[0]) = (low[0] / high[1], high[0] / low[1]);
        (combined_low[1], combined_high[1]) = (low[0], high[0]);
    }
    fn needs(&self, unfinished: &[bool], individual: &mut [bool]) {
        individual[0] = unfinished[0] || unfinished[1];
        individual[1] = unfinished[0];
    }
}

#[test]
fn combined_outputs_keep_what_they_need_active() {
    for (config, exact) in [(1e-3, 0.6633308), (1e-5, 0.6633308)] {
        let mut guaranteed = GuaranteedConfig::default();
        guaranteed.abs_tol = config;
        let got = guaranteed.integrate(&mut net(2, 1), &Ratio).unwrap();
        assert!((got.solution[1] - exact).abs() < config.max(1e-7), "{}", got.solution[1]);
        let by_t = {
            let mut replicated = ReplicatedConfig::default();
            replicated.abs_tol = config;
            replicated.integrate(&mut net(2, 15), &Ratio).unwrap()
        };
        assert!((got.solution[0] - by_t.solution[0]).abs() < 2.0 * config);
    }
}

#[test]
fn the_limit_is_reported_not_hidden() {
    let f = from_fn(2, |u: &[f64]| (50.0 * u[0] * u[1]).sin().abs());
    let mut config = GuaranteedConfig::default();
    (config.abs_tol, config.n_limit) = (1e-12, 5000);
    let got = config.integrate(&mut net(2, 1), &f).unwrap();
    assert!(got.exhausted && got.n_total == 4096 && !got.clipped);
    // A lattice of Kuo's table ends at 2^20.
    let mut config = GuaranteedConfig::default();
    config.abs_tol = 1e-2;
    let got = config.integrate(&mut lattice(2), &f).unwrap();
    assert!(got.clipped && got.n_limit == 1 << 20 && !got.exhausted);
}

#[test]
fn a_spike_between_the_points_is_integrated_to_nothing() {
    let spike = from_fn(2, |u: &[f64]| (-1e6 * ((u[0] - 0.37).powi(2) + (u[1] - 0.37).powi(2))).exp());
    let got = GuaranteedConfig::default().integrate(&mut net(2, 1), &spike).unwrap();
    assert!(got.solution[0].abs() < 1e-6 && got.n_total == 1024);
}

#[test]
fn a_sign_change_between_the_bounds_needs_the_absolute_tolerance() {
    let odd = from_fn(1, |u: &[f64]| u[0] - 0.5);
    let mut config = GuaranteedConfig::default();
    (config.abs_tol, config.rel_tol, config.n_limit) = (0.0, 0.1, 1 << 14);
    assert!(config.integrate(&mut net(1, 1), &odd).unwrap().exhausted);
    config.abs_tol = 1e-3;
    let got = config.integrate(&mut net(1, 1), &odd).unwrap();
    assert!(!got.exhausted && got.low[0] <= 0.0 && got.high[0] >= 0.0);
    config.error = ErrorRule::Both;
    assert!(config.integrate(&mut net(1, 1), &odd).unwrap().exhausted);
}

#[test]
fn bayes_keeps_signs_and_outputs_apart() {
    let f = vector_from_fn(2, 3, |u: &[f64], out: &mut [f64]| {
        let e = (u[0] + u[1]).exp();
        out.copy_from_slice(&[e, -e, -2.0]);
    });
    let exact = (1f64.exp() - 1.0).powi(2);
    for bound in [CredibleBound::Mle, CredibleBound::Gcv, CredibleBound::Full] {
        let mut config = BayesConfig::default();
        (config.abs_tol, config.bound) = (1e-2, bound);
        for on_lattice in [false, true] {
            let got = if on_lattice {
                config.integrate(&mut lattice(2), &f).unwrap()
            } else {
                config.integrate(&mut net(2, 1), &f).unwrap()
            };
            for (got, want) in got.solution.iter().zip([exact, -exact, -2.0]) {
                assert!((got - want).abs() < 1e-2, "{got} {want} {bound:?}");
            }
            assert_eq!(got.n[0], got.n[1]);
        }
    }
}

#[test]
fn the_cone_is_left_by_values_that_change_their_mind() {
    let smooth = from_fn(1, |u: &[f64]| 1e-3 * u[0].exp());
    let mut config = GuaranteedConfig::default();
    (config.abs_tol, config.n_limit, config.check_cone) = (1e-15, 1 << 13, true);
    for hidden in [false, true] {
        let mut sequence = net(1, 1);
        let mut run = config.start(&mut sequence, &smooth).unwrap();
        let mut first = 0u64;
        while let Some(batch) = run.ask().unwrap() {
            // A Walsh function of the index that the first 2048 points do not show.
            let wave = |i: u64| if (i & 40).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
            let value =
                |(i, u): (u64, &f64)| 1e-3 * u.exp() + if hidden && i >= 2048 { wave(i) } else { 0.0 };
            let values: Vec<f64> = (first..).zip(batch.points.as_slice()).map(value).collect();
            first += values.len() as u64;
            run.tell(&values).unwrap();
        }
        assert!(first >= 4096);
        assert_eq!(run.estimate().cone_violation, Some(vec![hidden]));
    }
    config.check_cone = false;
    assert_eq!(config.integrate(&mut net(1, 1), &smooth).unwrap().cone_violation, None);
}

#[test]
fn results_have_the_same_bits_on_any_pool() {
    kc_testing::same_on_any_pool(|| {
        let f = Counted::default();
        let mut bits = Vec::new();
        let mut guaranteed = GuaranteedConfig::default();
        guaranteed.abs_tol = 1e-4;
        let mut replicated = ReplicatedConfig::default();
        replicated.abs_tol = 1e-3;
        let mut clt = CltVecConfig::default();
        clt.abs_tol = 0.05;
        for got in [
            guaranteed.integrate(&mut net(2, 1), &f).unwrap(),
            guaranteed.integrate(&mut lattice(2), &f).unwrap(),
            replicated.integrate(&mut net(2, 8), &f).unwrap(),
            clt.integrate(&mut Iid::new(IidConfig::new(2, 3u64)).unwrap(), &f).unwrap(),
            BayesConfig::default().integrate(&mut net(2, 1), &f).unwrap(),
        ] {
            bits.extend(got.low.iter().chain(&got.high).map(|v| v.to_bits()));
        }
        bits
    });
}

#[test]
fn an_observer_sees_each_step_and_may_stop() {
    let f = Counted::default();
    let mut config = GuaranteedConfig::default();
    config.abs_tol = 1e-4;
    let mut net = net(2, 1);
    let mut run = config.start(&mut net, &f).unwrap();
    let mut steps = 0;
    let stopped = run.finish_with(|known| {
        steps += 1;
        assert!(known.low[0] <= known.high[0]);
        if steps == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((stopped, steps), (Err(Error::Cancelled), 2));
    assert!(run.finish().unwrap().n_total > 2048);
}

#[test]
fn a_probability_of_failure_is_inside_of_its_interval() {
    // A quarter of a disc of radius 0.8.
    let f = from_fn(2, |u: &[f64]| (u[0] * u[0] + u[1] * u[1]).sqrt());
    let exact = std::f64::consts::PI * 0.16;
    let mut config = FailureConfig::default();
    (config.threshold, config.failure, config.n_approx, config.n_init) = (0.8, Failure::Below, 1 << 12, 16);
    config.abs_tol = 0.02;
    let got = config.integrate(&mut net(2, 1), &f).unwrap();
    assert!(!got.exhausted && got.n_total < 200, "{got:?}");
    assert!(got.low[0] - 1e-3 <= exact && exact <= got.high[0] + 1e-3, "{got:?}");
    (config.abs_tol, config.n_limit) = (1e-9, 30);
    let got = config.integrate(&mut net(2, 1), &f).unwrap();
    assert!(got.exhausted && got.n_total == 30);
}
