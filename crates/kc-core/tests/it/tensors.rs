//! Tensors and views: layouts, hostile shapes, disjoint parts, the door.

use kc_core::{AnyTensor, Bytes, DType, Error, Tensor, TensorView, TensorViewMut, bf16, f16};
use kc_testing::{same_on_any_pool, strided};
use proptest::prelude::*;

fn counting(len: usize) -> Vec<f32> {
    (0..len).map(|i| i as f32).collect()
}

#[test]
fn every_layout_shows_the_same_matrix() {
    for (rows, cols) in [(0, 3), (3, 0), (1, 1), (1, 5), (4, 3), (7, 11)] {
        let values = counting(rows * cols);
        for matrix in strided(rows, cols, &values, f32::NAN) {
            let view = matrix.view();
            assert_eq!(view.to_vec(), values);
            assert_eq!(view.transposed().transposed().to_vec(), values);
            assert_eq!(view.to_tensor().expect("small").as_slice(), values);
            for i in 0..rows {
                assert_eq!(view.row(i).to_vec(), values[i * cols..(i + 1) * cols]);
            }
        }
    }
}

#[test]
fn slicing_stepping_and_reversing_compose() {
    let data = counting(24);
    let view = TensorView::from_slice([2, 3, 4], &data).expect("fits");
    let part = view.slice(1, 1..3).and_then(|v| v.step(2, -2)).expect("in range");
    assert_eq!(part.shape(), [2, 2, 2]);
    assert_eq!(part.to_vec(), [7.0, 5.0, 11.0, 9.0, 19.0, 17.0, 23.0, 21.0]);
    assert_eq!(view.permuted([2, 0, 1]).expect("a permutation").at([3, 1, 2]), view.at([1, 2, 3]));
    assert_eq!(view.matrix(1).at([2, 3]), 23.0);
    let row = TensorView::from_slice([1, 3], &data[..3]).expect("fits");
    assert_eq!(row.broadcast_to([2, 3]).expect("broadcasts").to_vec(), [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]);
    assert!(row.broadcast_to([0, 3]).expect("broadcasts").to_vec().is_empty());
    assert_eq!(view.reshaped([6, 4]).expect("contiguous").at([5, 3]), 23.0);
    assert!(view.transposed().reshaped([24]).is_err());
}

#[test]
fn wrong_arguments_are_typed_errors() {
    let data = counting(6);
    let view = TensorView::from_slice([2, 3], &data).expect("fits");
    assert!(matches!(view.slice(0, 1..3), Err(Error::Argument { .. })));
    assert!(matches!(view.slice(2, 0..1), Err(Error::Argument { .. })));
    assert!(matches!(view.step(0, 0), Err(Error::Argument { .. })));
    assert!(matches!(view.permuted([0, 0]), Err(Error::Argument { .. })));
    assert!(matches!(view.broadcast_to([2, 6]), Err(Error::Shape { .. })));
    assert!(matches!(TensorView::from_slice([2, 4], &data), Err(Error::Shape { .. })));
    assert!(matches!(TensorView::from_slice([usize::MAX, 2], &data), Err(Error::Shape { .. })));
    for (strides, offset) in
        [([4, 1], 0), ([3, 1], 1), ([-3, 1], 2), ([isize::MAX, 1], 0), ([isize::MIN, 1], 0)]
    {
        let result = TensorView::from_slice_strided([2, 3], strides, offset, &data);
        assert!(matches!(result, Err(Error::Argument { .. })), "{strides:?} {offset}");
    }
    assert!(matches!(Tensor::<f64, 2>::zeros([1 << 40, 1 << 40]), Err(Error::Shape { .. })));
    assert!(matches!(Tensor::<f64, 1>::zeros([isize::MAX as usize / 8]), Err(Error::TooLarge { .. })));
}

#[test]
fn mutable_views_never_overlap() {
    let mut data = counting(6);
    for strides in [[0, 1], [1, 1], [2, 1]] {
        let overlap = TensorViewMut::from_slice_strided([2, 3], strides, 0, &mut data);
        assert!(matches!(overlap, Err(Error::Argument { .. })), "{strides:?}");
    }
    let view = TensorViewMut::from_slice([2, 3], &mut data).expect("fits");
    let (mut left, mut right) = view.split_at(1, 1).expect("in range");
    left.fill(-1.0);
    right.set([1, 1], 9.0);
    assert_eq!(data, [-1.0, 1.0, 2.0, -1.0, 4.0, 9.0]);
    let parts =
        TensorViewMut::from_slice([2, 3], &mut data).and_then(|v| v.chunks(1, 2)).expect("a chunk size");
    assert_eq!(parts.iter().map(|p| p.shape()).collect::<Vec<_>>(), [[2, 2], [2, 1]]);
}

#[test]
fn parts_can_be_filled_by_threads() {
    let filled = same_on_any_pool(|| {
        let mut out = Tensor::<f32, 2>::zeros([37, 5]).expect("small");
        let parts = out.view_mut().chunks(0, 4).expect("a chunk size");
        rayon::scope(|scope| {
            for (i, mut part) in parts.into_iter().enumerate() {
                scope.spawn(move |_| part.fill(i as f32));
            }
        });
        out.into_vec()
    });
    assert!(filled.iter().enumerate().all(|(at, &x)| x == (at / 20) as f32));
}

#[test]
fn the_door_checks_type_rank_and_alignment() {
    let any = Tensor::from_slice([2, 3], &counting(6)).expect("fits").into_any();
    assert_eq!(any.view::<f32, 2>("x").expect("its own type").at([1, 2]), 5.0);
    assert_eq!(any.view::<f64, 2>("x").unwrap_err().to_string(), "x: expected float64, got float32");
    assert_eq!(
        any.view::<f32, 3>("x").unwrap_err().to_string(),
        "x: expected 3 dimensions, got shape [2, 3]"
    );
    let bytes = Bytes::from_owner(vec![0u8; 33]).slice(1..33).expect("in range");
    let shifted = AnyTensor::new(DType::F64, vec![4], bytes).expect("32 bytes");
    // The owner's memory is at least 8-aligned on every allocator we know; then byte 1 is not.
    assert!(matches!(shifted.view::<f64, 1>("x"), Err(Error::Unsupported { .. })));
    assert_eq!(shifted.to_tensor::<f64, 1>("x").expect("copies").as_slice(), [0.0; 4]);
    assert!(AnyTensor::new(DType::F32, vec![usize::MAX, 2], Bytes::from_owner(vec![])).is_err());
    assert!(AnyTensor::new(DType::F32, vec![2], Bytes::from_owner(vec![0u8; 7])).is_err());
}

#[test]
fn conversions_cover_every_real_type() {
    macro_rules! check {
        ($($values:expr),*) => {$(
            let any = Tensor::from_slice([2], &$values).expect("fits").into_any();
            assert_eq!(any.to_f32::<1>("x").expect("real").as_slice(), [1.0, 2.0], "{}", any.dtype());
            assert_eq!(any.to_f64::<1>("x").expect("real").as_slice(), [1.0, 2.0], "{}", any.dtype());
        )*};
    }
    check!(
        [1u8, 2],
        [1i8, 2],
        [1u16, 2],
        [1i16, 2],
        [1u32, 2],
        [1i32, 2],
        [1u64, 2],
        [1i64, 2],
        [1f32, 2.0],
        [1f64, 2.0]
    );
    check!([f16::ONE, f16::from_f32(2.0)], [bf16::ONE, bf16::from_f32(2.0)]);
    let complex = Tensor::from_slice([1], &[kc_core::Complex::new(1.0f32, 0.0)]).expect("fits").into_any();
    assert!(matches!(complex.to_f64::<1>("x"), Err(Error::DType { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the shape and strides, a view is refused or stays inside of its slice.
    #[test]
    fn no_strides_leave_the_slice(
        shape in prop::array::uniform3(0usize..5), strides in prop::array::uniform3(-9isize..9), offset in 0usize..40,
    ) {
        let data = counting(32);
        if let Ok(view) = TensorView::from_slice_strided(shape, strides, offset, &data) {
            for x in view.iter() {
                prop_assert!((0.0..32.0).contains(&x));
            }
        }
        let mut data = data;
        if let Ok(mut view) = TensorViewMut::from_slice_strided(shape, strides, offset, &mut data) {
            let len = view.len();
            view.fill(-1.0);
            prop_assert_eq!(data.iter().filter(|x| **x == -1.0).count(), len);
        }
    }
}
