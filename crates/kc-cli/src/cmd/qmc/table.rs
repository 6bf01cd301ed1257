//! `kc qmc table`: tables between text and arrays.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kc_core::{DType, Error, Tensor};
use kc_qmc::table::Table;

use crate::args::Ctx;
use crate::report::Answer;
use crate::{input, output};

/// Convert tables of lattices, nets and scrambles between the text formats of LDData and .npy
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kc qmc table --in lattice.txt --out vector.npy\n  \
                  kc qmc table --in vector.npy --n 1048576 --out lattice.txt")]
pub(crate) struct Args {
    /// Table: text (lattice, dnet, plattice, sobol, soboljk, shiftmod1, dshift, lmscramble, nuscramble), or .npy
    #[arg(long = "in", value_name = "FILE")]
    input: String,
    /// File for it: .npy, else text. Vectors and shifts become (dims), nets (dims, columns) with the first digit most
    /// significant; direction numbers and polynomials become matrices on the way to .npy
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Points of a lattice that comes from .npy, 1 to 2^52
    #[arg(long, value_name = "N")]
    n: Option<u64>,
}

/// The largest text that is read.
const MOST_BYTES: u64 = 1 << 30;

/// What `--table` names.
pub(super) enum Loaded {
    Text(Table),
    /// An array file, to be read as what is needed.
    Array,
}

/// Reads a text; array files are left to their readers.
pub(super) fn load(file: &str) -> Result<Loaded> {
    if is_array(Path::new(file)) || file.contains(".npz:") || file.contains(".safetensors:") {
        return Ok(Loaded::Array);
    }
    let size = std::fs::metadata(file).with_context(|| file.to_owned())?.len();
    if size > MOST_BYTES {
        return Err(Error::too_large(file.to_owned(), size, MOST_BYTES, "bytes").into());
    }
    let bytes = std::fs::read(file).with_context(|| file.to_owned())?;
    let text = String::from_utf8(bytes).map_err(|error| {
        Error::parse_byte(file, error.utf8_error().valid_up_to() as u64, "expected text in UTF-8")
    })?;
    Ok(Loaded::Text(Table::parse(&text, file)?))
}

fn is_array(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "npy" || extension == "npz" || extension == "safetensors")
}

/// Shape and values of an array of integers that are not negative.
pub(super) fn integers(file: &str) -> Result<(Vec<usize>, Vec<u64>)> {
    let any = input::any("--table", file)?;
    let shape = any.shape().to_vec();
    let wrong = |value: i128| Error::argument("--table", "integers from 0", value);
    macro_rules! read {
        ($($dtype:ident $kind:ty),*) => {
            match any.dtype() {
                $(DType::$dtype => any
                    .bytes()
                    .chunks_exact(size_of::<$kind>())
                    .map(kc_core::bytemuck::pod_read_unaligned::<$kind>)
                    .map(|value| u64::try_from(value).map_err(|_| wrong(i128::from(value))))
                    .collect::<Result<Vec<u64>, Error>>()?,)*
                other => return Err(Error::dtype("--table", "integers", other).into()),
            }
        };
    }
    let values = read!(U8 u8, U16 u16, U32 u32, U64 u64, I8 i8, I16 i16, I32 i32, I64 i64);
    Ok((shape, values))
}

pub(crate) fn run(args: &Args, _ctx: &Ctx) -> Result<Answer> {
    let table = match load(&args.input)? {
        Loaded::Text(table) => table,
        Loaded::Array => from_array(&args.input, args.n)?,
    };
    let mut answer = Answer::new();
    answer.set("format", table.format()).set("dims", table.dims());
    if is_array(&args.out) {
        store(&args.out, table)?;
    } else {
        let text = table.to_text();
        kc_io::atomic::write(&args.out, |out| {
            out.write_all(text.as_bytes()).map_err(|error| Error::io(&args.out, &error))
        })?;
    }
    Ok(answer)
}

/// A vector is a lattice (integers) or a shift (numbers), a matrix the net of its rows.
fn from_array(file: &str, n: Option<u64>) -> Result<Table> {
    let any = input::any("--in", file)?;
    if any.dtype().is_float() {
        let shifts = any.to_f64::<1>("--in")?.into_vec();
        return Ok(Table::shift(shifts)?);
    }
    let (shape, values) = integers(file)?;
    Ok(match shape[..] {
        [_] => {
            let Some(n) = n else {
                return Err(Error::argument("--n", "the number of points of the lattice", "nothing").into());
            };
            Table::lattice(n, values)?
        }
        [_, columns] => Table::net(columns, values)?,
        _ => return Err(Error::shape("--in", "(dims) or (dims, columns)", &shape).into()),
    })
}

fn store(path: &Path, table: Table) -> Result<()> {
    let integers = |values: &[u64], width: Option<usize>| match width {
        None => output::tensor(path, Tensor::from_slice([values.len()], values)?),
        Some(width) => output::tensor(path, Tensor::from_slice([values.len() / width, width], values)?),
    };
    match &table {
        Table::Lattice { vector, .. } => integers(vector, None),
        Table::Net { columns, matrices, .. } => integers(matrices, Some(*columns)),
        Table::Shift(shifts) => output::tensor(path, Tensor::from_slice([shifts.len()], shifts)?),
        Table::DigitalShift { values, .. } => integers(values, None),
        Table::LinearScramble { digits, matrices, .. } => integers(matrices, Some(*digits as usize)),
        Table::NestedScramble { points, values, .. } => integers(values, Some(*points)),
        table => {
            let matrices = table.to_matrices()?;
            let [_, _, columns] = matrices.shape();
            integers(matrices.values(), Some(columns))
        }
    }
}
