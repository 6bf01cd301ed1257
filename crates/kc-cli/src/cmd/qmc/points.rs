//! `kc qmc points`: point sets of every generator.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::ValueEnum;
use kc_core::{Element, Error, Tensor};
use kc_qmc::lattice::{LatticeVector, UserVector};
use kc_qmc::net2::{BitOrder, GeneratingMatrices, NetTable};
use kc_qmc::netb::NetMatrices;
use kc_qmc::simple::KroneckerVector;
use kc_qmc::table::Table;
use kc_qmc::{
    DigitalNet, DigitalNetConfig, Dims, Faure, FaureConfig, GeneralNet, GeneralNetConfig, Halton,
    HaltonConfig, Hammersley, HammersleyConfig, Iid, IidConfig, Korobov, KorobovConfig, Kronecker,
    KroneckerConfig, LatinHypercube, LatinHypercubeConfig, Lattice, LatticeConfig, NusEngine, Order,
    Randomize, Seed, Sequence,
};
use serde_json::json;

use super::table;
use crate::args::Ctx;
use crate::report::{Answer, Usage};
use crate::{input, output};

/// Points that fill the unit cube evenly
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kc qmc points --gen sobol --dim 4 --n 1024 --seed 7 --out x.npy\n  \
                  kc qmc points --gen halton --dims 0,2,5 --n 1000 --replications 8 --out x.npy\n  \
                  kc qmc points --gen lattice --dim 10 --n 256 --order linear --randomize none --out x.npy")]
pub(crate) struct Args {
    /// Which generator
    #[arg(long = "gen", value_enum, value_name = "NAME")]
    generator: Generator,
    /// Number of dimensions, from 1
    #[arg(long, value_name = "D", required_unless_present = "dims", conflicts_with = "dims")]
    dim: Option<usize>,
    /// Coordinates of the generator's table to use, counted from 0, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    dims: Option<Vec<usize>>,
    /// Rows end before this index: the number of points if they begin at 0
    #[arg(long, value_name = "N")]
    n: u64,
    /// First row
    #[arg(long, value_name = "M", default_value_t = 0)]
    n_min: u64,
    /// Randomization [default: lms-ds for sobol and dnet, lms-dp for halton and faure, shift for lattice, korobov and
    /// kronecker, none for hammersley; lhs: none puts points in the middle of their slices]
    #[arg(long, value_enum, value_name = "HOW")]
    randomize: Option<How>,
    /// Order of the points: natural and gray for nets, linear for lattices too [default: natural]
    #[arg(long, value_enum, value_name = "ORDER")]
    order: Option<Sorted>,
    /// Coordinates interlaced to one for higher order nets, from 1 (sobol, dnet, faure)
    #[arg(long, value_name = "A")]
    alpha: Option<usize>,
    /// Bits of a randomized point in base 2, up to 64 [default: 63]; digits for halton and faure [default: as many as
    /// float64 has]
    #[arg(long, value_name = "T")]
    bits: Option<u32>,
    /// Independent randomizations, from 1: the result is (replications, n, dims) instead of (n, dims)
    #[arg(long, value_name = "R")]
    replications: Option<usize>,
    /// Table of the generator: text of LDData, or .npy (lattice: integers (dims) or (replications, dims); sobol and
    /// dnet: matrix columns (dims, columns) or (replications, dims, columns); kronecker: numbers (dims))
    #[arg(long, value_name = "FILE")]
    table: Option<String>,
    /// Built-in vector: kuo, ckn or random:M (M bits, 2 to 26) for lattice; cbc, richtmyer or suzuki for kronecker; nx2
    /// or nx3 (Niederreiter-Xing for alpha 2, 3) for dnet [default: kuo, cbc, Joe and Kuo]
    #[arg(long, value_name = "NAME", conflicts_with = "table")]
    vector: Option<Vector>,
    /// First digit of matrices in an .npy table: the most or the least significant bit
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Bit::Msb)]
    bit_order: Bit,
    /// Nested scrambling by the reference's tree, or by hashing (base 2; other bits, any n) [default: tree up to 4096
    /// points]
    #[arg(long, value_enum, value_name = "ENGINE")]
    nus_engine: Option<Engine>,
    /// Element type: u64 gives the integers of nets in base 2, and writes {"bits": t} to FILE.json beside them
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = Type::F64)]
    dtype: Type,
    /// File for the points
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Generator {
    /// Digital net in base 2, Joe and Kuo's direction numbers unless --table
    Sobol,
    /// Digital net of --table in any base
    Dnet,
    /// Rank-1 lattice
    Lattice,
    /// Halton sequence
    Halton,
    /// Faure sequence
    Faure,
    /// Hammersley set
    Hammersley,
    /// Korobov lattice
    Korobov,
    /// Kronecker sequence
    Kronecker,
    /// Latin hypercube
    Lhs,
    /// Independent points
    Iid,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum How {
    None,
    Shift,
    Lms,
    Ds,
    LmsDs,
    Dp,
    LmsDp,
    Nus,
    Qrng,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Sorted {
    Natural,
    Gray,
    Linear,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Engine {
    Trie,
    Hash,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Bit {
    Msb,
    Lsb,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Type {
    F64,
    F32,
    U64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Vector {
    Kuo,
    Ckn,
    Random(u32),
    Cbc,
    Richtmyer,
    Suzuki,
    NiederreiterXing(usize),
}

impl FromStr for Vector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "kuo" => Vector::Kuo,
            "ckn" => Vector::Ckn,
            "cbc" => Vector::Cbc,
            "richtmyer" => Vector::Richtmyer,
            "suzuki" => Vector::Suzuki,
            "nx2" => Vector::NiederreiterXing(2),
            "nx3" => Vector::NiederreiterXing(3),
            _ => match text.strip_prefix("random:").and_then(|bits| bits.parse().ok()) {
                Some(bits) => Vector::Random(bits),
                None => {
                    let expected = "kuo, ckn, random:M, cbc, richtmyer, suzuki, nx2 or nx3";
                    return Err(Error::argument("vector", expected, text));
                }
            },
        })
    }
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    args.check()?;
    let mut set = args.sequence(ctx)?;
    for warning in &set.warnings {
        ctx.warn(warning);
    }
    let rows = args.n_min..args.n;
    let count = usize::try_from(args.n.saturating_sub(args.n_min)).unwrap_or(usize::MAX);
    let sequence = set.sequence();
    let shape = [sequence.replications(), count, sequence.dim()];
    // An empty tensor where the range is wrong: the sequence says what is wrong with it.
    let in_range = args.n >= args.n_min && u128::from(args.n) <= sequence.limit();
    let shape = if in_range { shape } else { [shape[0], 0, shape[2]] };
    let mut answer = Answer::new();
    match args.dtype {
        Type::F64 => {
            let mut out = Tensor::<f64, 3>::zeros(shape)?;
            sequence.fill(rows, out.as_mut_slice())?;
            args.store(out)?;
        }
        Type::F32 => args.store(set.single(rows, shape)?)?,
        Type::U64 => {
            let mut out = Tensor::<u64, 3>::zeros(shape)?;
            let bits = sequence.fill_digits(rows, out.as_mut_slice())?;
            let beside = args.out.with_extension("json");
            args.store(out)?;
            kc_io::json::write(beside, &json!({ "bits": bits }))?;
            answer.set("bits", bits);
        }
    }
    match args.replications {
        Some(_) => answer.set("shape", json!(shape)),
        None => answer.set("shape", json!(shape[1..])),
    };
    answer.set("seed", ctx.big_seed().name());
    Ok(answer)
}

/// A generator, and what to say about it.
struct Set {
    kind: Kind,
    warnings: Vec<String>,
}

enum Kind {
    /// Has a single precision of its own.
    Net(Box<DigitalNet>),
    Other(Box<dyn Sequence>),
}

impl Set {
    fn sequence(&mut self) -> &mut dyn Sequence {
        match &mut self.kind {
            Kind::Net(net) => net.as_mut(),
            Kind::Other(sequence) => sequence.as_mut(),
        }
    }

    /// Points in single precision, below 1.
    fn single(&mut self, rows: std::ops::Range<u64>, shape: [usize; 3]) -> Result<Tensor<f32, 3>> {
        let mut out = Tensor::<f32, 3>::zeros(shape)?;
        match &mut self.kind {
            Kind::Net(net) => net.fill_f32(rows, out.as_mut_slice())?,
            Kind::Other(sequence) => {
                let mut double = Tensor::<f64, 3>::zeros(shape)?;
                sequence.fill(rows, double.as_mut_slice())?;
                kc_qmc::fold::to_f32(double.as_slice(), out.as_mut_slice())?;
            }
        }
        Ok(out)
    }
}

impl Args {
    /// Flags that this generator does not have are mistakes.
    fn check(&self) -> Result<()> {
        use Generator as G;
        let given = [
            ("--order", self.order.is_some(), &[G::Sobol, G::Dnet, G::Lattice][..]),
            ("--alpha", self.alpha.is_some(), &[G::Sobol, G::Dnet, G::Faure]),
            ("--bits", self.bits.is_some(), &[G::Sobol, G::Dnet, G::Halton, G::Faure]),
            ("--table", self.table.is_some(), &[G::Sobol, G::Dnet, G::Lattice, G::Kronecker]),
            ("--vector", self.vector.is_some(), &[G::Dnet, G::Lattice, G::Kronecker]),
            ("--nus-engine", self.nus_engine.is_some(), &[G::Sobol, G::Dnet, G::Halton, G::Faure]),
        ];
        for (flag, given, generators) in given {
            if given && !generators.contains(&self.generator) {
                return Err(Usage(format!("{flag}: --gen {} has no such choice", self.name())).into());
            }
        }
        if self.generator == G::Dnet && self.table.is_none() && self.vector.is_none() {
            return Err(Usage("--gen dnet: expected --table FILE or --vector".into()).into());
        }
        if self.nus_engine.is_some() && self.randomize != Some(How::Nus) {
            return Err(Usage("--nus-engine: expected --randomize nus with it".into()).into());
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.generator.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn dims(&self) -> Dims {
        match (&self.dims, self.dim) {
            (Some(list), _) => Dims::List(list.clone()),
            (None, count) => Dims::First(count.unwrap_or(0)),
        }
    }

    fn randomize(&self, default: Randomize) -> Randomize {
        let engine = match self.nus_engine {
            None => NusEngine::Auto,
            Some(Engine::Trie) => NusEngine::Trie,
            Some(Engine::Hash) => NusEngine::Hash,
        };
        match self.randomize {
            None => default,
            Some(How::None) => Randomize::None,
            Some(How::Shift) => Randomize::Shift,
            Some(How::Lms) => Randomize::Lms,
            Some(How::Ds) => Randomize::Ds,
            Some(How::LmsDs) => Randomize::LmsDs,
            Some(How::Dp) => Randomize::Dp,
            Some(How::LmsDp) => Randomize::LmsDp,
            Some(How::Nus) => Randomize::Nus(engine),
            Some(How::Qrng) => Randomize::Qrng,
        }
    }

    fn order(&self) -> Order {
        match self.order {
            None | Some(Sorted::Natural) => Order::Natural,
            Some(Sorted::Gray) => Order::Gray,
            Some(Sorted::Linear) => Order::Linear,
        }
    }

    fn sequence(&self, ctx: &Ctx) -> Result<Set> {
        let (seed, dims) = (ctx.big_seed(), self.dims());
        let replications = self.replications.unwrap_or(1);
        let mut warnings = Vec::new();
        let mut origin = |randomize: Randomize| {
            if self.n_min == 0 && matches!(randomize, Randomize::None | Randomize::Lms) {
                warnings.push("without a shift the first point is the origin".to_owned());
            }
        };
        let sequence: Box<dyn Sequence> = match self.generator {
            Generator::Sobol | Generator::Dnet => return self.net(seed),
            Generator::Lattice => {
                let mut config = LatticeConfig::new(dims, seed);
                config.order = self.order();
                config.randomize = self.randomize(config.randomize);
                config.replications = replications;
                config.vector = self.lattice_vector()?;
                origin(config.randomize);
                Box::new(Lattice::new(config)?)
            }
            Generator::Halton => {
                let mut config = HaltonConfig::new(dims, seed);
                config.randomize = self.randomize(config.randomize);
                config.replications = replications;
                config.digits = self.bits.map(|bits| bits as usize);
                origin(config.randomize);
                Box::new(Halton::new(config)?)
            }
            Generator::Faure => {
                let mut config = FaureConfig::new(dims, seed);
                config.randomize = self.randomize(config.randomize);
                config.replications = replications;
                config.alpha = self.alpha.unwrap_or(1);
                config.digits = self.bits.map(|bits| bits as usize);
                origin(config.randomize);
                Box::new(Faure::new(config)?)
            }
            Generator::Hammersley => {
                if self.randomize.is_some_and(|how| how != How::None) {
                    return Err(Error::argument("randomize", "none for a Hammersley set", "another").into());
                }
                if replications != 1 {
                    let got = format!("{replications}, which would all be equal");
                    return Err(Error::argument("replications", "1 for a Hammersley set", got).into());
                }
                origin(Randomize::None);
                Box::new(Hammersley::new(HammersleyConfig::new(dims))?)
            }
            Generator::Korobov => {
                let mut config = KorobovConfig::new(dims, seed);
                config.randomize = self.randomize(config.randomize);
                config.replications = replications;
                origin(config.randomize);
                Box::new(Korobov::new(config)?)
            }
            Generator::Kronecker => {
                let mut config = KroneckerConfig::new(dims, seed);
                config.randomize = self.randomize(config.randomize);
                config.replications = replications;
                config.vector = self.kronecker_vector()?;
                origin(config.randomize);
                let kronecker = Kronecker::new(config)?;
                if kronecker.fell_back() {
                    warnings.push("cbc has 13 dimensions: the vector is richtmyer's".to_owned());
                }
                Box::new(kronecker)
            }
            Generator::Lhs => {
                let mut config = LatinHypercubeConfig::new(dims, seed);
                config.randomize = self.randomize(config.randomize);
                config.replications = replications;
                Box::new(LatinHypercube::new(config)?)
            }
            Generator::Iid => {
                if self.randomize.is_some() {
                    return Err(Usage("--randomize: --gen iid has no such choice".into()).into());
                }
                let mut config = IidConfig::new(dims, seed);
                config.replications = replications;
                Box::new(Iid::new(config)?)
            }
        };
        Ok(Set { kind: Kind::Other(sequence), warnings })
    }

    fn net(&self, seed: Seed) -> Result<Set> {
        let mut config = DigitalNetConfig::new(self.dims(), seed);
        config.randomize = self.randomize(config.randomize);
        config.order = self.order();
        config.replications = self.replications.unwrap_or(1);
        config.alpha = self.alpha.unwrap_or(1);
        config.bits = self.bits.unwrap_or(config.bits);
        config.table = match (&self.table, self.vector) {
            (Some(file), _) => match table::load(file)? {
                table::Loaded::Text(table @ Table::Net { base, .. }) if base != 2 => {
                    return self.general_net(config, &table);
                }
                table::Loaded::Text(table) => NetTable::Matrices(table.to_matrices()?),
                table::Loaded::Array => NetTable::Matrices(self.matrices(file)?),
            },
            (None, Some(Vector::NiederreiterXing(alpha))) => NetTable::NiederreiterXing { alpha },
            (None, Some(_)) => return Err(Error::argument("vector", "nx2 or nx3 for dnet", "another").into()),
            (None, None) => NetTable::JoeKuo,
        };
        let net = DigitalNet::new(config)?;
        let warnings = net.warnings().iter().map(ToString::to_string).collect();
        Ok(Set { kind: Kind::Net(Box::new(net)), warnings })
    }

    fn general_net(&self, net: DigitalNetConfig, table: &Table) -> Result<Set> {
        if self.order.is_some_and(|order| order != Sorted::Natural) {
            return Err(Error::argument("order", "natural for nets in other bases than 2", "another").into());
        }
        let matrices = NetMatrices::Custom(table.to_base_matrices()?);
        let mut config = GeneralNetConfig::new(net.dims, net.seed, matrices);
        config.randomize = self.randomize(config.randomize);
        config.replications = net.replications;
        config.alpha = net.alpha;
        config.digits = self.bits.map(|bits| bits as usize);
        Ok(Set { kind: Kind::Other(Box::new(GeneralNet::new(config)?)), warnings: Vec::new() })
    }

    fn matrices(&self, file: &str) -> Result<GeneratingMatrices> {
        let (shape, values) = table::integers(file)?;
        let shape = match shape[..] {
            [dims, columns] => [1, dims, columns],
            [sets, dims, columns] => [sets, dims, columns],
            _ => {
                let expected = "(dims, columns) or (replications, dims, columns)";
                return Err(Error::shape("--table", expected, &shape).into());
            }
        };
        let order = match self.bit_order {
            Bit::Msb => BitOrder::Msb,
            Bit::Lsb => BitOrder::Lsb,
        };
        Ok(GeneratingMatrices::new(shape, values, order)?)
    }

    fn lattice_vector(&self) -> Result<LatticeVector> {
        Ok(match (&self.table, self.vector) {
            (Some(file), _) => LatticeVector::User(match table::load(file)? {
                table::Loaded::Text(table) => table.to_vector()?,
                table::Loaded::Array => {
                    // An array does not say for how many points it is good.
                    const LOG2_LIMIT: u32 = 32;
                    let (shape, values) = table::integers(file)?;
                    match shape[..] {
                        [_] => UserVector::new(values, LOG2_LIMIT)?,
                        [sets, _] => UserVector::per_replication(sets, values, LOG2_LIMIT)?,
                        _ => {
                            let expected = "(dims) or (replications, dims)";
                            return Err(Error::shape("--table", expected, &shape).into());
                        }
                    }
                }
            }),
            (None, None | Some(Vector::Kuo)) => LatticeVector::Kuo,
            (None, Some(Vector::Ckn)) => LatticeVector::Ckn,
            (None, Some(Vector::Random(bits))) => LatticeVector::Random(bits),
            (None, Some(_)) => {
                return Err(Error::argument("vector", "kuo, ckn or random:M for lattice", "another").into());
            }
        })
    }

    fn kronecker_vector(&self) -> Result<KroneckerVector> {
        Ok(match (&self.table, self.vector) {
            (Some(file), _) => {
                let vector = input::any("--table", file)?.to_f64::<1>("--table")?;
                KroneckerVector::User(vector.into_vec())
            }
            (None, None | Some(Vector::Cbc)) => KroneckerVector::Cbc,
            (None, Some(Vector::Richtmyer)) => KroneckerVector::Richtmyer,
            (None, Some(Vector::Suzuki)) => KroneckerVector::Suzuki,
            (None, Some(_)) => {
                let expected = "cbc, richtmyer or suzuki for kronecker";
                return Err(Error::argument("vector", expected, "another").into());
            }
        })
    }

    /// Writes the points, without the axis of replications unless it was asked for.
    fn store<T: Element>(&self, points: Tensor<T, 3>) -> Result<()> {
        let [_, n, dims] = points.shape();
        let path: &Path = &self.out;
        match self.replications {
            Some(_) => output::tensor(path, points),
            None => output::tensor(path, points.reshape([n, dims])?),
        }
    }
}
