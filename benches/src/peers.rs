//! Ours beside others: crates of this process, and Python packages in one child process, so that both sides
//! alternate in the same run, on the same arrays, with equal threads.
//!
//! The child speaks JSON lines; `peers/common.py` is its side. Arrays travel as `.npy` files.
//!
//! ```text
//! > {"case": "..", "arrays": {"x": "/tmp/../x.npy"}, "params": {..}, "threads": 1}
//! < {"peers": [{"name": "..", "version": ".."}], "missing": [{"name": "..", "needs": ".."}]}
//! > {"run": "name", "times": 10}        < {"seconds": 0.0012}                  mean of one
//! > {"result": "name"}                  < {"arrays": {"y": "/tmp/../y.npy"}}
//! ```
//!
//! A failed request is answered by `{"error": ".."}`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use kc_core::AnyTensor;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::record::{PeerRow, Roofline, Timing};
use crate::timing::{self, Budget, Contestant, Here};

/// Arrays by name.
pub(crate) type Arrays = BTreeMap<String, AnyTensor>;

/// One case: ours, and whom it is compared with.
pub(crate) struct Comparison<'a> {
    /// Sizes and data, in words.
    pub(crate) case: String,
    /// Threads of both sides.
    pub(crate) threads: usize,
    /// Our side.
    pub(crate) ours: &'a mut (dyn FnMut() + Send),
    /// Error of our answer.
    pub(crate) our_error: Option<f64>,
    /// Peers of this process.
    pub(crate) rivals: Vec<Rival<'a>>,
    /// Peers in Python, if there are any for this case.
    pub(crate) python: Option<PythonSide<'a>>,
    /// What the work costs, for the share of the machine's limit.
    pub(crate) work: Option<Work>,
    /// What the errors measure.
    pub(crate) note: &'a str,
}

/// A peer of this process.
pub(crate) struct Rival<'a> {
    name: &'a str,
    version: &'a str,
    run: Box<dyn FnMut() + Send + 'a>,
    error: Option<f64>,
}

impl<'a> Rival<'a> {
    /// A crate of that name and version, and what it does.
    pub(crate) fn new(name: &'a str, version: &'a str, run: impl FnMut() + Send + 'a) -> Self {
        Rival { name, version, run: Box::new(run), error: None }
    }

    /// With the error of its answer.
    pub(crate) fn error(mut self, error: f64) -> Self {
        self.error = Some(error);
        self
    }
}

/// What the Python peers of a case get, and how their answers are judged.
pub(crate) struct PythonSide<'a> {
    /// Inputs, by the names that the script uses.
    pub(crate) arrays: &'a [(&'a str, &'a AnyTensor)],
    /// Further settings of the case.
    pub(crate) params: Value,
    /// The error of a peer's answer.
    pub(crate) error: &'a dyn Fn(&Arrays) -> Result<f64>,
}

/// The work of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// Operations in f32 (a fused multiply-add is two).
    Flops(f64),
    /// Operations of u8 x i8 products (a multiply-add is two).
    ByteOps(f64),
    /// Bytes that must come from or go to memory.
    Bytes(f64),
}

impl Work {
    fn roofline(self, seconds: f64, threads: usize, machine: &Machine) -> Roofline {
        let threads = threads as f64;
        let (done, limit, name) = match self {
            Work::Flops(n) => (n, machine.ceilings.f32_flops * threads, "f32 multiply-add"),
            Work::ByteOps(n) => (n, machine.ceilings.byte_ops * threads, "u8 x i8 multiply-add"),
            // One thread's bandwidth; more threads share the memory.
            Work::Bytes(n) => (n, machine.ceilings.read_bytes, "memory reads of one thread"),
        };
        Roofline { fraction: done / seconds / limit, limit: name }
    }
}

/// Runs the race and writes its rows.
pub(crate) fn compare(
    comparison: Comparison<'_>,
    sessions: Option<&mut Sessions>,
    budget: Budget,
    machine: &Machine,
) -> Result<(Timing, Vec<PeerRow>)> {
    let Comparison { case, threads, ours, our_error, rivals, python, work, note } = comparison;
    let mut rivals = rivals;
    let mut python = match (sessions, python) {
        (Some(sessions), Some(side)) => Some((sessions.open(threads, &case, &side), side.error)),
        _ => None,
    };
    let names: Vec<Name> = match &python {
        Some((Ok((_, names)), _)) => names.present.clone(),
        _ => Vec::new(),
    };
    let session = match &mut python {
        Some((Ok((session, _)), _)) => Some(std::sync::Mutex::new(&mut **session)),
        _ => None,
    };

    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("a thread pool")?;
    let mut times = pool.install(|| {
        let mut ours = Here(ours);
        let mut here: Vec<_> = rivals.iter_mut().map(|rival| Here(&mut rival.run)).collect();
        let mut there: Vec<_> =
            names.iter().filter_map(|n| Some(There { name: &n.name, session: session.as_ref()? })).collect();
        let mut all: Vec<&mut dyn Contestant> = vec![&mut ours];
        all.extend(here.iter_mut().map(|c| c as &mut dyn Contestant));
        all.extend(there.iter_mut().map(|c| c as &mut dyn Contestant));
        timing::race(budget, &mut all)
    });
    drop(session);
    let mut times = times.drain(..);
    let ours = times.next().context("our own timing")??;

    let row = |peer: &str, version: &str, theirs: Result<Timing>, their_error: Option<f64>| {
        let (theirs, note) = match theirs {
            Ok(timing) => (Some(timing), note.to_owned()),
            Err(error) => (None, format!("{error:#}")),
        };
        PeerRow {
            case: case.clone(),
            threads,
            peer: peer.to_owned(),
            version: version.to_owned(),
            ours,
            theirs,
            ratio: theirs.map(|t| t.median / ours.median),
            roofline: work.map(|work| work.roofline(ours.median, threads, machine)),
            our_error,
            their_error,
            note,
        }
    };
    let mut rows: Vec<PeerRow> = Vec::new();
    for (rival, theirs) in rivals.iter().zip(times.by_ref()) {
        rows.push(row(rival.name, rival.version, theirs, rival.error));
    }
    match python {
        None => {}
        Some((Err(error), _)) => rows.push(row("Python peers", "", Err(error), None)),
        Some((Ok((session, names)), judge)) => {
            for (name, theirs) in names.present.iter().zip(times) {
                let error = if theirs.is_ok() { Some(judge(&session.result(&name.name)?)?) } else { None };
                rows.push(row(&name.name, &name.version, theirs, error));
            }
            for missing in &names.missing {
                rows.push(row(&missing.name, "", Err(anyhow!("not run (needs {})", missing.needs)), None));
            }
        }
    }
    Ok((ours, rows))
}

/// A peer of the child process.
struct There<'a, 'b> {
    name: &'a str,
    session: &'a std::sync::Mutex<&'b mut Session>,
}

impl Contestant for There<'_, '_> {
    fn sample(&mut self, n: usize) -> Result<f64> {
        #[derive(Deserialize)]
        struct Answer {
            seconds: f64,
        }
        let mut session = self.session.lock().map_err(|_| anyhow!("an earlier request panicked"))?;
        Ok(session.ask::<Answer>(&json!({ "run": self.name, "times": n }))?.seconds)
    }
}

/// The children of one experiment: one for each number of threads, because most libraries fix it when they
/// are loaded.
pub(crate) struct Sessions {
    system: &'static str,
    open: BTreeMap<usize, Session>,
}

impl Sessions {
    /// No child yet.
    pub(crate) fn new(system: &'static str) -> Self {
        Sessions { system, open: BTreeMap::new() }
    }

    fn open(&mut self, threads: usize, case: &str, side: &PythonSide<'_>) -> Result<(&mut Session, Names)> {
        if !self.open.contains_key(&threads) {
            let session = Session::start(self.system, threads)?;
            self.open.insert(threads, session);
        }
        let session = self.open.get_mut(&threads).context("a session that was just opened")?;
        let names = session.begin(case, threads, side)?;
        Ok((session, names))
    }
}

#[derive(Debug, Deserialize)]
struct Names {
    #[serde(rename = "peers")]
    present: Vec<Name>,
    missing: Vec<Missing>,
}

#[derive(Debug, Clone, Deserialize)]
struct Name {
    name: String,
    version: String,
}

#[derive(Debug, Deserialize)]
struct Missing {
    name: String,
    needs: String,
}

/// A running child.
struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

impl Session {
    fn start(system: &str, threads: usize) -> Result<Self> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let script = scripts.join(format!("{system}.py"));
        ensure!(script.exists(), "not run (needs {})", script.display());
        let python = environment(&scripts, &script)?;
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let mut command = Command::new(python);
        command.arg("-u").arg(&script).arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"] {
            command.env(variable, threads.to_string());
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {}", script.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the peers' process has no pipes");
        };
        Ok(Session { child, input, output: BufReader::new(output), folder })
    }

    fn begin(&mut self, case: &str, threads: usize, side: &PythonSide<'_>) -> Result<Names> {
        let mut arrays = serde_json::Map::new();
        for (name, array) in side.arrays {
            let path = self.folder.path().join(format!("{name}.npy"));
            kc_io::write(&path, array)?;
            arrays.insert((*name).to_owned(), json!(path));
        }
        self.ask(&json!({ "case": case, "arrays": arrays, "params": side.params, "threads": threads }))
    }

    fn result(&mut self, name: &str) -> Result<Arrays> {
        #[derive(Deserialize)]
        struct Answer {
            arrays: BTreeMap<String, PathBuf>,
        }
        let answer: Answer = self.ask(&json!({ "result": name }))?;
        answer.arrays.into_iter().map(|(name, path)| Ok((name, kc_io::read(path)?))).collect()
    }

    fn ask<T: for<'de> Deserialize<'de>>(&mut self, request: &Value) -> Result<T> {
        writeln!(self.input, "{request}").context("the peers' process is gone")?;
        self.input.flush().context("the peers' process is gone")?;
        let mut line = String::new();
        let length = self.output.read_line(&mut line).context("the peers' process is gone")?;
        ensure!(length > 0, "the peers' process ended");
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("the peers said {line:?}"))?;
        if let Some(error) = answer.get("error").and_then(Value::as_str) {
            bail!("{error}");
        }
        serde_json::from_value(answer).with_context(|| format!("the peers said {line:?}"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A child that is gone already is no concern.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The interpreter of `target/bench/venv`, with what the script requires as far as it can be installed. The
/// script's second line names the packages (`# requires: numpy scipy`), requirements.txt pins them.
fn environment(scripts: &Path, script: &Path) -> Result<PathBuf> {
    let venv = crate::target().join("bench").join("venv");
    let bin = venv.join(if cfg!(windows) { "Scripts" } else { "bin" });
    let python = bin.join(if cfg!(windows) { "python.exe" } else { "python" });
    if !python.exists() {
        let system = if cfg!(windows) { "python" } else { "python3" };
        let made = Command::new(system).args(["-m", "venv"]).arg(&venv).stdout(Stdio::null()).status();
        let made = made.map_err(|error| anyhow!("not run (needs {system}: {error})"))?;
        ensure!(made.success(), "not run (needs {system} with its module venv)");
    }
    let text = std::fs::read_to_string(script).with_context(|| script.display().to_string())?;
    let required = text.lines().find_map(|line| line.strip_prefix("# requires:")).unwrap_or_default();
    let pins = scripts.join("requirements.txt");
    for package in required.split_whitespace() {
        // Quiet when all is there; a package that cannot be had becomes a `not run` row of its peer.
        let _ = Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint"])
            .arg(&pins)
            .arg(package)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
    Ok(python)
}
