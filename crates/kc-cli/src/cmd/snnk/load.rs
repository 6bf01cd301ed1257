//! Arrays of the type of the inputs.

use anyhow::Result;
use kc_core::{AnyTensor, Complex, DType, Error, Tensor};
use kc_features::Scalar;

use crate::input;

/// True for float64.
pub(super) fn is_wide(name: &str, file: &str) -> Result<bool> {
    Ok(input::any(name, file)?.dtype() == DType::F64)
}

fn real<T: Scalar, const N: usize>(name: &str, any: &AnyTensor) -> Result<Tensor<T, N>> {
    if any.dtype() == T::DTYPE {
        return Ok(any.to_tensor(name.to_owned())?);
    }
    let wide = any.to_f64::<N>(name.to_owned())?;
    let mut out = Tensor::zeros(wide.shape())?;
    out.as_mut_slice().iter_mut().zip(wide.as_slice()).for_each(|(o, x)| *o = T::from_f64(*x));
    Ok(out)
}

/// A matrix of real numbers.
pub(super) fn matrix<T: Scalar>(name: &str, file: &str) -> Result<Tensor<T, 2>> {
    real(name, &input::any(name, file)?)
}

/// A vector of real numbers.
pub(super) fn vector<T: Scalar>(name: &str, file: &str) -> Result<Vec<T>> {
    Ok(real::<T, 1>(name, &input::any(name, file)?)?.into_vec())
}

/// A matrix, or a vector as its one column.
pub(super) fn columns<T: Scalar>(name: &str, file: &str) -> Result<Tensor<T, 2>> {
    let any = input::any(name, file)?;
    if any.rank() == 1 {
        let column = real::<T, 1>(name, &any)?;
        let rows = column.len();
        return Ok(column.reshape([rows, 1])?);
    }
    real(name, &any)
}

/// A vector of complex numbers; real ones have no imaginary part.
pub(super) fn complex(name: &str, file: &str) -> Result<Vec<Complex<f64>>> {
    let any = input::any(name, file)?;
    Ok(match any.dtype() {
        DType::C128 => any.to_tensor::<Complex<f64>, 1>(name.to_owned())?.into_vec(),
        DType::C64 => {
            let all = any.to_tensor::<Complex<f32>, 1>(name.to_owned())?;
            all.as_slice().iter().map(|z| Complex::new(f64::from(z.re), f64::from(z.im))).collect()
        }
        _ => any.to_f64::<1>(name.to_owned())?.as_slice().iter().map(|&re| Complex::new(re, 0.0)).collect(),
    })
}

/// Integers from 0, for counts and indices below `bound`.
pub(super) fn integers(name: &str, file: &str, bound: u32) -> Result<Vec<usize>> {
    let any = input::any(name, file)?;
    if !any.dtype().is_integer() {
        return Err(Error::dtype(name.to_owned(), "integers", any.dtype()).into());
    }
    let mut out = Vec::with_capacity(any.len());
    for (i, &value) in any.to_f64::<1>(name.to_owned())?.as_slice().iter().enumerate() {
        if !(0.0..f64::from(bound)).contains(&value) {
            let want = format!("integers from 0 to {}", bound - 1);
            return Err(Error::argument(name.to_owned(), want, format!("{value} at {i}")).into());
        }
        out.push(value as usize);
    }
    Ok(out)
}

/// Class labels and the number of classes.
pub(super) fn labels(name: &str, file: &str) -> Result<(Vec<usize>, usize)> {
    let labels = integers(name, file, 1 << 16)?;
    let classes = labels.iter().max().map_or(0, |most| most + 1);
    Ok((labels, classes))
}
