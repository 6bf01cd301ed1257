//! What a symmetric file leaves out, and dense matrices.

use std::ops::Neg;

use kc_core::{AnyTensor, Complex, Element, Error, Result, Tensor};

use super::{Entries, Mtx, Symmetry, Triplets, Values};

impl Mtx {
    /// All entries: those of the file in its order, then the mirror images of those off the diagonal. The
    /// entries of an array are listed with their positions, zeros too.
    pub fn triplets(&self) -> Triplets {
        self.clone().into_triplets()
    }

    /// As [`triplets`](Self::triplets), reusing the memory.
    pub fn into_triplets(self) -> Triplets {
        let (rows, cols, symmetry) = (self.rows, self.cols, self.symmetry);
        let (mut row, mut col, values) = match self.entries {
            Entries::Coordinate { row, col, values } => (row, col, values),
            Entries::Array(values) => {
                let (row, col) = array_positions(rows, cols, symmetry, values.len().unwrap_or(0));
                (row, col, values)
            }
        };
        if symmetry == Symmetry::General {
            return Triplets { rows, cols, row, col, values };
        }
        let pairs: Vec<usize> = (0..row.len().min(col.len())).filter(|&e| row[e] != col[e]).collect();
        let mirrored_rows: Vec<u32> = pairs.iter().map(|&e| col[e]).collect();
        col.extend(pairs.iter().map(|&e| row[e]).collect::<Vec<u32>>());
        row.extend(mirrored_rows);
        let values = match (values, symmetry) {
            (Values::Real(v), Symmetry::SkewSymmetric) => Values::Real(mirror(v, &pairs, f64::neg)),
            (Values::Real(v), _) => Values::Real(mirror(v, &pairs, |x| x)),
            (Values::Integer(v), Symmetry::SkewSymmetric) => {
                // The negative of the lowest integer does not exist; it wraps to itself.
                Values::Integer(mirror(v, &pairs, i64::wrapping_neg))
            }
            (Values::Integer(v), _) => Values::Integer(mirror(v, &pairs, |x| x)),
            (Values::Complex(v), Symmetry::SkewSymmetric) => Values::Complex(mirror(v, &pairs, |z| -z)),
            (Values::Complex(v), Symmetry::Hermitian) => Values::Complex(mirror(v, &pairs, |z| z.conj())),
            (Values::Complex(v), _) => Values::Complex(mirror(v, &pairs, |x| x)),
            (Values::Pattern, _) => Values::Pattern,
        };
        Triplets { rows, cols, row, col, values }
    }

    /// The matrix of an array file: `float64`, or `complex128` for complex values. Integers are rounded to
    /// `float64` above 2^53. Coordinates are refused: a small file may describe an enormous matrix.
    pub fn to_dense(&self) -> Result<AnyTensor> {
        let Entries::Array(values) = &self.entries else {
            return Err(Error::unsupported(
                "a tensor from coordinates",
                "a sparse matrix is read with kc_io::mtx::read",
            ));
        };
        let skew = self.symmetry == Symmetry::SkewSymmetric;
        match values {
            Values::Real(v) => self.dense(v, |x| x, |x| if skew { -x } else { x }),
            Values::Integer(v) => self.dense(v, |x| x as f64, |x| if skew { -x } else { x }),
            Values::Complex(v) => self.dense(
                v,
                |z| z,
                |z: Complex<f64>| match self.symmetry {
                    Symmetry::SkewSymmetric => -z,
                    Symmetry::Hermitian => z.conj(),
                    _ => z,
                },
            ),
            Values::Pattern => Err(Error::unsupported("an array of a pattern", "it has no values")),
        }
    }

    fn dense<S: Copy, T: Element>(
        &self,
        values: &[S],
        convert: impl Fn(S) -> T,
        image: impl Fn(T) -> T,
    ) -> Result<AnyTensor> {
        if self.symmetry.array_len(self.rows, self.cols) != Some(values.len()) {
            return Err(Error::shape("values", "as many as the size and the symmetry say", &[values.len()]));
        }
        let mut out = Tensor::<T, 2>::zeros([self.rows, self.cols])?;
        let cells = out.as_mut_slice();
        let mut from = values.iter();
        for j in 0..self.cols {
            for (i, &x) in (first_row(self.symmetry, j)..self.rows).zip(&mut from) {
                cells[i * self.cols + j] = convert(x);
                if self.symmetry != Symmetry::General && i != j {
                    cells[j * self.cols + i] = image(convert(x));
                }
            }
        }
        Ok(out.into_any())
    }
}

impl Triplets {
    /// The values as real numbers: a pattern's are one, integers are rounded above 2^53. Complex values are
    /// refused.
    pub fn values_f64(&self) -> Result<Vec<f64>> {
        match &self.values {
            Values::Real(v) => Ok(v.clone()),
            Values::Integer(v) => Ok(v.iter().map(|&x| x as f64).collect()),
            Values::Pattern => Ok(vec![1.0; self.row.len()]),
            Values::Complex(_) => {
                Err(Error::unsupported("a complex matrix as real numbers", "take its real part first"))
            }
        }
    }
}

/// The first row that an array lists of column `j`.
fn first_row(symmetry: Symmetry, j: usize) -> usize {
    match symmetry {
        Symmetry::General => 0,
        Symmetry::Symmetric | Symmetry::Hermitian => j,
        Symmetry::SkewSymmetric => j + 1,
    }
}

fn array_positions(rows: usize, cols: usize, symmetry: Symmetry, len: usize) -> (Vec<u32>, Vec<u32>) {
    let (mut row, mut col) = (Vec::with_capacity(len), Vec::with_capacity(len));
    for j in 0..cols {
        if row.len() >= len {
            break;
        }
        // An array that is listed in memory has fewer rows and columns than a u32 can count.
        row.extend((first_row(symmetry, j)..rows).map(|i| i as u32));
        col.resize(row.len(), j as u32);
    }
    (row, col)
}

fn mirror<T: Copy>(mut values: Vec<T>, pairs: &[usize], image: impl Fn(T) -> T) -> Vec<T> {
    let images: Vec<T> = pairs.iter().map(|&e| image(values[e])).collect();
    values.extend(images);
    values
}
