//! The bit-reversed Fourier transforms against their definitions, golden data, and each other.

use std::f64::consts::TAU;

use kc_core::{Complex, Element, Error, KcRng};
use kc_fft::bitrev::{fftbr_with, ifftbr_with, irfftbr_with, reference, rfftbr_with, root_of_unity};
use kc_fft::{Sample, fftbr, fftbr_double, ifftbr, irfftbr, rfftbr};
use kc_testing::{each_isa, golden_tensor, same_on_any_pool};
use proptest::prelude::*;

fn noise<T: Sample>(len: usize, seed: u64) -> Vec<Complex<T>> {
    let mut rng = KcRng::new(seed, 0);
    let mut next = move || T::from_f64(2.0 * rng.uniform() - 1.0);
    (0..len).map(|_| Complex::new(next(), next())).collect()
}

fn real<T: Sample>(len: usize, seed: u64) -> Vec<T> {
    noise::<T>(len, seed).into_iter().map(|z| z.re).collect()
}

/// Root mean square of the difference, relative to that of `want`.
fn error<T: Sample>(got: &[Complex<T>], want: &[Complex<f64>]) -> f64 {
    assert_eq!(got.len(), want.len());
    let wide = |z: &Complex<T>| Complex::new(z.re.to_f64(), z.im.to_f64());
    let off: f64 = got.iter().zip(want).map(|(g, w)| (wide(g) - w).norm_sqr()).sum();
    let all: f64 = want.iter().map(|w| w.norm_sqr()).sum();
    (off / all.max(f64::MIN_POSITIVE)).sqrt()
}

fn tolerance<T: Element>() -> f64 {
    if size_of::<T>() == 8 { 3e-15 } else { 4e-7 }
}

#[test]
fn golden_rows() {
    let x = golden_tensor::<Complex<f64>, 2>("qmcpy/ft_in.npy");
    let n = x.shape()[1];
    for (file, transform) in [
        ("qmcpy/ft_fftbr.npy", fftbr as fn(&mut [Complex<f64>], usize) -> kc_core::Result<()>),
        ("qmcpy/ft_ifftbr.npy", ifftbr),
    ] {
        let mut got = x.as_slice().to_vec();
        transform(&mut got, n).unwrap();
        let want = golden_tensor::<Complex<f64>, 2>(file);
        for (got, want) in got.iter().zip(want.as_slice()) {
            assert!((got - want).norm() <= 1e-14, "{file}: {got} {want}");
        }
    }
    let omega = golden_tensor::<Complex<f64>, 1>("qmcpy/ft_omega_4.npy");
    for (k, want) in omega.as_slice().iter().enumerate() {
        assert!((root_of_unity(k, 2 * omega.len()) - want).norm() <= 4e-16);
    }
}

#[test]
fn every_level_follows_the_definition() {
    fn check<T: Sample>() {
        for m in 0..=12u32 {
            let n = 1 << m;
            let x = noise::<T>(n, u64::from(m));
            let (forward, back) = (reference::fftbr(&x, n).unwrap(), reference::ifftbr(&x, n).unwrap());
            each_isa(|isa| {
                let mut y = x.clone();
                fftbr_with(isa, &mut y, n).unwrap();
                assert!(error(&y, &forward) < tolerance::<T>(), "2^{m} on {isa}: {}", error(&y, &forward));
                y.copy_from_slice(&x);
                ifftbr_with(isa, &mut y, n).unwrap();
                assert!(error(&y, &back) < tolerance::<T>(), "2^{m} on {isa}: {}", error(&y, &back));
            });
        }
    }
    check::<f64>();
    check::<f32>();
}

#[test]
fn real_rows_are_the_first_half_of_complex_ones() {
    fn check<T: Sample>() {
        for m in 0..=13u32 {
            let n = 1usize << m;
            let x = real::<T>(3 * n, u64::from(m));
            let mut whole: Vec<_> = x.iter().map(|&re| Complex::new(re, T::from_f64(0.0))).collect();
            fftbr(&mut whole, n).unwrap();
            let want: Vec<_> = whole
                .chunks(n)
                .flat_map(|row| &row[..n / 2 + 1])
                .map(|z| Complex::new(z.re.to_f64(), z.im.to_f64()))
                .collect();
            each_isa(|isa| {
                let mut half = vec![Complex::default(); want.len()];
                rfftbr_with(isa, &x, n, &mut half).unwrap();
                assert!(error(&half, &want) < tolerance::<T>(), "2^{m} on {isa}: {}", error(&half, &want));
                let mut back = vec![T::default(); x.len()];
                irfftbr_with(isa, &half, n, &mut back).unwrap();
                for (got, want) in back.iter().zip(&x) {
                    assert!((got.to_f64() - want.to_f64()).abs() < 10.0 * tolerance::<T>(), "2^{m} on {isa}");
                }
            });
        }
    }
    check::<f64>();
    check::<f32>();
}

/// Long rows, whose definition takes too long: a pure tone becomes a single value, to the last digits.
#[test]
fn tones_of_long_rows() {
    for (m, tone) in [(16, 12_345), (19, 777), (20, 1_000_003usize)] {
        let n = 1usize << m;
        let x: Vec<Complex<f64>> =
            (0..n).map(|i| root_of_unity(tone * reference::reverse_bits(i, m) % n, n).conj()).collect();
        let mut y = x.clone();
        fftbr(&mut y, n).unwrap();
        let mut want = vec![Complex::default(); n];
        want[tone % n] = Complex::new((n as f64).sqrt(), 0.0);
        assert!(error(&y, &want) < 1e-15, "2^{m}: {}", error(&y, &want));
        ifftbr(&mut y, n).unwrap();
        assert!(error(&y, &x) < 1e-15, "2^{m}: {}", error(&y, &x));
    }
}

#[test]
fn threads_do_not_matter() {
    let x = noise::<f64>(1 << 18, 9);
    for n in [1, 8, 1 << 9, 1 << 18] {
        same_on_any_pool(|| {
            let (mut y, mut z) = (x.clone(), x.clone());
            fftbr(&mut y, n).unwrap();
            ifftbr(&mut z, n).unwrap();
            (y, z)
        });
    }
    let x = real::<f64>(1 << 19, 9);
    for n in [2, 1 << 9, 1 << 19] {
        same_on_any_pool(|| {
            let (mut y, mut back) = (vec![Complex::default(); x.len() / n * (n / 2 + 1)], vec![0.0; x.len()]);
            rfftbr(&x, n, &mut y).unwrap();
            irfftbr(&y, n, &mut back).unwrap();
            (y, back)
        });
    }
}

#[test]
fn halves_grow_into_the_whole() {
    for m in 1..=12 {
        let n = 1 << m;
        let x = noise::<f64>(2 * n, 50 + m);
        let (mut want, mut got) = (x.clone(), x);
        fftbr(&mut want, n).unwrap();
        fftbr(&mut got, n / 2).unwrap();
        fftbr_double(&mut got, n).unwrap();
        assert!(error(&got, &want) < 1e-15, "2^{m}");
    }
    assert!(matches!(fftbr_double(&mut [Complex::<f64>::default()], 1), Err(Error::Argument { .. })));
}

#[test]
fn roots_are_exact_where_they_can_be() {
    assert_eq!(root_of_unity(0, 1), Complex::new(1.0, 0.0));
    for n in [8usize, 1 << 30] {
        assert_eq!(root_of_unity(n / 2, n).re, -1.0);
        assert_eq!(root_of_unity(n / 4, n).im, -1.0);
        let eighth = root_of_unity(n / 8, n);
        assert_eq!(eighth.re, -eighth.im);
    }
    for k in 0..48 {
        let (angle, z) = (TAU * k as f64 / 48.0, root_of_unity(k, 48));
        assert!((z.re - angle.cos()).abs() < 1e-15 && (z.im + angle.sin()).abs() < 1e-15, "{k}");
    }
}

#[test]
fn wrong_lengths_are_errors() {
    let mut x = vec![Complex::<f64>::default(); 12];
    for n in [0, 3, 6] {
        assert!(matches!(fftbr(&mut x, n), Err(Error::Argument { .. })));
        assert!(matches!(ifftbr(&mut x, n), Err(Error::Argument { .. })));
    }
    assert!(matches!(fftbr(&mut x, 8), Err(Error::Shape { .. })));
    fftbr(&mut x[..0], 4).unwrap();
    let reals = vec![0.0; 8];
    assert!(matches!(rfftbr(&reals, 8, &mut x[..4]), Err(Error::Shape { .. })));
    assert!(matches!(rfftbr(&reals[..6], 6, &mut x[..4]), Err(Error::Argument { .. })));
    assert!(matches!(irfftbr(&x[..4], 8, &mut [0.0; 8]), Err(Error::Shape { .. })));
}

proptest! {
    #[test]
    fn there_and_back(m in 0u32..12, rows in 1usize..4, seed in any::<u64>()) {
        let n = 1 << m;
        let x = noise::<f64>(rows * n, seed);
        let mut y = x.clone();
        fftbr(&mut y, n).unwrap();
        let norm = |x: &[Complex<f64>]| x.iter().map(|v| v.norm_sqr()).sum::<f64>();
        prop_assert!((norm(&x) - norm(&y)).abs() <= 1e-13 * norm(&x));
        ifftbr(&mut y, n).unwrap();
        prop_assert!(error(&y, &x) < 1e-15);
    }
}
