//! Sparse matrices in files: `.mtx`, SciPy's `.npz`, dense `.npy`.

use std::path::Path;

use anyhow::{Context, Result};
use kc_core::{AnyTensor, Complex, DType, Element, Error, Tensor};
use kc_io::mtx::{self, Entries, Mtx, Symmetry, Values};
use kc_io::npz::{self, Compression, NpzFile};
use kc_sparse::semiring::{Number, PlusTimes};
use kc_sparse::{Csr, Triplets, Value, ops};

/// A matrix of the type that its file holds, widened to one of these.
#[derive(Debug, Clone)]
pub(super) enum Matrix {
    Bool(Csr<bool>),
    I64(Csr<i64>),
    F32(Csr<f32>),
    F64(Csr<f64>),
    C128(Csr<Complex<f64>>),
}

/// Runs `$body` with `$m` bound to the typed matrix.
macro_rules! each {
    ($matrix:expr, $m:ident => $body:expr) => {
        match $matrix {
            Matrix::Bool($m) => $body,
            Matrix::I64($m) => $body,
            Matrix::F32($m) => $body,
            Matrix::F64($m) => $body,
            Matrix::C128($m) => $body,
        }
    };
}

/// Runs `$body` on the typed matrix and wraps the result again.
macro_rules! map {
    ($matrix:expr, $m:ident => $body:expr) => {
        match $matrix {
            Matrix::Bool($m) => Matrix::Bool($body),
            Matrix::I64($m) => Matrix::I64($body),
            Matrix::F32($m) => Matrix::F32($body),
            Matrix::F64($m) => Matrix::F64($body),
            Matrix::C128($m) => Matrix::C128($body),
        }
    };
}

impl Matrix {
    /// Rows, columns, entries.
    pub(super) fn size(&self) -> (usize, usize, usize) {
        each!(self, m => (m.nrows(), m.ncols(), m.nnz()))
    }

    pub(super) fn transpose(&self) -> Result<Self> {
        Ok(map!(self, m => m.transpose()?))
    }

    pub(super) fn without_zeros(self) -> Self {
        map!(self, m => ops::drop_zeros(m))
    }

    pub(super) fn is_bool(&self) -> bool {
        matches!(self, Matrix::Bool(_))
    }

    /// Booleans as int64, float32 as float64, others as they are.
    pub(super) fn full_width(self) -> Self {
        match self {
            Matrix::Bool(m) => Matrix::I64(convert(&m, i64::from)),
            Matrix::F32(m) => Matrix::F64(convert(&m, f64::from)),
            other => other,
        }
    }

    /// Where entries are.
    pub(super) fn pattern(&self) -> Csr<f64> {
        each!(self, m => convert(m, |_| 1.0))
    }

    /// Writes `.npz` or `.mtx`.
    pub(super) fn write(self, path: &Path) -> Result<()> {
        check_out(path)?;
        if extension(path) == "npz" {
            return match self {
                Matrix::Bool(m) => {
                    let bytes: Vec<u8> = m.values().iter().map(|&x| u8::from(x)).collect();
                    let data = AnyTensor::new(DType::Bool, vec![m.nnz()], kc_core::Bytes::from_owner(bytes))?;
                    write_npz(path, &m, data)
                }
                Matrix::I64(m) => write_numbers(path, &m),
                Matrix::F32(m) => write_numbers(path, &m),
                Matrix::F64(m) => write_numbers(path, &m),
                Matrix::C128(m) => write_numbers(path, &m),
            };
        }
        let values = match &self {
            Matrix::Bool(m) => Values::Integer(m.values().iter().map(|&x| i64::from(x)).collect()),
            Matrix::I64(m) => Values::Integer(m.values().to_vec()),
            Matrix::F32(m) => Values::Real(m.values().iter().map(|&x| f64::from(x)).collect()),
            Matrix::F64(m) => Values::Real(m.values().to_vec()),
            Matrix::C128(m) => Values::Complex(m.values().to_vec()),
        };
        let (rows, cols, _) = self.size();
        let (row, col, _) = self.pattern().view().to_triplets();
        let narrow = |v: Vec<usize>| v.into_iter().map(|x| x as u32).collect();
        let entries = Entries::Coordinate { row: narrow(row), col: narrow(col), values };
        Ok(mtx::write(path, &Mtx { rows, cols, symmetry: Symmetry::General, entries })?)
    }
}

fn extension(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Refuses an output that is neither `.npz` nor `.mtx`, before anything is computed.
pub(super) fn check_out(path: &Path) -> Result<()> {
    match extension(path).as_str() {
        "npz" | "mtx" => Ok(()),
        _ => Err(Error::argument("out", "a .npz or .mtx file", path.display()).into()),
    }
}

/// The same pattern with converted values.
fn convert<T: Value, U: Value>(m: &Csr<T>, f: impl Fn(T) -> U) -> Csr<U> {
    m.map(f)
}

/// Both matrices in the wider of their types.
pub(super) fn promote(a: Matrix, b: Matrix) -> (Matrix, Matrix) {
    let rank = rank(&a).max(rank(&b));
    (widen(a, rank), widen(b, rank))
}

fn rank(m: &Matrix) -> u8 {
    match m {
        Matrix::Bool(_) => 0,
        Matrix::I64(_) => 1,
        Matrix::F32(_) => 2,
        Matrix::F64(_) => 3,
        Matrix::C128(_) => 4,
    }
}

fn widen(m: Matrix, to: u8) -> Matrix {
    let m = match m {
        Matrix::Bool(m) if to > 0 => Matrix::I64(convert(&m, i64::from)),
        m => m,
    };
    // Integers beside single precision go to double, which holds more of them.
    match m {
        Matrix::I64(m) if to >= 2 => widen(Matrix::F64(convert(&m, |x| x as f64)), to),
        Matrix::F32(m) if to >= 3 => widen(Matrix::F64(convert(&m, f64::from)), to),
        Matrix::F64(m) if to == 4 => Matrix::C128(convert(&m, |x| Complex::new(x, 0.0))),
        m => m,
    }
}

/// Reads a matrix; repeated entries are added up.
pub(super) fn read(name: &str, file: &str) -> Result<Matrix> {
    let path = Path::new(file);
    let matrix = match extension(path).as_str() {
        "mtx" => from_mtx(mtx::read(path)?),
        "npz" => from_npz(&NpzFile::open(path)?, name),
        "npy" => from_dense(&kc_io::read(file)?, name),
        _ => Err(Error::argument(name.to_owned(), "a .mtx, .npz or .npy file", file).into()),
    };
    matrix.with_context(|| format!("--{name}"))
}

fn from_mtx(file: Mtx) -> Result<Matrix> {
    let t = file.into_triplets();
    let wide = |v: &[u32]| v.iter().map(|&x| x as usize).collect::<Vec<_>>();
    let (rows, cols) = (wide(&t.row), wide(&t.col));
    fn build<T: Number>(
        rows: &[usize],
        cols: &[usize],
        shape: (usize, usize),
        values: &[T],
    ) -> Result<Csr<T>> {
        let all: Csr<T> = Triplets { nrows: shape.0, ncols: shape.1, rows, cols, values }.to_csr()?;
        Ok(all.sum_duplicates(PlusTimes::new()))
    }
    let shape = (t.rows, t.cols);
    Ok(match &t.values {
        Values::Real(v) => Matrix::F64(build(&rows, &cols, shape, v)?),
        Values::Integer(v) => Matrix::I64(build(&rows, &cols, shape, v)?),
        Values::Complex(v) => Matrix::C128(build(&rows, &cols, shape, v)?),
        Values::Pattern => Matrix::F64(build(&rows, &cols, shape, &vec![1.0; rows.len()])?),
        other => return Err(Error::unsupported("values", format!("{:?}", other.field())).into()),
    })
}

/// The values of a file as one of our types.
enum Numbers {
    Bool(Vec<bool>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    C128(Vec<Complex<f64>>),
}

fn numbers(any: &AnyTensor, name: &str) -> Result<Numbers> {
    let flat =
        AnyTensor::new(any.dtype(), vec![any.len()], kc_core::Bytes::from_owner(any.bytes().to_vec()))?;
    fn get<T: Element, U>(any: &AnyTensor, name: &str, f: impl Fn(T) -> U) -> Result<Vec<U>> {
        Ok(any.to_tensor::<T, 1>(name.to_owned())?.as_slice().iter().map(|&x| f(x)).collect())
    }
    Ok(match any.dtype() {
        DType::Bool => Numbers::Bool(get(&flat, name, |x: u8| x != 0)?),
        DType::I8 => Numbers::I64(get(&flat, name, |x: i8| x.into())?),
        DType::U8 => Numbers::I64(get(&flat, name, |x: u8| x.into())?),
        DType::I16 => Numbers::I64(get(&flat, name, |x: i16| x.into())?),
        DType::U16 => Numbers::I64(get(&flat, name, |x: u16| x.into())?),
        DType::I32 => Numbers::I64(get(&flat, name, |x: i32| x.into())?),
        DType::U32 => Numbers::I64(get(&flat, name, |x: u32| x.into())?),
        DType::I64 => Numbers::I64(get(&flat, name, |x: i64| x)?),
        DType::F32 => Numbers::F32(get(&flat, name, |x: f32| x)?),
        DType::F64 => Numbers::F64(get(&flat, name, |x: f64| x)?),
        DType::C64 => {
            Numbers::C128(get(&flat, name, |z: Complex<f32>| Complex::new(z.re.into(), z.im.into()))?)
        }
        DType::C128 => Numbers::C128(get(&flat, name, |z: Complex<f64>| z)?),
        other => {
            return Err(
                Error::dtype(name.to_owned(), "bool, integers, float32, float64 or complex", other).into()
            );
        }
    })
}

fn integers(file: &NpzFile, key: &str) -> Result<Vec<i64>> {
    match numbers(&file.get(key)?, key)? {
        Numbers::I64(v) => Ok(v),
        _ => Err(Error::argument(key.to_owned(), "integers", "other numbers").into()),
    }
}

fn from_npz(file: &NpzFile, name: &str) -> Result<Matrix> {
    let shape = integers(file, "shape")?;
    let &[rows, cols] = &shape[..] else {
        return Err(Error::shape("shape", "2 numbers", &[shape.len()]).into());
    };
    let size = |x: i64| usize::try_from(x).map_err(|_| Error::argument("shape", "sizes", x));
    let (rows, cols) = (size(rows)?, size(cols)?);
    let indptr = integers(file, "indptr")?;
    let narrow = |(at, x): (usize, i64)| {
        u32::try_from(x)
            .map_err(|_| Error::argument("indices", "columns from 0 to 2^32 - 2", format!("{x} at {at}")))
    };
    let indices =
        integers(file, "indices")?.into_iter().enumerate().map(narrow).collect::<Result<Vec<_>, _>>()?;
    // Compressed columns are the compressed rows of the transpose.
    let by_columns = file.contains("format") && file.text("format").is_ok_and(|f| f.trim() == "csc");
    let (m, n) = if by_columns { (cols, rows) } else { (rows, cols) };
    let matrix = match numbers(&file.get("data")?, name)? {
        Numbers::Bool(v) => Matrix::Bool(Csr::new(m, n, indptr, indices, v)?),
        Numbers::I64(v) => Matrix::I64(Csr::new(m, n, indptr, indices, v)?),
        Numbers::F32(v) => Matrix::F32(Csr::new(m, n, indptr, indices, v)?),
        Numbers::F64(v) => Matrix::F64(Csr::new(m, n, indptr, indices, v)?),
        Numbers::C128(v) => Matrix::C128(Csr::new(m, n, indptr, indices, v)?),
    };
    if by_columns { matrix.transpose() } else { Ok(matrix) }
}

fn from_dense(any: &AnyTensor, name: &str) -> Result<Matrix> {
    let &[m, n] = any.shape() else {
        return Err(Error::shape(name.to_owned(), "2 dimensions", any.shape()).into());
    };
    fn compress<T: Number>(m: usize, n: usize, dense: &[T]) -> Result<Csr<T>> {
        let (mut indptr, mut indices, mut values) = (vec![0i64], Vec::new(), Vec::new());
        for i in 0..m {
            for (j, &x) in dense[i * n..(i + 1) * n].iter().enumerate().filter(|(_, x)| **x != T::ZERO) {
                indices.push(
                    u32::try_from(j)
                        .map_err(|_| Error::too_large("columns", j as u64, u32::MAX.into(), "columns"))?,
                );
                values.push(x);
            }
            indptr.push(indices.len() as i64);
        }
        Ok(Csr::new(m, n, indptr, indices, values)?)
    }
    Ok(match numbers(any, name)? {
        Numbers::Bool(v) => Matrix::Bool(compress(m, n, &v)?),
        Numbers::I64(v) => Matrix::I64(compress(m, n, &v)?),
        Numbers::F32(v) => Matrix::F32(compress(m, n, &v)?),
        Numbers::F64(v) => Matrix::F64(compress(m, n, &v)?),
        Numbers::C128(v) => Matrix::C128(compress(m, n, &v)?),
    })
}

fn write_numbers<T: Value + Element>(path: &Path, m: &Csr<T>) -> Result<()> {
    write_npz(path, m, Tensor::from_slice([m.nnz()], m.values())?.into_any())
}

/// SciPy's layout; columns of 32 bits where they fit its signed type.
fn write_npz<T: Value>(path: &Path, m: &Csr<T>, data: AnyTensor) -> Result<()> {
    let small = m.ncols() <= i32::MAX as usize;
    let indices = if small {
        let narrow: Vec<i32> = m.indices().iter().map(|&c| c as i32).collect();
        Tensor::from_slice([m.nnz()], &narrow)?.into_any()
    } else {
        let wide: Vec<i64> = m.indices().iter().map(|&c| c.into()).collect();
        Tensor::from_slice([m.nnz()], &wide)?.into_any()
    };
    let indptr = Tensor::from_slice([m.indptr().len()], m.indptr())?.into_any();
    let shape = Tensor::from_slice([2], &[m.nrows() as i64, m.ncols() as i64])?.into_any();
    let tensors = [("indices", indices), ("indptr", indptr), ("shape", shape), ("data", data)];
    Ok(npz::write_with(path, &tensors, &[("format", "csr")], Compression::Stored)?)
}
