//! Reading fixtures, and comparing matrices bit by bit.

use kc_core::Tensor;
use kc_sparse::{Csr, Triplets, semiring::PlusTimes};
use kc_testing::{golden, golden_dir};

/// A matrix in SciPy's `.npz` layout.
pub(crate) fn npz(name: &str) -> Csr<f64> {
    let file = format!("{}/smash/{name}", golden_dir().display());
    let read = |key: &str| kc_io::read(format!("{file}:{key}")).expect(key);
    let shape: Tensor<i64, 1> = read("shape").to_tensor("shape").expect("shape");
    let indptr: Tensor<i64, 1> = read("indptr").to_tensor("indptr").expect("indptr");
    let indices: Tensor<i32, 1> = read("indices").to_tensor("indices").expect("indices");
    let data: Tensor<f64, 1> = read("data").to_tensor("data").expect("data");
    Csr::new(
        shape.as_slice()[0] as usize,
        shape.as_slice()[1] as usize,
        indptr.into_vec(),
        indices.as_slice().iter().map(|&c| c as u32).collect(),
        data.into_vec(),
    )
    .expect("a valid matrix")
}

/// A coordinate `.mtx` file without repetitions, read by a few lines of our own.
pub(crate) fn mtx(name: &str) -> Csr<f64> {
    let text = std::fs::read_to_string(golden(&format!("smash/mtx/{name}.mtx"))).expect("text");
    let symmetric = text.lines().next().expect("a banner").contains("symmetric");
    let mut lines = text.lines().filter(|l| !l.starts_with('%') && !l.trim().is_empty());
    let numbers =
        |l: &str| l.split_whitespace().map(|x| x.parse::<f64>().expect("a number")).collect::<Vec<_>>();
    let size = numbers(lines.next().expect("sizes"));
    let (mut rows, mut cols, mut values) = (vec![], vec![], vec![]);
    for entry in lines.map(numbers) {
        let (i, j) = (entry[0] as usize - 1, entry[1] as usize - 1);
        let x = entry.get(2).copied().unwrap_or(1.0);
        rows.push(i);
        cols.push(j);
        values.push(x);
        if symmetric && i != j {
            rows.push(j);
            cols.push(i);
            values.push(x);
        }
    }
    let t = Triplets {
        nrows: size[0] as usize,
        ncols: size[1] as usize,
        rows: &rows,
        cols: &cols,
        values: &values,
    };
    t.to_csr().expect("a valid matrix").sum_duplicates(PlusTimes::new())
}

/// Fails unless both have the same pattern and the same bits. Which of two NaNs a sum gives is not defined, so all
/// NaNs are the same.
#[track_caller]
pub(crate) fn assert_bits(got: &Csr<f64>, want: &Csr<f64>, what: &str) {
    assert_eq!((got.nrows(), got.ncols()), (want.nrows(), want.ncols()), "{what}: shape");
    assert_eq!(got.indptr(), want.indptr(), "{what}: indptr");
    assert_eq!(got.indices(), want.indices(), "{what}: indices");
    let one = |x: &f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
    let bits = |m: &Csr<f64>| m.values().iter().map(one).collect::<Vec<_>>();
    assert_eq!(bits(got), bits(want), "{what}: values");
}
