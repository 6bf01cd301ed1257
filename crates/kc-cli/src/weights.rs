//! Weights of any format from any file: what `quant convert`, `quant matmul` and `quant bcq convert` load.

use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use kc_core::{AnyTensor, DType, Error, Tensor};
use kc_io::safetensors::SafeTensorsFile;
use kc_io::{Format, Location};
use kc_quant::UniformGroups;
use kc_quant::formats::{
    AwqTensor, AwqViews, GgufFile, GgufTensor, GgufType, GptqConfig, GptqTensor, GptqVersion, GptqViews,
    MatMulNBits, MatMulNBitsViews, PackQuantized, PackQuantizedViews, ScaleView, ZeroPoints,
};
use kc_quant::linear::{Activations, QuantLinear};
use kc_quant::lut_gemm::LutMode;
use kc_quant::stored::{LayerWeights, StoredLayer};

use crate::input;
use crate::report::Usage;

mod config;
mod native;

pub(crate) use config::{KEY as CONFIG_KEY, ModelConfig};
pub(crate) use native::LAYERS;
use native::NativeLayers;

/// Where weights are, and what their file does not say.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SourceArgs {
    /// File with weights: .gguf, .safetensors, .safetensors.index.json, or a matrix of numbers (.npy, ...)
    #[arg(long = "in", value_name = "FILE", required_unless_present = "b")]
    pub(crate) input: Option<String>,
    /// Format of the file
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = From::Auto)]
    pub(crate) from: From,
    /// Bits of a code, 1 to 8, where the file does not tell, and of what is requantised
    #[arg(long, value_name = "N")]
    pub(crate) bits: Option<u8>,
    /// Columns of a group, where the file does not tell, and of what is requantised
    #[arg(long, value_name = "N")]
    pub(crate) group: Option<usize>,
    /// GPTQ zeros are stored as they are, not less one
    #[arg(long)]
    pub(crate) gptq_v2: bool,
    /// MatMulNBits: codes, (N, K/block, block bits/8) uint8
    #[arg(long, value_name = "FILE", requires_all = ["scales", "k"], conflicts_with = "input")]
    pub(crate) b: Option<String>,
    /// MatMulNBits: scales, (N K/block,) or (N, K/block)
    #[arg(long, value_name = "FILE", requires = "b")]
    pub(crate) scales: Option<String>,
    /// MatMulNBits: zero points, (N, K/block bits/8) uint8 [default: 2^(bits-1)]
    #[arg(long, value_name = "FILE", requires = "b")]
    pub(crate) zp: Option<String>,
    /// MatMulNBits: columns of the matrix
    #[arg(long, value_name = "K", requires = "b")]
    pub(crate) k: Option<usize>,
}

/// A format that weights come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// What the file looks like
    Auto,
    /// GPTQ: .qweight in columns of words
    Gptq,
    /// AWQ (gemm): .qweight with eight rows in a word
    Awq,
    /// compressed-tensors pack-quantized: .weight_packed
    Ct,
    /// GGUF
    Gguf,
    /// MatMulNBits of ONNX Runtime, as arrays
    Mnb,
}

/// An open file with weights.
#[derive(Debug)]
pub(crate) enum WeightFile {
    Gguf(GgufFile),
    Tensors { file: SafeTensorsFile, native: NativeLayers, config: ModelConfig, args: Box<SourceArgs> },
    One { name: String, weight: Box<Stored> },
}

/// One weight as its file holds it.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    Gptq(Words, GptqConfig),
    Awq(Words),
    PackQuantized {
        arrays: Packed,
        bits: Option<u8>,
        group: Option<usize>,
    },
    MatMulNBits {
        b: AnyTensor,
        scales: AnyTensor,
        zero_points: Option<AnyTensor>,
        k: usize,
        bits: u8,
    },
    Gguf(GgufTensor),
    /// A layer of this program's own.
    Native(Box<StoredLayer>),
    /// Numbers, not codes.
    Float(AnyTensor),
}

/// The arrays of GPTQ and AWQ.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    qweight: AnyTensor,
    qzeros: AnyTensor,
    scales: AnyTensor,
    g_idx: Option<AnyTensor>,
}

/// The arrays of compressed-tensors.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    weight: AnyTensor,
    scale: AnyTensor,
    zero_point: Option<AnyTensor>,
    g_idx: Option<AnyTensor>,
    shape: [usize; 2],
}

/// What a weight is, beside its numbers.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) format: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) bits: Option<u8>,
    /// Columns of a group; none for floats, and for groups in activation order.
    pub(crate) group: Option<usize>,
    pub(crate) activation_order: bool,
    pub(crate) bytes: usize,
}

/// The names behind which a quantised layer stands in a safetensors file.
const MARKS: [&str; 2] = [".qweight", ".weight_packed"];

/// What else belongs to such a layer.
const PARTS: [&str; 8] = [
    ".qweight",
    ".qzeros",
    ".scales",
    ".g_idx",
    ".weight_packed",
    ".weight_scale",
    ".weight_zero_point",
    ".weight_shape",
];

impl WeightFile {
    /// Opens what the flags name. Data stay in the file until they are asked for.
    pub(crate) fn open(args: &SourceArgs) -> Result<Self> {
        let Some(path) = &args.input else { return mat_mul_n_bits(args) };
        if args.from == From::Mnb {
            return Err(Usage("--from mnb: give the arrays as --b, --scales, --zp and --k".into()).into());
        }
        if args.from == From::Gguf || is_gguf(Path::new(path))? {
            if !matches!(args.from, From::Auto | From::Gguf) {
                return Err(Usage(format!("--from: {path} is a GGUF file")).into());
            }
            let bytes = kc_io::map::map(path)?;
            return Ok(WeightFile::Gguf(GgufFile::parse(bytes).with_context(|| path.clone())?));
        }
        let location = Location::parse(path)?;
        let file = match (location.format, &location.tensor) {
            (Format::SafeTensors, None) => SafeTensorsFile::open(&location.path)?,
            (Format::SafeTensorsIndex, None) => SafeTensorsFile::open_index(&location.path)?,
            _ => {
                let weight = Box::new(Stored::Float(input::any("--in", path)?));
                return Ok(WeightFile::One {
                    name: location.tensor.unwrap_or_else(|| "weight".into()),
                    weight,
                });
            }
        };
        let config = ModelConfig::beside(&location.path, file.metadata())?;
        let native = NativeLayers::of(&file, path)?;
        Ok(WeightFile::Tensors { file, native, config, args: Box::new(args.clone()) })
    }

    /// Opens a file by its path alone.
    pub(crate) fn open_path(path: &str) -> Result<Self> {
        Self::open(&SourceArgs {
            input: Some(path.to_owned()),
            from: From::Auto,
            bits: None,
            group: None,
            gptq_v2: false,
            b: None,
            scales: None,
            zp: None,
            k: None,
        })
    }

    /// What kind of file it is.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            WeightFile::Gguf(_) => "gguf",
            WeightFile::Tensors { .. } => "safetensors",
            WeightFile::One { .. } => "arrays",
        }
    }

    /// The names of the weights: of a quantised layer what stands before `.qweight` or `.weight_packed`.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            WeightFile::Gguf(file) => file.tensors().iter().map(|t| t.name().to_owned()).collect(),
            WeightFile::One { name, .. } => vec![name.clone()],
            WeightFile::Tensors { file, native, .. } => {
                let layer = |name: &'_ str| {
                    if let Some(own) = native.owner(name) {
                        return Some(own.to_owned());
                    }
                    let prefix = PARTS.iter().find_map(|part| name.strip_suffix(part))?;
                    MARKS
                        .iter()
                        .any(|mark| file.contains(&format!("{prefix}{mark}")))
                        .then(|| prefix.to_owned())
                };
                let mut names: Vec<String> = Vec::new();
                let mut seen = std::collections::HashSet::new();
                for name in file.names() {
                    let known = layer(name).unwrap_or_else(|| name.clone());
                    // compressed-tensors keeps further parts of a layer under names of their own.
                    let extra = name.strip_suffix(".weight_g_idx").is_some_and(|p| seen.contains(p));
                    if !extra && seen.insert(known.clone()) {
                        names.push(known);
                    }
                }
                names
            }
        }
    }

    /// The weight of this name, or the only one.
    pub(crate) fn get(&self, name: Option<&str>) -> Result<(String, Stored)> {
        let name = match name {
            Some(name) => name.to_owned(),
            None => match <[String; 1]>::try_from(self.names()) {
                Ok([only]) => only,
                Err(names) => {
                    let first = names.iter().take(12).cloned().collect::<Vec<_>>().join(", ");
                    return Err(Usage(format!("--tensor: the file has several: {first}")).into());
                }
            },
        };
        let stored = match self {
            WeightFile::Gguf(file) => Stored::Gguf(file.tensor(&name)?.clone()),
            WeightFile::One { name: own, weight } if *own == name => Stored::clone(weight),
            WeightFile::One { name: own, .. } => {
                return Err(Error::argument("--tensor", format!("`{own}`"), name).into());
            }
            WeightFile::Tensors { file, native, config, args } => {
                let source = args.input.as_deref().unwrap_or_default();
                match native.get(file, &name, source)? {
                    Some(own) => Stored::Native(Box::new(own)),
                    None => layer(file, &name, config, args)?,
                }
            }
        };
        Ok((name, stored))
    }
}

/// A file that says so in its name or its first bytes.
fn is_gguf(path: &Path) -> Result<bool> {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
        return Ok(true);
    }
    let mut magic = [0; 4];
    let read =
        std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic));
    Ok(read.is_ok() && magic == *b"GGUF")
}

/// The arrays that `--b`, `--scales` and `--zp` name.
fn mat_mul_n_bits(args: &SourceArgs) -> Result<WeightFile> {
    let (Some(b), Some(scales), Some(k)) = (&args.b, &args.scales, args.k) else {
        return Err(Usage("--b: needs --scales and --k".into()).into());
    };
    if !matches!(args.from, From::Auto | From::Mnb) {
        return Err(Usage("--from: --b is an array of MatMulNBits".into()).into());
    }
    let (b, scales) = (input::any("--b", b)?, input::any("--scales", scales)?);
    let shape = b.view::<u8, 3>("--b")?.shape();
    let bits = args.bits.or_else(|| MatMulNBits::bits_of(shape, k));
    let bits = bits.context("--bits: the shape of --b does not tell it")?;
    let [n, groups, _] = shape;
    // The operator has scales and zeros in one row, exporters also as matrices.
    let matrix = |tensor: AnyTensor, shape: [usize; 2]| {
        if tensor.rank() != 1 {
            return Ok(tensor);
        }
        AnyTensor::new(tensor.dtype(), shape.to_vec(), kc_core::Bytes::from_owner(tensor.bytes().to_vec()))
    };
    let scales = matrix(scales, [n, groups])?;
    let zero_points = args.zp.as_ref().map(|zp| input::any("--zp", zp)).transpose()?;
    let width = (groups * usize::from(bits)).div_ceil(8);
    let zero_points = zero_points.map(|zp| matrix(zp, [n, width])).transpose()?;
    let weight = Box::new(Stored::MatMulNBits { b, scales, zero_points, k, bits });
    Ok(WeightFile::One { name: "weight".into(), weight })
}

/// The weight `name` of a safetensors file.
fn layer(file: &SafeTensorsFile, name: &str, config: &ModelConfig, args: &SourceArgs) -> Result<Stored> {
    let part = |suffix: &str| {
        let name = format!("{name}{suffix}");
        file.contains(&name).then(|| file.get(&name)).transpose()
    };
    let needed = |suffix: &str| file.get(&format!("{name}{suffix}"));
    let refuse = |found: &str| {
        let flag = args.from.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
        Err(Usage(format!("--from {flag}: `{name}` is {found}")).into())
    };
    if file.contains(&format!("{name}.qweight")) {
        let arrays = Words {
            qweight: needed(".qweight")?,
            qzeros: needed(".qzeros")?,
            scales: needed(".scales")?,
            g_idx: part(".g_idx")?,
        };
        let awq = match args.from {
            From::Awq => true,
            From::Gptq => false,
            From::Auto => arrays.is_awq(),
            _ => return refuse("a layer of GPTQ or AWQ"),
        };
        if awq {
            return Ok(Stored::Awq(arrays));
        }
        let mut gptq = GptqConfig::default();
        // A model may have layers of several widths; with g_idx the shapes tell each layer's own.
        gptq.bits = args.bits.or(config.bits.filter(|_| arrays.g_idx.is_none()));
        gptq.group = args.group.or(config.group);
        let second = args.gptq_v2 || config.gptq_v2;
        gptq.version = if second { GptqVersion::V2 } else { GptqVersion::V1 };
        return Ok(Stored::Gptq(arrays, gptq));
    }
    if file.contains(&format!("{name}.weight_packed")) {
        if !matches!(args.from, From::Auto | From::Ct) {
            return refuse("a layer of compressed-tensors");
        }
        let shape = needed(".weight_shape")?.to_f64::<1>("weight_shape")?;
        let lengths: Vec<usize> = shape.as_slice().iter().map(|&d| d as usize).collect();
        let shape = <[usize; 2]>::try_from(lengths)
            .map_err(|all| Error::shape("weight_shape", "2 lengths", &[all.len()]))?;
        let arrays = Packed {
            weight: needed(".weight_packed")?,
            scale: needed(".weight_scale")?,
            zero_point: part(".weight_zero_point")?,
            g_idx: part(".weight_g_idx")?,
            shape,
        };
        let (bits, group) = (args.bits.or(config.bits), args.group.or(config.group));
        return Ok(Stored::PackQuantized { arrays, bits, group });
    }
    if args.from != From::Auto && !file.contains(name) {
        return refuse("not in the file");
    }
    Ok(Stored::Float(file.get(name)?))
}

impl Words {
    /// GPTQ has as many columns of words as rows of weights, AWQ an eighth of them.
    fn is_awq(&self) -> bool {
        let columns = |tensor: &AnyTensor| tensor.shape().get(1).copied().unwrap_or(0);
        columns(&self.qweight).checked_mul(8) == Some(columns(&self.scales))
    }

    fn bytes(&self) -> usize {
        let index = self.g_idx.as_ref().map_or(0, |x| x.bytes().len());
        self.qweight.bytes().len() + self.qzeros.bytes().len() + self.scales.bytes().len() + index
    }
}

/// A weight whose arrays were checked.
enum Reader<'a> {
    Gptq(GptqTensor<'a>),
    Awq(AwqTensor<'a>),
    PackQuantized(PackQuantized<'a>),
    MatMulNBits(MatMulNBits<'a>),
    Gguf(&'a GgufTensor),
    Native(&'a StoredLayer),
    Float(&'a AnyTensor),
}

impl Stored {
    /// Checks the arrays and borrows them.
    fn reader(&self) -> Result<Reader<'_>> {
        Ok(match self {
            Stored::Gptq(w, config) => {
                let g_idx = w.g_idx.as_ref().map(|x| x.view("g_idx")).transpose()?;
                let views = GptqViews {
                    qweight: w.qweight.view("qweight")?,
                    qzeros: w.qzeros.view("qzeros")?,
                    scales: ScaleView::of(&w.scales, "scales")?,
                    g_idx,
                };
                Reader::Gptq(GptqTensor::read(views, config)?)
            }
            Stored::Awq(w) => Reader::Awq(AwqTensor::read(AwqViews {
                qweight: w.qweight.view("qweight")?,
                qzeros: w.qzeros.view("qzeros")?,
                scales: ScaleView::of(&w.scales, "scales")?,
            })?),
            Stored::PackQuantized { arrays, bits, group } => {
                let zero_point = arrays.zero_point.as_ref().map(|x| arrays.zero_points(x)).transpose()?;
                let g_idx = arrays.g_idx.as_ref().map(|x| x.view("weight_g_idx")).transpose()?;
                let views = PackQuantizedViews {
                    weight_packed: arrays.weight.view("weight_packed")?,
                    weight_scale: ScaleView::of(&arrays.scale, "weight_scale")?,
                    weight_zero_point: zero_point,
                    weight_shape: arrays.shape,
                    weight_g_idx: g_idx,
                };
                Reader::PackQuantized(PackQuantized::read(views, *bits, *group)?)
            }
            Stored::MatMulNBits { b, scales, zero_points, k, bits } => {
                let zero_points = zero_points.as_ref().map(|x| x.view("--zp")).transpose()?;
                let scales = ScaleView::of(scales, "--scales")?;
                let views = MatMulNBitsViews { b: b.view("--b")?, scales, zero_points };
                Reader::MatMulNBits(MatMulNBits::read(views, *k, *bits)?)
            }
            Stored::Gguf(tensor) => Reader::Gguf(tensor),
            Stored::Native(layer) => Reader::Native(layer),
            Stored::Float(tensor) => Reader::Float(tensor),
        })
    }

    /// The numbers, `[N, K]` (further leading axes become rows).
    pub(crate) fn dequantize(&self) -> Result<Tensor<f32, 2>> {
        Ok(match self.reader()? {
            Reader::Gptq(x) => x.dequantize()?,
            Reader::Awq(x) => x.dequantize()?,
            Reader::PackQuantized(x) => x.dequantize()?,
            Reader::MatMulNBits(x) => x.dequantize()?,
            Reader::Gguf(x) => x.dequantize()?,
            Reader::Native(x) => x.dequantize()?,
            Reader::Float(x) if x.dtype().is_float() => x.to_f32::<2>("--in")?,
            Reader::Float(x) => {
                return Err(Error::dtype("--in", "a matrix of real numbers", x.dtype()).into());
            }
        })
    }

    /// The codes as they are; `None` for numbers.
    pub(crate) fn to_uniform(&self) -> Result<Option<UniformGroups>> {
        Ok(Some(match self.reader()? {
            Reader::Gptq(x) => x.to_uniform()?,
            Reader::Awq(x) => x.to_uniform()?,
            Reader::PackQuantized(x) => x.to_uniform()?,
            Reader::MatMulNBits(x) => x.to_uniform()?,
            Reader::Gguf(x) if x.kind().block().is_none_or(|(len, _)| len > 1) => x.to_uniform()?,
            Reader::Native(x) => match (x.weights(), x.column_factors()) {
                (LayerWeights::Flexq(w), None) => w.uniform().clone(),
                (LayerWeights::Fireq(w), None) => w.to_uniform()?,
                _ => return Ok(None),
            },
            Reader::Gguf(_) | Reader::Float(_) => return Ok(None),
        }))
    }

    /// The numbers of a tensor without codes, in their own type and shape.
    pub(crate) fn plain(&self) -> Result<AnyTensor> {
        match self {
            Stored::Float(tensor) => Ok(tensor.clone()),
            Stored::Gguf(tensor) => match tensor.kind().float() {
                Some(dtype) => Ok(AnyTensor::new(dtype, tensor.shape().to_vec(), tensor.data().clone())?),
                None => {
                    let what = format!("{}: GGUF type {}", tensor.name(), tensor.kind().id());
                    Err(Error::unsupported(what, "only floats are copied as they are").into())
                }
            },
            _ => Err(Error::unsupported("codes", "only floats are copied as they are").into()),
        }
    }

    /// The weight, packed for products.
    pub(crate) fn linear(
        &self,
        bias: Option<&[f32]>,
        activations: Activations,
        mode: LutMode,
    ) -> Result<QuantLinear> {
        if let Stored::Native(layer) = self {
            return Ok(layer.linear(bias, activations, mode)?);
        }
        let Some(uniform) = self.to_uniform()? else {
            let reason = "quantise them first (kc quant convert --to flexq, kc quantize)";
            return Err(Error::unsupported("weights without codes", reason).into());
        };
        Ok(QuantLinear::from_uniform(&uniform, bias, activations)?)
    }

    /// What there is to say about it.
    pub(crate) fn facts(&self) -> Result<Facts> {
        let facts = |format: &str, shape: [usize; 2], bits: u8, group: Option<usize>, bytes: usize| Facts {
            format: format.to_owned(),
            shape: shape.to_vec(),
            bits: Some(bits),
            group,
            activation_order: group.is_none(),
            bytes,
        };
        Ok(match (self.reader()?, self) {
            (Reader::Gptq(x), Stored::Gptq(words, config)) => {
                let name = if config.version == GptqVersion::V2 { "gptq_v2" } else { "gptq" };
                facts(name, x.shape(), x.bits(), x.group(), words.bytes())
            }
            (Reader::Awq(x), Stored::Awq(words)) => facts("awq", x.shape(), 4, x.group(), words.bytes()),
            (Reader::PackQuantized(x), Stored::PackQuantized { arrays, .. }) => {
                facts("ct", x.shape(), x.bits(), x.group(), arrays.bytes())
            }
            (Reader::MatMulNBits(x), Stored::MatMulNBits { b, scales, zero_points, .. }) => {
                let zeros = zero_points.as_ref().map_or(0, |z| z.bytes().len());
                facts("mnb", x.shape(), x.bits(), x.group(), b.bytes().len() + scales.bytes().len() + zeros)
            }
            (Reader::Gguf(x), _) => gguf_facts(x),
            (Reader::Native(x), _) => native_facts(x)?,
            (_, Stored::Float(x)) => Facts {
                format: x.dtype().name().to_owned(),
                shape: x.shape().to_vec(),
                bits: None,
                group: None,
                activation_order: false,
                bytes: x.bytes().len(),
            },
            // A reader is of the kind of what it reads.
            _ => return Err(Error::unsupported("weights", "of a kind without a name").into()),
        })
    }
}

fn native_facts(layer: &StoredLayer) -> Result<Facts> {
    let (tensors, _) = layer.to_tensors()?;
    let (format, bits, group) = match layer.weights() {
        LayerWeights::Flexq(w) => ("flexq", w.uniform().bits(), w.uniform().group()),
        LayerWeights::Bcq(w) => ("bcq", w.bits(), w.group()),
        LayerWeights::Fireq(w) => ("fireq", 4, w.group()),
    };
    Ok(Facts {
        format: format.to_owned(),
        shape: layer.shape().to_vec(),
        bits: Some(bits),
        group: Some(group),
        activation_order: false,
        bytes: tensors.iter().map(|(_, tensor)| tensor.bytes().len()).sum(),
    })
}

fn gguf_facts(tensor: &GgufTensor) -> Facts {
    let format = match tensor.kind() {
        GgufType::Other(id) => format!("gguf:type {id}"),
        kind => format!("gguf:{}", kind.name()),
    };
    let (bits, group) = match tensor.kind().codes() {
        Some((bits, group)) => (Some(bits), Some(group)),
        None => (None, None),
    };
    let (shape, bytes) = (tensor.shape().to_vec(), tensor.data().len());
    Facts { format, shape, bits, group, activation_order: false, bytes }
}

impl Facts {
    /// Bits of the file for each weight, scales and zeros included; none without weights, or of unknown size.
    pub(crate) fn bits_per_weight(&self) -> Option<f64> {
        let count: usize = self.shape.iter().product();
        (count > 0 && self.bytes > 0).then(|| 8.0 * self.bytes as f64 / count as f64)
    }
}

impl Packed {
    /// Packed zeros stand in 32-bit words along N, one row of them less often than rows of weights.
    fn zero_points<'a>(&self, zeros: &'a AnyTensor) -> Result<ZeroPoints<'a>> {
        const NAME: &str = "weight_zero_point";
        Ok(match zeros.dtype() {
            DType::I8 => ZeroPoints::Signed(zeros.view(NAME)?),
            _ if self.shape[0] > 1 && zeros.shape().first() == Some(&self.shape[0]) => {
                ZeroPoints::Unsigned(zeros.view(NAME)?)
            }
            _ => ZeroPoints::Packed(zeros.view(NAME)?),
        })
    }

    fn bytes(&self) -> usize {
        let further = [&self.zero_point, &self.g_idx].into_iter().flatten();
        self.weight.bytes().len() + self.scale.bytes().len() + further.map(|x| x.bytes().len()).sum::<usize>()
    }
}
