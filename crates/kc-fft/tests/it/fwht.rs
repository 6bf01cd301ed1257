//! The Walsh-Hadamard transform against its definition, golden data, and itself.

use kc_core::{Complex, Error, Float, Isa, KcRng};
use kc_fft::fwht::{fwht_with, reference};
use kc_fft::{Sample, fwht, fwht_double};
use kc_testing::{each_isa, golden_tensor, same_on_any_pool};
use proptest::prelude::*;

fn noise<T: Float>(len: usize, seed: u64) -> Vec<T> {
    let mut rng = KcRng::new(seed, 0);
    (0..len).map(|_| T::from_f64(2.0 * rng.uniform() - 1.0)).collect()
}

#[test]
fn golden_rows() {
    let x = golden_tensor::<Complex<f64>, 2>("qmcpy/ft_in.npy");
    let want = golden_tensor::<f64, 2>("qmcpy/ft_fwht_real.npy");
    let mut got: Vec<f64> = x.as_slice().iter().map(|z| z.re).collect();
    fwht(&mut got, x.shape()[1]).unwrap();
    for (got, want) in got.iter().zip(want.as_slice()) {
        assert!((got - want).abs() <= 1e-15 * 16.0, "{got} {want}");
    }
}

/// Every length is planned otherwise: fans, eighths, leaves.
#[test]
fn every_level_gives_the_bits_of_the_reference() {
    fn check<
        T: Sample + std::ops::Add<Output = T> + std::ops::Sub<Output = T> + std::ops::Mul<Output = T>,
    >() {
        for m in 0..=17 {
            let x: Vec<T> = noise(1 << m, m);
            let mut want = x.clone();
            reference::fwht(&mut want, 1 << m).unwrap();
            each_isa(|isa| {
                let mut got = x.clone();
                fwht_with(isa, &mut got, 1 << m).unwrap();
                assert!(got == want, "2^{m} on {isa}");
            });
        }
    }
    check::<f64>();
    check::<f32>();
}

#[test]
fn threads_do_not_matter() {
    let x: Vec<f64> = noise(1 << 19, 3);
    for n in [1, 4, 1 << 10, 1 << 19] {
        same_on_any_pool(|| {
            let mut y = x.clone();
            fwht(&mut y, n).unwrap();
            y.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        });
    }
}

#[test]
fn the_definition_by_its_characters() {
    let n = 64;
    for k in [0, 1, 17, 63usize] {
        let mut x: Vec<f64> =
            (0..n).map(|i: usize| if (i & k).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }).collect();
        fwht(&mut x, n).unwrap();
        let want: Vec<f64> = (0..n).map(|i| if i == k { 8.0 } else { 0.0 }).collect();
        assert_eq!(x, want);
    }
}

#[test]
fn halves_grow_into_the_whole() {
    for m in 1..=14 {
        let n = 1 << m;
        let x: Vec<f64> = noise(n, 100 + m);
        let (mut want, mut got) = (x.clone(), x);
        fwht(&mut want, n).unwrap();
        fwht(&mut got, n / 2).unwrap();
        fwht_double(&mut got, n).unwrap();
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() < 1e-13, "2^{m}");
        }
    }
    let mut one = [3.0];
    assert!(matches!(fwht_double(&mut one, 1), Err(Error::Argument { .. })));
}

#[test]
fn wrong_lengths_are_errors_and_nothing_is_a_row() {
    let mut x = [0.0; 12];
    for n in [0, 3, 12] {
        assert!(matches!(fwht(&mut x, n), Err(Error::Argument { .. })), "{n}");
    }
    assert!(matches!(fwht(&mut x, 8), Err(Error::Shape { .. })));
    fwht(&mut x[..0], 8).unwrap();
    let mut one = [-7.5f32];
    fwht(&mut one, 1).unwrap();
    assert_eq!(one, [-7.5]);
}

#[test]
fn huge_and_non_finite_values_pass_through() {
    let mut x = vec![0.0; 32];
    x[3] = f64::INFINITY;
    fwht(&mut x, 32).unwrap();
    assert!(x.iter().all(|v| v.is_infinite()));
    let mut tiny = vec![5e-324; 16];
    fwht(&mut tiny, 16).unwrap();
    assert_eq!(tiny[0], 4.0 * 5e-324);
}

proptest! {
    #[test]
    fn twice_is_the_identity_and_length_is_kept(m in 0u32..13, rows in 1usize..4, seed in any::<u64>()) {
        let n = 1 << m;
        let x: Vec<f64> = noise(rows * n, seed);
        let mut y = x.clone();
        fwht_with(Isa::best(), &mut y, n).unwrap();
        let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>();
        for (x, y) in x.chunks(n).zip(y.chunks(n)) {
            prop_assert!((norm(x) - norm(y)).abs() <= 1e-12 * norm(x));
        }
        fwht(&mut y, n).unwrap();
        for (x, y) in x.iter().zip(&y) {
            prop_assert!((x - y).abs() < 1e-13);
        }
    }
}
