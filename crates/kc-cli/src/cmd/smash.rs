//! `kc smash`: products of sparse matrices, and the cost model of the SMASH paper.

mod matrix;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use kc_core::Error;
use kc_sparse::semiring::*;
use kc_sparse::smash::generate;
use kc_sparse::smash::model::{BlockConfig, BlockReport, Version, simulate};
use kc_sparse::{Accumulator, Csr, Mask, Phases, SpgemmConfig, SpgemmStats, spgemm, spgemm_stats};
use serde_json::{Map, Value as Json, json};

use crate::args::Ctx;
use crate::report::Answer;
use matrix::Matrix;

/// Sparse matrices: products over semirings, masks, statistics, test matrices, and the SMASH cost model.
///
/// Matrices are read from .mtx, .npz (as scipy.sparse.save_npz writes them) and .npy (dense). Results do not
/// depend on the number of threads.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Multiply two sparse matrices
    #[command(after_help = "Examples:\n  kc smash gen --kind rmat --scale 10 --out a.npz\n  \
                            kc smash multiply --a a.npz --b a.npz --out c.npz --stats s.json\n  \
                            kc smash multiply --a a.npz --b a.npz --semiring plus_pair --mask a.npz --out t.mtx")]
    Multiply(Multiply),
    /// Count the products and entries of a product without computing it
    #[command(after_help = "Example:\n  kc smash stats --a a.mtx --b a.mtx")]
    Stats(Factors),
    /// Run the cost model of the paper's three versions on a product
    #[command(after_help = "Example:\n  kc smash model --a a.mtx --b a.mtx --version all --out r.json")]
    Model(Model),
    /// Write a seeded test matrix
    #[command(
        after_help = "Example:\n  kc smash gen --kind er --scale 12 --edge-factor 8 --seed 1 --out a.npz"
    )]
    Gen(Gen),
}

#[derive(Debug, clap::Args)]
struct Factors {
    /// The left matrix (.mtx, .npz, .npy)
    #[arg(long, value_name = "FILE")]
    a: String,
    /// The right matrix, with as many rows as the left one has columns
    #[arg(long, value_name = "FILE")]
    b: String,
    /// Use the transpose of A
    #[arg(long)]
    transpose_a: bool,
    /// Use the transpose of B
    #[arg(long)]
    transpose_b: bool,
}

#[derive(Debug, clap::Args)]
struct Multiply {
    #[command(flatten)]
    factors: Factors,
    /// Multiplication and addition. Other than plus_times they compute in int64, float64 or complex128
    #[arg(long, value_name = "NAME", default_value = "plus_times", value_parser = RINGS)]
    semiring: String,
    /// Compute only the entries that this matrix has
    #[arg(long, value_name = "FILE")]
    mask: Option<String>,
    /// Compute only the entries that the mask does not have
    #[arg(long, requires = "mask")]
    complement: bool,
    /// Stored zeros of the mask do not count as entries
    #[arg(long, requires = "mask")]
    mask_by_value: bool,
    /// Where sums are kept; the result is the same
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Kept::Auto)]
    accumulator: Kept,
    /// Whether entries are counted before they are computed; the result is the same
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Passes::Auto)]
    phases: Passes,
    /// Leave out entries that are exactly zero
    #[arg(long)]
    drop_zeros: bool,
    /// Do not sort the columns of each row
    #[arg(long)]
    unsorted: bool,
    /// Where to write the product (.npz or .mtx)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write products, nnz_c, compression, max_row_products and bytes as JSON
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
}

const RINGS: [&str; 11] = [
    "plus_times",
    "min_plus",
    "max_plus",
    "max_min",
    "min_max",
    "max_times",
    "or_and",
    "plus_pair",
    "plus_first",
    "plus_second",
    "any_pair",
];

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kept {
    Auto,
    Dense,
    Hash,
    Sort,
    Runs,
    Merge,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Passes {
    Auto,
    One,
    Two,
}

#[derive(Debug, clap::Args)]
struct Model {
    #[command(flatten)]
    factors: Factors,
    /// 1, 2, 3 or all
    #[arg(long, value_name = "N", default_value = "all", value_parser = ["1", "2", "3", "all"])]
    version: String,
    /// Settings of the modelled block: a JSON object with any of cores, threads_per_core, clock_ghz, spad_bytes,
    /// load_factor_num, load_factor_den, token_products, dram_bytes_per_cycle, dma_fill_bytes_per_cycle, lat_dram,
    /// lat_l1, lat_spad, lat_atomic, lat_alu
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the counters as JSON: an object for one version, a list for all
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Rmat,
    Er,
    Band,
}

#[derive(Debug, clap::Args)]
struct Gen {
    /// R-MAT graph (.57, .19, .19, .05), uniform random matrix, or band matrix
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Kind,
    /// The matrix has 2^SCALE rows and columns, 0 to 31
    #[arg(long, value_name = "SCALE")]
    scale: u32,
    /// Entries drawn per row; for a band, how many diagonals on each side
    #[arg(long, value_name = "F", default_value_t = 8)]
    edge_factor: usize,
    /// Where to write the matrix (.npz or .mtx)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs the verb.
pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.verb {
        Verb::Multiply(args) => multiply(args, ctx),
        Verb::Stats(args) => Ok(Answer::from_map(stats_map(&stats(args)?))),
        Verb::Model(args) => model(args),
        Verb::Gen(args) => gen_matrix(args, ctx),
    }
}

impl Factors {
    /// Both matrices, of one type, transposed as asked.
    fn read(&self) -> Result<(Matrix, Matrix)> {
        let mut a = matrix::read("a", &self.a)?;
        let mut b = matrix::read("b", &self.b)?;
        if self.transpose_a {
            a = a.transpose()?;
        }
        if self.transpose_b {
            b = b.transpose()?;
        }
        Ok(matrix::promote(a, b))
    }
}

/// Runs `$body` with `$a` and `$b` bound to matrices of one type.
macro_rules! with_pair {
    ($pair:expr, |$a:ident, $b:ident| $body:expr) => {
        match $pair {
            (Matrix::Bool($a), Matrix::Bool($b)) => $body,
            (Matrix::I64($a), Matrix::I64($b)) => $body,
            (Matrix::F32($a), Matrix::F32($b)) => $body,
            (Matrix::F64($a), Matrix::F64($b)) => $body,
            (Matrix::C128($a), Matrix::C128($b)) => $body,
            _ => Err::<_, anyhow::Error>(Error::unsupported("a and b", "matrices of two types").into()),
        }
    };
}

fn stats(args: &Factors) -> Result<SpgemmStats> {
    let (a, b) = args.read()?;
    with_pair!((&a, &b), |a, b| Ok(spgemm_stats(a.view(), b.view())?))
}

fn stats_map(stats: &SpgemmStats) -> Map<String, Json> {
    let mut map = Map::new();
    map.insert("products".into(), stats.products.into());
    map.insert("nnz_c".into(), stats.nnz_c.into());
    map.insert("compression".into(), stats.compression.into());
    map.insert("max_row_products".into(), stats.max_row_products.into());
    map.insert("bytes".into(), stats.bytes.into());
    map
}

fn multiply(args: &Multiply, ctx: &Ctx) -> Result<Answer> {
    matrix::check_out(&args.out)?;
    let (mut a, mut b) = args.factors.read()?;
    let name = args.semiring.as_str();
    // Single precision and booleans know sums of products only (of booleans: or of ands).
    if name != "plus_times" && !(name == "or_and" && a.is_bool()) {
        (a, b) = (a.full_width(), b.full_width());
    }
    let marks = args.mask.as_ref().map(|file| matrix::read("mask", file)).transpose()?;
    let marks = marks.map(|m| if args.mask_by_value { m.without_zeros() } else { m }.pattern());
    let mask = marks.as_ref().map(|m| {
        let mask = Mask::structural(m.view());
        if args.complement { mask.complement() } else { mask }
    });
    let config = SpgemmConfig {
        accumulator: match args.accumulator {
            Kept::Auto => Accumulator::Auto,
            Kept::Dense => Accumulator::Dense,
            Kept::Hash => Accumulator::Hash,
            Kept::Sort => Accumulator::Sort,
            Kept::Runs => Accumulator::Runs,
            Kept::Merge => Accumulator::Merge,
        },
        phases: match args.phases {
            Passes::Auto => Phases::Auto,
            Passes::One => Phases::One,
            Passes::Two => Phases::Two,
        },
        threads: ctx.global.threads,
        sorted: !args.unsorted,
        drop_zeros: args.drop_zeros,
        mask,
        ..SpgemmConfig::default()
    };
    let stats: SpgemmStats = with_pair!((&a, &b), |a, b| Ok(spgemm_stats(a.view(), b.view())?))?;
    let c = match (&a, &b) {
        (Matrix::Bool(a), Matrix::Bool(b)) => {
            Matrix::Bool(spgemm(PlusTimes::new(), a.view(), b.view(), &config)?)
        }
        (Matrix::I64(a), Matrix::I64(b)) => Matrix::I64(ordered(name, a, b, &config)?),
        (Matrix::F32(a), Matrix::F32(b)) => {
            Matrix::F32(spgemm(PlusTimes::new(), a.view(), b.view(), &config)?)
        }
        (Matrix::F64(a), Matrix::F64(b)) => Matrix::F64(ordered(name, a, b, &config)?),
        (Matrix::C128(a), Matrix::C128(b)) => Matrix::C128(unordered(name, a, b, &config)?),
        _ => return Err(Error::unsupported("a and b", "matrices of two types").into()),
    };
    let (rows, cols, nnz) = c.size();
    c.write(&args.out)?;
    let map = stats_map(&stats);
    if let Some(file) = &args.stats {
        kc_io::json::write(file, &Json::Object(map.clone()))?;
    }
    let mut answer = Answer::new();
    answer.set("shape", json!([rows, cols])).set("nnz", nnz).set("out", args.out.display().to_string());
    for (key, value) in map {
        answer.set(&key, value);
    }
    Ok(answer)
}

/// The product over a semiring that needs no order.
fn unordered<T: Number>(name: &str, a: &Csr<T>, b: &Csr<T>, config: &SpgemmConfig<'_>) -> Result<Csr<T>> {
    let (a, b) = (a.view(), b.view());
    Ok(match name {
        "plus_times" => spgemm(PlusTimes::new(), a, b, config)?,
        "or_and" => spgemm(OrAnd::new(), a, b, config)?,
        "plus_pair" => spgemm(PlusPair::new(), a, b, config)?,
        "plus_first" => spgemm(PlusFirst::new(), a, b, config)?,
        "plus_second" => spgemm(PlusSecond::new(), a, b, config)?,
        "any_pair" => spgemm(AnyPair::new(), a, b, config)?,
        _ => {
            return Err(
                Error::unsupported(format!("semiring {name}"), "complex numbers have no order").into()
            );
        }
    })
}

/// The product over any semiring.
fn ordered<T: Ordered>(name: &str, a: &Csr<T>, b: &Csr<T>, config: &SpgemmConfig<'_>) -> Result<Csr<T>> {
    Ok(match name {
        "min_plus" => spgemm(MinPlus::new(), a.view(), b.view(), config)?,
        "max_plus" => spgemm(MaxPlus::new(), a.view(), b.view(), config)?,
        "max_min" => spgemm(MaxMin::new(), a.view(), b.view(), config)?,
        "min_max" => spgemm(MinMax::new(), a.view(), b.view(), config)?,
        "max_times" => spgemm(MaxTimes::new(), a.view(), b.view(), config)?,
        _ => unordered(name, a, b, config)?,
    })
}

fn model(args: &Model) -> Result<Answer> {
    let config = match &args.config {
        None => BlockConfig::default(),
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|e| Error::io(file, &e))?;
            let json: Json = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
            block_config(&json).with_context(|| file.display().to_string())?
        }
    };
    let (a, b) = args.factors.read()?;
    let (a, b) = (a.pattern(), b.pattern());
    let run = |version| Ok::<_, anyhow::Error>(report_json(&simulate(a.view(), b.view(), version, &config)?));
    let version = Version::ALL.into_iter().find(|v| v.number().to_string() == args.version);
    let found = match version {
        Some(version) => run(version)?,
        None => Json::Array(Version::ALL.into_iter().map(run).collect::<Result<_>>()?),
    };
    if let Some(file) = &args.out {
        kc_io::json::write(file, &found)?;
    }
    Ok(match found {
        Json::Object(map) => Answer::from_map(map),
        list => {
            let mut answer = Answer::new();
            answer.set("versions", list);
            answer
        }
    })
}

fn block_config(json: &Json) -> Result<BlockConfig> {
    let object = json.as_object().context("expected a JSON object")?;
    let mut c = BlockConfig::default();
    for (key, value) in object {
        let whole = || value.as_u64().with_context(|| format!("{key}: expected a whole number, got {value}"));
        match key.as_str() {
            "cores" => c.cores = whole()?,
            "threads_per_core" => c.threads_per_core = whole()?,
            "clock_ghz" => {
                c.clock_ghz =
                    value.as_f64().with_context(|| format!("{key}: expected a number, got {value}"))?;
            }
            "spad_bytes" => c.spad_bytes = whole()?,
            "load_factor_num" => c.load_factor_num = whole()?,
            "load_factor_den" => c.load_factor_den = whole()?,
            "token_products" => c.token_products = whole()?,
            "dram_bytes_per_cycle" => c.dram_bytes_per_cycle = whole()?,
            "dma_fill_bytes_per_cycle" => c.dma_fill_bytes_per_cycle = whole()?,
            "lat_dram" => c.lat_dram = whole()?,
            "lat_l1" => c.lat_l1 = whole()?,
            "lat_spad" => c.lat_spad = whole()?,
            "lat_atomic" => c.lat_atomic = whole()?,
            "lat_alu" => c.lat_alu = whole()?,
            _ => return Err(Error::argument("config", "a setting of the block", key).into()),
        }
    }
    Ok(c)
}

fn report_json(r: &BlockReport) -> Json {
    json!({
        "version": r.version, "slots": r.slots, "windows": r.windows, "cycles": r.cycles,
        "cycles_distribution": r.cycles_distribution, "cycles_clear": r.cycles_clear,
        "cycles_hash": r.cycles_hash, "cycles_writeback": r.cycles_writeback,
        "milliseconds": r.milliseconds, "dram_utilisation": r.dram_utilisation,
        "l1_hit_rate": r.l1_hit_rate, "ipc": r.ipc, "imbalance": r.imbalance, "mean_probes": r.mean_probes,
        "products": r.products, "probes": r.probes, "tokens": r.tokens, "nnz_c": r.nnz_c,
        "dram_bytes": r.dram_bytes, "words": r.words, "lines": r.lines, "instr": r.instr,
    })
}

fn gen_matrix(args: &Gen, ctx: &Ctx) -> Result<Answer> {
    matrix::check_out(&args.out)?;
    let a = match args.kind {
        Kind::Rmat => generate::rmat(args.scale, args.edge_factor, generate::GRAPH500, ctx.seed()?)?,
        Kind::Er => generate::er(args.scale, args.edge_factor, ctx.seed()?)?,
        Kind::Band => {
            let n = 1usize.checked_shl(args.scale).unwrap_or(usize::MAX);
            generate::band(n, args.edge_factor, ctx.seed()?)?
        }
    };
    let mut answer = Answer::new();
    answer.set("shape", json!([a.nrows(), a.ncols()])).set("nnz", a.nnz());
    Matrix::F64(a).write(&args.out)?;
    Ok(answer)
}
