//! Products: every kernel and mode against the reference, odd shapes, traps, bad input.

use kc_core::{Error, Level, Tensor, TensorView};
use kc_quant::lut_gemm::*;
use kc_quant::metrics::relative_error;
use kc_quant::{Group, UniformGroups, Zeros};
use kc_testing::{normals, same_on_any_pool, strided, uniforms};
use proptest::prelude::*;

/// The kernels that this processor can run.
pub(super) fn kernels() -> impl Iterator<Item = KernelChoice> {
    let avx2 = kc_core::Isa::detect(Level::Avx2).map(|_| KernelChoice::Avx2);
    let avx512 = kc_core::Isa::detect(Level::Avx512).map(|_| KernelChoice::Avx512);
    [KernelChoice::Auto, KernelChoice::Portable, KernelChoice::Literal].into_iter().chain(avx2).chain(avx512)
}

/// Random signs, scales and, unless `plain`, offsets.
fn matrix(shape: [usize; 2], bits: u8, group: usize, plain: bool, seed: u64) -> BcqMatrix {
    let [n, k] = shape;
    let (q, row, groups) = (usize::from(bits), k.div_ceil(8), k.div_ceil(group.min(k)));
    let mut planes: Vec<u8> = uniforms(q * n * row, 0.0, 256.0, seed).into_iter().map(|x| x as u8).collect();
    if !k.is_multiple_of(8) {
        planes.iter_mut().skip(row - 1).step_by(row).for_each(|byte| *byte &= 0xff >> (8 - k % 8));
    }
    let scales = uniforms(n * groups * q, 0.0, 1.0, seed + 1);
    let offsets = (!plain).then(|| normals(n * groups, seed + 2));
    BcqMatrix::from_parts(shape, bits, group, planes, scales, offsets).unwrap()
}

fn tensor(shape: [usize; 2], seed: u64) -> Tensor<f32, 2> {
    Tensor::from_slice(shape, &normals(shape[0] * shape[1], seed)).unwrap()
}

/// Every kernel and mode on one product.
fn check(w: &BcqMatrix, x: TensorView<'_, f32, 2>, bias: Option<&[f32]>) {
    let want = reference::product(x, w, bias).unwrap();
    let terms = reference::product_terms(x, w, bias).unwrap();
    for kernel in kernels() {
        for mode in [LutMode::F32, LutMode::I16, LutMode::I8] {
            if kernel == KernelChoice::Literal && mode != LutMode::F32 {
                continue;
            }
            let y = LutLinear::new(w, bias, mode, kernel).unwrap().forward(x).unwrap();
            // A bound for each element: half a step of the tables for each four columns.
            let allowed = match mode {
                LutMode::F32 => 4e-6,
                LutMode::I16 => 4e-6 + 0.51 / 4095.0,
                LutMode::I8 => 4e-6 + 0.51 / 63.0,
            };
            for (at, (y, want)) in y.as_slice().iter().zip(want.as_slice()).enumerate() {
                let away = (f64::from(*y) - want).abs();
                let scale = terms.as_slice()[at] + f64::from(f32::MIN_POSITIVE);
                let groups = w.group().div_ceil(4).max(1) as f64;
                let factor = if mode == LutMode::F32 { 1.0 } else { groups };
                assert!(
                    away <= allowed * factor * scale,
                    "{mode:?} {kernel:?} {:?} {} {at}: {y} {want} {away:e}",
                    w.shape(),
                    w.group()
                );
            }
        }
    }
}

#[test]
fn every_kernel_agrees_with_the_reference_at_odd_shapes() {
    for (m, n, k, bits, group) in [
        (1, 1, 1, 1, 1),
        (1, 5, 8, 2, 8),
        (2, 64, 131, 4, 128),
        (3, 65, 200, 3, 128),
        (4, 63, 40, 5, 20),
        (5, 130, 256, 6, 32),
        (6, 31, 77, 7, 7),
        (7, 33, 300, 8, 300),
        (8, 17, 129, 3, 64),
        (9, 40, 100, 2, 33),
        (20, 70, 520, 8, 128),
        (31, 10, 150, 4, 40),
        (100, 37, 200, 3, 100),
        (130, 20, 77, 2, 11),
        (300, 3, 20, 3, 20),
        (1, 66, 2500, 3, 2500),
        (1, 3, 1025, 2, 1100),
        (2, 4, 333, 3, 12),
    ] {
        let x = tensor([m, k], 1);
        let bias = normals(n, 2);
        check(&matrix([n, k], bits, group, false, 3), x.view(), Some(&bias));
        check(&matrix([n, k], bits, group, true, 7), x.view(), None);
    }
}

#[test]
fn no_tokens_give_no_rows() {
    for kernel in kernels() {
        let layer = LutLinear::new(&matrix([3, 9], 3, 8, false, 1), None, LutMode::F32, kernel).unwrap();
        let x = Tensor::<f32, 2>::zeros([0, 9]).unwrap();
        assert_eq!(layer.forward(x.view()).unwrap().shape(), [0, 3]);
    }
}

#[test]
fn strided_activations_and_results() {
    let (m, n, k) = (3, 37, 72);
    let w = matrix([n, k], 3, 32, false, 5);
    let values = normals(m * k, 6);
    let x = TensorView::from_slice([m, k], &values).unwrap();
    for mode in [LutMode::F32, LutMode::I16, LutMode::I8] {
        let layer = LutLinear::new(&w, None, mode, KernelChoice::Auto).unwrap();
        let want = layer.forward(x).unwrap();
        let mut scratch = LutScratch::new();
        for layout in strided(m, k, &values, f32::NAN) {
            let mut out = Tensor::<f32, 2>::zeros([n, m]).unwrap();
            layer.forward_into(layout.view(), out.view_mut().transposed(), &mut scratch).unwrap();
            assert_eq!(out.view().transposed().to_vec(), want.as_slice());
        }
    }
}

#[test]
fn threads_and_scratch_do_not_change_results() {
    let w = matrix([300, 520], 3, 128, false, 8);
    for m in [1, 5, 130] {
        let x = tensor([m, 520], 9);
        for mode in [LutMode::F32, LutMode::I16, LutMode::I8] {
            let layer = LutLinear::new(&w, None, mode, KernelChoice::Auto).unwrap();
            let y = same_on_any_pool(|| layer.forward(x.view()).unwrap().into_vec());
            let mut scratch = LutScratch::new();
            let larger = tensor([7, 520], 10);
            let mut out = Tensor::zeros([7, 300]).unwrap();
            layer.forward_into(larger.view(), out.view_mut(), &mut scratch).unwrap();
            let mut out = Tensor::zeros([m, 300]).unwrap();
            layer.forward_into(x.view(), out.view_mut(), &mut scratch).unwrap();
            assert_eq!(out.as_slice(), y);
        }
    }
}

#[test]
fn integer_tables_are_as_precise_as_stated_and_no_more() {
    let (w, x) = (tensor([96, 1024], 11), tensor([4, 1024], 12));
    let q = BcqMatrix::quantize(w.view(), &BcqSpec::default(), None).unwrap();
    let want = reference::product(x.view(), &q, None).unwrap();
    for kernel in kernels().filter(|kernel| *kernel != KernelChoice::Literal) {
        let error = |mode| {
            let y = LutLinear::new(&q, None, mode, kernel).unwrap().forward(x.view()).unwrap();
            relative_error(y.view(), want.view()).unwrap()
        };
        let [f32, i16, i8] = [LutMode::F32, LutMode::I16, LutMode::I8].map(error);
        assert!(f32 < 1e-6 && i16 > 1e-5 && i16 < 5e-4 && i8 > 1e-3 && i8 < 3e-2, "{f32} {i16} {i8}");
    }
}

#[test]
fn many_tokens_are_as_exact_as_f32() {
    let (w, x) = (matrix([50, 300], 3, 64, false, 21), tensor([130, 300], 22));
    let want = reference::product(x.view(), &w, None).unwrap();
    for mode in [LutMode::F32, LutMode::I16, LutMode::I8] {
        let layer = LutLinear::new(&w, None, mode, KernelChoice::Auto).unwrap();
        assert!(layer.crossover().unwrap() <= 130);
        let error = relative_error(layer.forward(x.view()).unwrap().view(), want.view()).unwrap();
        assert!(error < 1e-6, "{mode:?}: {error:e}");
    }
    let literal = LutLinear::new(&w, None, LutMode::F32, KernelChoice::Literal).unwrap();
    assert_eq!(literal.crossover(), None);
    // 3 bits and a few floats for each group, not f32 weights.
    for mode in [LutMode::F32, LutMode::I16] {
        let layer = LutLinear::new(&w, None, mode, KernelChoice::Auto).unwrap();
        let packed = layer.bytes_read();
        assert!(packed <= 64 * 304 * 3 / 8 + 64 * 5 * 4 * 4, "{packed}");
        assert!(layer.bytes() <= 2 * packed, "{} {packed}", layer.bytes());
    }
}

#[test]
fn integer_sums_are_the_same_at_every_level() {
    let (w, x) = (matrix([70, 2100], 3, 1050, false, 23), tensor([3, 2100], 24));
    for mode in [LutMode::I16, LutMode::I8] {
        let product = |kernel| LutLinear::new(&w, None, mode, kernel).unwrap().forward(x.view()).unwrap();
        let error =
            relative_error(product(KernelChoice::Auto).view(), product(KernelChoice::Portable).view());
        assert!(error.unwrap() < 1e-6, "{mode:?}");
    }
}

#[test]
fn equal_activations_do_not_overflow_tables() {
    for value in [1.0f32, -3.5, 1e30, 1e-30] {
        for bits in [1, 8] {
            let w = matrix([70, 512], bits, 512, true, 13);
            let x = Tensor::from_slice([1, 512], &[value; 512]).unwrap();
            let want = reference::product(x.view(), &w, None).unwrap();
            for mode in [LutMode::I16, LutMode::I8] {
                for kernel in kernels().filter(|kernel| *kernel != KernelChoice::Literal) {
                    let y = LutLinear::new(&w, None, mode, kernel).unwrap().forward(x.view()).unwrap();
                    // All entries are multiples of half the largest one: nearly exact.
                    let error = relative_error(y.view(), want.view()).unwrap();
                    let allowed = if mode == LutMode::I16 { 3e-4 } else { 2e-2 };
                    assert!(error < allowed, "{value} {bits} {mode:?} {kernel:?}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn zeros_give_the_bias_in_every_mode() {
    let w = matrix([20, 100], 3, 32, false, 14);
    let bias = normals(20, 15);
    let x = Tensor::<f32, 2>::zeros([2, 100]).unwrap();
    for mode in [LutMode::F32, LutMode::I16, LutMode::I8] {
        for kernel in kernels().filter(|kernel| *kernel != KernelChoice::Literal || mode == LutMode::F32) {
            let y = LutLinear::new(&w, Some(&bias), mode, kernel).unwrap().forward(x.view()).unwrap();
            assert_eq!(y.as_slice(), [&bias[..], &bias].concat());
        }
    }
}

#[test]
fn one_hot_activations_read_single_bits() {
    // A power of two as scale, so that every mode is exact.
    let (n, k) = (67, 131);
    let mut planes = vec![0u8; n * 17];
    let sign = |row: usize, column: usize| (row * 7 + column * column).is_multiple_of(3);
    for row in 0..n {
        for column in 0..k {
            planes[row * 17 + column / 8] |= u8::from(sign(row, column)) << (column % 8);
        }
    }
    let w = BcqMatrix::from_parts([n, k], 1, 128, planes, vec![1.0; n * 2], None).unwrap();
    for kernel in kernels() {
        for mode in [LutMode::F32, LutMode::I16, LutMode::I8] {
            let Ok(layer) = LutLinear::new(&w, None, mode, kernel) else { continue };
            for column in [0, 1, 7, 8, 63, 127, 128, 130] {
                let mut x = Tensor::<f32, 2>::zeros([1, k]).unwrap();
                x[[0, column]] = 2.0;
                let y = layer.forward(x.view()).unwrap();
                for row in 0..n {
                    let want = if sign(row, column) { 2.0 } else { -2.0 };
                    assert!((y[[0, row]] - want).abs() < 1e-5, "{mode:?} {kernel:?} {row} {column}");
                }
            }
        }
    }
}

#[test]
fn activation_order_is_carried() {
    let (n, k) = (9, 24);
    let codes: Vec<u8> = (0..n * k).map(|i| (i * 5 % 16) as u8).collect();
    let order: Vec<u32> = (0..k as u32).map(|j| j * 7 % k as u32).collect();
    let zeros = Zeros::PerGroup((0..n * 3).map(|i| (i % 16) as i32).collect());
    let u = UniformGroups::new([n, k], 4, 8, codes, uniforms(n * 3, 0.01, 0.1, 16), zeros).unwrap();
    let u = u.with_order(order.clone()).unwrap();
    let q = BcqMatrix::from_uniform(&u).unwrap();
    assert_eq!(q.order(), Some(&order[..]));
    let dense = u.dequantize().unwrap();
    assert!(relative_error(q.dequantize().unwrap().view(), dense.view()).unwrap() < 1e-6);
    let (tensors, metadata) = q.to_tensors().unwrap();
    let get = |name: &str| tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone());
    let q = BcqMatrix::from_tensors("file", get, &metadata).unwrap();
    for m in [1, 40] {
        let x = tensor([m, k], 17);
        let want = kc_gemm::gemm(x.view(), dense.view().transposed()).unwrap();
        for kernel in kernels() {
            let y = LutLinear::new(&q, None, LutMode::F32, kernel).unwrap().forward(x.view()).unwrap();
            assert!(relative_error(y.view(), want.view()).unwrap() < 1e-5);
        }
    }
}

#[test]
fn tables_hold_signed_sums() {
    let x = normals(21, 18);
    let (got, want) = (table8(&x).unwrap(), reference::table(&x).unwrap());
    assert_eq!(got.shape(), [3, 256]);
    assert!(relative_error(got.view(), want.view()).unwrap() < 3e-7);
    let sum: f32 = x[..8].iter().sum();
    assert!((got[[0, 255]] - sum).abs() < 1e-5 && (got[[0, 0]] + sum).abs() < 1e-5);
    assert!((got[[1, 1]] - got[[1, 0]] - 2.0 * x[8]).abs() < 1e-5);
    assert!(matches!(table8(&[1.0, f32::NAN]), Err(Error::NotFinite { .. })));
    assert_eq!(table8(&[]).unwrap().shape(), [0, 256]);
}

#[test]
fn bad_input_has_its_error() {
    let w = matrix([3, 16], 2, 8, false, 19);
    let new = |bias: Option<&[f32]>, mode, kernel| LutLinear::new(&w, bias, mode, kernel);
    assert!(matches!(new(Some(&[1.0]), LutMode::F32, KernelChoice::Auto), Err(Error::Shape { .. })));
    let nan = [0.0, f32::NAN, 0.0];
    assert!(matches!(new(Some(&nan), LutMode::F32, KernelChoice::Auto), Err(Error::NotFinite { .. })));
    assert!(matches!(new(None, LutMode::I8, KernelChoice::Literal), Err(Error::Argument { .. })));
    if kc_core::Isa::detect(Level::Avx512).is_none() {
        let refused = new(None, LutMode::F32, KernelChoice::Avx512);
        assert!(matches!(refused, Err(Error::Unsupported { .. })));
    }
    let layer = new(None, LutMode::F32, KernelChoice::Auto).unwrap();
    assert!(matches!(layer.forward(tensor([1, 15], 1).view()), Err(Error::Shape { .. })));
    for m in [1, 200] {
        let mut x = tensor([m, 16], 1);
        x[[m - 1, 3]] = f32::INFINITY;
        let Err(Error::NotFinite { index, .. }) = layer.forward(x.view()) else { panic!("infinite x") };
        assert_eq!(index, [m - 1, 3]);
    }
    let mut out = Tensor::zeros([1, 2]).unwrap();
    let wrong = layer.forward_into(tensor([1, 16], 1).view(), out.view_mut(), &mut LutScratch::new());
    assert!(matches!(wrong, Err(Error::Shape { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_shape_agrees_with_the_reference(
        m in 0usize..10, n in 1usize..140, k in 1usize..300, bits in 1u8..=8, group in 1usize..310, seed in 0u64..1000,
    ) {
        check(&matrix([n, k], bits, group, seed % 2 == 0, seed), tensor([m, k], seed).view(), None);
    }

    #[test]
    fn rounded_weights_multiply_as_their_codes(k in 1usize..200, bits in 1u8..=8, group in 1usize..200) {
        let w = tensor([5, k], 20);
        let u = rtn(w.view(), &RtnSpec { bits, group: Group::Size(group), ..RtnSpec::default() }).unwrap();
        let q = BcqMatrix::from_uniform(&u).unwrap();
        let (got, want) = (q.dequantize().unwrap(), u.dequantize().unwrap());
        let size = want.as_slice().iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for (a, b) in got.as_slice().iter().zip(want.as_slice()) {
            prop_assert!((a - b).abs() <= 1e-6 * size.max(1e-6));
        }
    }
}
