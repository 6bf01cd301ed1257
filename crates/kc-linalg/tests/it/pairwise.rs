//! All pairs of rows, against the definitions.

use kc_core::{Error, Tensor, TensorView};
use kc_linalg::Real;
use kc_linalg::pairwise::{Pair, pairwise, pairwise_into, pairwise_tiles};
use kc_testing::alloc::measure;
use kc_testing::{Tol, assert_close, normals, same_on_any_pool, strided};

const PAIRS: [Pair; 3] = [Pair::Inner, Pair::Cosine, Pair::SquaredEuclidean];

fn definition<T: Real>(a: TensorView<'_, T, 2>, b: TensorView<'_, T, 2>, pair: Pair) -> Vec<f64> {
    let row = |m: TensorView<'_, T, 2>, i: usize| m.row(i).iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let mut out = Vec::new();
    for i in 0..a.rows() {
        for j in 0..b.rows() {
            let (x, y) = (row(a, i), row(b, j));
            out.push(match pair {
                Pair::Cosine => dot(&x, &y) / (dot(&x, &x) * dot(&y, &y)).sqrt(),
                Pair::SquaredEuclidean => x.iter().zip(&y).map(|(x, y)| (x - y).powi(2)).sum(),
                _ => dot(&x, &y),
            });
        }
    }
    out
}

#[test]
fn every_kind_meets_its_definition() {
    for (m, n, d) in [(0, 3, 2), (3, 0, 2), (1, 1, 1), (5, 7, 3), (33, 17, 65), (40, 40, 1)] {
        let a = Tensor::<f32, 2>::from_slice([m, d], &normals(m * d, 1)).unwrap();
        let b = Tensor::<f32, 2>::from_slice([n, d], &normals(n * d, 2)).unwrap();
        let wide = |x: &Tensor<f32, 2>| Tensor::<f64, 2>::from_fn(x.shape(), |at| f64::from(x[at])).unwrap();
        let (a64, b64) = (wide(&a), wide(&b));
        for pair in PAIRS {
            let want = definition(a.view(), b.view(), pair);
            let got = pairwise(a.view(), b.view(), pair).unwrap();
            assert_eq!(got.shape(), [m, n]);
            assert_close(got.as_slice(), &want, Tol::new(2e-5, 2e-5));
            let got = pairwise(a64.view(), b64.view(), pair).unwrap();
            assert_close(got.as_slice(), &want, Tol::new(1e-13, 1e-13));
        }
    }
}

#[test]
fn tiles_cover_the_result_once_in_order() {
    let a = Tensor::<f64, 2>::from_fn([10, 4], |[i, j]| (i * 4 + j) as f64).unwrap();
    let b = Tensor::<f64, 2>::from_fn([7, 4], |[i, j]| (i + j) as f64).unwrap();
    let whole = pairwise(a.view(), b.view(), Pair::SquaredEuclidean).unwrap();
    let mut seen = Vec::new();
    pairwise_tiles(a.view(), b.view(), Pair::SquaredEuclidean, [4, 3], |tile| {
        let width = tile.columns.len();
        for (k, value) in tile.values.iter().enumerate() {
            let at = [tile.rows.start + k / width, tile.columns.start + k % width];
            assert!((whole[at] - value).abs() <= 1e-12 * whole[at].abs());
        }
        seen.push((tile.rows, tile.columns));
        Ok(())
    })
    .unwrap();
    assert_eq!(seen.len(), 9);
    assert_eq!((seen[0].clone(), seen[8].clone()), ((0..4, 0..3), (8..10, 6..7)));
    let stopped = pairwise_tiles(a.view(), b.view(), Pair::Inner, [4, 3], |_| Err(Error::Cancelled));
    assert_eq!(stopped, Err(Error::Cancelled));
}

#[test]
fn offsets_and_near_pairs_cost_no_digits() {
    let noise = normals(50 * 8, 3);
    let a = Tensor::<f32, 2>::from_fn([50, 8], |[i, j]| 1000.0 + 0.01 * noise[i * 8 + j]).unwrap();
    let got = pairwise(a.view(), a.view(), Pair::SquaredEuclidean).unwrap();
    let want = definition(a.view(), a.view(), Pair::SquaredEuclidean);
    assert_close(got.as_slice(), &want, Tol::rel(1e-2));
    assert!((0..50).all(|i| got[[i, i]] == 0.0));
    assert!(got.as_slice().iter().all(|&d| d >= 0.0));
}

#[test]
fn strides_threads_and_special_values() {
    let values = normals(6 * 9, 4);
    let views = strided(6, 9, &values, f32::NAN);
    for pair in PAIRS {
        let want = pairwise(views[0].view(), views[0].view(), pair).unwrap();
        for other in &views {
            let got = pairwise(other.view(), views[0].view(), pair).unwrap();
            assert_close(got.as_slice(), want.as_slice(), Tol::new(1e-5, 1e-5));
        }
        let big = Tensor::<f32, 2>::from_slice([300, 30], &normals(9000, 5)).unwrap();
        same_on_any_pool(|| pairwise(big.view(), big.view(), pair).unwrap().into_vec());
    }
    let zero = Tensor::<f64, 2>::zeros([1, 3]).unwrap();
    assert_eq!(pairwise(zero.view(), zero.view(), Pair::Cosine).unwrap()[[0, 0]], 0.0);
    let mut nan = zero.clone();
    nan[[0, 1]] = f64::NAN;
    for pair in PAIRS {
        assert!(pairwise(nan.view(), zero.view(), pair).unwrap()[[0, 0]].is_nan());
    }
}

#[test]
fn tiles_do_not_store_the_result() {
    let a = Tensor::<f32, 2>::from_slice([2000, 4], &normals(8000, 1)).unwrap();
    let (sum, memory) = measure(|| {
        let mut sum = 0.0f64;
        pairwise_tiles(a.view(), a.view(), Pair::SquaredEuclidean, [128, 128], |tile| {
            sum += tile.values.iter().map(|&v| f64::from(v)).sum::<f64>();
            Ok(())
        })
        .unwrap();
        sum
    });
    assert!(sum > 0.0);
    assert!(memory.peak < 2000 * 2000 * 4 / 4, "{} bytes", memory.peak);
}

#[test]
fn bad_input_is_refused() {
    let a = Tensor::<f32, 2>::zeros([2, 3]).unwrap();
    let b = Tensor::<f32, 2>::zeros([2, 4]).unwrap();
    assert!(matches!(pairwise(a.view(), b.view(), Pair::Inner), Err(Error::Shape { .. })));
    let mut out = Tensor::<f32, 2>::zeros([3, 2]).unwrap();
    let wrong = pairwise_into(a.view(), a.view(), Pair::Inner, out.view_mut());
    assert!(matches!(wrong, Err(Error::Shape { .. })));
    let none = pairwise_tiles(a.view(), a.view(), Pair::Inner, [0, 1], |_| Ok(()));
    assert!(matches!(none, Err(Error::Argument { .. })));
}
