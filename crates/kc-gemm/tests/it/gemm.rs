use kc_core::{Error, Float, Isa, KcRng, Tensor, TensorView, TensorViewMut, bf16, f16};
use kc_gemm::{
    FoldRows, FromFn, Lines, Operand, PackedB, PanelSource, Real, Store, gemm, gemm_batched,
    gemm_block_diagonal, gemm_fused_with, gemm_into, gemm_into_with, gemm_packed_into, gemv, gemv_t,
    reference,
};
use kc_testing::{Tol, assert_close, cycle_251, each_isa, same_on_any_pool, strided};
use proptest::prelude::*;

fn of<T: Float>(values: &[f32]) -> Vec<T> {
    values.iter().map(|&v| T::from_f32(v)).collect()
}

/// Around the tiles (4x8, 4x4, 6x16, 6x8, 14x32, 14x16), the pieces of a vector product and the blocks.
const SHAPES: [[usize; 3]; 22] = [
    [0, 3, 4],
    [3, 0, 4],
    [3, 4, 0],
    [1, 1, 1],
    [1, 40, 300],
    [40, 1, 300],
    [1, 1, 65],
    [2, 2, 2],
    [5, 15, 3],
    [6, 16, 4],
    [7, 17, 5],
    [13, 31, 63],
    [14, 32, 64],
    [15, 33, 65],
    [29, 65, 2],
    [3, 100, 7],
    [64, 64, 64],
    [90, 70, 129],
    [12, 12, 700],
    [250, 9, 40],
    [9, 600, 40],
    [230, 40, 350],
];

fn against_reference<T: Operand>(tolerance: f64) {
    for [m, n, k] in SHAPES {
        let a: Vec<T> = of(&cycle_251(m * k));
        let b: Vec<T> = of(&cycle_251(k * n + 7)[7..]);
        let a = TensorView::from_slice([m, k], &a).unwrap();
        let b = TensorView::from_slice([k, n], &b).unwrap();
        let want = reference::gemm(a, b).unwrap();
        each_isa(|isa| {
            let mut out = Tensor::<T::Sum, 2>::zeros([m, n]).unwrap();
            // beta = 0 never reads the result.
            out.as_mut_slice().fill(T::Sum::from_f32(f32::NAN));
            gemm_into_with(isa, T::Sum::ONE, a, b, T::Sum::default(), out.view_mut()).unwrap();
            assert_close(out.as_slice(), want.as_slice(), Tol::abs(tolerance * (k as f64 + 1.0)));
        });
    }
}

#[test]
fn every_type_agrees_with_the_definition() {
    against_reference::<f32>(3e-7);
    // The reference rounds as well.
    against_reference::<f64>(2e-15);
    against_reference::<f16>(3e-7);
    against_reference::<bf16>(3e-7);
}

#[test]
fn every_layout_agrees_with_the_definition() {
    for [m, n, k] in [[7, 19, 10], [1, 19, 10], [7, 1, 10], [20, 33, 40]] {
        let (a, b, c) = (cycle_251(m * k), cycle_251(k * n), cycle_251(m * n));
        let mut want = Tensor::<f64, 2>::from_slice([m, n], &of(&c)).unwrap();
        let view = |shape, data| TensorView::from_slice(shape, data).unwrap();
        reference::gemm_into(0.5, view([m, k], &a), view([k, n], &b), -2.0, want.view_mut()).unwrap();
        for a in strided(m, k, &a, f32::NAN) {
            for b in strided(k, n, &b, f32::NAN) {
                each_isa(|isa| {
                    // Row-major, column-major, and neither.
                    for (strides, len) in [([n, 1], m * n), ([1, m], m * n), ([2 * n, 2], 2 * m * n)] {
                        let strides = strides.map(|s| s as isize);
                        let mut data = vec![0f32; len];
                        let mut out =
                            TensorViewMut::from_slice_strided([m, n], strides, 0, &mut data).unwrap();
                        out.copy_from(view([m, n], &c)).unwrap();
                        gemm_into_with(isa, 0.5, a.view(), b.view(), -2.0, out.reborrow()).unwrap();
                        assert_close(&out.as_view().to_vec(), want.as_slice(), Tol::abs(1e-5));
                    }
                });
            }
        }
    }
}

#[test]
fn repeated_rows_are_multiplied_in_place() {
    let row = cycle_251(9);
    let a = TensorView::from_slice([1, 9], &row).unwrap().broadcast_to([5, 9]).unwrap();
    let got = gemm(a, a.transposed()).unwrap();
    assert_close(got.as_slice(), reference::gemm(a, a.transposed()).unwrap().as_slice(), Tol::abs(1e-5));
}

#[test]
fn not_a_number_and_infinity_go_through() {
    for [m, n, k] in [[1, 8, 20], [8, 1, 20], [9, 20, 33]] {
        let mut a = Tensor::<f32, 2>::from_fn([m, k], |_| 1.0).unwrap();
        let mut b = Tensor::<f32, 2>::from_fn([k, n], |_| 1.0).unwrap();
        a[[m - 1, 3]] = f32::NAN;
        b[[2, 0]] = f32::INFINITY;
        each_isa(|isa| {
            let mut out = Tensor::<f32, 2>::zeros([m, n]).unwrap();
            gemm_into_with(isa, 1.0, a.view(), b.view(), 0.0, out.view_mut()).unwrap();
            for i in 0..m {
                for j in 0..n {
                    let want = match (i == m - 1, j == 0) {
                        (true, _) => f32::NAN,
                        (false, true) => f32::INFINITY,
                        (false, false) => k as f32,
                    };
                    assert_close(&[out[[i, j]]], &[want], Tol::EXACT);
                }
            }
        });
    }
}

#[test]
fn half_results_are_rounded_once() {
    // 2049 is not an f16; the f32 sum is, and rounds to 2048.
    let ones = vec![f16::ONE; 2049];
    let a = TensorView::from_slice([1, 2049], &ones).unwrap();
    assert_eq!(gemm(a, a.transposed()).unwrap()[[0, 0]], f16::from_f32(2049.0));
}

#[test]
fn packed_operands_give_the_same_bits() {
    for [m, n, k] in [[2, 2, 1], [33, 47, 90], [150, 70, 700]] {
        let (a, b) = (cycle_251(m * k), cycle_251(k * n));
        let a = TensorView::from_slice([m, k], &a).unwrap();
        let b = TensorView::from_slice([k, n], &b).unwrap();
        let packed = PackedB::pack(b).unwrap();
        assert!(packed.bytes() >= 4 * n * k && packed.bytes() < 4 * k * (n + 32));
        let mut plain = Tensor::<f32, 2>::from_fn([m, n], |[i, j]| (i + j) as f32).unwrap();
        let mut out = plain.clone();
        gemm_into(0.7, a, b, 0.3, plain.view_mut()).unwrap();
        gemm_packed_into(0.7, a, &packed, 0.3, out.view_mut()).unwrap();
        assert_eq!(out.as_slice(), plain.as_slice());
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    for [m, n, k] in [[300, 700, 400], [4, 5000, 40], [2000, 1, 300], [1, 3000, 400], [3000, 6, 50]] {
        let (a, b) = (cycle_251(m * k), cycle_251(k * n));
        let a = TensorView::from_slice([m, k], &a).unwrap();
        let b = TensorView::from_slice([k, n], &b).unwrap();
        same_on_any_pool(|| gemm(a, b).unwrap().into_vec());
        same_on_any_pool(|| {
            let mut sums = vec![0f32; m];
            let fold = |s: &mut f32, _: usize, _: usize, v: &[f32]| v.iter().for_each(|x| *s = 0.9 * *s + x);
            let folded = FoldRows { states: &mut sums, fold };
            gemm_fused_with(Isa::best(), &Lines::rows(a), &Lines::columns(b), folded).unwrap();
            sums
        });
    }
}

#[test]
fn fused_products_store_bias_and_activation() {
    for [m, n, k] in [[1, 1, 1], [7, 33, 20], [300, 40, 500], [3, 20, 0], [2, 600, 5000]] {
        let (a, b) = (cycle_251(m * k), cycle_251(k * n));
        let a = TensorView::from_slice([m, k], &a).unwrap();
        let b = TensorView::from_slice([k, n], &b).unwrap();
        let bias = cycle_251(n);
        let sums = reference::gemm(a, b).unwrap();
        let relu = |x: f32| x.max(0.0);
        let want: Vec<f64> = sums
            .as_slice()
            .iter()
            .enumerate()
            .map(|(i, s)| (2.0 * s + f64::from(bias[i % n])).max(0.0))
            .collect();
        each_isa(|isa| {
            let mut out = Tensor::<f32, 2>::zeros([m, n]).unwrap();
            let store = Store { out: out.view_mut(), alpha: 2.0, column_bias: Some(&bias), map: relu };
            gemm_fused_with(isa, &Lines::rows(a), &Lines::columns(b), store).unwrap();
            assert_close(out.as_slice(), &want, Tol::abs(4e-7 * (k + 1) as f64));
        });
    }
}

#[test]
fn a_fold_sees_every_sum_once_and_in_order() {
    let [m, n, k] = [500, 1300, 9];
    let a = FromFn { lines: m, depth: k, element: |i, _| i as f32 };
    let b = FromFn { lines: n, depth: k, element: |j, _| j as f32 };
    each_isa(|isa| {
        // (next column, sum of the row)
        let mut states = vec![(0usize, 0f64); m];
        let fold = |state: &mut (usize, f64), row: usize, column: usize, sums: &[f32]| {
            assert_eq!(state.0, column, "row {row}");
            state.0 += sums.len();
            state.1 += sums.iter().map(|&s| f64::from(s)).sum::<f64>();
        };
        gemm_fused_with(isa, &a, &b, FoldRows { states: &mut states, fold }).unwrap();
        for (i, &(columns, sum)) in states.iter().enumerate() {
            assert_eq!((columns, sum), (n, (i * k * n * (n - 1) / 2) as f64));
        }
    });
}

#[test]
fn a_folded_product_is_never_stored() {
    let [m, n, k] = [4096, 4096, 8];
    let a = FromFn { lines: m, depth: k, element: |i, _| (i % 3) as f32 };
    let b = FromFn { lines: n, depth: k, element: |j, _| (j % 5) as f32 };
    let mut largest = vec![0f32; m];
    let ((), memory) = kc_testing::alloc::measure(|| {
        let fold = |s: &mut f32, _: usize, _: usize, v: &[f32]| *s = v.iter().fold(*s, |m, &x| m.max(x));
        gemm_fused_with(Isa::best(), &a, &b, FoldRows { states: &mut largest, fold }).unwrap();
    });
    assert!(largest.iter().enumerate().all(|(i, &v)| v == (i % 3 * 4 * k) as f32));
    assert!(memory.peak < m * n * 4 / 2, "{} bytes", memory.peak);
}

#[test]
fn a_product_in_place_allocates_nothing_the_second_time() {
    let a = Tensor::<f32, 2>::zeros([120, 300]).unwrap();
    let b = Tensor::<f32, 2>::zeros([300, 120]).unwrap();
    let mut out = Tensor::<f32, 2>::zeros([120, 120]).unwrap();
    let ((), memory) = kc_testing::alloc::measure(|| {
        for _ in 0..20 {
            gemm_into(1.0, a.view(), b.view(), 0.0, out.view_mut()).unwrap();
        }
    });
    // Packing buffers come once; what remains are lists of a few row blocks.
    assert!(memory.peak < 1 << 20, "{} bytes", memory.peak);
}

#[test]
fn batches_and_block_diagonals() {
    let (g, m, n, k) = (5, 6, 7, 8);
    let (a, b) = (cycle_251(g * m * k), cycle_251(g * k * n));
    let a = TensorView::from_slice([g, m, k], &a).unwrap();
    let b = TensorView::from_slice([g, k, n], &b).unwrap();
    let got = gemm_batched(a, b).unwrap();
    for i in 0..g {
        let want = reference::gemm(a.matrix(i), b.matrix(i)).unwrap();
        assert_close(&got.view().matrix(i).to_vec(), want.as_slice(), Tol::abs(1e-5));
    }
    let x = cycle_251(m * g * k);
    let x = TensorView::from_slice([m, g * k], &x).unwrap();
    let got = gemm_block_diagonal(x, b).unwrap();
    let dense = Tensor::<f32, 2>::from_fn([g * k, g * n], |[i, j]| {
        if i / k == j / n { b.at([i / k, i % k, j % n]) } else { 0.0 }
    });
    assert_close(
        got.as_slice(),
        reference::gemm(x, dense.unwrap().view()).unwrap().as_slice(),
        Tol::abs(1e-5),
    );
}

#[test]
fn vectors() {
    for (m, k) in [(1, 1), (5, 63), (64, 64), (3000, 17), (17, 3000), (65, 129)] {
        let (a, x) = (cycle_251(m * k), cycle_251(m.max(k)));
        let a = TensorView::from_slice([m, k], &a).unwrap();
        let column =
            |x| TensorView::from_slice([x, 1], &cycle_251(m.max(k))[..x]).unwrap().to_tensor().unwrap();
        let want = reference::gemm(a, column(k).view()).unwrap();
        assert_close(
            gemv(a, &x[..k]).unwrap().as_slice(),
            want.as_slice(),
            Tol::abs(1.2e-7 * (k + 1) as f64),
        );
        let want = reference::gemm(a.transposed(), column(m).view()).unwrap();
        assert_close(
            gemv_t(a, &x[..m]).unwrap().as_slice(),
            want.as_slice(),
            Tol::abs(1.2e-7 * (m + 1) as f64),
        );
    }
}

#[test]
fn panels_hold_lines_side_by_side() {
    let data = cycle_251(30);
    let view = TensorView::from_slice([5, 6], &data).unwrap();
    for (lines, by_rows) in [(Lines::rows(view), true), (Lines::columns(view), false)] {
        let mut panel = vec![9f64; 12];
        PanelSource::<f64>::fill(&lines, 2..5, 1..4, 4, &mut panel);
        for k in 0..3 {
            for i in 0..3 {
                let at = if by_rows { [2 + i, 1 + k] } else { [1 + k, 2 + i] };
                assert_eq!(panel[k * 4 + i], f64::from(view.at(at)));
            }
        }
    }
}

#[test]
fn bad_input_is_named() {
    let a = Tensor::<f32, 2>::zeros([2, 5]).unwrap();
    let b = Tensor::<f32, 2>::zeros([4, 3]).unwrap();
    let error = gemm(a.view(), b.view()).unwrap_err();
    assert_eq!(error.to_string(), "b: expected [5, N] to match a [2, 5], got shape [4, 3]");
    let mut out = Tensor::<f32, 2>::zeros([2, 2]).unwrap();
    let b = Tensor::<f32, 2>::zeros([5, 3]).unwrap();
    let error = gemm_into(1.0, a.view(), b.view(), 0.0, out.view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "out: expected [2, 3], got shape [2, 2]");
    assert!(matches!(gemv(a.view(), &[1.0; 4]), Err(Error::Shape { arg, .. }) if arg == "b"));
    let packed = PackedB::pack(b.view()).unwrap();
    let mut wide = Tensor::<f32, 2>::zeros([3, 2]).unwrap();
    let error = gemm_packed_into(1.0, a.view(), &packed, 0.0, wide.view_mut().transposed()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }));
    let a = Tensor::<f32, 3>::zeros([2, 3, 4]).unwrap();
    let b = Tensor::<f32, 3>::zeros([2, 5, 4]).unwrap();
    let error = gemm_batched(a.view(), b.view()).unwrap_err();
    assert_eq!(error.to_string(), "b: expected [2, 4, N] to match a [2, 3, 4], got shape [2, 5, 4]");
    let x = Tensor::<f32, 2>::zeros([2, 9]).unwrap();
    assert!(matches!(gemm_block_diagonal(x.view(), b.view()), Err(Error::Shape { arg, .. }) if arg == "x"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn small_integers_are_exact(m in 0usize..40, n in 0usize..60, k in 0usize..80, seed in any::<u64>()) {
        let mut rng = KcRng::new(seed, 0);
        let mut whole = |len: usize| {
            let mut values = vec![0f32; len];
            rng.fill_uniform(&mut values, -8.0, 8.0);
            values.iter_mut().for_each(|v| *v = v.floor());
            values
        };
        let (a, b) = (whole(m * k), whole(k * n));
        let a = TensorView::from_slice([m, k], &a).unwrap();
        let b = TensorView::from_slice([k, n], &b).unwrap();
        let want = reference::gemm(a, b).unwrap();
        for isa in Isa::available() {
            let mut out = Tensor::<f32, 2>::zeros([m, n]).unwrap();
            gemm_into_with(isa, 1.0, a, b, 0.0, out.view_mut()).unwrap();
            assert_close(out.as_slice(), want.as_slice(), Tol::EXACT);
        }
    }
}
