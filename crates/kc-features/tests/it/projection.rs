//! Directions: laws, orthogonality, and the transform that stores none.

use kc_core::{Error, Isa, Tensor, TensorView};
use kc_features::projection::{gaussian_projection, orthogonal_projection};
use kc_features::{Draw, Projection, Scaling};
use kc_testing::{Tol, assert_close, each_isa, normals, same_on_any_pool, strided};

fn tensor(rows: usize, cols: usize, seed: u64) -> Tensor<f64, 2> {
    let values: Vec<f64> = normals(rows * cols, seed).into_iter().map(f64::from).collect();
    Tensor::from_slice([rows, cols], &values).unwrap()
}

#[test]
fn rows_of_a_block_are_orthogonal_and_lengths_are_chi() {
    for (m, d) in [(1, 1), (5, 1), (7, 16), (16, 16), (45, 16), (130, 60)] {
        for scaling in [Scaling::Chi, Scaling::SqrtDim] {
            let g = orthogonal_projection::<f64>(m, d, 3, scaling).unwrap();
            assert_eq!(g.shape(), [m, d]);
            let gram = kc_gemm::gemm(g.view(), g.view().transposed()).unwrap();
            for i in 0..m {
                for j in 0..m {
                    let cosine = gram[[i, j]] / (gram[[i, i]] * gram[[j, j]]).sqrt();
                    if i != j && i / d == j / d {
                        assert!(cosine.abs() < 1e-12, "{m} x {d}: rows {i} and {j}: {cosine:e}");
                    }
                }
                if scaling == Scaling::SqrtDim {
                    assert!((gram[[i, i]] - d as f64).abs() < 1e-10);
                }
            }
            let single = orthogonal_projection::<f32>(m, d, 3, scaling).unwrap();
            assert_close(single.as_slice(), g.as_slice(), Tol::new(1e-7, 0.0));
        }
    }
    // Squared lengths have mean d and variance 2 d, and do not repeat.
    let (m, d) = (4000, 16);
    let g = orthogonal_projection::<f64>(m, d, 5, Scaling::Chi).unwrap();
    let squares: Vec<f64> = g.as_slice().chunks(d).map(|r| r.iter().map(|x| x * x).sum()).collect();
    let mean = squares.iter().sum::<f64>() / m as f64;
    let variance = squares.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>() / m as f64;
    assert!((mean - 16.0).abs() < 4.0 * (32.0 / m as f64).sqrt(), "{mean}");
    assert!((variance / 32.0 - 1.0).abs() < 0.15, "{variance}");
}

#[test]
fn seeds_repeat_and_differ() {
    let g = |seed| gaussian_projection::<f32>(10, 7, seed).unwrap();
    assert_eq!(g(1), g(1));
    assert_ne!(g(1), g(2));
    let q = |seed| orthogonal_projection::<f32>(40, 33, seed, Scaling::Chi).unwrap();
    assert_ne!(q(1), q(2));
    same_on_any_pool(|| q(1).into_vec());
    assert_eq!(gaussian_projection::<f64>(0, 3, 1), Err(Error::empty("m")));
    assert_eq!(orthogonal_projection::<f64>(3, 0, 1, Scaling::Chi), Err(Error::empty("d")));
    assert!(matches!(gaussian_projection::<f64>(usize::MAX, 3, 1), Err(Error::Shape { .. })));
}

#[test]
fn a_transform_is_the_matrix_that_it_stands_for() {
    for (m, d) in [(1, 1), (3, 2), (10, 8), (20, 13), (64, 40)] {
        let fast = Projection::<f64>::draw(Draw::Hadamard, m, d, 9).unwrap();
        let g = fast.to_matrix().unwrap();
        assert_eq!(g.shape(), [m, d]);
        let slow = Projection::new(g.clone()).unwrap();
        let (x, dz) = (tensor(5, d, 1), tensor(5, m, 2));
        let z = |p: &Projection<f64>| {
            let mut out = Tensor::zeros([5, m]).unwrap();
            p.apply_into(x.view(), out.view_mut()).unwrap();
            out.into_vec()
        };
        let back = |p: &Projection<f64>| {
            let mut out = Tensor::zeros([5, d]).unwrap();
            p.back_into(dz.view(), out.view_mut()).unwrap();
            out.into_vec()
        };
        assert_close(&z(&fast), &z(&slow), Tol::abs(1e-12));
        assert_close(&back(&fast), &back(&slow), Tol::abs(1e-12));
        if d.is_power_of_two() {
            // Rows of a block are orthogonal and of length sqrt(d).
            let gram = kc_gemm::gemm(g.view(), g.view().transposed()).unwrap();
            for i in 0..m.min(d) {
                for j in 0..m.min(d) {
                    let want = if i == j { d as f64 } else { 0.0 };
                    assert!((gram[[i, j]] - want).abs() < 1e-11);
                }
            }
        }
    }
    let many = Projection::<f64>::draw(Draw::Hadamard, 4096, 64, 2).unwrap().to_matrix().unwrap();
    let mean_square = many.as_slice().iter().map(|x| x * x).sum::<f64>() / many.len() as f64;
    let fourth = many.as_slice().iter().map(|x| x.powi(4)).sum::<f64>() / many.len() as f64;
    assert!((mean_square - 1.0).abs() < 1e-9 && (fourth - 3.0).abs() < 0.2, "{mean_square} {fourth}");
}

#[test]
fn products_at_every_level_and_layout() {
    let (n, d, m) = (7, 13, 21);
    let (x, g) = (tensor(n, d, 1), tensor(m, d, 2));
    let want = kc_gemm::reference::gemm(x.view(), g.view().transposed()).unwrap();
    each_isa(|isa| {
        let p = Projection::with_isa(isa, g.clone()).unwrap();
        for x in strided(n, d, x.as_slice(), f64::NAN) {
            let mut out = Tensor::<f64, 2>::zeros([n, m]).unwrap();
            p.apply_into(x.view(), out.view_mut()).unwrap();
            assert_close(out.as_slice(), want.as_slice(), Tol::abs(1e-12));
            let mut turned = Tensor::<f64, 2>::zeros([m, n]).unwrap();
            p.apply_into(x.view(), turned.view_mut().transposed()).unwrap();
            assert_close(&turned.view().transposed().to_vec(), want.as_slice(), Tol::abs(1e-12));
        }
    });
    let p = Projection::with_isa(Isa::PORTABLE, g).unwrap();
    let mut out = Tensor::<f64, 2>::zeros([n, m]).unwrap();
    let narrow = TensorView::from_slice([n, d - 1], &x.as_slice()[..n * (d - 1)]).unwrap();
    assert!(matches!(p.apply_into(narrow, out.view_mut()), Err(Error::Shape { .. })));
    let bad = TensorView::from_slice([1, 2], &[1.0, f64::NAN]).unwrap().to_tensor().unwrap();
    assert!(matches!(Projection::new(bad), Err(Error::NotFinite { .. })));
}
