//! Saved runs go on as if they had never stopped; values may come from outside.

use kc_core::Error;
use kc_qmc::cubature::{
    BayesConfig, CltConfig, CltVecConfig, ControlVariates, Cubature, Failure, FailureConfig,
    GuaranteedConfig, MeanGuaranteedConfig, ReplicatedConfig,
};
use kc_qmc::{Iid, IidConfig, Integrand, Sequence};

use super::{Counted, lattice, net};

fn iid(seed: u64) -> Iid {
    Iid::new(IidConfig::new(2, seed)).unwrap()
}

/// Runs to the loose tolerance, saves, resumes at the tight one, and compares with a fresh run bit for bit.
fn check(loose: &dyn Cubature, tight: &dyn Cubature, sequence: &dyn Fn() -> Box<dyn Sequence>) {
    let (first, fresh, rest) = (Counted::default(), Counted::default(), Counted::default());
    let mut sequences = [sequence(), sequence(), sequence()];
    let [a, b, c] = &mut sequences;
    let mut run = loose.start(&mut **a, &first).unwrap();
    run.finish().unwrap();
    let state = run.save().unwrap();
    let want = tight.integrate(&mut **b, &fresh).unwrap();
    let mut run = tight.start(&mut **c, &rest).unwrap();
    run.resume(&state).unwrap();
    let got = run.finish().unwrap();
    assert_eq!(got, want);
    for k in 0..3 {
        assert_eq!(first.asked()[k] + rest.asked()[k], fresh.asked()[k], "output {k}");
    }
    assert!(rest.asked()[2] > 0);
    // A looser tolerance asks for nothing more.
    let looser = Counted::default();
    let mut again = sequence();
    let mut run = loose.start(&mut *again, &looser).unwrap();
    run.resume(&state).unwrap();
    run.finish().unwrap();
    assert_eq!(looser.asked(), [0; 3]);
}

macro_rules! pair {
    ($type:ident, $loose:expr, $tight:expr) => {{
        let (mut loose, mut tight) = ($type::default(), $type::default());
        (loose.abs_tol, tight.abs_tol) = ($loose, $tight);
        (loose, tight)
    }};
}

#[test]
fn a_resumed_run_is_a_fresh_run() {
    let (loose, tight) = pair!(GuaranteedConfig, 1e-2, 1e-4);
    check(&loose, &tight, &|| Box::new(net(2, 1)));
    check(&loose, &tight, &|| Box::new(lattice(2)));
    let (loose, tight) = pair!(ReplicatedConfig, 1e-2, 1e-3);
    check(&loose, &tight, &|| Box::new(net(2, 15)));
    let (loose, tight) = pair!(CltVecConfig, 0.5, 0.05);
    check(&loose, &tight, &|| Box::new(iid(5)));
    let (loose, tight) = pair!(BayesConfig, 0.5, 1e-2);
    check(&loose, &tight, &|| Box::new(net(2, 1)));
}

#[test]
fn control_variates_and_the_cone_are_resumed_too() {
    let one = kc_qmc::integrand::from_fn(1, |u: &[f64]| u[0]);
    let f = kc_qmc::integrand::from_fn(1, |u: &[f64]| (9.0 * u[0]).sin().abs());
    struct Named<'a>(&'a dyn Integrand, &'static str);
    impl Integrand for Named<'_> {
        fn dim(&self) -> usize {
            self.0.dim()
        }
        fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> kc_core::Result<()> {
            self.0.evaluate(u, active, out)
        }
        fn fingerprint(&self) -> Option<String> {
            Some(self.1.to_owned())
        }
    }
    let (one, f) = (Named(&one, "one"), Named(&f, "f"));
    for refit in [false, true] {
        let mut variates = ControlVariates::new(vec![&one], vec![0.5]);
        variates.refit = refit;
        let (mut loose, mut tight) = pair!(GuaranteedConfig, 1e-2, 1e-5);
        (loose.check_cone, tight.check_cone) = (true, true);
        let (mut a, mut b, mut c) = (net(1, 1), net(1, 1), net(1, 1));
        let mut run = loose.start_controlled(&mut a, &f, &variates).unwrap();
        run.finish().unwrap();
        let state = run.save().unwrap();
        let want = tight.start_controlled(&mut b, &f, &variates).unwrap().finish().unwrap();
        let mut run = tight.start_controlled(&mut c, &f, &variates).unwrap();
        run.resume(&state).unwrap();
        assert_eq!(run.finish().unwrap(), want);
    }
}

#[test]
fn what_a_state_belongs_to_is_checked() {
    let f = Counted::default();
    let config = GuaranteedConfig::default();
    let mut a = net(2, 1);
    let mut run = config.start(&mut a, &f).unwrap();
    run.finish().unwrap();
    let state = run.save().unwrap();
    let field = |cubature: &dyn Cubature, sequence: &mut dyn Sequence, f: &dyn Integrand, state: &[u8]| {
        match cubature.start(sequence, f).unwrap().resume(state) {
            Err(Error::Argument { arg, .. }) => arg.into_owned(),
            other => panic!("{other:?}"),
        }
    };
    let mut other = GuaranteedConfig::default();
    other.n_init = 1 << 9;
    assert_eq!(field(&other, &mut net(2, 1), &f, &state), "resume: settings");
    assert_eq!(field(&config, &mut lattice(2), &f, &state), "resume: algorithm");
    assert_eq!(field(&BayesConfig::default(), &mut net(2, 1), &f, &state), "resume: algorithm");
    let keister = kc_qmc::integrand::Keister::on_cube(2).unwrap();
    assert_eq!(field(&config, &mut net(2, 1), &keister, &state), "resume: integrand");
    let mut seed = kc_qmc::DigitalNet::new(kc_qmc::DigitalNetConfig::new(2, 12u64)).unwrap();
    assert_eq!(field(&config, &mut seed, &f, &state), "resume: sequence");
    // Truncated and damaged files.
    for end in (0..state.len()).step_by(997).chain([state.len() - 1]) {
        let mut sequence = net(2, 1);
        let refused = config.start(&mut sequence, &f).unwrap().resume(&state[..end]);
        assert!(matches!(refused, Err(Error::Parse { .. })));
    }
    // A function that cannot be told from others.
    let closure = kc_qmc::integrand::from_fn(2, |u: &[f64]| u[0]);
    let mut sequence = net(2, 1);
    assert!(matches!(config.start(&mut sequence, &closure).unwrap().save(), Err(Error::Unsupported { .. })));
}

/// Asks and tells, through a saved state at each step, and compares with a run that goes through.
fn dialogue(cubature: &dyn Cubature, f: &dyn Integrand, sequence: &dyn Fn() -> Box<dyn Sequence>) {
    let want = cubature.integrate(&mut *sequence(), f).unwrap();
    let mut state: Option<Vec<u8>> = None;
    loop {
        let mut sequence = sequence();
        let mut run = cubature.start(&mut *sequence, f).unwrap();
        if let Some(state) = &state {
            run.restore(state).unwrap();
        }
        let Some(batch) = run.ask().unwrap() else {
            let got = run.estimate();
            assert_eq!(format!("{got:?}"), format!("{want:?}"));
            return;
        };
        assert_eq!(run.ask().unwrap().unwrap().points, batch.points);
        let rows = batch.points.shape()[0];
        let mut values = vec![f64::NAN; rows * batch.active.len()];
        f.evaluate(batch.points.as_slice(), &batch.active, &mut values).unwrap();
        run.tell(&values).unwrap();
        state = Some(run.save().unwrap());
    }
}

#[test]
fn telling_is_running() {
    let f = Counted::default();
    let scalar = kc_qmc::integrand::Keister::on_cube(2).unwrap();
    let (_, config) = pair!(GuaranteedConfig, 1.0, 1e-4);
    dialogue(&config, &f, &|| Box::new(net(2, 1)));
    dialogue(&config, &f, &|| Box::new(lattice(2)));
    let (_, config) = pair!(ReplicatedConfig, 1.0, 2e-3);
    dialogue(&config, &f, &|| Box::new(net(2, 15)));
    let (_, config) = pair!(CltVecConfig, 1.0, 0.1);
    dialogue(&config, &f, &|| Box::new(iid(5)));
    let (_, config) = pair!(BayesConfig, 1.0, 2e-2);
    dialogue(&config, &f, &|| Box::new(lattice(2)));
    let (_, config) = pair!(CltConfig, 1.0, 2e-2);
    dialogue(&config, &scalar, &|| Box::new(iid(5)));
    let (_, mut config) = pair!(MeanGuaranteedConfig, 1.0, 5e-2);
    dialogue(&config, &scalar, &|| Box::new(iid(5)));
    config.rel_tol = 0.05;
    dialogue(&config, &scalar, &|| Box::new(iid(5)));
    let mut config = FailureConfig::default();
    (config.n_approx, config.n_init, config.threshold) = (1 << 8, 16, 2.0);
    (config.failure, config.n_limit, config.n_batch) = (Failure::Below, 30, 5);
    dialogue(&config, &scalar, &|| Box::new(net(2, 1)));
}

#[test]
fn samples_of_fixed_size_are_not_resumed() {
    let f = kc_qmc::integrand::Keister::on_cube(2).unwrap();
    let state = {
        let mut sequence = iid(1);
        CltConfig::default().start(&mut sequence, &f).unwrap().save().unwrap()
    };
    for cubature in [&CltConfig::default() as &dyn Cubature, &MeanGuaranteedConfig::default()] {
        let mut sequence = iid(1);
        let refused = cubature.start(&mut sequence, &f).unwrap().resume(&state);
        assert!(matches!(refused, Err(Error::Unsupported { .. })));
    }
}

#[test]
fn wrong_values_leave_the_run_as_it_was() {
    let f = Counted::default();
    let mut sequence = net(2, 1);
    let mut run = GuaranteedConfig::default().start(&mut sequence, &f).unwrap();
    assert!(matches!(run.tell(&[1.0; 10]), Err(Error::Shape { .. })));
    let mut values = vec![1.0; 3 * 1024];
    values[1024 + 17] = f64::INFINITY;
    assert_eq!(run.tell(&values), Err(Error::not_finite("values", &[1, 17], f64::INFINITY)));
    values[1024 + 17] = 1.0;
    run.tell(&values).unwrap();
    assert_eq!(run.ask().unwrap().map(|batch| batch.active), None);
    assert!(matches!(run.tell(&[]), Err(Error::Argument { .. })));
    assert!(run.estimate().solution.iter().all(|mean| (mean - 1.0).abs() < 1e-14));
}
