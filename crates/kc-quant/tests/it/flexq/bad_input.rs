//! What is refused, and how.

use kc_core::{Error, Tensor, TensorView};
use kc_quant::flexq::*;
use kc_quant::{Group, ScaleDtype};

fn view(shape: [usize; 2], data: &[f32]) -> TensorView<'_, f32, 2> {
    TensorView::from_slice(shape, data).unwrap()
}

#[test]
fn values_that_are_not_finite_are_named_by_position() {
    let data = [1.0f32, 2.0, 3.0, f32::NAN];
    let error = QuantMatrix::quantize(view([2, 2], &data), &QuantSpec::default()).unwrap_err();
    assert!(matches!(&error, Error::NotFinite { arg, index, .. } if arg == "w" && index == &[1, 1]));
    let q = QuantMatrix::quantize(view([2, 2], &[1.0; 4]), &QuantSpec::default()).unwrap();
    let layer = FlexLinear::new(&q, None, KernelChoice::Auto).unwrap();
    let error = layer.forward(view([1, 2], &[0.0, f32::INFINITY]), 6).unwrap_err();
    assert!(matches!(&error, Error::NotFinite { arg, index, .. } if arg == "x" && index == &[0, 1]));
    let error = FlexLinear::new(&q, Some(&[0.0, f32::NAN]), KernelChoice::Auto).unwrap_err();
    assert!(matches!(&error, Error::NotFinite { arg, .. } if arg == "bias"));
}

#[test]
fn options_out_of_range() {
    let w = [1.0f32; 4];
    let w = view([2, 2], &w);
    for (spec, name) in [
        (QuantSpec { bits: 0, ..QuantSpec::default() }, "bits"),
        (QuantSpec { bits: 9, ..QuantSpec::default() }, "bits"),
        (QuantSpec { group: Group::Size(0), ..QuantSpec::default() }, "group"),
        (QuantSpec { scale_floor: -1.0, ..QuantSpec::default() }, "scale_floor"),
        (QuantSpec { scale_floor: f32::NAN, ..QuantSpec::default() }, "scale_floor"),
    ] {
        let error = QuantMatrix::quantize(w, &spec).unwrap_err();
        assert!(matches!(&error, Error::Argument { arg, .. } if arg == name), "{error}");
    }
    let q = QuantMatrix::quantize(w, &QuantSpec::default()).unwrap();
    let layer = FlexLinear::new(&q, None, KernelChoice::Auto).unwrap();
    for bits in [0, 9] {
        let error = layer.forward(w, bits).unwrap_err();
        assert!(matches!(&error, Error::Argument { arg, .. } if arg == "bits"));
    }
}

#[test]
fn a_scale_beyond_half_precision() {
    let spec = QuantSpec { scale_dtype: ScaleDtype::F16, ..QuantSpec::default() };
    let error = QuantMatrix::quantize(view([1, 2], &[1.0, 3e6]), &spec).unwrap_err();
    assert!(matches!(&error, Error::Argument { arg, .. } if arg == "scale_dtype"), "{error}");
}

#[test]
fn shapes_that_do_not_agree() {
    let q = QuantMatrix::quantize(view([2, 2], &[1.0; 4]), &QuantSpec::default()).unwrap();
    let layer = FlexLinear::new(&q, None, KernelChoice::Auto).unwrap();
    let error = layer.forward(view([1, 3], &[1.0; 3]), 6).unwrap_err();
    assert!(matches!(&error, Error::Shape { arg, got, .. } if arg == "x" && got == &[1, 3]));
    let error = FlexLinear::new(&q, Some(&[1.0]), KernelChoice::Auto).unwrap_err();
    assert!(matches!(&error, Error::Shape { arg, .. } if arg == "bias"));
    let mut y = Tensor::<f32, 2>::zeros([1, 3]).unwrap();
    let error =
        layer.forward_into(view([1, 2], &[1.0; 2]), 6, y.view_mut(), &mut Activations::new()).unwrap_err();
    assert!(matches!(&error, Error::Shape { arg, .. } if arg == "y"));
}

#[test]
fn nothing_to_quantise_and_nothing_to_multiply() {
    for shape in [[0, 3], [3, 0]] {
        let error = QuantMatrix::quantize(view(shape, &[]), &QuantSpec::default()).unwrap_err();
        assert!(matches!(&error, Error::Empty { arg } if arg == "w"));
    }
    let q = QuantMatrix::quantize(view([2, 2], &[1.0; 4]), &QuantSpec::default()).unwrap();
    let layer = FlexLinear::new(&q, None, KernelChoice::Auto).unwrap();
    assert_eq!(layer.forward(view([0, 2], &[]), 6).unwrap().shape(), [0, 2]);
}

#[test]
fn planes_of_another_shape() {
    let codes = Tensor::<i16, 2>::zeros([3, 100]).unwrap();
    assert!(matches!(to_planes(codes.view(), 6).unwrap_err(), Error::Shape { .. }));
    let codes = Tensor::<i16, 2>::zeros([3, 128]).unwrap();
    let planes = to_planes(codes.view(), 6).unwrap();
    assert!(from_planes(planes.view(), 4).is_err());
    let scales = Tensor::<f32, 2>::zeros([3, 2]).unwrap();
    let error = FlexLinear::from_planes(planes.view(), scales.view(), 128, None).unwrap_err();
    assert!(matches!(&error, Error::Shape { arg, .. } if arg == "scales"), "{error}");
}
