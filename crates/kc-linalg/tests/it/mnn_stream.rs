//! Row blocks pushed twice.

use kc_core::{Error, Tensor, par::chunks};
use kc_linalg::mnn::{MnnConfig, MnnStream, ZeroRows, column_norms, mnn};
use kc_testing::alloc::measure;
use kc_testing::{Tol, assert_close, normals};

#[test]
fn blocks_of_any_size_give_the_score() {
    let x = Tensor::<f32, 2>::from_slice([200, 33], &normals(200 * 33, 1)).unwrap();
    let config = MnnConfig::default();
    let want = mnn(x.view(), &config).unwrap();
    for (first, second) in [(1, 200), (7, 64), (200, 3), (63, 65)] {
        let mut means = MnnStream::new(33, &config).unwrap();
        for rows in chunks(200, first) {
            means.push(x.view().slice(0, rows).unwrap()).unwrap();
        }
        let mut norms = means.finish_means().unwrap();
        for rows in chunks(200, second) {
            norms.push(x.view().slice(0, rows).unwrap()).unwrap();
        }
        assert_close(
            &norms.column_norms().unwrap(),
            &column_norms(x.view(), &config).unwrap(),
            Tol::rel(1e-6),
        );
        let got = norms.finish().unwrap();
        assert_close(&[got.raw, got.score], &[want.raw, want.score], Tol::rel(1e-6));
        assert_eq!((got.n_tokens, got.dim, got.top), (want.n_tokens, want.dim, want.top));
    }
}

/// The first row, which all sums are taken against, may not be a number of the type of later blocks.
#[test]
fn blocks_may_differ_in_type() {
    let value = |[i, j]: [usize; 2]| f64::from(((i * 7 + j * j) % 11) as u8) + 1e6;
    let x = Tensor::<f64, 2>::from_fn([40, 9], |at| value(at) + if at[0] == 0 { 0.3 } else { 0.0 }).unwrap();
    let rest = Tensor::<f32, 2>::from_fn([39, 9], |[i, j]| value([i + 1, j]) as f32).unwrap();
    let config = MnnConfig::default();
    let mut means = MnnStream::new(9, &config).unwrap();
    means.push(x.view().slice(0, 0..1).unwrap()).unwrap();
    means.push(rest.view()).unwrap();
    let mut norms = means.finish_means().unwrap();
    norms.push(x.view()).unwrap();
    let want = mnn(x.view(), &config).unwrap().raw;
    assert_close(&[norms.finish().unwrap().raw], &[want], Tol::rel(1e-9));
}

#[test]
fn memory_stays_at_some_rows() {
    let block = Tensor::<f32, 2>::from_slice([64, 100], &normals(6400, 1)).unwrap();
    let (score, memory) = measure(|| {
        let mut means = MnnStream::new(100, &MnnConfig::default()).unwrap();
        for _ in 0..50 {
            means.push(block.view()).unwrap();
        }
        let mut norms = means.finish_means().unwrap();
        for _ in 0..50 {
            norms.push(block.view()).unwrap();
        }
        norms.finish().unwrap()
    });
    assert_eq!(score.n_tokens, 3200);
    assert!(memory.peak < 16 * 100 * 8 + 1024, "{} bytes", memory.peak);
}

#[test]
fn mistakes_are_named() {
    let x = Tensor::<f32, 2>::from_slice([10, 4], &normals(40, 1)).unwrap();
    let config = MnnConfig::default();
    assert!(matches!(MnnStream::new(0, &config), Err(Error::Empty { .. })));
    assert!(matches!(MnnStream::new(5, &config).unwrap().finish_means(), Err(Error::Empty { .. })));
    assert!(matches!(MnnStream::new(5, &config).unwrap().push(x.view()), Err(Error::Shape { .. })));

    let mut means = MnnStream::new(4, &config).unwrap();
    means.push(x.view()).unwrap();
    let mut bad = x.clone();
    bad[[2, 3]] = f32::NAN;
    let error = means.push(bad.view()).unwrap_err();
    assert!(matches!(error, Error::NotFinite { ref index, .. } if *index == [12, 3]), "{error}");
    // The bad block left no trace.
    let mut norms = means.clone().finish_means().unwrap();
    assert!(matches!(norms.clone().finish(), Err(Error::Shape { .. })));
    norms.push(x.view()).unwrap();
    assert!(matches!(norms.push(x.view()), Err(Error::Shape { .. })));
    assert_eq!(norms.finish().unwrap(), mnn(x.view(), &config).unwrap());

    let mut errors = config;
    errors.zero_rows = ZeroRows::Error;
    let zeros = Tensor::<f32, 2>::zeros([3, 4]).unwrap();
    let mut means = MnnStream::new(4, &errors).unwrap();
    means.push(zeros.view()).unwrap();
    let mut norms = means.finish_means().unwrap();
    norms.push(zeros.view().slice(0, 0..0).unwrap()).unwrap();
    assert!(matches!(norms.push(zeros.view()), Err(Error::Argument { .. })));
}
