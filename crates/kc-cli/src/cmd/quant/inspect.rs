//! `kc quant inspect`: what a file of weights holds.

use anyhow::Result;
use serde_json::{Value, json};

use crate::report::Answer;
use crate::weights::{Facts, SourceArgs, WeightFile};

/// List the tensors of a file: format, bits, group, shape, bits per weight
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kc quant inspect --in model.gguf\n  kc quant inspect --in model.safetensors --json\n  \
                  kc quant inspect --b b.npy --scales s.npy --zp z.npy --k 4096"
)]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
}

/// The facts as reports have them.
pub(crate) fn describe(name: &str, facts: &Facts) -> Value {
    json!({
        "name": name,
        "format": facts.format,
        "bits": facts.bits,
        "group": facts.group,
        "activation_order": facts.activation_order,
        "shape": facts.shape,
        "bits_per_weight": facts.bits_per_weight(),
    })
}

pub(crate) fn run(args: &Args) -> Result<Answer> {
    let file = WeightFile::open(&args.source)?;
    let mut tensors = Vec::new();
    let mut lines = vec![format!(
        "{:>12}  {:>4}  {:>6}  {:>8}  {:<16}  name",
        "format", "bits", "group", "bits/w", "shape"
    )];
    let dash = |x: Option<String>| x.unwrap_or_else(|| "-".to_owned());
    for name in file.names() {
        // A layer that cannot be read says why, and hides none of the others.
        match file.get(Some(&name)).and_then(|(_, weight)| weight.facts()) {
            Ok(facts) => {
                let group = if facts.activation_order {
                    Some("order".to_owned())
                } else {
                    facts.group.map(|g| g.to_string())
                };
                lines.push(format!(
                    "{:>12}  {:>4}  {:>6}  {:>8}  {:<16}  {name}",
                    facts.format,
                    dash(facts.bits.map(|b| b.to_string())),
                    dash(group),
                    dash(facts.bits_per_weight().map(|b| format!("{b:.4}"))),
                    format!("{:?}", facts.shape),
                ));
                tensors.push(describe(&name, &facts));
            }
            Err(error) => {
                lines.push(format!("{:>12}  {name}: {error:#}", "?"));
                tensors.push(json!({ "name": name, "error": format!("{error:#}") }));
            }
        }
    }
    let mut answer = Answer::new();
    answer.set("file", file.kind()).set("tensors", tensors).text(lines.join("\n"));
    Ok(answer)
}
