//! systems.toml.

use anyhow::{Context, Result};
use toml::{Table, Value};
use xshell::Shell;

/// A system of the register.
#[derive(Debug, Clone)]
pub(crate) struct System {
    pub(crate) slug: String,
    pub(crate) title: String,
    pub(crate) paper: String,
    pub(crate) krate: String,
    pub(crate) module: String,
    pub(crate) door: String,
    pub(crate) here: bool,
    pub(crate) summary: String,
}

/// A crate with an experiment of its own.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) peers: bool,
}

/// The whole register.
#[derive(Debug, Clone, Default)]
pub(crate) struct Register {
    pub(crate) systems: Vec<System>,
    pub(crate) tools: Vec<Tool>,
}

/// Reads systems.toml.
pub(crate) fn read(sh: &Shell) -> Result<Register> {
    parse(&sh.read_file("systems.toml")?).context("systems.toml")
}

/// Parses the register; every key of a system must be there, and `claims` if it is here.
pub(crate) fn parse(text: &str) -> Result<Register> {
    let table: Table = text.parse()?;
    let systems = entries(&table, "system").map(system).collect::<Result<_>>()?;
    let tools = entries(&table, "tool").map(|entry| {
        let peers = entry.get("peers").and_then(Value::as_bool).context("peers: true or false")?;
        Ok(Tool { name: text_of(entry, "name")?, peers })
    });
    Ok(Register { systems, tools: tools.collect::<Result<_>>()? })
}

fn entries<'a>(table: &'a Table, key: &str) -> impl Iterator<Item = &'a Table> {
    table.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table)
}

fn system(entry: &Table) -> Result<System> {
    let slug = text_of(entry, "slug")?;
    let of = |key: &str| text_of(entry, key).with_context(|| format!("system {slug}"));
    let here = match of("state")?.as_str() {
        "here" => true,
        "planned" => false,
        other => anyhow::bail!("system {slug}: state: expected here or planned, got {other}"),
    };
    if here {
        of("claims")?;
    }
    entry
        .get("gpu")
        .and_then(Value::as_bool)
        .with_context(|| format!("system {slug}: gpu: true or false"))?;
    Ok(System {
        title: of("title")?,
        paper: of("paper")?,
        krate: of("crate")?,
        module: of("module")?,
        door: of("door")?,
        summary: of("summary")?,
        here,
        slug: slug.clone(),
    })
}

fn text_of(entry: &Table, key: &str) -> Result<String> {
    let text =
        entry.get(key).and_then(Value::as_str).with_context(|| format!("no text for the key {key}"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SAMPLE: &str = r#"
        [[tool]]
        name = "gemm"
        peers = true
        [[system]]
        slug = "smash"
        title = "SMASH"
        paper = "A paper (2021)"
        crate = "kc-sparse"
        module = "smash"
        door = "smash"
        gpu = false
        state = "here"
        summary = "products"
        claims = "a speed-up"
    "#;

    #[test]
    fn an_entry_needs_all_keys() {
        let register = parse(SAMPLE).unwrap();
        assert!(register.systems[0].here && register.tools[0].peers);
        assert!(parse(&SAMPLE.replace("claims", "claim")).is_err());
        assert!(parse(&SAMPLE.replace("\"here\"", "\"soon\"")).is_err());
        assert!(parse(&SAMPLE.replace("gpu = false", "")).is_err());
    }
}
