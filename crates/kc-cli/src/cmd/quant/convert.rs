//! `kc quant convert`: weights from one format to another, exactly where the target can hold them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use kc_core::{AnyTensor, Bytes, Error, Tensor};
use kc_quant::flexq::{QuantMatrix, QuantSpec};
use kc_quant::formats::{
    AwqTensor, GgufTensor, GgufType, GptqTensor, GptqVersion, MatMulNBits, PackQuantized, gguf,
};
use kc_quant::lut_gemm::{BcqMatrix, BcqSpec, Init, Offset};
use kc_quant::metrics::relative_error;
use kc_quant::stored::Texts;
use kc_quant::{Group, ScaleDtype, UniformGroups};
use serde_json::{Value, json};

use crate::args::Ctx;
use crate::report::{Answer, Usage};
use crate::weights::{CONFIG_KEY, LAYERS, SourceArgs, Stored, WeightFile};

/// Convert weights between formats, exactly where the target can hold them
///
/// Codes stay as they are where the target can hold them; else, and for numbers that have no codes yet, they are
/// requantised, and the error is reported.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kc quant convert --in m.gguf --tensor blk.0.attn_q.weight --to npy --out w.npy\n  \
                  kc quant convert --in gptq.safetensors --tensor model.layers.0.mlp.up_proj --to flexq --out q.safetensors\n  \
                  kc quant convert --in w.npy --to gguf:Q6_K --out w.gguf\n  \
                  kc quant convert --b b.npy --scales s.npy --zp z.npy --k 4096 --to gptq_v2 --out q.safetensors\n  \
                  kc quant convert --in awq.safetensors --all --to ct --out ct.safetensors"
)]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// Tensor to convert; of a quantised layer what stands before .qweight or .weight_packed
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Convert every quantised tensor and copy the others; of a file without any, convert every matrix
    #[arg(long, conflicts_with = "tensor")]
    all: bool,
    /// Format to write: npy (float32), gptq, gptq_v2, awq, ct, gguf:TYPE, flexq, bcq, mnb
    #[arg(long, value_name = "FORMAT")]
    to: Target,
    /// Refuse weights in activation order instead of storing their columns in another order
    #[arg(long)]
    no_permute: bool,
    /// File to write: .npy (.npz or .safetensors with --all), .gguf, .npz or .safetensors for mnb, else .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A format that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Npy,
    Gptq(GptqVersion),
    Awq,
    Ct,
    Flexq,
    Bcq,
    Mnb,
    Gguf(GgufType),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if let Some(kind) = name.strip_prefix("gguf:").and_then(GgufType::from_name) {
            return Ok(Target::Gguf(kind));
        }
        Ok(match name {
            "npy" => Target::Npy,
            "gptq" => Target::Gptq(GptqVersion::V1),
            "gptq_v2" => Target::Gptq(GptqVersion::V2),
            "awq" => Target::Awq,
            "ct" => Target::Ct,
            "flexq" => Target::Flexq,
            "bcq" => Target::Bcq,
            "mnb" => Target::Mnb,
            _ => {
                let known = "npy, gptq, gptq_v2, awq, ct, gguf:Q4_0, gguf:Q8_0, gguf:Q4_K, gguf:Q6_K, flexq, bcq, mnb";
                return Err(format!("expected one of {known}"));
            }
        })
    }
}

impl Target {
    fn name(self) -> String {
        match self {
            Target::Npy => "npy".into(),
            Target::Gptq(GptqVersion::V1) => "gptq".into(),
            Target::Gptq(GptqVersion::V2) => "gptq_v2".into(),
            Target::Awq => "awq".into(),
            Target::Ct => "ct".into(),
            Target::Flexq => "flexq".into(),
            Target::Bcq => "bcq".into(),
            Target::Mnb => "mnb".into(),
            Target::Gguf(kind) => format!("gguf:{}", kind.name()),
        }
    }

    /// How numbers become codes for it.
    fn spec(self, args: &SourceArgs) -> QuantSpec {
        let (bits, scale_dtype) = match self {
            Target::Flexq => (6, ScaleDtype::F32),
            Target::Bcq => (3, ScaleDtype::F32),
            Target::Mnb => (4, ScaleDtype::F32),
            _ => (4, ScaleDtype::F16),
        };
        let group = args.group.map_or(Group::default(), Group::Size);
        QuantSpec { bits: args.bits.unwrap_or(bits), group, scale_dtype, ..QuantSpec::default() }
    }
}

/// A weight in the target's form.
struct Piece {
    /// Arrays by what is added to the weight's name.
    arrays: Vec<(&'static str, AnyTensor)>,
    gguf: Option<GgufTensor>,
    bits: Option<u8>,
    group: Option<usize>,
    scheme: Option<&'static str>,
    /// What a layer of this program's own says about itself.
    texts: Option<Texts>,
}

impl Piece {
    fn of_arrays(arrays: Vec<(&'static str, AnyTensor)>) -> Self {
        Piece { arrays, gguf: None, bits: None, group: None, scheme: None, texts: None }
    }
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    check_out(args)?;
    let file = WeightFile::open(&args.source)?;
    let mut pieces = Vec::new();
    let mut reports = Vec::new();
    let mut convert = |name: String, stored: &Stored| -> Result<()> {
        let (piece, report) = converted(&name, stored, args)?;
        if report["method"] == "requantize" {
            let (reason, error) = (&report["reason"], &report["rel_error"]);
            ctx.warn(format_args!(
                "{name}: requantize, relative error {error} ({})",
                reason.as_str().unwrap_or("")
            ));
        }
        pieces.push((name, piece));
        reports.push(report);
        Ok(())
    };
    let mut copied = Vec::new();
    if args.all {
        let all = file.names().into_iter().map(|name| file.get(Some(&name))).collect::<Result<Vec<_>>>()?;
        let facts = all.iter().map(|(_, stored)| stored.facts()).collect::<Result<Vec<_>>>()?;
        let any_codes = facts.iter().any(|facts| facts.bits.is_some());
        for ((name, stored), facts) in all.into_iter().zip(facts) {
            let chosen = if any_codes { facts.bits.is_some() } else { facts.shape.len() == 2 };
            if chosen || args.to == Target::Npy && facts.shape.len() == 2 {
                convert(name, &stored)?;
            } else {
                copied.push((name, stored.plain()?));
            }
        }
    } else {
        let (name, stored) = file.get(args.tensor.as_deref())?;
        convert(name, &stored)?;
    }
    store(args, &file, pieces, &copied)?;
    let mut answer = Answer::new();
    answer.set("to", args.to.name());
    if !args.all && reports.len() == 1 {
        if let Some(Value::Object(report)) = reports.pop() {
            for (key, value) in report {
                answer.set(&key, value);
            }
        }
    } else {
        answer.set("copied", copied.len()).set("tensors", reports);
    }
    Ok(answer)
}

/// The extension of `--out` must be one that holds the target.
fn check_out(args: &Args) -> Result<()> {
    let known: &[&str] = match args.to {
        Target::Npy if args.all => &["npz", "safetensors"],
        Target::Npy => &["npy", "npz", "safetensors", "csv"],
        Target::Gguf(_) => &["gguf"],
        Target::Mnb => &["npz", "safetensors"],
        _ => &["safetensors"],
    };
    let extension =
        args.out.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    if known.contains(&extension.as_str()) {
        return Ok(());
    }
    Err(Usage(format!("--out: expected .{} for --to {}", known.join(" or ."), args.to.name())).into())
}

/// A weight in the target's form, and what happened to it.
fn converted(name: &str, stored: &Stored, args: &Args) -> Result<(Piece, Value)> {
    let facts = stored.facts()?;
    let mut report = json!({
        "name": name,
        "from": facts.format,
        "shape": facts.shape,
        "method": "exact",
    });
    if args.to == Target::Npy {
        return Ok((Piece::of_arrays(vec![("", stored.dequantize()?.into_any())]), report));
    }
    let reason = match exact(name, stored, args)? {
        Ok(piece) => {
            report["bits"] = json!(piece.bits);
            report["group"] = json!(piece.group);
            return Ok((piece, report));
        }
        Err(reason) => reason,
    };
    let w = stored.dequantize()?;
    let (piece, back) = requantized(name, &w, args)?;
    report["method"] = json!("requantize");
    report["reason"] = json!(reason);
    report["rel_error"] = json!(relative_error(back.view(), w.view())?);
    report["bits"] = json!(piece.bits);
    report["group"] = json!(piece.group);
    Ok((piece, report))
}

/// The codes as they are, or why the target cannot hold them.
fn exact(name: &str, stored: &Stored, args: &Args) -> Result<Result<Piece, String>> {
    if let (Stored::Gguf(tensor), Target::Gguf(kind)) = (stored, args.to)
        && tensor.kind() == kind
    {
        return Ok(Ok(of_gguf(tensor.clone())));
    }
    let Some(uniform) = stored.to_uniform()? else { return Ok(Err("numbers without codes".to_owned())) };
    if uniform.order().is_some() && args.no_permute {
        let reason = "its columns are in activation order; without --no-permute they are sorted by group";
        return Err(Error::unsupported(name.to_owned(), reason).into());
    }
    match pack(name, &uniform, args.to) {
        Ok(piece) => Ok(Ok(piece)),
        Err(Error::Unsupported { what, reason }) => Ok(Err(format!("{what}: {reason}"))),
        Err(error) => Err(error.into()),
    }
}

/// Numbers rounded for the target, and what they became.
fn requantized(name: &str, w: &Tensor<f32, 2>, args: &Args) -> Result<(Piece, Tensor<f32, 2>)> {
    if let Target::Gguf(kind) = args.to {
        let tensor = GgufTensor::quantize(name, w.view(), kind)?;
        let back = tensor.dequantize()?;
        return Ok((of_gguf(tensor), back));
    }
    let spec = args.to.spec(&args.source);
    if args.to == Target::Bcq {
        let best = BcqSpec { offset: Offset::Joint, init: Init::Best, ..BcqSpec::default() };
        let best = BcqSpec { bits: spec.bits, group: spec.group, scale_dtype: spec.scale_dtype, ..best };
        let matrix = BcqMatrix::quantize(w.view(), &best, None)?;
        return Ok((of_bcq(&matrix)?, matrix.dequantize()?));
    }
    let quantized = QuantMatrix::quantize(w.view(), &spec)?;
    let piece = pack(name, quantized.uniform(), args.to)?;
    Ok((piece, quantized.dequantize()?))
}

fn of_bcq(matrix: &BcqMatrix) -> kc_core::Result<Piece> {
    let (tensors, texts) = matrix.to_tensors()?;
    let suffix = |name: &str| match name {
        "bits" => ".bits",
        "alpha" => ".alpha",
        "offset" => ".offset",
        _ => ".order",
    };
    let arrays = tensors.into_iter().map(|(name, tensor)| (suffix(&name), tensor)).collect();
    let (bits, group) = (Some(matrix.bits()), Some(matrix.group()));
    Ok(Piece { bits, group, texts: Some(texts), ..Piece::of_arrays(arrays) })
}

fn of_gguf(tensor: GgufTensor) -> Piece {
    let (bits, group) = tensor.kind().codes().unzip();
    Piece { gguf: Some(tensor), bits, group, ..Piece::of_arrays(Vec::new()) }
}

/// Codes in the target's arrays. `Unsupported` if it cannot hold them.
fn pack(name: &str, weights: &UniformGroups, to: Target) -> kc_core::Result<Piece> {
    let mut piece = match to {
        Target::Npy => Piece::of_arrays(vec![("", weights.dequantize()?.into_any())]),
        Target::Gptq(version) => {
            let gptq = GptqTensor::write(weights, version)?;
            let piece = Piece::of_arrays(vec![
                (".qweight", gptq.qweight.into_any()),
                (".qzeros", gptq.qzeros.into_any()),
                (".scales", gptq.scales.into_any()),
                (".g_idx", gptq.g_idx.into_any()),
            ]);
            Piece { bits: Some(gptq.bits), ..piece }
        }
        Target::Awq => {
            let awq = AwqTensor::write(weights)?;
            let piece = Piece::of_arrays(vec![
                (".qweight", awq.qweight.into_any()),
                (".qzeros", awq.qzeros.into_any()),
                (".scales", awq.scales.into_any()),
            ]);
            Piece { bits: Some(4), ..piece }
        }
        Target::Ct | Target::Flexq => {
            let scale_dtype = if to == Target::Flexq {
                ScaleDtype::F32
            } else {
                narrowest(weights, &[ScaleDtype::F16, ScaleDtype::Bf16])
            };
            let ct = PackQuantized::write(weights, scale_dtype)?;
            let mut arrays = vec![
                (".weight_packed", ct.weight_packed.into_any()),
                (".weight_scale", ct.weight_scale),
                (".weight_shape", ct.weight_shape.into_any()),
            ];
            let scheme = if ct.weight_zero_point.is_some() { "asym" } else { "sym" };
            arrays.extend(ct.weight_zero_point.map(|zeros| (".weight_zero_point", zeros.into_any())));
            arrays.extend(ct.weight_g_idx.map(|index| (".weight_g_idx", index.into_any())));
            Piece { bits: Some(ct.bits), scheme: Some(scheme), ..Piece::of_arrays(arrays) }
        }
        Target::Mnb => {
            let node = MatMulNBits::write(weights, narrowest(weights, &[ScaleDtype::F16]))?;
            let mut arrays = vec![(".b", node.b.into_any()), (".scales", node.scales)];
            arrays.extend(node.zero_points.map(|zeros| (".zp", zeros.into_any())));
            Piece { bits: Some(node.bits), ..Piece::of_arrays(arrays) }
        }
        Target::Gguf(kind) => return Ok(of_gguf(GgufTensor::from_uniform(name, weights, kind)?)),
        Target::Bcq => return of_bcq(&BcqMatrix::from_uniform(weights)?),
    };
    piece.group = weights.order().is_none().then(|| weights.group());
    Ok(piece)
}

/// The first of `types` that holds all scales, else f32.
fn narrowest(weights: &UniformGroups, types: &[ScaleDtype]) -> ScaleDtype {
    let holds = |t: &ScaleDtype| weights.scales().iter().all(|&s| t.round(s) == s);
    types.iter().copied().find(holds).unwrap_or(ScaleDtype::F32)
}

fn store(
    args: &Args,
    file: &WeightFile,
    pieces: Vec<(String, Piece)>,
    copied: &[(String, AnyTensor)],
) -> Result<()> {
    if matches!(args.to, Target::Gguf(_)) {
        return store_gguf(&args.out, file, pieces, copied);
    }
    let metadata = if args.to == Target::Bcq {
        native_metadata(&pieces, args.all)
    } else {
        metadata(args.to, pieces.iter().map(|(_, piece)| piece))
    };
    let mut tensors = Vec::new();
    for (name, piece) in pieces {
        // Arrays of a single weight need no name in front of theirs.
        let name =
            if matches!(args.to, Target::Mnb | Target::Bcq) && !args.all { String::new() } else { name };
        tensors.extend(piece.arrays.into_iter().map(|(suffix, array)| {
            let full = format!("{name}{suffix}");
            (full.strip_prefix('.').map(str::to_owned).unwrap_or(full), array)
        }));
    }
    tensors.extend(copied.iter().cloned());
    let extension =
        args.out.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    match (extension.as_str(), tensors.as_slice()) {
        ("safetensors", _) => kc_io::safetensors::write(&args.out, &tensors, &metadata)?,
        ("npz", _) => {
            let named: Vec<(&str, AnyTensor)> =
                tensors.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
            kc_io::npz::write(&args.out, &named)?;
        }
        (_, [(_, only)]) => kc_io::write(&args.out, only)?,
        _ => return Err(Usage("--out: expected .npz or .safetensors for several tensors".into()).into()),
    }
    Ok(())
}

/// The texts of the only layer, or of all.
fn native_metadata(pieces: &[(String, Piece)], all: bool) -> BTreeMap<String, String> {
    match pieces {
        [(_, Piece { texts: Some(texts), .. })] if !all => texts.clone(),
        _ => {
            let layers: serde_json::Map<String, Value> =
                pieces.iter().map(|(name, piece)| (name.clone(), json!(piece.texts))).collect();
            BTreeMap::from([(LAYERS.to_owned(), Value::Object(layers).to_string())])
        }
    }
}

/// What the file says about itself, so that it is read back without flags.
fn metadata<'a>(to: Target, pieces: impl Iterator<Item = &'a Piece>) -> BTreeMap<String, String> {
    let all: Vec<&Piece> = pieces.collect();
    let shared = |of: &dyn Fn(&Piece) -> Value| {
        let first = all.first().map(|piece| of(piece))?;
        (all.iter().all(|piece| of(piece) == first) && !first.is_null()).then_some(first)
    };
    let (method, checkpoint) = match to {
        Target::Gptq(GptqVersion::V1) => ("gptq", Some("gptq")),
        Target::Gptq(GptqVersion::V2) => ("gptq", Some("gptq_v2")),
        Target::Awq => ("awq", None),
        Target::Ct | Target::Flexq => ("compressed-tensors", None),
        _ => return BTreeMap::new(),
    };
    let mut config = serde_json::Map::new();
    config.insert("quant_method".into(), json!(method));
    config.extend(checkpoint.map(|name| ("checkpoint_format".to_owned(), json!(name))));
    config.extend(shared(&|piece| json!(piece.bits)).map(|bits| ("bits".to_owned(), bits)));
    config.extend(shared(&|piece| json!(piece.group)).map(|group| ("group_size".to_owned(), group)));
    let mut metadata = BTreeMap::from([
        ("format".to_owned(), "pt".to_owned()),
        (CONFIG_KEY.to_owned(), Value::Object(config).to_string()),
    ]);
    if to == Target::Flexq {
        metadata.insert("kc.system".into(), "flexq".into());
        metadata.insert("kc.version".into(), "1".into());
        for (key, value) in [
            ("bits", shared(&|piece| json!(piece.bits))),
            ("group", shared(&|piece| json!(piece.group))),
            ("scheme", shared(&|piece| json!(piece.scheme))),
        ] {
            let text = value.map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
            metadata.extend(text.map(|text| (key.to_owned(), text)));
        }
    }
    metadata
}

fn store_gguf(
    out: &Path,
    file: &WeightFile,
    pieces: Vec<(String, Piece)>,
    copied: &[(String, AnyTensor)],
) -> Result<()> {
    let mut tensors: Vec<GgufTensor> = pieces.into_iter().filter_map(|(_, piece)| piece.gguf).collect();
    for (name, tensor) in copied {
        let Some(kind) = GgufType::of_floats(tensor.dtype()) else {
            return Err(
                Error::dtype(name.clone(), "float16, bfloat16 or float32 for GGUF", tensor.dtype()).into()
            );
        };
        let data = Bytes::from_owner(tensor.bytes().to_vec());
        tensors.push(GgufTensor::new(name, tensor.shape(), kind, data)?);
    }
    let own = [("general.quantization_version".to_owned(), gguf::Value::U32(2))];
    let metadata = match file {
        WeightFile::Gguf(file) => file.metadata(),
        _ => &own,
    };
    let bytes = gguf::write(metadata, &tensors)?;
    kc_io::atomic::write(out, |to| to.write_all(&bytes).map_err(|error| Error::io(out, &error)))?;
    Ok(())
}
