//! Maps, layers and adapters as named tensors, for files.
//!
//! | Name | Shape | Of |
//! |---|---|---|
//! | `psi` | `[out, width]`; complex ones in halves, or `[out, m]` complex64 | layers |
//! | `g` | `[m, d]`, with a column for the bias `[m, d + 1]` and then `column` = 1 | ReLU and universal maps |
//! | `threshold` | `[1]` | ReLU maps, 0 if absent |
//! | `xi`, `c` | `[m]`; `c` as `[m, 2]` (real, imaginary) or complex | universal maps |
//! | `split`, `lam` | `[1]` | universal maps, 0.5 and 0 if absent |
//! | `coefficients`, `degrees`, `omega` | `[n_max + 1]`, `[m]`, `[sum of degrees, d]` | Maclaurin maps |
//! | `h01` | `[1]`, 1 for exact terms | Maclaurin maps |
//! | `normalize` | `[1]` | maps that scale rows |
//! | `up_w`, `up_b` or `v` | `[d, r]`, `[d]`; `[d]` | adapters |
//! | `norm_before_gamma`, `norm_before_beta`, `norm_after_gamma`, `norm_after_beta` | `[d]` | adapters |

use kc_core::{AnyTensor, Complex, DType, Error, Result, Tensor};

use super::adapter::{Adapter, Norm, Up};
use super::layer::SnnkLayer;
use super::map::{Features, Map};
use crate::maclaurin::Maclaurin;
use crate::relu::Relu;
use crate::universal::Universal;
use crate::{Projection, Scalar, to_halves};

/// Named tensors, as kc-io writes them to .safetensors files.
pub type Tensors = Vec<(String, AnyTensor)>;

/// Looks a tensor up by its name.
pub trait Lookup {
    /// The tensor, if it is there.
    ///
    /// # Errors
    /// Whatever stops it from being read.
    fn tensor(&self, name: &str) -> Result<Option<AnyTensor>>;

    /// The tensor, which must be there.
    ///
    /// # Errors
    /// `Argument` if it is not.
    fn need(&self, name: &'static str) -> Result<AnyTensor> {
        self.tensor(name)?.ok_or_else(|| Error::argument(name, "a tensor of this name", "none"))
    }
}

impl Lookup for Tensors {
    fn tensor(&self, name: &str) -> Result<Option<AnyTensor>> {
        Ok(self.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor.clone()))
    }
}

fn real<T: Scalar, const N: usize>(name: &'static str, any: &AnyTensor) -> Result<Tensor<T, N>> {
    let wide = any.to_f64::<N>(name)?;
    let mut out = Tensor::zeros(wide.shape())?;
    out.as_mut_slice().iter_mut().zip(wide.as_slice()).for_each(|(o, x)| *o = T::from_f64(*x));
    Ok(out)
}

fn number(from: &impl Lookup, name: &'static str) -> Result<Option<f64>> {
    let Some(any) = from.tensor(name)? else { return Ok(None) };
    let values = match any.rank() {
        0 => any.to_f64::<0>(name)?.into_vec(),
        _ => any.to_f64::<1>(name)?.into_vec(),
    };
    match values[..] {
        [value] => Ok(Some(value)),
        _ => Err(Error::shape(name, "one number", any.shape())),
    }
}

fn complex(name: &'static str, any: &AnyTensor) -> Result<Vec<Complex<f64>>> {
    match any.dtype() {
        DType::C64 => {
            let all = any.to_tensor::<Complex<f32>, 1>(name)?;
            Ok(all.as_slice().iter().map(|z| Complex::new(f64::from(z.re), f64::from(z.im))).collect())
        }
        DType::C128 => Ok(any.to_tensor::<Complex<f64>, 1>(name)?.into_vec()),
        _ if any.rank() == 1 => {
            Ok(any.to_f64::<1>(name)?.as_slice().iter().map(|&re| Complex::new(re, 0.0)).collect())
        }
        _ => {
            let pairs = any.to_f64::<2>(name)?;
            if pairs.shape()[1] != 2 {
                return Err(Error::shape(name, "[m, 2], real and imaginary parts", &pairs.shape()));
            }
            Ok(pairs.as_slice().chunks_exact(2).map(|p| Complex::new(p[0], p[1])).collect())
        }
    }
}

fn one_number(value: f64) -> Result<AnyTensor> {
    Ok(Tensor::from_slice([1], &[value])?.into_any())
}

impl<T: Scalar> Map<T> {
    /// The map by names.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn to_tensors(&self) -> Result<Tensors> {
        let mut out: Tensors = Vec::new();
        let mut add = |name: &str, tensor: AnyTensor| out.push((name.to_owned(), tensor));
        match self.features() {
            Features::Relu(f) => {
                add("g", f.projection().to_matrix()?.into_any());
                add("threshold", one_number(f.threshold())?);
            }
            Features::Universal(f) => {
                add("g", f.projection().to_matrix()?.into_any());
                add("xi", Tensor::from_slice([f.xi().len()], f.xi())?.into_any());
                let pairs: Vec<f64> = f.c().iter().flat_map(|c| [c.re, c.im]).collect();
                add("c", Tensor::from_slice([f.c().len(), 2], &pairs)?.into_any());
                add("split", one_number(f.split())?);
                add("lam", one_number(f.lam())?);
            }
            Features::Maclaurin(f) => {
                add(
                    "coefficients",
                    Tensor::from_slice([f.coefficients().len()], f.coefficients())?.into_any(),
                );
                let degrees: Vec<i64> = f.degrees().iter().map(|&n| n as i64).collect();
                add("degrees", Tensor::from_slice([degrees.len()], &degrees)?.into_any());
                let omega = match f.omega() {
                    Some(omega) => omega.to_tensor()?,
                    None => Tensor::zeros([0, crate::FeatureMap::<T>::inputs(f)])?,
                };
                add("omega", omega.into_any());
                add("h01", one_number(f64::from(u8::from(f.h01())))?);
            }
        }
        if let Some(length) = self.normalize() {
            add("normalize", one_number(length)?);
        }
        if self.column() {
            add("column", one_number(1.0)?);
        }
        Ok(out)
    }

    /// The map of named tensors: Maclaurin if there is `omega`, universal if there is `xi`, else ReLU.
    ///
    /// # Errors
    /// Those of the map; `Argument` if a tensor is missing.
    pub fn from_tensors(from: &impl Lookup) -> Result<Self> {
        let flag = |name| Ok::<bool, Error>(number(from, name)?.is_some_and(|x| x != 0.0));
        let features = if let Some(omega) = from.tensor("omega")? {
            let mut degrees = Vec::new();
            for degree in from.need("degrees")?.to_f64::<1>("degrees")?.as_slice() {
                if !(0.0..=64.0).contains(degree) || degree.fract() != 0.0 {
                    return Err(Error::argument("degrees", "integers from 0 to 64", degree));
                }
                degrees.push(*degree as usize);
            }
            let coefficients = from.need("coefficients")?.to_f64::<1>("coefficients")?.into_vec();
            let omega = real("omega", &omega)?;
            Features::Maclaurin(Maclaurin::new(coefficients, flag("h01")?, degrees, omega)?)
        } else {
            let projection = Projection::new(real("g", &from.need("g")?)?)?;
            match from.tensor("xi")? {
                Some(xi) => {
                    let xi = xi.to_f64::<1>("xi")?.into_vec();
                    let c = complex("c", &from.need("c")?)?;
                    let split = number(from, "split")?.unwrap_or(0.5);
                    let lam = number(from, "lam")?.unwrap_or(0.0);
                    Features::Universal(Universal::new(projection, xi, c, split, lam)?)
                }
                None => {
                    let threshold = number(from, "threshold")?.unwrap_or(0.0);
                    Features::Relu(Relu::arc_cosine(projection, threshold)?)
                }
            }
        };
        Map::new(features, number(from, "normalize")?, flag("column")?)
    }
}

impl<T: Scalar> SnnkLayer<T> {
    /// Parameter and map by names.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn to_tensors(&self) -> Result<Tensors> {
        let mut out = vec![("psi".to_owned(), self.psi().to_tensor()?.into_any())];
        out.extend(self.map().to_tensors()?);
        Ok(out)
    }

    /// The layer of named tensors.
    ///
    /// # Errors
    /// Those of [`Map::from_tensors`] and [`SnnkLayer::new`].
    pub fn from_tensors(from: &impl Lookup) -> Result<Self> {
        let map = Map::from_tensors(from)?;
        let psi = from.need("psi")?;
        let psi = match psi.dtype() {
            DType::C64 | DType::C128 if !map.is_complex() => {
                return Err(Error::dtype("psi", "real numbers for real features", psi.dtype()));
            }
            DType::C64 => real("psi", &to_halves::<f32>(psi.to_tensor("psi")?.view())?.into_any())?,
            DType::C128 => real("psi", &to_halves::<f64>(psi.to_tensor("psi")?.view())?.into_any())?,
            _ => real("psi", &psi)?,
        };
        SnnkLayer::new(map, psi)
    }
}

impl<T: Scalar> Adapter<T> {
    /// Parameters and map by names.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn to_tensors(&self) -> Result<Tensors> {
        let mut out = self.layer().to_tensors()?;
        let (rows, d) = (self.layer().outputs(), self.layer().inputs());
        for (name, values) in self.parameters().into_iter().skip(1) {
            let tensor = if name == "up_w" {
                Tensor::from_slice([d, rows], values)?.into_any()
            } else {
                Tensor::from_slice([values.len()], values)?.into_any()
            };
            out.push((name.to_owned(), tensor));
        }
        Ok(out)
    }

    /// The adapter of named tensors. `up_w` makes Up linear (with `up_b`, zeros if absent), `v` a scale, and `up_b` alone
    /// a shift.
    ///
    /// # Errors
    /// Those of [`SnnkLayer::from_tensors`] and [`Adapter::new`]; `Argument` for more than one Up or none.
    pub fn from_tensors(from: &impl Lookup) -> Result<Self> {
        let layer = SnnkLayer::from_tensors(from)?;
        let vector = |name: &'static str| -> Result<Option<Vec<T>>> {
            from.tensor(name)?.map(|any| Ok(real::<T, 1>(name, &any)?.into_vec())).transpose()
        };
        let norm = |names: [&'static str; 2]| -> Result<Option<Norm<T>>> {
            match (vector(names[0])?, vector(names[1])?) {
                (None, None) => Ok(None),
                (Some(gamma), Some(beta)) => Ok(Some(Norm { gamma, beta, eps: 1e-5 })),
                (gamma, _) => {
                    let missing = if gamma.is_none() { names[0] } else { names[1] };
                    Err(Error::argument(missing, "a tensor of this name", "none"))
                }
            }
        };
        let up = match (from.tensor("up_w")?, vector("up_b")?, vector("v")?) {
            (Some(w), b, None) => {
                Up::Linear { w: real("up_w", &w)?, b: b.unwrap_or_else(|| vec![T::ZERO; layer.inputs()]) }
            }
            (None, None, Some(v)) => Up::Scale { v },
            (None, Some(b), None) => Up::Shift { b },
            (None, None, None) => return Err(Error::argument("up_w", "a tensor up_w, up_b or v", "none")),
            (_, _, Some(_)) => return Err(Error::argument("v", "no up_w or up_b beside it", "both")),
        };
        Adapter::new(
            layer,
            up,
            norm(["norm_before_gamma", "norm_before_beta"])?,
            norm(["norm_after_gamma", "norm_after_beta"])?,
        )
    }
}
