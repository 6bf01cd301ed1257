//! `kc qmc integrate`: adaptive cubature of a named integrand or of a user's own program.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kc_qmc::Integrand;
use kc_qmc::cubature::Run;

use super::program::Program;
use super::settings::{Settings, answer};
use crate::args::Ctx;
use crate::report::{Answer, Usage};

/// Integrate over the unit cube or a measure, to a tolerance
///
/// The result has the keys solution, low, high (one number, or one per output; lists of lists for sensitivity), n_total, n (points of each output),
/// exhausted (the limit came before the tolerance), cone_violation, levels, n_level.
///
/// With --command the integrand is a program of your own, in any language. It is started once, without a shell. For
/// each batch kc writes a line `n d` and n lines of d numbers in [0, 1] to its standard input, and reads n lines of
/// P numbers (see --outputs) from its standard output. After the last line of a batch the program must flush, and must
/// not wait for more input. A line `0 d` ends it.
///
/// A spike that no point meets is integrated to 0, by every algorithm: the bounds assume functions without hidden
/// features.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kc qmc integrate --algo net-g --integrand keister --dim 3 --abs-tol 1e-3 --seed 7\n  \
                  kc qmc integrate --algo lattice-g --integrand option:kind=asian --dim 8 --abs-tol 0.02 --out r.json\n  \
                  kc qmc integrate --algo net-g --integrand 'sensitivity(ishigami)' --dim 3 --abs-tol 0.01\n  \
                  kc qmc integrate --algo mlmc --integrand option --dim 2 --rmse-tol 0.02 --seed 7\n\n\
                  A program of your own, then the same to a tighter tolerance:\n  \
                  cat > f.py <<'END'\n  \
                  import sys\n  \
                  while n := int(sys.stdin.readline().split()[0]):\n      \
                  for _ in range(n):\n          \
                  x, y = map(float, sys.stdin.readline().split())\n          \
                  print(x * y)\n      \
                  sys.stdout.flush()\n  \
                  END\n  \
                  kc qmc integrate --algo net-g --dim 2 --command 'python3 f.py' --abs-tol 1e-4 --state s.bin\n  \
                  kc qmc integrate --algo net-g --dim 2 --command 'python3 f.py' --abs-tol 1e-6 --resume s.bin"
)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Integrand: NAME[:k=v,..], as in kc qmc evaluate
    #[arg(long, value_name = "NAME", required_unless_present = "command", conflicts_with = "command")]
    integrand: Option<String>,
    /// Parameters of --integrand (a JSON object)
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    params: Option<PathBuf>,
    /// Integrand: a program and its arguments, split at blanks outside of quotes
    #[arg(long, value_name = "LINE")]
    command: Option<String>,
    /// Numbers per point that the program of --command writes
    #[arg(long, value_name = "P", default_value_t = 1)]
    outputs: usize,
    /// File for the state of the finished run, from which --resume goes on
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// State of an earlier run of the same problem: only what is missing for the tolerance is evaluated
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// File for the result (JSON)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    let settings = &args.settings;
    let mut sequence = settings.sequence(ctx.big_seed())?;
    if settings.algo.is_multilevel() {
        let Some(text) = &args.integrand else {
            return Err(
                Usage("--command: mlmc and mlqmc take a named option; see also kc qmc ask".into()).into()
            );
        };
        let problem = super::problems::multilevel(text, args.params.as_deref(), settings.dim)?;
        let mut run = settings.start_levels(&mut *sequence, &*problem)?;
        return finish(&mut run, &[1], args, ctx);
    }
    if let Some(line) = &args.command {
        let program = Program::start(line, settings.dim, args.outputs)?;
        let result = settings
            .start(&mut *sequence, &program)
            .and_then(|mut run| finish(&mut run, &program.shape(), args, ctx))?;
        match program.finish() {
            Ok(status) if status.success() => {}
            Ok(status) => ctx.warn(format_args!("the program of --command ended with {status}")),
            Err(error) => ctx.warn(format_args!("the program of --command: {error}")),
        }
        return Ok(result);
    }
    let name = args.integrand.as_deref().unwrap_or_default();
    let integrand = super::problems::integrand(name, args.params.as_deref(), settings.dim)?;
    // Integrands with more coordinates than the function they are made of (sensitivity indices) get a sequence of
    // their own, spawned from the function's.
    if integrand.dim() != settings.dim {
        let spawned = sequence.spawn(&[integrand.dim()])?.pop();
        sequence = spawned.context("no sequence for the integrand")?;
    }
    let mut run = settings.start(&mut *sequence, &*integrand)?;
    finish(&mut run, &integrand.shape(), args, ctx)
}

fn finish(run: &mut Run<'_>, shape: &[usize], args: &Args, ctx: &Ctx) -> Result<Answer> {
    if let Some(path) = &args.resume {
        run.resume(&read_state(path)?).with_context(|| path.display().to_string())?;
    }
    let estimate = run.finish_with(|known| {
        ctx.say(format_args!("{} points: {:?} to {:?}", known.n_total, known.low, known.high));
        std::ops::ControlFlow::Continue(())
    })?;
    if let Some(path) = &args.state {
        write_state(path, &run.save()?)?;
    }
    args.settings.warn(&estimate, ctx);
    let mut answer = answer(&estimate, shape);
    answer.also_to(args.out.as_deref());
    Ok(answer)
}

pub(super) fn read_state(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| kc_core::Error::io(path, &error).into())
}

pub(super) fn write_state(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(kc_io::atomic::write(path, |out| {
        out.write_all(bytes).map_err(|error| kc_core::Error::io(path, &error))
    })?)
}
