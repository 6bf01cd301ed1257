//! Attention in 4 and 8 bits.

mod codes;
mod golden;

use kc_attention::sage::{Granularity, PvMode, QkBits, SageConfig};
use kc_testing::golden_json;
use serde_json::Value;

/// The cases with all their data.
const CASES: [&str; 3] = ["causal_gqa_int8", "cross_int4_fp8", "decode_int4_int8"];

/// Options by their names in the fixtures.
fn config(options: &Value) -> SageConfig {
    let mut config = SageConfig { lse: true, ..SageConfig::default() };
    config.bits = if options["bits"] == 4 { QkBits::Int4 } else { QkBits::Int8 };
    config.granularity = match options["gran"].as_str().unwrap_or_default() {
        "per_tensor" => Granularity::PerTensor,
        "per_block" => Granularity::PerBlock,
        "per_warp" => Granularity::PerWarp,
        "per_thread" => Granularity::PerThread,
        "per_token" => Granularity::PerToken,
        other => panic!("granularity {other:?}"),
    };
    config.pv = match options["pv"].as_str().unwrap_or_default() {
        "f32" => PvMode::F32,
        "f16" => PvMode::F16 { f16_accum: false },
        "int8" => PvMode::Int8,
        "fp8" => PvMode::Fp8,
        "fp8_f16acc" => PvMode::Fp8F16Acc,
        other => panic!("mode {other:?}"),
    };
    config.smooth_k = options["smooth_k"].as_bool().unwrap_or(true);
    config.smooth_q = options["smooth_q"].as_bool();
    config.smooth_v = options["smooth_v"].as_bool().unwrap_or(false);
    config
}

fn case(name: &str) -> Value {
    golden_json(&format!("sage_attention2/{name}/case.json"))
}
