//! What is done so far, kept in a folder beside the output, so that a job that was stopped goes on.
//!
//! `data` holds the tensors of finished layers one after the other, `journal` one line of JSON for each layer: its
//! name, its report, its texts and where its tensors lie. A layer counts once its line is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kc_core::{AnyTensor, Bytes, DType, Error};
use kc_quant::stored::Texts;
use serde_json::{Value, json};

/// Where tensors begin in the data: good for every type.
const ALIGN: u64 = 64;

/// A finished layer.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) report: Value,
    pub(crate) texts: Texts,
    tensors: Vec<Place>,
}

#[derive(Debug, Clone)]
struct Place {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    start: u64,
    len: u64,
}

/// The folder of a job.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    data: File,
    journal: File,
    end: u64,
    done: Vec<(String, Done)>,
}

impl Spool {
    /// Opens the folder `<out>.partial`. What it holds counts if it was begun with the same `job`, and is thrown away
    /// otherwise or with `restart`.
    pub(crate) fn open(out: &Path, job: &Value, restart: bool) -> Result<Self> {
        let mut name = out.file_name().context("--out: expected a file or folder")?.to_owned();
        name.push(".partial");
        let folder = out.with_file_name(name);
        let done = if restart { None } else { read(&folder, job) };
        if done.is_none() && folder.is_dir() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let open = |name: &str| {
            let path = folder.join(name);
            let file = OpenOptions::new().create(true).write(true).truncate(false).open(&path);
            file.with_context(|| path.display().to_string())
        };
        let (mut data, mut journal) = (open("data")?, open("journal")?);
        let done = done.unwrap_or_default();
        let end = done.iter().flat_map(|(_, d)| &d.tensors).map(|p| p.start + p.len).max().unwrap_or(0);
        // What a stopped job left behind its last complete layer is cut off: the journal is written anew.
        data.set_len(end)?;
        data.seek(SeekFrom::End(0))?;
        journal.set_len(0)?;
        writeln!(journal, "{job}")?;
        let spool_lines: Vec<String> = done.iter().map(|(name, done)| line(name, done)).collect();
        for line in spool_lines {
            writeln!(journal, "{line}")?;
        }
        Ok(Self { folder, data, journal, end, done })
    }

    /// The layer, if it is finished.
    pub(crate) fn get(&self, name: &str) -> Option<&Done> {
        self.done.iter().find(|(n, _)| n == name).map(|(_, done)| done)
    }

    /// Stores a finished layer.
    pub(crate) fn put(
        &mut self,
        name: &str,
        tensors: &[(String, AnyTensor)],
        texts: Texts,
        report: Value,
    ) -> Result<()> {
        let mut places = Vec::with_capacity(tensors.len());
        for (part, tensor) in tensors {
            let start = self.end.next_multiple_of(ALIGN);
            let padding = [0u8; ALIGN as usize];
            self.data.write_all(&padding[..(start - self.end) as usize])?;
            self.data.write_all(tensor.bytes())?;
            self.end = start + tensor.bytes().len() as u64;
            places.push(Place {
                name: part.clone(),
                dtype: tensor.dtype(),
                shape: tensor.shape().to_vec(),
                start,
                len: tensor.bytes().len() as u64,
            });
        }
        self.data.flush()?;
        let done = Done { report, texts, tensors: places };
        writeln!(self.journal, "{}", line(name, &done))?;
        self.journal.flush()?;
        self.done.push((name.to_owned(), done));
        Ok(())
    }

    /// The tensors of all finished layers, in place in the data.
    pub(crate) fn tensors(&self, name: &str, data: &Bytes) -> Result<Vec<(String, AnyTensor)>> {
        let Some(done) = self.get(name) else { return Ok(Vec::new()) };
        let tensor = |place: &Place| -> Result<(String, AnyTensor)> {
            let (start, end) = (place.start as usize, (place.start + place.len) as usize);
            let bytes = data.slice(start..end).context("the folder of the job lost data")?;
            Ok((place.name.clone(), AnyTensor::new(place.dtype, place.shape.clone(), bytes)?))
        };
        done.tensors.iter().map(tensor).collect()
    }

    /// The data of all finished layers.
    pub(crate) fn data(&self) -> Result<Bytes> {
        Ok(kc_io::map::map(self.folder.join("data"))?)
    }

    /// Removes the folder: the job is done.
    pub(crate) fn finish(self) -> Result<()> {
        let folder = self.folder.clone();
        drop(self);
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())
    }
}

fn line(name: &str, done: &Done) -> String {
    let place = |p: &Place| json!({"name": p.name, "dtype": p.dtype.name(), "shape": p.shape, "start": p.start, "len": p.len});
    let tensors: Vec<Value> = done.tensors.iter().map(place).collect();
    json!({"layer": name, "report": done.report, "texts": done.texts, "tensors": tensors}).to_string()
}

/// The finished layers of a folder that was begun with the same job; `None` if there is nothing to go on with.
fn read(folder: &Path, job: &Value) -> Option<Vec<(String, Done)>> {
    let text = fs::read_to_string(folder.join("journal")).ok()?;
    let held = fs::metadata(folder.join("data")).ok()?.len();
    // A line without its end was being written.
    let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let first: Value = serde_json::from_str(lines.next()?).ok()?;
    if first != *job {
        return None;
    }
    let mut done = Vec::new();
    for line in lines {
        let value: Value = serde_json::from_str(line).ok()?;
        let (name, layer) = parse(&value)?;
        if layer.tensors.iter().any(|p| p.start.checked_add(p.len).is_none_or(|end| end > held)) {
            break;
        }
        done.push((name, layer));
    }
    Some(done)
}

fn parse(line: &Value) -> Option<(String, Done)> {
    let texts = line.get("texts")?.as_object()?.iter();
    let texts = texts.map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let place = |value: &Value| {
        let shape = value.get("shape")?.as_array()?.iter();
        Some(Place {
            name: value.get("name")?.as_str()?.to_owned(),
            dtype: DType::from_name(value.get("dtype")?.as_str()?)?,
            shape: shape.map(|d| usize::try_from(d.as_u64()?).ok()).collect::<Option<_>>()?,
            start: value.get("start")?.as_u64()?,
            len: value.get("len")?.as_u64()?,
        })
    };
    let done = Done {
        report: line.get("report")?.clone(),
        texts: texts.collect::<Option<_>>()?,
        tensors: line.get("tensors")?.as_array()?.iter().map(place).collect::<Option<_>>()?,
    };
    Some((line.get("layer")?.as_str()?.to_owned(), done))
}

/// What a job depends on besides its flags: the files, by size and time.
pub(crate) fn fingerprint(path: &Path) -> Result<Value> {
    let meta = fs::metadata(path).map_err(|error| Error::io(path, &error))?;
    let modified = meta.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let nanos = modified.map(|t| t.as_nanos().to_string());
    Ok(json!({"path": path.to_string_lossy(), "bytes": meta.len(), "modified": nanos}))
}
