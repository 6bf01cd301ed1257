//! Layers of random features: golden data, definitions, gradients, fits, bad input.

mod adapter;
mod fit;
mod golden;
mod gradients;
mod layers;

use kc_core::{Complex, Tensor, TensorView};
use kc_features::snnk::{Features, Map, SnnkLayer};
use kc_features::universal::Universal;
use kc_features::{Projection, Scalar, to_halves};
use kc_testing::{golden_json, golden_tensor, normals};

pub(crate) type C = Complex<f64>;

/// Normal numbers over the root of the width: rows of length about 1.
pub(crate) fn tensor(rows: usize, cols: usize, seed: u64) -> Tensor<f64, 2> {
    let scale = (cols as f64).powf(-0.5);
    let values: Vec<f64> = normals(rows * cols, seed).into_iter().map(|x| f64::from(x) * scale).collect();
    Tensor::from_slice([rows, cols], &values).unwrap()
}

pub(crate) fn convert<T: Scalar, U: Scalar>(x: &Tensor<U, 2>) -> Tensor<T, 2> {
    let values: Vec<T> = x.as_slice().iter().map(|x| T::from_f64(x.to_f64())).collect();
    Tensor::from_slice(x.shape(), &values).unwrap()
}

/// A fixture matrix stored as f32 or f64.
pub(crate) fn matrix<T: Scalar>(name: &str) -> Tensor<T, 2> {
    let any = kc_io::read(kc_testing::golden(&format!("snnk/{name}.npy"))).unwrap();
    convert(&any.to_f64::<2>("fixture").unwrap())
}

pub(crate) fn vector<T: Scalar>(name: &str) -> Vec<T> {
    let any = kc_io::read(kc_testing::golden(&format!("snnk/{name}.npy"))).unwrap();
    any.to_f64::<1>("fixture").unwrap().as_slice().iter().map(|&x| T::from_f64(x)).collect()
}

pub(crate) fn halves(name: &str) -> Tensor<f64, 2> {
    to_halves(golden_tensor::<C, 2>(&format!("snnk/{name}.npy")).view()).unwrap()
}

pub(crate) const UNIVERSAL: [&str; 8] = [
    "urf_cos_0.5",
    "urf_cos_1.0",
    "urf_gauss_0.5",
    "urf_lorentz_0.5",
    "urf_sech_0.5",
    "urf_sin_0.5",
    "urf_sin_1.0",
    "urf_sinc_0.5",
];

pub(crate) fn universal_map<T: Scalar>(case: &str) -> Map<T> {
    let json = golden_json(&format!("snnk/{case}/case.json"));
    let projection = Projection::new(matrix(&format!("{case}/g"))).unwrap();
    let c = golden_tensor::<C, 1>(&format!("snnk/{case}/c.npy")).into_vec();
    let (split, lam) = (json["split"].as_f64().unwrap(), json["lam"].as_f64().unwrap());
    let map = Universal::new(projection, vector(&format!("{case}/xi")), c, split, lam).unwrap();
    Map::new(Features::Universal(map), None, false).unwrap()
}

/// A layer of weights under a given map.
pub(crate) fn layer<T: Scalar>(map: &Map<T>, w: TensorView<'_, T, 2>, b: Option<&[T]>) -> SnnkLayer<T> {
    SnnkLayer::new(map.clone(), map.weights(w, b).unwrap()).unwrap()
}

pub(crate) fn dot<T: Scalar>(a: &[T], b: &[T]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.to_f64() * b.to_f64()).sum()
}
