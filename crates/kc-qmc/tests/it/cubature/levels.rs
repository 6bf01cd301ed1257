//! Multilevel runs.

use kc_core::{Error, Result};
use kc_qmc::cubature::{
    MlmcConfig, MlmcContConfig, MlqmcConfig, MlqmcContConfig, Multilevel, MultilevelCubature,
    MultilevelOption,
};
use kc_qmc::integrand::{OptionConfig, OptionKind};
use kc_qmc::{Iid, IidConfig, Integrand, Sequence};

use super::net;

fn option() -> MultilevelOption {
    MultilevelOption::new(OptionConfig::default(), 2).unwrap()
}

fn iid() -> Iid {
    Iid::new(IidConfig::new(2, 5u64)).unwrap()
}

macro_rules! pair {
    ($type:ident) => {{
        let (mut loose, mut tight) = ($type::default(), $type::default());
        (loose.levels.rmse_tol, tight.levels.rmse_tol) = (Some(0.05), Some(0.02));
        (loose, tight)
    }};
}

#[test]
fn a_resumed_run_finds_what_a_fresh_run_finds() {
    fn check(
        loose: &dyn MultilevelCubature,
        tight: &dyn MultilevelCubature,
        sequence: &dyn Fn() -> Box<dyn Sequence>,
    ) {
        let problem = option();
        let mut sequences = [sequence(), sequence(), sequence()];
        let [a, b, c] = &mut sequences;
        let mut run = loose.start(&mut **a, &problem).unwrap();
        run.finish().unwrap();
        let state = run.save().unwrap();
        let want = tight.start(&mut **b, &problem).unwrap().finish().unwrap();
        let mut run = tight.start(&mut **c, &problem).unwrap();
        run.resume(&state).unwrap();
        let got = run.finish().unwrap();
        assert_eq!(got.n_level, want.n_level);
        assert!((got.solution[0] / want.solution[0] - 1.0).abs() < 1e-13);
    }
    let (loose, tight) = pair!(MlmcConfig);
    check(&loose, &tight, &|| Box::new(iid()));
    let (loose, tight) = pair!(MlmcContConfig);
    check(&loose, &tight, &|| Box::new(iid()));
    let (loose, tight) = pair!(MlqmcConfig);
    check(&loose, &tight, &|| Box::new(net(2, 8)));
    let (loose, tight) = pair!(MlqmcContConfig);
    check(&loose, &tight, &|| Box::new(net(2, 8)));
}

#[test]
fn asking_and_telling_is_running() {
    let problem = option();
    let (_, config) = pair!(MlqmcConfig);
    let want = config.integrate(&mut net(2, 8), &problem).unwrap();
    let mut sequence = net(2, 8);
    let mut run = config.start(&mut sequence, &problem).unwrap();
    while let Some(batch) = run.ask().unwrap() {
        assert_eq!(batch.points.shape()[1], 2 << batch.level);
        let mut values = vec![0.0; batch.points.shape()[0]];
        problem.level(batch.level).unwrap().evaluate(batch.points.as_slice(), &[true], &mut values).unwrap();
        run.tell(&values).unwrap();
    }
    assert_eq!(run.estimate(), want);
}

#[test]
fn a_european_option_has_its_price() {
    let mut config = OptionConfig::default();
    config.kind = OptionKind::European;
    let problem = MultilevelOption::new(config.clone(), 2).unwrap();
    let exact = kc_qmc::integrand::FinancialOption::new(2, &config).unwrap().exact().unwrap();
    let mut cubature = MlqmcConfig::default();
    cubature.levels.rmse_tol = Some(0.01);
    let got = cubature.integrate(&mut net(2, 8), &problem).unwrap();
    // The path's end does not depend on the steps, so that all levels but the first are 0 and have no bias to fit.
    assert!((got.solution[0] - exact).abs() < 0.05, "{} {exact}", got.solution[0]);
}

#[test]
fn limits_are_reported() {
    let problem = option();
    let mut config = MlmcConfig::default();
    (config.levels.rmse_tol, config.levels.n_limit) = (Some(1e-3), 10_000);
    let got = config.integrate(&mut iid(), &problem).unwrap();
    assert!(got.exhausted && got.n_total <= 10_000);
    let mut config = MlqmcConfig::default();
    (config.levels.rmse_tol, config.levels.n_limit) = (Some(1e-5), 20_000);
    let got = config.integrate(&mut net(2, 8), &problem).unwrap();
    assert!(got.exhausted && got.n_total <= 20_000);
}

struct TwoOutputs;

impl Multilevel for TwoOutputs {
    fn dim(&self, _level: usize) -> usize {
        2
    }
    fn cost(&self, _level: usize) -> f64 {
        1.0
    }
    fn level(&self, _level: usize) -> Result<Box<dyn Integrand>> {
        Ok(Box::new(kc_qmc::integrand::vector_from_fn(2, 2, |_: &[f64], out: &mut [f64]| out.fill(0.0))))
    }
}

#[test]
fn bad_settings_are_refused() {
    let problem = option();
    let refused = |config: &dyn MultilevelCubature, sequence: &mut dyn Sequence| {
        matches!(config.start(sequence, &problem), Err(Error::Argument { .. } | Error::Unsupported { .. }))
    };
    let change = |set: fn(&mut MlmcConfig)| {
        let mut config = MlmcConfig::default();
        set(&mut config);
        config
    };
    for set in [
        (|c| c.levels.rmse_tol = Some(0.0)) as fn(&mut MlmcConfig),
        |c| c.levels.abs_tol = -1.0,
        |c| c.levels.alpha = 1.0,
        |c| c.levels.n_init = 0,
        |c| c.levels.min = 1,
        |c| c.levels.max = 1,
        |c| c.levels.max = 99,
        |c| c.mean_rate = Some(f64::NAN),
    ] {
        assert!(refused(&change(set), &mut iid()));
    }
    assert!(refused(&MlmcConfig::default(), &mut net(2, 1)));
    assert!(refused(&MlqmcConfig::default(), &mut net(2, 3)));
    assert!(refused(&MlqmcConfig::default(), &mut iid()));
    let mut config = MlqmcConfig::default();
    config.levels.n_init = 300;
    assert!(refused(&config, &mut net(2, 8)));
    let mut config = MlqmcContConfig::default();
    config.continuation.n_tols = 0;
    assert!(refused(&config, &mut net(2, 8)));
    assert!(MultilevelOption::new(OptionConfig::default(), 3).is_err());
    let mut sequence = net(2, 8);
    let mut run = MlqmcConfig::default().start(&mut sequence, &TwoOutputs).unwrap();
    assert!(matches!(run.finish(), Err(Error::Shape { .. })));
}
