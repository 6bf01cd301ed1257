//! `kc kernel ft`: transforms of files.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use kc_core::bytemuck::pod_read_unaligned;
use kc_core::{AnyTensor, Complex, DType, Element, Error, Tensor};
use kc_fft::{fftbr, fwht, ifftbr};
use serde_json::json;

use crate::input;
use crate::report::Answer;

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Kind {
    /// Fourier, the input in bit-reversed order
    Fftbr,
    /// Its inverse
    Ifftbr,
    /// Walsh-Hadamard in natural order, its own inverse
    Fwht,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which transform
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Kind,
    /// Values, (..., n) with n a power of two: complex128 or float64
    #[arg(long = "in", value_name = "FILE")]
    input: String,
    /// File for the result, in the shape of the input: complex128, or float64 for fwht of real values
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<Answer> {
    let any = input::any("--in", &args.input)?;
    let shape = any.shape().to_vec();
    let Some(&n) = shape.last() else {
        return Err(Error::shape("--in", "at least one dimension", &shape).into());
    };
    let mut z = complex("--in", &any)?;
    // NaN spreads silently to a whole row.
    if let Some(at) = z.iter().position(|z| !(z.re.is_finite() && z.im.is_finite())) {
        let index: Vec<usize> = position(at, &shape);
        let value = if z[at].re.is_finite() { z[at].im } else { z[at].re };
        return Err(Error::not_finite("--in", &index, value).into());
    }
    let out = match args.kind {
        Kind::Fwht => {
            let (mut re, mut im): (Vec<f64>, Vec<f64>) = z.iter().map(|z| (z.re, z.im)).unzip();
            fwht(&mut re, n)?;
            if any.dtype() == DType::C128 {
                fwht(&mut im, n)?;
                shaped(re.into_iter().zip(im).map(|(re, im)| Complex::new(re, im)).collect(), &shape)?
            } else {
                shaped(re, &shape)?
            }
        }
        Kind::Fftbr => {
            fftbr(&mut z, n)?;
            shaped(z, &shape)?
        }
        Kind::Ifftbr => {
            ifftbr(&mut z, n)?;
            shaped(z, &shape)?
        }
    };
    kc_io::write(&args.out, &out)?;
    let mut answer = Answer::new();
    answer.set("shape", json!(shape)).set("dtype", out.dtype().name());
    Ok(answer)
}

fn complex(flag: &'static str, any: &AnyTensor) -> Result<Vec<Complex<f64>>> {
    // The bytes of a file need not be aligned for their type.
    match any.dtype() {
        DType::F64 => {
            let value = |bytes| Complex::new(pod_read_unaligned::<f64>(bytes), 0.0);
            Ok(any.bytes().chunks_exact(8).map(value).collect())
        }
        DType::C128 => Ok(any.bytes().chunks_exact(16).map(pod_read_unaligned).collect()),
        other => Err(Error::dtype(flag, "complex128 or float64", other).into()),
    }
}

/// Values under another shape of as many elements.
fn shaped<T: Element>(values: Vec<T>, shape: &[usize]) -> Result<AnyTensor> {
    let flat = Tensor::from_slice([values.len()], &values)?.into_any();
    Ok(AnyTensor::new(T::DTYPE, shape.to_vec(), kc_core::Bytes::from_owner(flat.bytes().to_vec()))?)
}

fn position(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (index, &len) in index.iter_mut().zip(shape).rev() {
        (*index, at) = (at % len, at / len);
    }
    index
}
