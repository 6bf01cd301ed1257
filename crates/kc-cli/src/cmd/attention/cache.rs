//! `kc attention sage-cache` and `sage-decode`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;
use kc_attention::sage::{CacheConfig, CacheValues, QkBits, SageKvCache};
use kc_io::safetensors::SafeTensorsFile;
use serde_json::json;

use super::inputs::{LayoutArg, Shape};
use crate::report::{Answer, Usage};
use crate::{input, output};

/// How values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ValuesArg {
    /// E4M3 with a factor per channel and page
    Fp8,
    /// 8-bit integers with a factor per channel and page
    Int8,
    /// Halves
    F16,
}

impl From<ValuesArg> for CacheValues {
    fn from(values: ValuesArg) -> Self {
        match values {
            ValuesArg::Fp8 => CacheValues::Fp8,
            ValuesArg::Int8 => CacheValues::Int8,
            ValuesArg::F16 => CacheValues::F16,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct CacheArgs {
    /// Keys, (batch, heads, tokens, channels), real numbers
    #[arg(long, value_name = "FILE")]
    k: String,
    /// Values, of the shape of the keys
    #[arg(long, value_name = "FILE")]
    v: String,
    /// Cache to append to; its bits, format, page and mean stay [default: a new one with the mean of the keys]
    #[arg(long, value_name = "FILE.safetensors", conflicts_with_all = ["bits", "values", "page"])]
    append: Option<PathBuf>,
    /// Bits of a key's codes, 4 or 8
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8))]
    bits: u8,
    /// How values are stored
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = ValuesArg::Fp8)]
    values: ValuesArg,
    /// Keys of a page, a multiple of 64
    #[arg(long, value_name = "N", default_value_t = 64)]
    page: usize,
    /// The order of the axes
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = LayoutArg::Hnd)]
    layout: LayoutArg,
    /// File for the cache
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DecodeArgs {
    /// Cache that sage-cache wrote
    #[arg(long, value_name = "FILE.safetensors")]
    cache: PathBuf,
    /// Queries of the newest tokens, (batch, heads, tokens, channels); the heads of the cache divide theirs
    #[arg(long, value_name = "FILE")]
    q: String,
    /// File for the output, float32, of the shape of the queries
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File for ln sum exp of each query's scores, float32, (batch, heads, tokens)
    #[arg(long, value_name = "FILE")]
    lse: Option<PathBuf>,
    /// The last query sees all tokens, each before it one fewer
    #[arg(long)]
    causal: bool,
    #[command(flatten)]
    shape: Shape,
}

fn load(path: &Path, config: CacheConfig) -> Result<SageKvCache> {
    let mut tensors = Vec::new();
    for name in SafeTensorsFile::open(path)?.names() {
        let tensor = kc_io::read(format!("{}:{name}", path.display()))?;
        tensors.push((name.clone(), tensor));
    }
    Ok(SageKvCache::from_tensors(&tensors, config)?)
}

fn describe(answer: &mut Answer, cache: &SageKvCache) {
    let bits = if cache.config().bits == QkBits::Int4 { 4 } else { 8 };
    answer.set("tokens", cache.len()).set("bits", bits).set("values", cache.values_name());
    answer.set("bytes", cache.bytes());
}

/// Makes a cache, or a longer one.
pub(crate) fn store(args: &CacheArgs) -> Result<Answer> {
    let (k, v) = (input::f32::<4>("k", &args.k)?, input::f32::<4>("v", &args.v)?);
    let (k, v) = (k.view("k")?, v.view("v")?);
    let bits = match args.bits {
        4 => QkBits::Int4,
        8 => QkBits::Int8,
        other => return Err(Usage(format!("--bits: expected 4 or 8, got {other}")).into()),
    };
    let config = CacheConfig {
        bits,
        values: args.values.into(),
        page: args.page,
        layout: args.layout.into(),
        ..CacheConfig::default()
    };
    let mut cache = match &args.append {
        Some(path) => load(path, config)?,
        None => SageKvCache::for_keys(k, config)?,
    };
    let start = Instant::now();
    cache.append(k, v)?;
    let seconds = start.elapsed().as_secs_f64();
    kc_io::safetensors::write(&args.out, &cache.to_tensors()?, &BTreeMap::new())?;
    let mut answer = Answer::new();
    describe(&mut answer, &cache);
    answer.set("append_seconds", seconds);
    Ok(answer)
}

/// Attends over a cache.
pub(crate) fn decode(args: &DecodeArgs) -> Result<Answer> {
    let config =
        CacheConfig { scale: args.shape.scale, layout: args.shape.layout.into(), ..CacheConfig::default() };
    let cache = load(&args.cache, config)?;
    let q = input::f32::<4>("q", &args.q)?;
    let q = q.view("q")?;
    let start = Instant::now();
    let found = cache.attend(q, args.causal)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut answer = Answer::new();
    answer.set("shape", json!(q.shape())).set("attend_seconds", seconds);
    describe(&mut answer, &cache);
    output::tensor(&args.out, found.out)?;
    if let (Some(path), Some(lse)) = (&args.lse, found.lse) {
        output::tensor(path, lse)?;
    }
    Ok(answer)
}
