//! The format: parts, files, the arrays of the published program.

use kc_core::{AnyTensor, Error, Tensor};
use kc_quant::lut_gemm::*;
use kc_quant::{Group, ScaleDtype, UniformGroups, Zeros};
use kc_testing::{Tol, assert_close, normals};

fn solved(shape: [usize; 2], group: usize, scale_dtype: ScaleDtype) -> BcqMatrix {
    let w = Tensor::from_slice(shape, &normals(shape[0] * shape[1], 1)).unwrap();
    let spec =
        BcqSpec { group: Group::Size(group), offset: Offset::Joint, scale_dtype, ..BcqSpec::default() };
    BcqMatrix::quantize(w.view(), &spec, None).unwrap()
}

fn read((tensors, metadata): &FileParts) -> kc_core::Result<BcqMatrix> {
    let get = |name: &str| tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone());
    BcqMatrix::from_tensors("q.safetensors", get, metadata)
}

#[test]
fn files_hold_everything() {
    for dtype in [ScaleDtype::F32, ScaleDtype::F16, ScaleDtype::Bf16] {
        let q = solved([5, 131], 64, dtype);
        let parts = q.to_tensors().unwrap();
        assert_eq!(parts.0[0].1.shape(), [3, 5, 17]);
        assert_eq!(parts.0[1].1.dtype().size(), dtype.bytes());
        assert_eq!(read(&parts).unwrap(), q);
    }
    let w = Tensor::from_slice([2, 9], &normals(18, 2)).unwrap();
    let plain = BcqMatrix::quantize(w.view(), &BcqSpec::default(), None).unwrap();
    let parts = plain.to_tensors().unwrap();
    assert_eq!(parts.0.len(), 2);
    let back = read(&parts).unwrap();
    assert!(back.offsets().is_none() && back == plain);
}

#[test]
fn hostile_files_are_refused() {
    let good = || solved([3, 20], 8, ScaleDtype::F32).to_tensors().unwrap();
    let bad = |what: &str, change: &dyn Fn(&mut FileParts)| {
        let mut parts = good();
        change(&mut parts);
        let found = read(&parts);
        assert!(matches!(found, Err(Error::Parse { .. })), "{what}: {found:?}");
    };
    for (key, value) in [
        ("kc.system", "flexq"),
        ("kc.version", "2"),
        ("bits", "4"),
        ("bits", "0"),
        ("bits", "1e9"),
        ("bits", "18446744073709551615"),
        ("group", "0"),
        ("group", "11"),
        ("group", "-8"),
        ("shape", "[3, 25]"),
        // Bits behind column 17.
        ("shape", "[3, 17]"),
        ("shape", "[4, 20]"),
        ("shape", "[0, 20]"),
        ("shape", "[3]"),
        ("shape", "[18446744073709551615, 18446744073709551615]"),
        ("shape", "3 x 20"),
    ] {
        bad(&format!("{key} {value}"), &|parts| {
            parts.1.insert(key.into(), value.into());
        });
    }
    for key in ["kc.system", "kc.version", "bits", "group", "shape"] {
        bad(key, &|parts| {
            parts.1.remove(key);
        });
    }
    for name in ["bits", "alpha"] {
        bad(name, &|parts| parts.0.retain(|(n, _)| n != name));
    }
    let replace = |name: &'static str, tensor: AnyTensor| {
        move |parts: &mut FileParts| {
            parts.0.retain(|(n, _)| n != name);
            parts.0.push((name.into(), tensor.clone()));
        }
    };
    // Bits behind column 20.
    let tail = Tensor::from_slice([3, 3, 3], &[0x10u8; 27]).unwrap();
    bad("tail bits", &replace("bits", tail.into_any()));
    bad("bits of a wide type", &replace("bits", Tensor::<i32, 3>::zeros([3, 3, 3]).unwrap().into_any()));
    bad("short bits", &replace("bits", Tensor::<u8, 3>::zeros([3, 3, 2]).unwrap().into_any()));
    bad("integer alpha", &replace("alpha", Tensor::<u8, 3>::zeros([3, 3, 3]).unwrap().into_any()));
    let nan = Tensor::from_slice([3, 3, 3], &[f32::NAN; 27]).unwrap();
    bad("alpha of NaN", &replace("alpha", nan.into_any()));
    bad("flat offset", &replace("offset", Tensor::<f32, 1>::zeros([9]).unwrap().into_any()));
    bad("wide offset", &replace("offset", Tensor::<f64, 2>::zeros([3, 3]).unwrap().into_any()));
    for order in [vec![0u32; 20], vec![0; 3], (1..21).collect()] {
        let order = Tensor::from_slice([order.len()], &order).unwrap();
        bad("order", &replace("order", order.into_any()));
    }
    assert!(read(&good()).is_ok());
}

#[test]
fn parts_are_checked() {
    let new = |shape, bits, group, planes: usize, scales: usize, offsets: Option<usize>| {
        let offsets = offsets.map(|len| vec![0.0; len]);
        BcqMatrix::from_parts(shape, bits, group, vec![0; planes], vec![0.0; scales], offsets)
    };
    assert!(new([2, 9], 3, 4, 12, 18, Some(6)).is_ok());
    assert!(matches!(new([2, 9], 0, 4, 0, 0, None), Err(Error::Argument { .. })));
    assert!(matches!(new([2, 9], 9, 4, 36, 54, None), Err(Error::Argument { .. })));
    assert!(matches!(new([2, 9], 3, 0, 12, 18, None), Err(Error::Argument { .. })));
    assert!(matches!(new([2, 0], 3, 4, 0, 0, None), Err(Error::Empty { .. })));
    assert!(matches!(new([2, 9], 3, 4, 11, 18, None), Err(Error::Shape { .. })));
    assert!(matches!(new([2, 9], 3, 4, 12, 17, None), Err(Error::Shape { .. })));
    assert!(matches!(new([2, 9], 3, 4, 12, 18, Some(5)), Err(Error::Shape { .. })));
    let tail = BcqMatrix::from_parts([1, 9], 1, 9, vec![0, 2], vec![0.0], None);
    assert!(matches!(tail, Err(Error::Argument { .. })));
    let infinite = BcqMatrix::from_parts([1, 9], 1, 9, vec![0, 1], vec![f32::INFINITY], None);
    assert!(matches!(infinite, Err(Error::NotFinite { .. })));
}

#[test]
fn the_published_arrays_come_and_go() {
    for (n, k, group) in [(5, 64, 32), (3, 131, 128)] {
        let q = solved([n, k], group, ScaleDtype::F32);
        let arrays = q.to_reference().unwrap();
        assert_eq!(arrays.binary.shape(), [k.div_ceil(32), 3, n]);
        for (row, column, plane) in [(0, 0, 0), (n - 1, 33, 1), (1, k - 1, 2)] {
            let bit = q.plane_row(plane, row)[column / 8] >> (column % 8) & 1;
            assert_eq!(arrays.binary[[column / 32, plane, row]] >> (column % 32) & 1, u32::from(bit));
        }
        assert_eq!(arrays.alpha[[1, 2, 2]], q.group_scales(2, 1)[2]);
        assert_eq!(arrays.q_bias[[1, 2]], q.offset(2, 1));
        let bias = Some(arrays.q_bias.view());
        let back =
            BcqMatrix::from_reference(k, group, arrays.binary.view(), arrays.alpha.view(), bias).unwrap();
        assert_eq!(back, q);
        let short = arrays.alpha.view().slice(0, 0..1).unwrap();
        assert!(BcqMatrix::from_reference(k, group, arrays.binary.view(), short, None).is_err());
        assert!(BcqMatrix::from_reference(k, 0, arrays.binary.view(), short, None).is_err());
    }
}

#[test]
fn every_kind_of_zero_converts() {
    let (n, k, group) = (3, 20, 8);
    let codes: Vec<u8> = (0..n * k).map(|i| (i * 11 % 32) as u8).collect();
    let mut scales = normals(n * 3, 4);
    scales[2] = -0.5;
    scales[3] = 0.0;
    for zeros in [
        Zeros::Constant(16),
        Zeros::Constant(-3),
        Zeros::PerGroup((0..9).map(|i| 5 * i - 7).collect()),
        Zeros::Offset(normals(9, 5)),
    ] {
        let u = UniformGroups::new([n, k], 5, group, codes.clone(), scales.clone(), zeros).unwrap();
        let q = BcqMatrix::from_uniform(&u).unwrap();
        assert!(q.scales().iter().all(|&s| s >= 0.0));
        let (got, want) = (q.dequantize().unwrap(), u.dequantize().unwrap());
        let size = want.as_slice().iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert_close(got.as_slice(), want.as_slice(), Tol::abs(1e-6 * f64::from(size)));
    }
}
