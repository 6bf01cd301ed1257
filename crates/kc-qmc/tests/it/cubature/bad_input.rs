//! Each row of bad input is an error that names it.

use kc_core::Error;
use kc_qmc::cubature::{
    BayesConfig, CltConfig, CltVecConfig, ControlVariates, Cubature, FailureConfig, GuaranteedConfig,
    MeanGuaranteedConfig, ReplicatedConfig,
};
use kc_qmc::integrand::{from_fn, vector_from_fn};
use kc_qmc::{
    DigitalNet, DigitalNetConfig, Iid, IidConfig, Integrand, Lattice, LatticeConfig, Order, Randomize,
    Sequence,
};

use super::{lattice, net};

fn iid() -> Iid {
    Iid::new(IidConfig::new(2, 1u64)).unwrap()
}

fn product() -> impl Integrand {
    from_fn(2, |u: &[f64]| u[0] * u[1])
}

/// The argument that an error names.
fn named(error: Error) -> String {
    match error {
        Error::Argument { arg, .. } | Error::Shape { arg, .. } | Error::NotFinite { arg, .. } => {
            arg.into_owned()
        }
        Error::Unsupported { what, .. } => what.into_owned(),
        other => panic!("{other}"),
    }
}

fn refused(cubature: &dyn Cubature, sequence: &mut dyn Sequence) -> String {
    named(cubature.integrate(sequence, &product()).unwrap_err())
}

macro_rules! with {
    ($type:ident, $($field:ident = $value:expr),*) => {{
        let mut config = $type::default();
        $(config.$field = $value;)*
        config
    }};
}

#[test]
fn tolerances() {
    for (absolute, relative) in [(0.0, 0.0), (-1.0, 0.0), (f64::NAN, 0.0), (0.1, -0.1), (f64::INFINITY, 0.0)]
    {
        let name = if relative < 0.0 { "rel_tol" } else { "abs_tol" };
        assert_eq!(
            refused(&with!(GuaranteedConfig, abs_tol = absolute, rel_tol = relative), &mut net(2, 1)),
            name
        );
        assert_eq!(
            refused(&with!(ReplicatedConfig, abs_tol = absolute, rel_tol = relative), &mut net(2, 4)),
            name
        );
        assert_eq!(
            refused(&with!(BayesConfig, abs_tol = absolute, rel_tol = relative), &mut net(2, 1)),
            name
        );
        assert_eq!(refused(&with!(CltConfig, abs_tol = absolute, rel_tol = relative), &mut iid()), name);
        assert_eq!(refused(&with!(CltVecConfig, abs_tol = absolute, rel_tol = relative), &mut iid()), name);
        assert_eq!(
            refused(&with!(MeanGuaranteedConfig, abs_tol = absolute, rel_tol = relative), &mut iid()),
            name
        );
    }
    assert_eq!(refused(&with!(FailureConfig, abs_tol = 0.0), &mut net(2, 1)), "abs_tol");
}

#[test]
fn values_that_are_not_finite() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        // The second point of the second half is the first with u_0 beyond this.
        let f =
            from_fn(2, move |u: &[f64]| if u[0] > 0.9999 { bad } else { 0.01 * (70.0 * u[0] * u[1]).sin() });
        let config = with!(GuaranteedConfig, abs_tol = 1e-9, n_limit = 1 << 16);
        let Err(Error::NotFinite { arg, index, value }) = config.integrate(&mut net(2, 1), &f) else {
            panic!()
        };
        assert_eq!((arg.as_ref(), index[0], value.to_bits()), ("integrand", 0, bad.to_bits()));
        let mut points = net(2, 1).points(0..(index[1] as u64 + 1).next_power_of_two()).unwrap();
        let rows: Vec<&mut [f64]> = points.as_mut_slice().chunks_exact_mut(2).collect();
        assert_eq!(rows.iter().position(|u| u[0] > 0.9999), Some(index[1]));
    }
    let f = from_fn(2, |u: &[f64]| 1.0 / (u[0] - u[0]));
    let Err(Error::NotFinite { index, .. }) = ReplicatedConfig::default().integrate(&mut net(2, 4), &f)
    else {
        panic!()
    };
    assert_eq!(index, [0, 0, 0]);
}

#[test]
fn sequences_that_do_not_suit() {
    let net_with = |set: fn(&mut DigitalNetConfig)| {
        let mut config = DigitalNetConfig::new(2, 1u64);
        set(&mut config);
        DigitalNet::new(config).unwrap()
    };
    let lattice_with = |set: fn(&mut LatticeConfig)| {
        let mut config = LatticeConfig::new(2, 1u64);
        set(&mut config);
        Lattice::new(config).unwrap()
    };
    for cubature in [&GuaranteedConfig::default() as &dyn Cubature, &BayesConfig::default()] {
        assert_eq!(refused(cubature, &mut net_with(|c| c.order = Order::Gray)), "order");
        assert_eq!(refused(cubature, &mut net_with(|c| c.randomize = Randomize::None)), "randomize");
        assert_eq!(refused(cubature, &mut lattice_with(|c| c.order = Order::Linear)), "order");
        assert_eq!(refused(cubature, &mut lattice_with(|c| c.randomize = Randomize::None)), "randomize");
        assert_eq!(refused(cubature, &mut net(2, 2)), "replications");
        assert_eq!(refused(cubature, &mut iid()), "sequence");
        assert_eq!(refused(cubature, &mut net(3, 1)), "integrand");
    }
    for cubature in
        [&CltConfig::default() as &dyn Cubature, &CltVecConfig::default(), &MeanGuaranteedConfig::default()]
    {
        assert_eq!(refused(cubature, &mut net(2, 1)), "sequence");
        let mut config = IidConfig::new(2, 1u64);
        config.replications = 2;
        assert_eq!(refused(cubature, &mut Iid::new(config).unwrap()), "replications");
    }
    assert_eq!(refused(&ReplicatedConfig::default(), &mut net(2, 1)), "replications");
    assert_eq!(refused(&ReplicatedConfig::default(), &mut lattice(2)), "replications");
    let mut config = IidConfig::new(2, 1u64);
    config.replications = 4;
    assert_eq!(refused(&ReplicatedConfig::default(), &mut Iid::new(config).unwrap()), "sequence");
}

#[test]
fn settings_out_of_range() {
    for n_init in [0, 100, 128, 1 << 40] {
        assert_eq!(refused(&with!(GuaranteedConfig, n_init = n_init), &mut net(2, 1)), "n_init");
    }
    assert_eq!(refused(&with!(GuaranteedConfig, n_limit = 100), &mut net(2, 1)), "n_limit");
    assert_eq!(refused(&with!(ReplicatedConfig, n_init = 100), &mut net(2, 4)), "n_init");
    assert_eq!(refused(&with!(ReplicatedConfig, n_limit = 1000), &mut net(2, 4)), "n_limit");
    assert_eq!(refused(&with!(CltConfig, n_limit = 2000), &mut iid()), "n_limit");
    assert_eq!(refused(&with!(CltConfig, n_init = 1), &mut iid()), "n_init");
    assert_eq!(refused(&with!(MeanGuaranteedConfig, n_init = 3), &mut iid()), "n_init");
    for alpha in [0.0, 1.0, -1.0, f64::NAN] {
        assert_eq!(refused(&with!(ReplicatedConfig, alpha = alpha), &mut net(2, 4)), "alpha");
        assert_eq!(refused(&with!(BayesConfig, alpha = alpha), &mut net(2, 1)), "alpha");
        assert_eq!(refused(&with!(CltConfig, alpha = alpha), &mut iid()), "alpha");
        assert_eq!(refused(&with!(FailureConfig, alpha = alpha), &mut net(2, 1)), "alpha");
    }
    for inflate in [0.5, f64::NAN, f64::INFINITY] {
        assert_eq!(refused(&with!(ReplicatedConfig, inflate = inflate), &mut net(2, 4)), "inflate");
        assert_eq!(refused(&with!(MeanGuaranteedConfig, inflate = inflate), &mut iid()), "inflate");
    }
    for order in [0, 3] {
        assert_eq!(refused(&with!(BayesConfig, order = order), &mut lattice(2)), "order");
    }
    assert_eq!(refused(&with!(FailureConfig, n_limit = 10), &mut net(2, 1)), "n_limit");
    assert_eq!(refused(&with!(FailureConfig, n_approx = 1000), &mut net(2, 1)), "n_approx");
    assert_eq!(refused(&with!(FailureConfig, threshold = f64::NAN), &mut net(2, 1)), "threshold");
}

#[test]
fn control_variates_of_other_shapes() {
    let (f, other) = (product(), from_fn(3, |u: &[f64]| u[0]));
    let refused = |cubature: &dyn Cubature, sequence: &mut dyn Sequence, variates: &ControlVariates<'_>| {
        named(cubature.start_controlled(sequence, &f, variates).map(|_| ()).unwrap_err())
    };
    let config = GuaranteedConfig::default();
    let variates = ControlVariates::new(vec![&other], vec![0.5]);
    assert_eq!(refused(&config, &mut net(2, 1), &variates), "control variate 0");
    for means in [vec![], vec![0.5, 0.5]] {
        let variates = ControlVariates::new(vec![&f], means);
        assert_eq!(refused(&config, &mut net(2, 1), &variates), "control variate means");
    }
    let variates = ControlVariates::new(vec![&f], vec![f64::NAN]);
    assert_eq!(refused(&config, &mut net(2, 1), &variates), "control variate means");
    let variates = ControlVariates::new(vec![&f], vec![0.25]);
    assert_eq!(refused(&ReplicatedConfig::default(), &mut net(2, 4), &variates), "control variates");
    assert_eq!(refused(&config, &mut lattice(2), &variates), "control variates on lattices");
}

#[test]
fn vector_integrands_where_one_output_is_taken() {
    let f = vector_from_fn(2, 2, |_: &[f64], out: &mut [f64]| out.fill(1.0));
    for cubature in [&CltConfig::default() as &dyn Cubature, &MeanGuaranteedConfig::default()] {
        assert_eq!(named(cubature.integrate(&mut iid(), &f).unwrap_err()), "vector integrands");
    }
    assert_eq!(
        named(FailureConfig::default().integrate(&mut net(2, 1), &f).unwrap_err()),
        "vector integrands"
    );
}
