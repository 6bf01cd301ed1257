//! What a model's configuration says about its weights.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

/// The key of the settings, in `config.json` and in the metadata of files that this program writes.
pub(crate) const KEY: &str = "quantization_config";

/// Settings of quantised layers, as far as a configuration has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ModelConfig {
    pub(crate) bits: Option<u8>,
    pub(crate) group: Option<usize>,
    pub(crate) gptq_v2: bool,
}

impl ModelConfig {
    /// The settings in a file's own metadata, or else in `quantize_config.json` or `config.json` in its folder.
    pub(crate) fn beside(file: &Path, metadata: &BTreeMap<String, String>) -> Result<Self> {
        if let Some(text) = metadata.get(KEY) {
            return Ok(Self::of(&kc_io::json::parse(
                text.as_bytes(),
                &format!("{}: {KEY}", file.display()),
            )?));
        }
        for name in ["quantize_config.json", "quant_config.json", "config.json"] {
            let path = file.with_file_name(name);
            if !path.is_file() {
                continue;
            }
            let found = kc_io::json::read(&path)?;
            match (name, found.get(KEY)) {
                (_, Some(settings)) => return Ok(Self::of(settings)),
                // A model's configuration without a word about quantisation.
                ("config.json", None) => {}
                _ => return Ok(Self::of(&found)),
            }
        }
        Ok(Self::default())
    }

    fn of(settings: &Value) -> Self {
        // compressed-tensors has groups of layers; with several, the shapes must tell which is which.
        let groups = settings.get("config_groups").and_then(Value::as_object);
        let weights = match groups {
            Some(groups) if groups.len() == 1 => {
                groups.values().next().and_then(|group| group.get("weights"))
            }
            Some(_) => None,
            None => Some(settings),
        };
        let number = |names: &[&str]| {
            let weights = weights?;
            names.iter().find_map(|name| weights.get(*name)?.as_u64())
        };
        Self {
            bits: number(&["bits", "num_bits", "w_bit"]).and_then(|b| u8::try_from(b).ok()),
            // -1 means whole rows, which the shapes tell too.
            group: number(&["group_size", "q_group_size"]).and_then(|g| usize::try_from(g).ok()),
            gptq_v2: settings.get("checkpoint_format").and_then(Value::as_str) == Some("gptq_v2"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_of_each_program_are_understood() {
        let of = |bits, group, gptq_v2| ModelConfig { bits, group, gptq_v2 };
        for (settings, want) in [
            (
                json!({"bits": 3, "group_size": 64, "checkpoint_format": "gptq_v2"}),
                of(Some(3), Some(64), true),
            ),
            (json!({"bits": 4, "group_size": -1, "desc_act": true}), of(Some(4), None, false)),
            (json!({"w_bit": 4, "q_group_size": 128, "version": "GEMM"}), of(Some(4), Some(128), false)),
            (
                json!({"config_groups": {"group_0": {"weights": {"num_bits": 6, "group_size": 32}}}}),
                of(Some(6), Some(32), false),
            ),
            (json!({"config_groups": {"a": {"weights": {"num_bits": 6}}, "b": {}}}), of(None, None, false)),
            (json!([]), ModelConfig::default()),
        ] {
            assert_eq!(ModelConfig::of(&settings), want, "{settings}");
        }
    }

    #[test]
    fn files_beside_the_weights_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.safetensors");
        let of = || ModelConfig::beside(&file, &BTreeMap::new()).unwrap();
        assert_eq!(of(), ModelConfig::default());
        std::fs::write(dir.path().join("config.json"), r#"{"hidden_size": 8}"#).unwrap();
        assert_eq!(of(), ModelConfig::default());
        std::fs::write(dir.path().join("config.json"), r#"{"quantization_config": {"bits": 3}}"#).unwrap();
        assert_eq!(of().bits, Some(3));
        std::fs::write(dir.path().join("quantize_config.json"), r#"{"bits": 2}"#).unwrap();
        assert_eq!(of().bits, Some(2));
        let own = BTreeMap::from([(KEY.to_owned(), r#"{"bits": 8}"#.to_owned())]);
        assert_eq!(ModelConfig::beside(&file, &own).unwrap().bits, Some(8));
    }
}
