//! Weights through named tensors and back.

use std::collections::BTreeMap;

use kc_core::{AnyTensor, Error, Result, Tensor};
use kc_quant::fireq::*;
use kc_testing::normals;

fn weights(scale_type: ScaleType, k: usize) -> FireqWeights {
    let w = Tensor::from_slice([5, k], &normals(5 * k, 1)).unwrap();
    let spec = WeightSpec { scale_type, group: kc_quant::Group::Size(32), ..WeightSpec::default() };
    FireqWeights::quantize(w.view(), &spec).unwrap()
}

type Stored = (BTreeMap<String, AnyTensor>, BTreeMap<String, String>);

fn stored(weights: &FireqWeights) -> Stored {
    let (tensors, texts) = weights.to_tensors().unwrap();
    (tensors.into_iter().collect(), texts)
}

fn read((tensors, texts): &Stored) -> Result<FireqWeights> {
    let get = |name: &str| tensors.get(name).cloned().ok_or_else(|| Error::argument("tensor", "one", name));
    FireqWeights::from_tensors(get, texts)
}

#[test]
fn every_type_of_scale_comes_back() {
    for scale_type in ScaleType::ALL {
        for k in [64, 77] {
            let w = weights(scale_type, k);
            assert_eq!(read(&stored(&w)).unwrap(), w);
        }
    }
    let (tensors, texts) = stored(&weights(ScaleType::Fp8, 64));
    assert_eq!((texts["kc.system"].as_str(), texts["kc.version"].as_str()), ("fireq", "1"));
    assert_eq!(tensors["packed"].shape(), [5, 8]);
    assert_eq!((tensors["scales"].dtype(), tensors["scales"].shape()), (kc_core::DType::U8, &[5, 2][..]));
}

#[test]
fn bad_files() {
    let good = stored(&weights(ScaleType::Fp8, 77));
    let text = |key: &str, value: &str| {
        let mut bad = good.clone();
        bad.1.insert(key.to_owned(), value.to_owned());
        read(&bad).unwrap_err()
    };
    assert!(matches!(text("kc.system", "flexq"), Error::Unsupported { .. }));
    assert!(matches!(text("kc.version", "2"), Error::Unsupported { .. }));
    for (key, value) in
        [("columns", "x"), ("per_tensor", "-1"), ("per_tensor", "nan"), ("scale_dtype", "f16")]
    {
        assert!(matches!(text(key, value), Error::Argument { .. }), "{key} {value}");
    }
    for (key, value) in [("columns", "99999999999999999"), ("columns", "5"), ("group", "0"), ("group", "8")] {
        assert!(matches!(text(key, value), Error::Shape { .. }), "{key} {value}");
    }
    assert!(matches!(text("scale_dtype", "bf16"), Error::DType { .. }));
    let mut bad = good.clone();
    bad.1.remove("group");
    assert!(matches!(read(&bad), Err(Error::Argument { .. })));
    let mut bad = good.clone();
    let codes = Tensor::from_slice([5, 3], &[0x7fu8; 15]).unwrap();
    bad.0.insert("scales".to_owned(), codes.into_any());
    assert!(matches!(read(&bad), Err(Error::NotFinite { .. })));
    let mut bad = good.clone();
    bad.0.remove("packed");
    assert!(read(&bad).is_err());
    // Bits behind the last code of a row.
    let mut bad = good;
    let words = Tensor::from_slice([5, 10], &[-1i32; 50]).unwrap();
    bad.0.insert("packed".to_owned(), words.into_any());
    assert!(matches!(read(&bad), Err(Error::Argument { .. })));
}
