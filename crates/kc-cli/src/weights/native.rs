//! Layers in this program's own files: `kc quantize`, `kc quant flexq pack`, `kc quant bcq quantize`, `kc quant fireq
//! quantize`.

use std::collections::BTreeMap;

use anyhow::Result;
use kc_core::Error;
use kc_io::SafeTensorsFile;
use kc_quant::stored::{StoredLayer, Texts};

/// The key of the texts of all layers of a model, a JSON object of objects.
pub(crate) const LAYERS: &str = "kc.layers";

/// The name of the layer of a file that holds one.
const ONLY: &str = "weight";

/// A tensor that a file of one layer has, whatever its method.
const MARKS: [&str; 3] = ["weight_packed", "bits", "packed"];

/// The layers of a file, and what it says about each.
#[derive(Debug, Default)]
pub(crate) struct NativeLayers(BTreeMap<String, Texts>);

impl NativeLayers {
    pub(crate) fn of(file: &SafeTensorsFile, source: &str) -> Result<Self> {
        let metadata = file.metadata();
        if let Some(text) = metadata.get(LAYERS) {
            let bad = || Error::parse(source, format!("`{LAYERS}` is not an object of objects of texts"));
            let value = kc_io::json::parse(text.as_bytes(), &format!("{source}: {LAYERS}"))?;
            let texts = |value: &serde_json::Value| -> Option<Texts> {
                let text = |(key, value): (&String, &serde_json::Value)| {
                    Some((key.clone(), value.as_str()?.to_owned()))
                };
                value.as_object()?.iter().map(text).collect()
            };
            let layers = value.as_object().ok_or_else(bad)?.iter();
            let layers = layers.map(|(name, value)| Some((name.clone(), texts(value)?)));
            return Ok(Self(layers.collect::<Option<_>>().ok_or_else(bad)?));
        }
        if metadata.contains_key("kc.system") && MARKS.iter().any(|mark| file.contains(mark)) {
            return Ok(Self(BTreeMap::from([(ONLY.to_owned(), metadata.clone())])));
        }
        Ok(Self::default())
    }

    /// The layer that a tensor of this name belongs to.
    pub(crate) fn owner(&self, tensor: &str) -> Option<&str> {
        if self.is_single() {
            return Some(ONLY);
        }
        let (name, _) = tensor.rsplit_once('.')?;
        self.0.get_key_value(name).map(|(name, _)| name.as_str())
    }

    /// The layer of this name, if there is one.
    pub(crate) fn get(
        &self,
        file: &SafeTensorsFile,
        name: &str,
        source: &str,
    ) -> Result<Option<StoredLayer>> {
        let Some(texts) = self.0.get(name) else { return Ok(None) };
        let full = |part: &str| if self.is_single() { part.to_owned() } else { format!("{name}.{part}") };
        let tensor = |part: &str| {
            let full = full(part);
            if file.contains(&full) { file.get(&full).ok() } else { None }
        };
        Ok(Some(StoredLayer::from_tensors(&format!("{source}:{name}"), tensor, texts)?))
    }

    fn is_single(&self) -> bool {
        self.0.len() == 1 && self.0.get(ONLY).is_some_and(|texts| texts.contains_key("kc.system"))
    }
}
