//! The fixtures of another program.

use kc_core::Tensor;
use kc_features::arc_cosine::{Order, arccos_kernel};
use kc_features::maclaurin::Maclaurin;
use kc_features::relu::Relu;
use kc_features::snnk::{
    Adapter, Bundle, Features, Map, Tensors, Up, bundle, exact_layer, fit_closed_form, reference,
};
use kc_features::universal::{Side, Spectrum};
use kc_features::{FeatureMap, Projection, Scalar, to_complex};
use kc_testing::{Tol, assert_close, golden_json, golden_tensor, same_on_any_pool};

use super::{C, UNIVERSAL, convert, halves, layer, matrix, universal_map, vector};

fn relative<T: Scalar, U: Scalar>(got: &[T], want: &[U], tol: f64) {
    let size = want.iter().fold(0.0, |m: f64, x| m.max(x.to_f64().abs()));
    assert_close(got, want, Tol::abs(tol * size));
}

fn relu_map<T: Scalar>(g: Tensor<T, 2>) -> Map<T> {
    Map::new(Features::Relu(Relu::arc_cosine(Projection::new(g).unwrap(), 0.0).unwrap()), None, false)
        .unwrap()
}

fn relu<T: Scalar>(tol: f64) {
    let read = |name: &str| matrix::<T>(&format!("relu/{name}"));
    let map = relu_map(read("g"));
    let (x, w) = (read("x"), read("w"));
    let made = layer(&map, w.view(), None);
    assert_eq!(made.n_params(), 16 * 64);
    relative(made.psi().as_slice().unwrap(), read("psi").as_slice(), tol);
    let y = same_on_any_pool(|| made.forward(x.view()).unwrap().into_vec());
    relative(&y, read("y").as_slice(), tol);
    let back = made.backward(x.view(), read("dy").view()).unwrap();
    relative(back.dx.as_slice(), read("dx").as_slice(), tol);
    relative(back.dpsi.as_slice(), read("dpsi").as_slice(), tol);
    let limit = arccos_kernel(Order::One, x.view(), w.view()).unwrap();
    relative(limit.as_slice(), read("arccos_limit").as_slice(), tol);

    let up = Up::Linear { w: read("up_w"), b: vector("relu/up_b") };
    let adapter = Adapter::new(made, up, None, None).unwrap();
    relative(adapter.forward(x.view()).unwrap().as_slice(), read("adapter").as_slice(), tol);
    let merged = adapter.merge().unwrap();
    relative(merged.forward(x.view()).unwrap().as_slice(), read("adapter").as_slice(), tol);
    assert_eq!(merged.layer().outputs(), 24);
    // Through files, under the names of the fixtures.
    let files = |name: &str| kc_io::read(kc_testing::golden(&format!("snnk/relu/{name}.npy"))).unwrap();
    let stored: Tensors = ["psi", "g", "up_w", "up_b"].map(|name| (name.to_owned(), files(name))).to_vec();
    let read_back = Adapter::<T>::from_tensors(&stored).unwrap();
    relative(read_back.forward(x.view()).unwrap().as_slice(), read("adapter").as_slice(), tol);
    let again = Adapter::<T>::from_tensors(&merged.to_tensors().unwrap()).unwrap();
    assert_eq!(again.forward(x.view()).unwrap(), merged.forward(x.view()).unwrap());
}

#[test]
fn relu_features_layer_gradients_and_adapter() {
    relu::<f64>(1e-12);
    relu::<f32>(3e-6);
    // The layer is not relu(w . x).
    let (x, w) = (matrix::<f64>("relu/x"), matrix::<f64>("relu/w"));
    let plain = exact_layer(|z| z.max(0.0), x.view(), w.view(), None).unwrap();
    let y = matrix::<f64>("relu/y");
    assert!(kc_testing::relative_error(y.as_slice(), plain.as_slice()) > 0.3);
    let g = matrix::<f64>("relu/g");
    let phi = reference::relu_features(g.view(), x.view(), 0.0).unwrap();
    let psi = reference::relu_features(g.view(), w.view(), 0.0).unwrap();
    relative(reference::product(phi.view(), psi.view()).unwrap().as_slice(), y.as_slice(), 1e-13);
    let limit = reference::arccos_kernel(Order::One, x.view(), w.view()).unwrap();
    relative(limit.as_slice(), matrix::<f64>("relu/arccos_limit").as_slice(), 1e-13);
}

fn universal<T: Scalar>(case: &str, tol: f64) {
    let map = universal_map::<T>(case);
    let read = |name: &str| matrix::<T>(&format!("{case}/{name}"));
    let (x, w, b) = (read("x"), read("w"), vector::<T>(&format!("{case}/b")));
    let made = layer(&map, w.view(), Some(&b));
    relative(map.apply(x.view()).unwrap().as_slice(), halves(&format!("{case}/phi")).as_slice(), tol);
    relative(made.psi().as_slice().unwrap(), halves(&format!("{case}/psi")).as_slice(), tol);
    relative(made.forward(x.view()).unwrap().as_slice(), read("y").as_slice(), tol);
    let back = made.backward(x.view(), read("dy").view()).unwrap();
    relative(back.dx.as_slice(), read("dx").as_slice(), tol);
    relative(back.dpsi.as_slice(), halves(&format!("{case}/dpsi")).as_slice(), tol);
}

#[test]
fn universal_features_layers_and_gradients() {
    for case in UNIVERSAL {
        universal::<f64>(case, 1e-12);
        universal::<f32>(case, 1e-5);
        let name = case.split('_').nth(1).unwrap();
        let (_, spectrum) = Spectrum::NAMED.into_iter().find(|(n, _)| *n == name).unwrap();
        let (x, w) = (matrix::<f64>(&format!("{case}/x")), matrix::<f64>(&format!("{case}/w")));
        let b = vector::<f64>(&format!("{case}/b"));
        let exact = exact_layer(|z| spectrum.value(z), x.view(), w.view(), Some(&b)).unwrap();
        relative(exact.as_slice(), matrix::<f64>(&format!("{case}/exact")).as_slice(), 1e-13);
    }
}

#[test]
fn the_definitions_agree_with_the_fixtures() {
    for case in UNIVERSAL {
        let read = |name: &str| matrix::<f64>(&format!("{case}/{name}"));
        let json = golden_json(&format!("snnk/{case}/case.json"));
        let c = golden_tensor::<C, 1>(&format!("snnk/{case}/c.npy")).into_vec();
        let xi = vector::<f64>(&format!("{case}/xi"));
        let terms =
            reference::UniversalTerms { xi: &xi, c: &c, split: json["split"].as_f64().unwrap(), lam: 0.0 };
        let (x, w, g) = (read("x"), read("w"), read("g"));
        let b = vector::<f64>(&format!("{case}/b"));
        let phi = reference::universal_features(terms, g.view(), Side::X, x.view(), None).unwrap();
        let psi = reference::universal_features(terms, g.view(), Side::W, w.view(), Some(&b)).unwrap();
        let y = reference::real_product(phi.view(), psi.view()).unwrap();
        relative(y.as_slice(), read("y").as_slice(), 1e-12);
    }
}

fn maclaurin<T: Scalar>(tol: f64) {
    let json = golden_json("snnk/maclaurin_tanh/case.json");
    let coefficients: Vec<f64> =
        json["coefficients"].as_array().unwrap().iter().map(|c| c.as_f64().unwrap()).collect();
    let degrees = golden_tensor::<i64, 1>("snnk/maclaurin_tanh/degrees.npy");
    let degrees: Vec<usize> = degrees.as_slice().iter().map(|&n| n as usize).collect();
    let all = golden_tensor::<f32, 3>("snnk/maclaurin_tanh/omega.npy");
    let mut rows: Vec<f32> = Vec::new();
    for (k, &n) in degrees.iter().enumerate() {
        rows.extend(&all.as_slice()[k * 8 * 24..][..n * 24]);
    }
    let omega = Tensor::from_slice([rows.len() / 24, 24], &rows).unwrap();
    let map = Maclaurin::new(coefficients.clone(), false, degrees.clone(), convert::<T, _>(&omega)).unwrap();
    let map = Map::new(Features::Maclaurin(map), None, false).unwrap();
    let read = |name: &str| matrix::<T>(&format!("maclaurin_tanh/{name}"));
    let (x, w) = (read("x"), read("w"));
    let made = layer(&map, w.view(), None);
    relative(map.apply(x.view()).unwrap().as_slice(), read("phi").as_slice(), tol);
    relative(made.psi().as_slice().unwrap(), read("psi").as_slice(), tol);
    relative(made.forward(x.view()).unwrap().as_slice(), read("y").as_slice(), tol);

    let phi = reference::maclaurin_features(
        &coefficients,
        &degrees,
        convert::<T, _>(&omega).view(),
        Side::X,
        x.view(),
    )
    .unwrap();
    let psi = reference::maclaurin_features(
        &coefficients,
        &degrees,
        convert::<T, _>(&omega).view(),
        Side::W,
        w.view(),
    )
    .unwrap();
    let y = reference::product(phi.view(), psi.view()).unwrap();
    relative(y.as_slice(), read("y").as_slice(), tol);
}

#[test]
fn maclaurin_features_of_tanh() {
    maclaurin::<f64>(1e-12);
    maclaurin::<f32>(3e-6);
}

fn bundled<T: Scalar>(tol: f64, fit: f64) {
    let read = |name: &str| matrix::<T>(&format!("bundle/{name}"));
    let maps = vec![relu_map(read("g1")), relu_map(read("g2"))];
    let features = Bundle::new(maps).unwrap();
    let (x, w1, w2) = (read("x"), read("w1"), read("w2"));
    let network = bundle(&[(w1.view(), None), (w2.view(), None)], &features).unwrap();
    assert_eq!(network.n_params(), 5 * 40);
    relative(network.psi().as_slice().unwrap(), read("psi").as_slice(), tol);
    let y = same_on_any_pool(|| network.forward(x.view()).unwrap().into_vec());
    relative(&y, read("y").as_slice(), tol);
    let ridge = golden_json("snnk/bundle/case.json")["ridge"].as_f64().unwrap();
    let fitted = fit_closed_form(&features, x.view(), read("target").view(), ridge).unwrap();
    relative(fitted.psi().as_slice().unwrap(), read("fit_ridge").as_slice(), fit);
}

#[test]
fn a_bundle_and_its_closed_form() {
    bundled::<f64>(1e-12, 1e-10);
    bundled::<f32>(3e-6, 1e-3);
}

#[test]
fn complex_numbers_and_halves_are_the_same() {
    let phi = golden_tensor::<C, 2>("snnk/urf_cos_0.5/phi.npy");
    assert_eq!(to_complex::<f64>(halves("urf_cos_0.5/phi").view()).unwrap(), phi);
    assert!(to_complex(matrix::<f64>("bundle/w2").view().slice(1, 0..3).unwrap()).is_err());
}
