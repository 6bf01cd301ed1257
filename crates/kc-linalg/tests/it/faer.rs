//! Views to faer and back, with every kind of strides.

use kc_core::{Tensor, TensorView, TensorViewMut};
use kc_linalg::faer::{mat_mut, mat_ref, view, view_mut};
use kc_testing::strided;

#[test]
fn views_keep_address_shape_and_strides() {
    let values: Vec<f32> = (0..35).map(|i| i as f32).collect();
    for matrix in &strided(5, 7, &values, f32::NAN) {
        let a = matrix.view();
        let m = mat_ref(a);
        assert_eq!(
            (m.nrows(), m.ncols(), m.row_stride(), m.col_stride()),
            (5, 7, a.strides()[0], a.strides()[1])
        );
        for i in 0..5 {
            for j in 0..7 {
                assert_eq!(m[(i, j)], (i * 7 + j) as f32);
            }
        }
        let back: TensorView<'_, f32, 2> = view(m);
        assert_eq!((back.as_ptr(), back.shape(), back.strides()), (a.as_ptr(), a.shape(), a.strides()));
    }
}

#[test]
fn mutable_views_write_through() {
    let mut a = Tensor::<f64, 2>::zeros([4, 6]).unwrap();
    {
        let stepped: TensorViewMut<'_, f64, 2> = a.view_mut().slice(1, 1..5).unwrap().transposed();
        let mut m = mat_mut(stepped);
        assert_eq!((m.nrows(), m.ncols()), (4, 4));
        m[(3, 2)] = 5.0;
        let mut back = view_mut(m);
        back.set([0, 1], 7.0);
    }
    assert_eq!((a[[2, 4]], a[[1, 1]]), (5.0, 7.0));
    assert_eq!(a.as_slice().iter().filter(|&&x| x != 0.0).count(), 2);
}

#[test]
fn empty_matrices_survive() {
    let a = Tensor::<f64, 2>::zeros([0, 3]).unwrap();
    let m = mat_ref(a.view());
    assert_eq!((m.nrows(), m.ncols()), (0, 3));
    assert_eq!(view(m).shape(), [0, 3]);
}
