//! Weights as named tensors with texts, as `.safetensors` files hold them.
//!
//! | Tensor | Type, shape |
//! |---|---|
//! | `packed` | int32 `[N, ceil(K / 8)]` |
//! | `scales` | uint8 (E4M3 codes), bfloat16 or float32 `[N, G]` |
//!
//! Texts: `kc.system` = `fireq`, `kc.version` = `1`, `columns`, `group`, `scale_dtype`, `per_tensor`.

use std::collections::BTreeMap;

use kc_core::{AnyTensor, DType, Error, Result, Tensor, bf16};

use super::weights::{FireqWeights, ScaleType};
use crate::fp8;

const SYSTEM: &str = "fireq";
const VERSION: &str = "1";

/// Texts that a file says about itself.
type Texts = BTreeMap<String, String>;

impl FireqWeights {
    /// The tensors and texts to store.
    pub fn to_tensors(&self) -> Result<(Vec<(String, AnyTensor)>, Texts)> {
        let [n, k] = self.shape();
        let groups = k.div_ceil(self.group());
        let words: Vec<i32> = self.packed().iter().map(|&word| word as i32).collect();
        let packed = Tensor::from_slice([n, k.div_ceil(8)], &words)?.into_any();
        let scales = match self.scale_type() {
            ScaleType::Fp8 => {
                let mut codes = vec![0; self.scales().len()];
                fp8::encode_slice(self.scales(), &mut codes)?;
                Tensor::from_slice([n, groups], &codes)?.into_any()
            }
            ScaleType::Bf16 => {
                let scales: Vec<bf16> = self.scales().iter().map(|&s| bf16::from_f32(s)).collect();
                Tensor::from_slice([n, groups], &scales)?.into_any()
            }
            ScaleType::F32 => Tensor::from_slice([n, groups], self.scales())?.into_any(),
        };
        let texts = [
            ("kc.system", SYSTEM.to_owned()),
            ("kc.version", VERSION.to_owned()),
            ("columns", k.to_string()),
            ("group", self.group().to_string()),
            ("scale_dtype", self.scale_type().name().to_owned()),
            ("per_tensor", self.per_tensor().to_string()),
        ];
        let texts = texts.map(|(key, value)| (key.to_owned(), value)).into();
        Ok((vec![("packed".to_owned(), packed), ("scales".to_owned(), scales)], texts))
    }

    /// Weights from stored tensors, which `get` finds by name, and texts.
    ///
    /// # Errors
    /// What `get` gives; `Argument` for a missing or wrong text or a value out of its range; `Unsupported` for
    /// another system or version; `Shape` or `DType` for tensors that do not agree with the texts; `NotFinite`.
    pub fn from_tensors(get: impl Fn(&str) -> Result<AnyTensor>, texts: &Texts) -> Result<Self> {
        let text = |key: &'static str| match texts.get(key) {
            Some(value) => Ok(value.as_str()),
            None => Err(Error::argument(key, "a text of this name in the file", "none")),
        };
        for (key, want) in [("kc.system", SYSTEM), ("kc.version", VERSION)] {
            let got = text(key)?;
            if got != want {
                return Err(Error::unsupported(format!("{key} = {got}"), format!("expected {want}")));
            }
        }
        let number = |key: &'static str| -> Result<usize> {
            text(key)?
                .parse()
                .map_err(|_| Error::argument(key, "a whole number", text(key).unwrap_or_default()))
        };
        let (columns, group) = (number("columns")?, number("group")?);
        let name = text("scale_dtype")?;
        let scale_type = ScaleType::from_name(name)
            .ok_or_else(|| Error::argument("scale_dtype", "fp8, bf16 or f32", name))?;
        let sigma = text("per_tensor")?;
        let per_tensor =
            sigma.parse::<f32>().map_err(|_| Error::argument("per_tensor", "a number", sigma))?;
        let packed: Tensor<i32, 2> = get("packed")?.to_tensor("packed")?;
        let [n, words] = packed.shape();
        if words != columns.div_ceil(8) {
            let expected = format!("[N, {}] for {columns} columns", columns.div_ceil(8));
            return Err(Error::shape("packed", expected, &packed.shape()));
        }
        let stored = get("scales")?;
        let scales: Tensor<f32, 2> = match (scale_type, stored.dtype()) {
            (ScaleType::Fp8, DType::U8) => {
                let codes: Tensor<u8, 2> = stored.to_tensor("scales")?;
                fp8::check("scales", codes.as_slice())?;
                let mut scales = Tensor::zeros(codes.shape())?;
                fp8::decode_slice(codes.as_slice(), scales.as_mut_slice())?;
                scales
            }
            (ScaleType::Bf16, DType::BF16) | (ScaleType::F32, DType::F32) => stored.to_f32("scales")?,
            (ScaleType::Fp8, got) => return Err(Error::dtype("scales", DType::U8, got)),
            (ScaleType::Bf16, got) => return Err(Error::dtype("scales", DType::BF16, got)),
            (ScaleType::F32, got) => return Err(Error::dtype("scales", DType::F32, got)),
        };
        if group == 0 || scales.shape() != [n, columns.div_ceil(group.min(columns.max(1)))] {
            let expected = format!("[{n}, ceil({columns} / {group})]");
            return Err(Error::shape("scales", expected, &scales.shape()));
        }
        let words = packed.as_slice().iter().map(|&word| word as u32).collect();
        Self::from_parts([n, columns], group, scale_type, per_tensor, words, scales.into_vec())
    }
}
