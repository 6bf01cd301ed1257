//! Products with packed codes against the definition.

use kc_core::{Error, Isa, Tensor, TensorView};
use kc_quant::weight_only::{WeightOnly, reference};
use kc_quant::{UniformGroups, Zeros};
use kc_testing::{each_isa, normals, same_on_any_pool, strided};

/// Codes of every value, scales over three decades.
fn weights(shape: [usize; 2], bits: u8, group: usize, zeros: u8, seed: u64) -> UniformGroups {
    let [n, k] = shape;
    let groups = n * k.div_ceil(group.min(k.max(1)));
    let noise = normals(n * k + 3 * groups, seed);
    let most = f32::from(0xffu8 >> (8 - bits));
    let codes =
        noise[..n * k].iter().map(|x| ((x + 3.0) / 6.0 * most).round().clamp(0.0, most) as u8).collect();
    let scales = noise[n * k..][..groups].iter().map(|x| (2.0 * x).exp() * 0.01).collect();
    let more = &noise[n * k + groups..];
    let zeros = match zeros {
        0 => Zeros::Constant(1 << (bits - 1)),
        1 => Zeros::PerGroup(more[..groups].iter().map(|x| (x * 4.0 + most / 2.0) as i32).collect()),
        _ => Zeros::Offset(more[..groups].to_vec()),
    };
    UniformGroups::new(shape, bits, group, codes, scales, zeros).unwrap()
}

/// `sum |s x q| + |s z x|` (or `|o x|`) of each result.
fn sizes(x: &Tensor<f32, 2>, w: &UniformGroups) -> Vec<f64> {
    let ([m, k], n) = (x.shape(), w.shape()[0]);
    let term = |i: usize, row: usize, j: usize| {
        let at = row * w.groups() + j / w.group();
        let (code, scale) = (f64::from(w.codes()[row * k + j]), f64::from(w.scales()[at]));
        let x = f64::from(x.view().at([i, w.order().map_or(j, |o| o[j] as usize)])).abs();
        match w.zeros() {
            Zeros::Offset(offsets) => x * (scale * code + f64::from(offsets[at]).abs()),
            _ => x * scale * (code + f64::from(w.zero(row, j / w.group()).unwrap()).abs()),
        }
    };
    (0..m * n).map(|at| (0..k).map(|j| term(at / n, at % n, j)).sum()).collect()
}

fn check(isa: Isa, x: &Tensor<f32, 2>, w: &UniformGroups, bias: Option<&[f32]>) {
    let want = reference::forward(x.view(), w, bias).unwrap();
    let mut got = Tensor::zeros(want.shape()).unwrap();
    got.as_mut_slice().fill(f32::NAN);
    WeightOnly::new(w, bias).unwrap().forward_with(isa, x.view(), got.view_mut()).unwrap();
    let columns = w.shape()[0].max(1);
    for (at, ((got, want), size)) in got.as_slice().iter().zip(want.as_slice()).zip(sizes(x, w)).enumerate() {
        let size = size + bias.map_or(0.0, |b| f64::from(b[at % columns]).abs());
        let gap = (f64::from(*got) - want).abs();
        assert!(gap <= 4e-6 * size, "{isa} {:?} x {:?} at {at}: {got} for {want}", x.shape(), w.shape());
    }
}

fn tensor(shape: [usize; 2], seed: u64) -> Tensor<f32, 2> {
    Tensor::from_slice(shape, &normals(shape[0] * shape[1], seed)).unwrap()
}

#[test]
fn every_width_zero_and_shape_is_that_of_the_definition() {
    each_isa(|isa| {
        for bits in 1..=8 {
            for (case, [m, n, k, group]) in [
                [1, 1, 1, 1],
                [1, 7, 40, 16],
                [2, 17, 129, 128],
                [3, 16, 65, 33],
                [4, 33, 256, 64],
                [5, 9, 100, 1000],
                [7, 64, 48, 7],
                [17, 31, 131, 32],
                [70, 24, 96, 128],
                [67, 19, 150, 40],
            ]
            .into_iter()
            .enumerate()
            {
                for zeros in 0..3 {
                    let w = weights([n, k], bits, group, zeros, 100 + case as u64);
                    let bias = normals(n, 5);
                    let bias = (case % 2 == 0).then_some(bias.as_slice());
                    check(isa, &tensor([m, k], 7), &w, bias);
                }
            }
        }
    });
}

#[test]
fn an_order_gathers_the_columns_of_x() {
    let (n, k) = (20, 70);
    let order: Vec<u32> = (0..k as u32).map(|j| (j * 29 + 3) % k as u32).collect();
    each_isa(|isa| {
        for m in [1, 6, 80] {
            let w = weights([n, k], 4, 32, 1, 9).with_order(order.clone()).unwrap();
            check(isa, &tensor([m, k], 10), &w, None);
        }
    });
}

#[test]
fn an_order_is_not_ignored() {
    let (plain, x) = (weights([4, 8], 4, 8, 0, 1), tensor([1, 8], 2));
    let turned = plain.clone().with_order((0..8).rev().collect()).unwrap();
    let y = |w: &UniformGroups| WeightOnly::new(w, None).unwrap().forward(x.view()).unwrap();
    assert_ne!(y(&plain).as_slice(), y(&turned).as_slice());
}

#[test]
fn empty_sides() {
    let w = weights([0, 5], 4, 4, 0, 1);
    assert_eq!(WeightOnly::new(&w, None).unwrap().forward(tensor([3, 5], 1).view()).unwrap().shape(), [3, 0]);
    let w = weights([5, 3], 4, 4, 1, 1);
    assert_eq!(WeightOnly::new(&w, None).unwrap().forward(tensor([0, 3], 1).view()).unwrap().shape(), [0, 5]);
    let w = UniformGroups::new([2, 0], 4, 4, vec![], vec![], Zeros::Constant(8)).unwrap();
    for m in [1, 90] {
        let y = WeightOnly::new(&w, Some(&[1.0, 2.0])).unwrap().forward(tensor([m, 0], 1).view()).unwrap();
        assert!(y.as_slice().chunks(2).all(|row| row == [1.0, 2.0]));
    }
}

#[test]
fn strides_change_nothing() {
    let (k, n) = (37, 21);
    let layer = WeightOnly::new(&weights([n, k], 4, 16, 0, 3), None).unwrap();
    for m in [2, 66] {
        let x = normals(m * k, 4);
        let want = layer.forward(TensorView::from_slice([m, k], &x).unwrap()).unwrap();
        for x in strided(m, k, &x, f32::NAN) {
            assert_eq!(layer.forward(x.view()).unwrap(), want);
            let mut turned = Tensor::zeros([n, m]).unwrap();
            layer.forward_into(x.view(), turned.view_mut().transposed()).unwrap();
            assert_eq!(turned.view().transposed().to_vec(), want.as_slice());
        }
    }
}

#[test]
fn threads_change_nothing() {
    for m in [1, 5, 90] {
        let layer = WeightOnly::new(&weights([520, 700], 4, 128, 0, 3), None).unwrap();
        let x = tensor([m, 700], 4);
        same_on_any_pool(|| layer.forward(x.view()).unwrap().into_vec());
    }
}

#[test]
fn tiny_and_large_rows_keep_their_digits() {
    each_isa(|isa| {
        for factor in [1e-38f32, 1e-30, 1e-20, 1e20, 1e30] {
            let mut x = tensor([2, 64], 1);
            x.as_mut_slice()[..64].iter_mut().for_each(|x| *x *= factor);
            let w = weights([9, 64], 4, 32, 0, 2);
            let want = reference::forward(x.view(), &w, None).unwrap();
            let mut got = Tensor::zeros(want.shape()).unwrap();
            WeightOnly::new(&w, None).unwrap().forward_with(isa, x.view(), got.view_mut()).unwrap();
            for (row, size) in [(0, factor), (1, 1.0)] {
                let part = row * 9..row * 9 + 9;
                for (g, w) in got.as_slice()[part.clone()].iter().zip(&want.as_slice()[part]) {
                    // Results themselves may be denormal.
                    let allowed = 1e-4 * f64::from(size) + 1e-44;
                    assert!((f64::from(*g) - w).abs() < allowed, "{isa} {factor:e}: {g:e} for {w:e}");
                }
            }
        }
    });
}

#[test]
fn memory_is_that_of_the_codes() {
    for (bits, held) in [(2, 2), (3, 4), (4, 4), (6, 6), (8, 8)] {
        let layer = WeightOnly::new(&weights([64, 1024], bits, 128, 0, 3), None).unwrap();
        assert_eq!(layer.bytes(), 64 * 1024 * held / 8 + 64 * 8 * 4);
    }
}

#[test]
fn calls_after_the_first_allocate_nothing() {
    let layer = WeightOnly::new(&weights([64, 256], 4, 128, 0, 3), None).unwrap();
    // The level is found once for the process.
    let _ = Isa::best();
    for m in [1, 3] {
        let x = tensor([m, 256], 4);
        let count = |calls: usize| {
            let mut y = Tensor::zeros([m, 64]).unwrap();
            let run = || (0..calls).for_each(|_| layer.forward_into(x.view(), y.view_mut()).unwrap());
            kc_testing::alloc::measure(run).1.count
        };
        assert_eq!(count(1), count(20), "{m} rows");
    }
}

#[test]
fn a_row_of_eight_bit_floats_is_exact() {
    // Integers of at most 22 bits: scales of 1 leave nothing to round.
    let (n, k) = (16, 256);
    let w = weights([n, k], 4, 128, 0, 6);
    let ones = vec![1.0; n * 2];
    let w = UniformGroups::new([n, k], 4, 128, w.codes().to_vec(), ones, Zeros::Constant(8)).unwrap();
    let x: Vec<f32> = (0..k).map(|i| kc_quant::fp8::decode((i % 127) as u8)).collect();
    let x = Tensor::from_slice([1, k], &x).unwrap();
    let want = reference::forward(x.view(), &w, None).unwrap();
    each_isa(|isa| {
        let mut y = Tensor::zeros([1, n]).unwrap();
        WeightOnly::new(&w, None).unwrap().forward_with(isa, x.view(), y.view_mut()).unwrap();
        for (y, want) in y.as_slice().iter().zip(want.as_slice()) {
            assert!((f64::from(*y) - want).abs() <= 3.0 * 2f64.powi(-24) * want.abs().max(1.0), "{y} {want}");
        }
    });
}

#[test]
fn bad_input() {
    let w = weights([4, 8], 4, 8, 0, 1);
    assert!(matches!(WeightOnly::new(&w, Some(&[0.0; 3])), Err(Error::Shape { .. })));
    assert!(matches!(WeightOnly::new(&w, Some(&[0.0, f32::NAN, 0.0, 0.0])), Err(Error::NotFinite { .. })));
    let layer = WeightOnly::new(&w, None).unwrap();
    assert!(matches!(layer.forward(tensor([1, 7], 1).view()), Err(Error::Shape { .. })));
    let mut out = Tensor::zeros([1, 5]).unwrap();
    assert!(matches!(layer.forward_into(tensor([1, 8], 1).view(), out.view_mut()), Err(Error::Shape { .. })));
    for m in [2, 80] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = tensor([m, 8], 1);
            x.as_mut_slice()[11] = bad;
            match layer.forward(x.view()) {
                Err(Error::NotFinite { index, .. }) => assert_eq!(index, [1, 3]),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn an_outlier_without_weight_costs_the_others_nothing() {
    // The largest number meets a code of 0: the error must be small beside what the others give.
    let (n, k) = (8, 128);
    let codes: Vec<u8> = (0..n * k).map(|i| if i % k == 5 { 0 } else { (i * 7 % 16) as u8 }).collect();
    let w = UniformGroups::new([n, k], 4, k, codes, vec![0.5; n], Zeros::Offset(vec![0.0; n])).unwrap();
    let (layer, dense) = (WeightOnly::new(&w, None).unwrap(), w.dequantize().unwrap());
    for outlier in [1e4f32, 1e6, 1e30] {
        let mut x = normals(k, 1);
        x[5] = outlier;
        let y = layer.forward(TensorView::from_slice([1, k], &x).unwrap()).unwrap();
        for (row, y) in dense.as_slice().chunks(k).zip(y.as_slice()) {
            let terms = || row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let (want, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
            assert!((f64::from(*y) - want).abs() <= 4e-6 * size, "{outlier}: {y} {want}");
        }
    }
}
