//! Periodising transforms against golden points and weights.

use kc_core::Error;
use kc_qmc::Integrand;
use kc_qmc::integrand::{from_fn, vector_from_fn};
use kc_qmc::periodize::{Periodization, Periodized};
use kc_testing::{Tol, assert_close, golden_json};

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn points_and_weights_are_the_golden_ones() {
    let golden = golden_json("qmcpy/periodization.json");
    let input = numbers(&golden["in"]);
    let cases = golden["out"].as_object().unwrap();
    assert_eq!(cases.len(), Periodization::ALL.len());
    for (name, want) in cases {
        let transform: Periodization = name.parse().unwrap();
        let (mut x, mut weights) = (vec![0.0; input.len()], vec![0.0; input.len()]);
        transform.transform(1, &input, &mut x, &mut weights).unwrap();
        assert_close(&x, &numbers(&want["x"]), Tol::rel(1e-12));
        assert_close(&weights, &numbers(&want["w"]), Tol::rel(1e-12));
    }
}

#[test]
fn the_weight_is_the_derivative() {
    for transform in Periodization::ALL.into_iter().filter(|&t| t != Periodization::Baker) {
        for i in 1..40 {
            let (x, h) = (f64::from(i) / 40.0, 1e-5);
            let slope = (transform.apply(x + h).0 - transform.apply(x - h).0) / (2.0 * h);
            let weight = transform.apply(x).1;
            assert!((slope - weight).abs() < 1e-8, "{transform:?} at {x}: {slope} and {weight}");
        }
    }
}

#[test]
fn integrals_stay_what_they_are() {
    let n = 1 << 12;
    let u: Vec<f64> = (0..n).map(|i| (f64::from(i) + 0.5) / f64::from(n)).collect();
    for transform in Periodization::ALL {
        let f = Periodized::new(from_fn(1, |x: &[f64]| x[0].exp()), transform);
        let mut y = vec![0.0; u.len()];
        f.evaluate(&u, &[true], &mut y).unwrap();
        let mean = y.iter().sum::<f64>() / f64::from(n);
        assert!((mean - 1f64.exp_m1()).abs() < 1e-7, "{transform:?}: {mean}");
    }
}

#[test]
fn each_active_output_gets_the_product_of_weights() {
    let f = vector_from_fn(2, 2, |x: &[f64], out: &mut [f64]| {
        out[0] = 1.0;
        out[1] = x[0] + x[1];
    });
    let f = Periodized::new(f, Periodization::C0);
    assert_eq!((f.dim(), f.outputs(), f.combined()), (2, 2, 2));
    let mut y = [0.0; 4];
    f.evaluate(&[0.5, 0.5, 0.25, 0.5], &[true, true], &mut y).unwrap();
    assert_close(&y, &[2.25, 1.125 * 1.5, 2.25, 1.125 * 1.5 * (0.15625 + 0.5)], Tol::rel(1e-15));
}

#[test]
fn ends_stay_inside_where_the_transform_is_flat() {
    use Periodization::{C1, C1Sin, C2Sin, C3Sin};
    for transform in [C1, C1Sin, C2Sin, C3Sin] {
        assert_eq!(transform.apply(0.0).0, f64::EPSILON);
        assert_eq!(transform.apply(1.0).0, 1.0 - f64::EPSILON);
    }
}

#[test]
fn unknown_names_are_refused() {
    assert!(matches!("c4sin".parse::<Periodization>(), Err(Error::Argument { .. })));
}
