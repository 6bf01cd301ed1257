//! Integrands: exact integrals by lattice sums, the adapters, sensitivity indices.

use kc_qmc::Integrand;
use kc_qmc::integrand::{Coefficients, Genz, GenzFamily, Keister};

/// The mean over a Kronecker lattice under the tent transform: good to about 1e-4 for smooth functions.
fn mean(f: &dyn Integrand, n: usize) -> Vec<f64> {
    let dim = f.dim();
    // Powers of the generalised golden ratio.
    let phi = (0..64).fold(2.0f64, |x, _| (1.0 + x).powf(1.0 / (dim as f64 + 1.0)));
    let u: Vec<f64> = (0..n * dim)
        .map(|at| {
            let x = (0.5 + (at / dim + 1) as f64 * phi.powi(-(at as i32 % dim as i32 + 1))).fract();
            1.0 - 2.0 * (x - 0.5).abs()
        })
        .collect();
    let mut y = vec![0.0; f.outputs() * n];
    f.evaluate(&u, &vec![true; f.outputs()], &mut y).unwrap();
    y.chunks_exact(n).map(|y| y.iter().sum::<f64>() / n as f64).collect()
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
