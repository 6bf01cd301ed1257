//! The state that `kc qmc ask` and `kc qmc tell` hand to each other: the settings as text, then the run's own bytes.

use std::path::Path;

use anyhow::{Context, Result};
use kc_core::Error;
use kc_qmc::cubature::{Multilevel, Run};
use kc_qmc::{Integrand, Seed, Sequence};
use serde_json::Value;

use super::integrate::{read_state, write_state};
use super::settings::Settings;

const MAGIC: &[u8; 8] = b"KCASK\0\0\x01";

/// A function that somebody else evaluates.
#[derive(Debug)]
struct Elsewhere {
    dim: usize,
    outputs: usize,
}

impl Integrand for Elsewhere {
    fn dim(&self) -> usize {
        self.dim
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn evaluate(&self, _: &[f64], _: &[bool], _: &mut [f64]) -> kc_core::Result<()> {
        Err(Error::unsupported("evaluation", "the values come from kc qmc tell"))
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("elsewhere dim {} outputs {}", self.dim, self.outputs))
    }
}

impl Multilevel for Elsewhere {
    fn dim(&self, level: usize) -> usize {
        self.dim << level.min(40)
    }

    fn cost(&self, level: usize) -> f64 {
        Multilevel::dim(self, level) as f64
    }

    fn level(&self, level: usize) -> kc_core::Result<Box<dyn Integrand>> {
        Ok(Box::new(Elsewhere { dim: Multilevel::dim(self, level), outputs: 1 }))
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("levels elsewhere dim {}", self.dim))
    }
}

/// A problem whose values come from outside.
pub(super) struct Dialogue {
    pub(super) settings: Settings,
    /// The settings as they are stored.
    text: String,
    problem: Elsewhere,
    sequence: Box<dyn Sequence>,
}

impl Dialogue {
    /// From the settings' JSON.
    pub(super) fn new(value: &Value, source: &str) -> Result<Self> {
        let settings = Settings::from_json(value, source)?;
        let seed: Seed = match &value["seed"] {
            Value::Null => 0u64.into(),
            Value::Number(number) => number.to_string().parse()?,
            Value::String(text) => text.parse()?,
            other => {
                return Err(
                    Error::parse(source, format_args!("seed: expected an integer, got {other}")).into()
                );
            }
        };
        let outputs = match &value["outputs"] {
            Value::Null => 1,
            other => other.as_u64().filter(|count| (1..=1 << 20).contains(count)).ok_or_else(|| {
                Error::parse(source, format_args!("outputs: expected 1 to 2^20, got {other}"))
            })? as usize,
        };
        let sequence = settings.sequence(seed)?;
        let problem = Elsewhere { dim: settings.dim, outputs };
        Ok(Self { settings, text: value.to_string(), problem, sequence })
    }

    /// From a state file; gives the run's bytes too.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<u8>)> {
        let (text, bytes) = split(&read_state(path)?, path)?;
        let source = path.display().to_string();
        let value = kc_io::json::parse(text.as_bytes(), &source)?;
        Ok((Self::new(&value, &source)?, bytes))
    }

    /// The run, at its beginning or where `state` left it.
    pub(super) fn run(&mut self, state: Option<&[u8]>, path: &Path) -> Result<Run<'_>> {
        let mut run = if self.settings.algo.is_multilevel() {
            self.settings.start_levels(&mut *self.sequence, &self.problem)?
        } else {
            self.settings.start(&mut *self.sequence, &self.problem)?
        };
        if let Some(state) = state {
            run.restore(state).with_context(|| path.display().to_string())?;
        }
        Ok(run)
    }

    /// The settings as they are stored.
    pub(super) fn text(&self) -> String {
        self.text.clone()
    }
}

/// Writes settings and run to a state file.
pub(super) fn store(path: &Path, text: &str, run: &Run<'_>) -> Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(&run.save()?);
    write_state(path, &bytes)
}

/// Settings and run of a state file.
pub(super) fn split(bytes: &[u8], path: &Path) -> Result<(String, Vec<u8>)> {
    let wrong = || Error::parse(path.display().to_string(), "not a state of kc qmc ask");
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(wrong)?;
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| wrong())?;
    let (text, run) = rest.split_at_checked(length).ok_or_else(wrong)?;
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    Ok((text.to_owned(), run.to_vec()))
}
