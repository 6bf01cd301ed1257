use kc_core::{Error, Isa, Tensor, TensorView};
use kc_gemm::{
    Affine, PackedI8, gemm_i8, gemm_i8_packed_into_with, gemm_i8_scaled, gemm_i8_scaled_with, gemm_u8i8,
    gemm_u8i8_dequant_with, gemm_u8i8_packed_into_with, reference,
};
use kc_testing::{cycle_i8, each_isa, normals, same_on_any_pool, strided};
use proptest::prelude::*;

fn wide(values: &[i8]) -> Vec<i64> {
    values.iter().map(|&v| i64::from(v)).collect()
}

/// The documented order of operations, in f32.
fn scaled_reference(
    a: &[i8],
    w: &[i8],
    shape: [usize; 3],
    group: usize,
    row_scale: &[f32],
    w_scale: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let [m, n, k] = shape;
    let groups = if group == 0 { k.min(1) } else { k.div_ceil(group) };
    let sums = reference::group_sums(&wide(a), &wide(w), shape, group);
    let mut out = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let mut total = 0f32;
            for g in 0..groups {
                total += sums[(i * n + j) * groups + g] as f32 * w_scale[j * groups + g];
            }
            out.push(total * row_scale[i] + bias.map_or(0.0, |b| b[j]));
        }
    }
    out
}

#[test]
fn scaled_products_have_the_bits_of_the_definition() {
    let shapes = [
        [1, 1, 1],
        [1, 32, 128],
        [1, 100, 33],
        [2, 33, 4],
        [3, 31, 5],
        [4, 64, 31],
        [5, 65, 64],
        [7, 7, 7],
        [11, 40, 100],
        [12, 32, 96],
        [13, 129, 260],
        [25, 17, 130],
        [130, 3, 257],
    ];
    for shape in shapes {
        let [m, n, k] = shape;
        let (a, w) = (cycle_i8(m * k), cycle_i8(n * k + 13)[13..].to_vec());
        for group in [0, 1, 3, 32, 33, 64, 128, 1000] {
            let groups = k.div_ceil(if group == 0 { k } else { group });
            let (rows, scales) = (normals(m, 1), normals(n * groups, 2));
            let bias = normals(n, 3);
            let packed = PackedI8::pack(TensorView::from_slice([n, k], &w).unwrap(), group).unwrap();
            assert_eq!(packed.groups(), groups);
            for bias in [None, Some(bias.as_slice())] {
                let want = scaled_reference(&a, &w, shape, group, &rows, &scales, bias);
                each_isa(|isa| {
                    let mut out = Tensor::<f32, 2>::zeros([m, n]).unwrap();
                    out.as_mut_slice().fill(f32::NAN);
                    gemm_i8_scaled_with(
                        isa,
                        TensorView::from_slice([m, k], &a).unwrap(),
                        &packed,
                        &rows,
                        TensorView::from_slice([n, groups], &scales).unwrap(),
                        bias,
                        out.view_mut(),
                    )
                    .unwrap();
                    assert_eq!(out.as_slice(), want, "{shape:?} group {group} {isa}");
                });
            }
        }
    }
}

#[test]
fn every_layout_of_the_operands_gives_the_same_sums() {
    let (m, n, k) = (6, 35, 50);
    let (a, w) = (cycle_i8(m * k), cycle_i8(n * k));
    let want = reference::group_sums(&wide(&a), &wide(&w), [m, n, k], 0);
    for a in strided(m, k, &a, 99) {
        for w in strided(n, k, &w, -99) {
            let packed = PackedI8::pack(w.view(), 0).unwrap();
            each_isa(|isa| {
                // A transposed output: every row strided.
                let mut out = Tensor::<i32, 2>::zeros([n, m]).unwrap();
                gemm_i8_packed_into_with(isa, a.view(), &packed, out.view_mut().transposed()).unwrap();
                let got: Vec<i64> = out.view().transposed().iter().map(i64::from).collect();
                assert_eq!(got, want, "{isa}");
            });
        }
    }
}

#[test]
fn extreme_codes_do_not_saturate() {
    // All -128: a saturating multiply-add of bytes gives 2 * 128 * 128 > i16::MAX.
    for (a, w) in [(-128i8, -128i8), (127, -128), (-128, 127)] {
        let k = 4096;
        let packed = PackedI8::pack(TensorView::from_slice([3, k], &vec![w; 3 * k]).unwrap(), 0).unwrap();
        each_isa(|isa| {
            let mut out = Tensor::<i32, 2>::zeros([2, 3]).unwrap();
            let a = vec![a; 2 * k];
            let view = TensorView::from_slice([2, k], &a).unwrap();
            gemm_i8_packed_into_with(isa, view, &packed, out.view_mut()).unwrap();
            let want = i32::from(a[0]) * i32::from(w) * k as i32;
            assert!(out.as_slice().iter().all(|&v| v == want), "{isa}");

            let codes = vec![255u8; 2 * k];
            let view = TensorView::from_slice([2, k], &codes).unwrap();
            gemm_u8i8_packed_into_with(isa, view, &packed, out.view_mut()).unwrap();
            assert!(out.as_slice().iter().all(|&v| v == 255 * i32::from(w) * k as i32), "{isa}");
        });
    }
}

#[test]
fn the_longest_sums_are_exact() {
    let k = kc_gemm::int8::MAX_GROUP_I8;
    let (a, w) = (vec![-128i8; k], vec![-128i8; k]);
    let packed = PackedI8::pack(TensorView::from_slice([1, k], &w).unwrap(), 0).unwrap();
    let k8 = kc_gemm::int8::MAX_DEPTH_U8I8;
    let packed8 = PackedI8::pack(TensorView::from_slice([1, k8], &w[..k8]).unwrap(), 0).unwrap();
    let codes = vec![255u8; k8];
    each_isa(|isa| {
        let mut out = Tensor::<i32, 2>::zeros([1, 1]).unwrap();
        let view = TensorView::from_slice([1, k], &a).unwrap();
        gemm_i8_packed_into_with(isa, view, &packed, out.view_mut()).unwrap();
        assert_eq!(i64::from(out[[0, 0]]), k as i64 * 128 * 128);
        let view = TensorView::from_slice([1, k8], &codes).unwrap();
        gemm_u8i8_packed_into_with(isa, view, &packed8, out.view_mut()).unwrap();
        assert_eq!(i64::from(out[[0, 0]]), k8 as i64 * 255 * -128);
    });
}

#[test]
fn zero_points_are_taken_off() {
    let (m, n, k) = (5, 37, 45);
    let w = cycle_i8(n * k);
    let codes: Vec<u8> = (0..m * k).map(|i| (i * 7 % 256) as u8).collect();
    let affine = Affine { scale: 0.5, zero: 131 };
    let (scales, bias) = (normals(n, 1), normals(n, 2));
    let packed = PackedI8::pack(TensorView::from_slice([n, k], &w).unwrap(), 0).unwrap();
    let centred: Vec<i64> = codes.iter().map(|&c| i64::from(c) - 131).collect();
    let sums = reference::group_sums(&centred, &wide(&w), [m, n, k], 0);
    let want: Vec<f32> =
        sums.iter().enumerate().map(|(i, &s)| s as f32 * (0.5 * scales[i % n]) + bias[i % n]).collect();
    each_isa(|isa| {
        let mut out = Tensor::<f32, 2>::zeros([m, n]).unwrap();
        let a = TensorView::from_slice([m, k], &codes).unwrap();
        gemm_u8i8_dequant_with(isa, a, affine, &packed, &scales, Some(&bias), out.view_mut()).unwrap();
        assert_eq!(out.as_slice(), want, "{isa}");
    });
}

#[test]
fn threads_do_not_change_a_bit() {
    let (m, n, k) = (70, 600, 256);
    let (a, w) = (cycle_i8(m * k), cycle_i8(n * k));
    let (rows, scales) = (normals(m, 1), normals(n * 2, 2));
    let packed = PackedI8::pack(TensorView::from_slice([n, k], &w).unwrap(), 128).unwrap();
    let got = same_on_any_pool(|| {
        let mut out = Tensor::<f32, 2>::zeros([m, n]).unwrap();
        let a = TensorView::from_slice([m, k], &a).unwrap();
        let scales = TensorView::from_slice([n, 2], &scales).unwrap();
        gemm_i8_scaled(a, &packed, &rows, scales, None, out.view_mut()).unwrap();
        out.into_vec()
    });
    assert_eq!(got, scaled_reference(&a, &w, [m, n, k], 128, &rows, &scales, None));
}

#[test]
fn packed_weights_take_a_byte_each() {
    let w = Tensor::<i8, 2>::zeros([64, 1024]).unwrap();
    let packed = PackedI8::pack(w.view(), 128).unwrap();
    assert_eq!(packed.bytes(), 64 * 1024 + 64 * 4);
    assert_eq!((packed.shape(), packed.groups(), packed.group()), ([64, 1024], 8, 128));
}

#[test]
fn empty_products() {
    each_isa(|isa| {
        for [m, n, k] in [[0, 3, 4], [2, 0, 4], [2, 3, 0]] {
            let packed = PackedI8::pack(Tensor::zeros([n, k]).unwrap().view(), 32).unwrap();
            let mut out = Tensor::<i32, 2>::zeros([m, n]).unwrap();
            out.as_mut_slice().fill(7);
            if k == 0 {
                gemm_i8_packed_into_with(isa, Tensor::zeros([m, k]).unwrap().view(), &packed, out.view_mut())
                    .unwrap();
                assert!(out.as_slice().iter().all(|&v| v == 0));
            }
            let mut out = Tensor::<f32, 2>::zeros([m, n]).unwrap();
            out.as_mut_slice().fill(7.0);
            let scales = Tensor::zeros([n, packed.groups()]).unwrap();
            let a = Tensor::zeros([m, k]).unwrap();
            gemm_i8_scaled_with(isa, a.view(), &packed, &vec![1.0; m], scales.view(), None, out.view_mut())
                .unwrap();
            assert!(out.as_slice().iter().all(|&v| v == 0.0));
        }
    });
}

#[test]
fn bad_input_is_named() {
    let a = Tensor::<i8, 2>::zeros([2, 5]).unwrap();
    let b = Tensor::<i8, 2>::zeros([4, 3]).unwrap();
    let error = gemm_i8(a.view(), b.view()).unwrap_err();
    assert_eq!(error.to_string(), "b: expected [5, N] to match a [2, 5], got shape [4, 3]");
    let codes = Tensor::<u8, 2>::zeros([2, 5]).unwrap();
    assert!(matches!(gemm_u8i8(codes.view(), b.view()), Err(Error::Shape { arg, .. }) if arg == "b"));

    let packed = PackedI8::pack(Tensor::zeros([3, 5]).unwrap().view(), 2).unwrap();
    let mut out = Tensor::<f32, 2>::zeros([2, 3]).unwrap();
    let scales = Tensor::<f32, 2>::zeros([3, 3]).unwrap();
    let mut run = |a: &Tensor<i8, 2>, rows: usize, scales: &Tensor<f32, 2>, bias: Option<usize>| {
        let bias = bias.map(|len| vec![0.0; len]);
        gemm_i8_scaled(a.view(), &packed, &vec![1.0; rows], scales.view(), bias.as_deref(), out.view_mut())
            .map_err(|e| e.to_string())
    };
    assert!(run(&a, 2, &scales, Some(3)).is_ok());
    let narrow = Tensor::zeros([2, 4]).unwrap();
    assert_eq!(
        run(&narrow, 2, &scales, None).unwrap_err(),
        "a: expected [M, 5] to match w [3, 5], got shape [2, 4]"
    );
    let tall = Tensor::zeros([4, 5]).unwrap();
    assert_eq!(run(&tall, 4, &scales, None).unwrap_err(), "out: expected [4, 3], got shape [2, 3]");
    assert!(run(&a, 1, &scales, None).unwrap_err().starts_with("row_scale: expected 2 entries"));
    assert!(
        run(&a, 2, &Tensor::zeros([3, 2]).unwrap(), None)
            .unwrap_err()
            .starts_with("w_scale: expected [3, 3]")
    );
    assert!(run(&a, 2, &scales, Some(2)).unwrap_err().starts_with("bias: expected 3 entries"));

    let mut sums = Tensor::<i32, 2>::zeros([2, 3]).unwrap();
    let grouped = gemm_i8_packed_into_with(Isa::PORTABLE, a.view(), &packed, sums.view_mut());
    assert!(matches!(grouped, Err(Error::Argument { arg, .. }) if arg == "w"));
    let long = Tensor::<i8, 2>::zeros([1, 131_072]).unwrap();
    assert!(matches!(PackedI8::pack(long.view(), 0), Err(Error::Argument { arg, .. }) if arg == "group"));
    assert!(PackedI8::pack(long.view(), 65_536).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sums_are_exact(m in 1usize..14, n in 1usize..70, k in 0usize..90, seed in any::<u64>()) {
        let mut rng = kc_core::KcRng::new(seed, 0);
        let mut codes = |len: usize| {
            let mut values = vec![0f32; len];
            rng.fill_uniform(&mut values, -128.0, 128.0);
            values.into_iter().map(|v| v.floor() as i8).collect::<Vec<_>>()
        };
        let (a, w) = (codes(m * k), codes(n * k));
        let want = if k == 0 { vec![0; m * n] } else { reference::group_sums(&wide(&a), &wide(&w), [m, n, k], 0) };
        let packed = PackedI8::pack(TensorView::from_slice([n, k], &w).unwrap(), 0).unwrap();
        for isa in Isa::available() {
            let mut out = Tensor::<i32, 2>::zeros([m, n]).unwrap();
            gemm_i8_packed_into_with(isa, TensorView::from_slice([m, k], &a).unwrap(), &packed, out.view_mut()).unwrap();
            let got: Vec<i64> = out.as_slice().iter().map(|&v| i64::from(v)).collect();
            prop_assert_eq!(&got, &want);
        }
    }
}
