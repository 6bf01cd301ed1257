//! Every kernel against the definition: all widths, odd sizes, extremes, layouts, threads.

use kc_core::{Isa, Tensor, TensorView};
use kc_quant::flexq::*;
use kc_quant::{Group, UniformGroups, Zeros};
use kc_testing::{each_isa, normals, same_on_any_pool, strided};
use proptest::prelude::*;

fn tensor(shape: [usize; 2], data: &[f32]) -> TensorView<'_, f32, 2> {
    TensorView::from_slice(shape, data).unwrap()
}

/// The same bits from every kernel on every level.
fn check_all(q: &QuantMatrix, x: TensorView<'_, f32, 2>, abits: u8, bias: Option<&[f32]>) -> Vec<f32> {
    let want = FlexLinear::new(q, bias, KernelChoice::Reference).unwrap().forward(x, abits).unwrap();
    each_isa(|isa| {
        for choice in [KernelChoice::Auto, KernelChoice::Popcount, KernelChoice::Portable] {
            let layer = FlexLinear::new_with(isa, q, bias, choice).unwrap();
            let y = layer.forward(x, abits).unwrap();
            assert_eq!(y.as_slice(), want.as_slice(), "{choice:?} on {isa}, {:?} {abits}", q.spec());
        }
    });
    want.into_vec()
}

#[test]
fn every_pair_of_widths() {
    let (m, n, k) = (5, 19, 150);
    let (x, w) = (normals(m * k, 1), normals(n * k, 2));
    for wbits in 1..=8 {
        for scheme in [Scheme::Sym, Scheme::Asym, Scheme::AsymFree] {
            let spec = QuantSpec { bits: wbits, group: Group::Size(64), scheme, ..QuantSpec::default() };
            let q = QuantMatrix::quantize(tensor([n, k], &w), &spec).unwrap();
            for abits in 1..=8 {
                check_all(&q, tensor([m, k], &x), abits, None);
            }
        }
    }
}

#[test]
fn the_largest_codes_do_not_saturate() {
    // -32 and 31, -128 and 127 everywhere: what vpmaddubsw could get wrong.
    let (m, n, k) = (4, 16, 256);
    for (wbits, abits) in [(6u8, 6u8), (6, 8), (8, 8), (8, 7), (7, 8), (4, 8), (2, 8)] {
        for (low, high) in [(true, true), (true, false), (false, true), (false, false)] {
            let top = (0xffu16 >> (8 - wbits)) as u8;
            let codes = vec![if low { 0 } else { top }; n * k];
            let groups = k / 128;
            let half = 1 << (wbits - 1);
            let w =
                UniformGroups::new([n, k], wbits, 128, codes, vec![0.5; n * groups], Zeros::Constant(half));
            let q = QuantMatrix::from_uniform(w.unwrap(), &QuantSpec::default()).unwrap();
            // One value decides the scale, all others become the extreme code of the other sign or of the same.
            let mut x = vec![if high { 1.0f32 } else { -1.0 }; m * k];
            x[7] = if high { -1.0 } else { 1.0 };
            let y = check_all(&q, tensor([m, k], &x), abits, None);
            assert!(y.iter().all(|y| y.is_finite() && *y != 0.0));
        }
    }
}

#[test]
fn tokens_and_rows_around_every_tile() {
    for m in [0usize, 1, 2, 3, 4, 5, 63, 64, 65, 130] {
        for n in [1usize, 7, 8, 9, 16, 17, 33] {
            let k = 40;
            let (x, w) = (normals(m * k, 3), normals(n * k, 4));
            let bias = normals(n, 5);
            let spec = QuantSpec { group: Group::Size(24), ..QuantSpec::default() };
            let q = QuantMatrix::quantize(tensor([n, k], &w), &spec).unwrap();
            assert_eq!(check_all(&q, tensor([m, k], &x), 6, Some(&bias)).len(), m * n);
        }
    }
}

#[test]
fn long_groups_ragged_columns_and_one_column() {
    for (k, group) in [
        (1usize, Group::Row),
        (127, Group::Size(128)),
        (200, Group::Size(128)),
        (131, Group::Size(1)),
        (700, Group::Row),
        (1030, Group::Size(300)),
    ] {
        let (m, n) = (3, 10);
        let (x, w) = (normals(m * k, 6), normals(n * k, 7));
        for bits in [3, 6, 8] {
            let spec = QuantSpec { bits, group, ..QuantSpec::default() };
            let q = QuantMatrix::quantize(tensor([n, k], &w), &spec).unwrap();
            check_all(&q, tensor([m, k], &x), 8, None);
        }
    }
}

#[test]
fn offsets_and_column_orders() {
    let (m, n, k, group) = (5, 20, 96, 32);
    let codes: Vec<u8> = (0..n * k).map(|i| (i * 7 % 16) as u8).collect();
    let (scales, offsets) = (normals(n * k / group, 8), normals(n * k / group, 9));
    let order: Vec<u32> = (0..k as u32).map(|j| j * 5 % k as u32).collect();
    let uniform = UniformGroups::new([n, k], 4, group, codes, scales, Zeros::Offset(offsets)).unwrap();
    let uniform = uniform.with_order(order).unwrap();
    let q = QuantMatrix::from_uniform(uniform.clone(), &QuantSpec::default()).unwrap();
    let x = normals(m * k, 10);
    let y = check_all(&q, tensor([m, k], &x), 8, None);

    // Against the product in f64: what is left is the rounding of activations.
    let w = uniform.dequantize().unwrap();
    for i in 0..m {
        for j in 0..n {
            let dot: f64 = (0..k).map(|c| f64::from(x[i * k + c]) * f64::from(w.as_slice()[j * k + c])).sum();
            let size: f64 =
                (0..k).map(|c| (f64::from(x[i * k + c]) * f64::from(w.as_slice()[j * k + c])).abs()).sum();
            assert!((f64::from(y[i * n + j]) - dot).abs() < 0.02 * size);
        }
    }
}

#[test]
fn strides_do_not_matter() {
    let (m, n, k) = (5, 9, 70);
    let (x, w) = (normals(m * k, 11), normals(n * k, 12));
    let spec = QuantSpec { group: Group::Size(32), ..QuantSpec::default() };
    let want = {
        let q = QuantMatrix::quantize(tensor([n, k], &w), &spec).unwrap();
        check_all(&q, tensor([m, k], &x), 6, None)
    };
    for w in strided(n, k, &w, f32::NAN) {
        let q = QuantMatrix::quantize(w.view(), &spec).unwrap();
        for x in strided(m, k, &x, f32::NAN) {
            let layer = FlexLinear::new(&q, None, KernelChoice::Auto).unwrap();
            assert_eq!(layer.forward(x.view(), 6).unwrap().as_slice(), want);
        }
    }
}

#[test]
fn threads_do_not_matter_and_half_outputs_are_rounded() {
    let (m, n, k) = (70, 200, 256);
    let (x, w) = (normals(m * k, 13), normals(n * k, 14));
    let q = QuantMatrix::quantize(tensor([n, k], &w), &QuantSpec::default()).unwrap();
    let layer = FlexLinear::new(&q, None, KernelChoice::Auto).unwrap();
    let y = same_on_any_pool(|| layer.forward(tensor([m, k], &x), 6).unwrap().into_vec());
    let mut short = Tensor::<kc_core::bf16, 2>::zeros([m, n]).unwrap();
    layer.forward_into(tensor([m, k], &x), 6, short.view_mut(), &mut Activations::new()).unwrap();
    for (short, y) in short.as_slice().iter().zip(&y) {
        assert_eq!(*short, kc_core::bf16::from_f32(*y));
    }
}

#[test]
fn scales_follow_the_data_and_codes_do_not() {
    // No floor: a tensor 2^-100 times as large has the same codes.
    let w = normals(4 * 256, 15);
    let by = 2f32.powi(-100);
    let small: Vec<f32> = w.iter().map(|w| w * by).collect();
    let (a, b) = (
        QuantMatrix::quantize(tensor([4, 256], &w), &QuantSpec::default()).unwrap(),
        QuantMatrix::quantize(tensor([4, 256], &small), &QuantSpec::default()).unwrap(),
    );
    assert_eq!(a.uniform().codes(), b.uniform().codes());
    for (a, b) in a.uniform().scales().iter().zip(b.uniform().scales()) {
        assert_eq!(a * by, *b);
    }
    let floor = QuantSpec { scale_floor: 1e-5, ..QuantSpec::default() };
    let floored = QuantMatrix::quantize(tensor([4, 256], &small), &floor).unwrap();
    assert!(floored.codes().unwrap().as_slice().iter().all(|&c| c == 0));
}

#[test]
fn codes_stay_in_the_range_of_their_bits_and_six_bits_are_held_in_six() {
    let (n, k) = (64, 1024);
    let w = normals(n * k, 16);
    let q = QuantMatrix::quantize(tensor([n, k], &w), &QuantSpec::default()).unwrap();
    let layer = FlexLinear::new(&q, None, KernelChoice::Auto).unwrap();
    let packed = (6.0 + 32.0 / 128.0) / 8.0 * (n * k) as f64;
    assert!(layer.bytes() as f64 <= 1.1 * packed, "{} of {packed}", layer.bytes());
    assert!((q.bits_per_weight() - 6.25).abs() < 1e-12);

    let mut codes = Activations::new();
    let mut y = Tensor::<f32, 2>::zeros([3, n]).unwrap();
    let x = normals(3 * k, 17);
    layer.forward_into(tensor([3, k], &x), 6, y.view_mut(), &mut codes).unwrap();
    let range = (codes.codes().iter().min().copied(), codes.codes().iter().max().copied());
    assert!(range.0 >= Some(-32) && range.1 == Some(31), "{range:?}");
    layer.forward_into(tensor([3, k], &x), 8, y.view_mut(), &mut codes).unwrap();
    assert!(codes.codes().iter().any(|&c| c > 31));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_shape_and_setting(
        m in 1usize..9, n in 1usize..40, k in 1usize..300, bits in 1u8..=8, abits in 1u8..=8,
        group in 1usize..200, scheme in 0usize..3, seed in any::<u64>(), spread in -20i32..20,
    ) {
        let scheme = [Scheme::Sym, Scheme::Asym, Scheme::AsymFree][scheme];
        let by = 2f32.powi(spread);
        let x: Vec<f32> = normals(m * k, seed).iter().map(|x| x * by).collect();
        let w = normals(n * k, seed ^ 1);
        let spec = QuantSpec { bits, group: Group::Size(group), scheme, ..QuantSpec::default() };
        let q = QuantMatrix::quantize(tensor([n, k], &w), &spec).unwrap();
        check_all(&q, tensor([m, k], &x), abits, None);
        let back = q.dequantize().unwrap();
        for (i, (w, b)) in w.iter().zip(back.as_slice()).enumerate() {
            let scale = q.uniform().scales()[i / k * q.uniform().groups() + i % k / q.uniform().group()];
            // Half a step, and a whole one at the end of the range that has no code for it.
            prop_assert!((w - b).abs() <= scale * 1.001, "{w} {b} {scale}");
        }
    }
}

#[test]
fn a_kernel_that_is_not_there_is_refused() {
    let q = QuantMatrix::quantize(tensor([1, 2], &[1.0, 2.0]), &QuantSpec::default()).unwrap();
    for choice in [KernelChoice::Vnni, KernelChoice::Avx2] {
        let error = FlexLinear::new_with(Isa::PORTABLE, &q, None, choice).unwrap_err();
        assert!(matches!(error, kc_core::Error::Unsupported { .. }), "{error}");
    }
}
