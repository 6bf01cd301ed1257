//! The backbone with weights by chance: sizes, names, shapes, independence of batch mates.

use kc_attention::soft::{Inverse, SoftVit, VitSize};
use kc_core::{AnyTensor, Error, KcRng, Tensor};

/// Weights small enough that states keep their size; variances are 1.
fn made(name: &str, shape: &[usize], rng: &mut KcRng) -> AnyTensor {
    let len = shape.iter().product::<usize>();
    let inputs = shape.iter().skip(1).product::<usize>().max(1);
    let scale = 1.0 / (inputs as f64).sqrt();
    let one = name.ends_with("running_var") || (shape.len() == 1 && name.ends_with("weight"));
    let values: Vec<f32> = (0..len).map(|_| if one { 1.0 } else { (scale * rng.normal()) as f32 }).collect();
    let bytes = kc_core::Bytes::from_owner(kc_core::bytemuck::cast_slice(&values).to_vec());
    AnyTensor::new(kc_core::DType::F32, shape.to_vec(), bytes).unwrap()
}

#[test]
fn parameters_are_as_many_as_published() {
    let (mut all, mut names) = (0, Vec::new());
    SoftVit::from_tensors(VitSize::Tiny, 1000, |name, shape| {
        if !name.contains("running") {
            all += shape.iter().product::<usize>();
        }
        names.push(name.to_owned());
        let zeros = kc_core::Bytes::from_owner(vec![0u8; 4 * shape.iter().product::<usize>()]);
        AnyTensor::new(kc_core::DType::F32, shape.to_vec(), zeros)
    })
    .unwrap();
    let millions = all as f64 / 1e6;
    assert!((millions - 13.0).abs() < 0.6, "{millions} million");
    for name in ["block1.0.att.mha.attn.Qlandmark_op.weight", "block4.1.mlp.fc2.bias", "pos_embed4"] {
        assert!(names.iter().any(|n| n == name), "{name}");
    }
}

#[test]
fn images_of_any_size_are_classified_alone() {
    let rng = &mut KcRng::new(1, 0);
    let mut vit = SoftVit::from_tensors(VitSize::Tiny, 7, |name, shape| Ok(made(name, shape, rng))).unwrap();
    let images = Tensor::from_fn([2, 3, 64, 96], |_| rng.normal() as f32).unwrap();
    let both = vit.forward(images.view()).unwrap();
    assert_eq!(both.shape(), [2, 7]);
    assert!(both.as_slice().iter().all(|x| x.is_finite()));
    assert_ne!(both.as_slice()[..7], both.as_slice()[7..]);
    for i in 0..2 {
        let alone = vit.forward(images.view().slice(0, i..i + 1).unwrap()).unwrap();
        kc_testing::assert_close(
            alone.as_slice(),
            &both.as_slice()[7 * i..7 * i + 7],
            kc_testing::Tol::abs(2e-4),
        );
    }
    vit.set_inverse(Inverse::NewtonBacktrack { iters: 20 }, true);
    assert_ne!(vit.forward(images.view()).unwrap(), both);
    let short = Tensor::<f32, 4>::zeros([1, 3, 16, 64]).unwrap();
    assert!(matches!(vit.forward(short.view()), Err(Error::Argument { .. })));
    let grey = Tensor::<f32, 4>::zeros([1, 1, 64, 64]).unwrap();
    assert!(matches!(vit.forward(grey.view()), Err(Error::Shape { .. })));
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    let e = SoftVit::from_tensors(VitSize::Tiny, 10, |name, shape| {
        let wrong = [shape, &[1]].concat();
        let shape = if name == "pos_embed1" { &wrong } else { shape };
        Ok(made(name, shape, &mut KcRng::new(0, 0)))
    })
    .map(|_| ())
    .unwrap_err();
    assert!(matches!(&e, Error::Shape { arg, .. } if arg == "pos_embed1"), "{e}");
}
