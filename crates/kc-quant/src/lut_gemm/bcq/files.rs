//! As named tensors, for safetensors files: `bits` u8 `[q, N, ceil(K/8)]`, `alpha` `[N, G, q]` and `offset` `[N, G]` in
//! the type of the scales, `order` u32 `[K]` where columns are stored in another order; settings in the metadata.

use std::collections::BTreeMap;

use kc_core::{AnyTensor, DType, Error, Result, Tensor, bf16, f16};

use super::BcqMatrix;
use crate::group::ScaleDtype;

const SYSTEM: &str = "lut_gemm";
const VERSION: &str = "1";

/// The tensors of a file by name, and its metadata.
pub type FileParts = (Vec<(String, AnyTensor)>, BTreeMap<String, String>);

impl BcqMatrix {
    /// The tensors and the metadata of a file.
    pub fn to_tensors(&self) -> Result<FileParts> {
        let ([n, k], q, groups) = (self.shape, usize::from(self.bits), self.groups());
        let mut tensors = vec![
            ("bits".to_owned(), Tensor::from_slice([q, n, k.div_ceil(8)], &self.planes)?.into_any()),
            ("alpha".to_owned(), stored([n, groups, q], &self.scales, self.scale_dtype)?),
        ];
        if let Some(offsets) = &self.offsets {
            tensors.push(("offset".to_owned(), stored([n, groups], offsets, self.scale_dtype)?));
        }
        if let Some(order) = &self.order {
            tensors.push(("order".to_owned(), Tensor::from_slice([k], order)?.into_any()));
        }
        let metadata = [
            ("kc.system", SYSTEM.to_owned()),
            ("kc.version", VERSION.to_owned()),
            ("bits", self.bits.to_string()),
            ("group", self.group.to_string()),
            ("shape", format!("[{n}, {k}]")),
        ];
        Ok((tensors, metadata.map(|(key, value)| (key.to_owned(), value)).into()))
    }

    /// The matrix in a file. `tensor` gives the tensor of a name, if there is one; `source` is the file's name, for
    /// messages.
    ///
    /// # Errors
    /// `Parse` for anything that does not follow the format: another system or version, settings that are missing or
    /// do not agree with the tensors, bits behind the last column, values that are not finite.
    pub fn from_tensors(
        source: &str,
        tensor: impl Fn(&str) -> Option<AnyTensor>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let bad = |message: String| Error::parse(source, message);
        let setting = |key: &str| metadata.get(key).map(|value| value.trim());
        for (key, want) in [("kc.system", SYSTEM), ("kc.version", VERSION)] {
            if setting(key) != Some(want) {
                return Err(bad(format!("{key} is {}, expected {want}", setting(key).unwrap_or("missing"))));
            }
        }
        let number = |key: &str| {
            let value = setting(key).and_then(|value| value.parse::<usize>().ok());
            value.ok_or_else(|| bad(format!("`{key}` in the metadata is no number")))
        };
        let (bits, group) = (number("bits")?, number("group")?);
        let shape = setting("shape").and_then(parse_shape);
        let [n, k] = shape.ok_or_else(|| bad("`shape` in the metadata is not [N, K]".into()))?;
        if !(1..=8).contains(&bits) || group == 0 || n == 0 || k == 0 {
            return Err(bad(format!("{bits} bits, groups of {group} and shape [{n}, {k}] are out of range")));
        }
        let groups = k.div_ceil(group.min(k));
        let needed = |name: &str| tensor(name).ok_or_else(|| bad(format!("there is no tensor `{name}`")));
        let shaped = |name: &str, any: AnyTensor, shape: &[usize]| {
            if any.shape() == shape {
                return Ok(any);
            }
            Err(bad(format!("`{name}` has shape {:?}, expected {shape:?}", any.shape())))
        };
        let wrong = |error: Error| bad(error.to_string());
        let planes = shaped("bits", needed("bits")?, &[bits, n, k.div_ceil(8)])?;
        let planes = planes.to_tensor::<u8, 3>("bits").map_err(wrong)?.into_vec();
        let alpha = shaped("alpha", needed("alpha")?, &[n, groups, bits])?;
        let scale_dtype = match alpha.dtype() {
            DType::F32 => ScaleDtype::F32,
            DType::F16 => ScaleDtype::F16,
            DType::BF16 => ScaleDtype::Bf16,
            other => return Err(bad(format!("`alpha` is {other}, expected float32, float16 or bfloat16"))),
        };
        let scales = alpha.to_f32::<3>("alpha").map_err(wrong)?.into_vec();
        let offsets = match tensor("offset") {
            Some(any) if any.dtype() != alpha.dtype() => {
                return Err(bad(format!("`offset` is {}, `alpha` {}", any.dtype(), alpha.dtype())));
            }
            Some(any) => {
                let any = shaped("offset", any, &[n, groups])?;
                Some(any.to_f32::<2>("offset").map_err(wrong)?.into_vec())
            }
            None => None,
        };
        let order = match tensor("order") {
            Some(any) => Some(any.to_tensor::<u32, 1>("order").map_err(wrong)?.into_vec()),
            None => None,
        };
        if order.as_ref().is_some_and(|order| !is_permutation(order, k)) {
            return Err(bad(format!("`order` does not hold each of 0..{k} once")));
        }
        let matrix = Self::from_parts([n, k], bits as u8, group, planes, scales, offsets).map_err(wrong)?;
        Ok(Self { scale_dtype, order, ..matrix })
    }
}

/// `[N, K]`, as [`BcqMatrix::to_tensors`] writes it.
fn parse_shape(text: &str) -> Option<[usize; 2]> {
    let (n, k) = text.strip_prefix('[')?.strip_suffix(']')?.split_once(',')?;
    Some([n.trim().parse().ok()?, k.trim().parse().ok()?])
}

fn is_permutation(order: &[u32], k: usize) -> bool {
    let mut seen = vec![false; k.min(order.len())];
    order.len() == k
        && order.iter().all(|&j| seen.get_mut(j as usize).is_some_and(|seen| !std::mem::replace(seen, true)))
}

fn stored<const N: usize>(shape: [usize; N], values: &[f32], dtype: ScaleDtype) -> Result<AnyTensor> {
    Ok(match dtype {
        ScaleDtype::F32 => Tensor::from_slice(shape, values)?.into_any(),
        ScaleDtype::F16 => {
            let halves: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
            Tensor::from_slice(shape, &halves)?.into_any()
        }
        ScaleDtype::Bf16 => {
            let halves: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
            Tensor::from_slice(shape, &halves)?.into_any()
        }
    })
}
