//! Views to and from ndarray: the same memory, any strides.

use kc_core::{Error, TensorView, TensorViewMut};
use ndarray::{Array2, Array3, ArrayView2, ArrayViewMut2, s};

#[test]
fn stepped_reversed_and_transposed_arrays_become_views_of_the_same_memory() {
    let a = Array3::from_shape_fn((3, 4, 5), |(i, j, k)| (100 * i + 10 * j + k) as f64);
    for part in
        [a.view(), a.slice(s![.., ..;2, 1..]), a.slice(s![..;-1, .., ..;-2]), a.view().reversed_axes()]
    {
        let (first, strides) = (part.as_ptr(), part.strides().to_vec());
        let want: Vec<f64> = part.iter().copied().collect();
        let view = TensorView::from(part);
        assert_eq!(view.to_vec(), want);
        assert_eq!((view.as_ptr(), view.strides().to_vec()), (first, strides));
    }
    assert!(TensorView::from(Array2::<f32>::zeros((0, 3)).view()).is_empty());
}

#[test]
fn views_become_arrays_unless_an_axis_runs_backwards() {
    let data: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let view = TensorView::from_slice([4, 6], &data).expect("fits");
    let stepped = view.step(0, 2).expect("a step").transposed();
    let array = ArrayView2::try_from(stepped).expect("positive strides");
    assert!(array.iter().copied().eq(stepped.iter()));
    assert_eq!(array.as_ptr(), stepped.as_ptr());
    let backwards = view.step(1, -1).expect("a step");
    assert!(matches!(ArrayView2::try_from(backwards), Err(Error::Unsupported { .. })));
    let one = view.slice(1, 0..1).and_then(|v| v.step(1, -1)).expect("a step");
    assert_eq!(ArrayView2::try_from(one).expect("never stepped along")[[3, 0]], 18.0);
}

#[test]
fn mutable_views_write_through() {
    let mut a = Array2::<i32>::zeros((3, 4));
    TensorViewMut::from(a.slice_mut(s![..;2, ..;-1])).set([1, 0], 7);
    assert_eq!(a[[2, 3]], 7);
    let mut data = [0u8; 6];
    let view = TensorViewMut::from_slice([2, 3], &mut data).expect("fits");
    ArrayViewMut2::try_from(view.transposed()).expect("positive strides")[[2, 1]] = 9;
    assert_eq!(data, [0, 0, 0, 0, 0, 9]);
}
