//! The experiments, and what they are given.
//!
//! # How to write one
//!
//! 1. `experiments/<system>.rs` has one entry point, `pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()>`;
//!    add it to [`EXPERIMENTS`].
//! 2. Work at a size for two cores. `ctx.pick(quick, full)` chooses sizes: with `--quick` the whole
//!    experiment takes well under a minute.
//! 3. Say what you do (`ctx.step("products of R-MAT graphs")`), draw random data from `ctx.rng(stream)`, read
//!    fixtures from `golden("<system>/...")`.
//! 4. Every published figure becomes a [`Claim`]; its verdict comes from a function of [`Verdict`]. What
//!    needs a model or a machine that is not here is a claim too, with `Verdict::not_run("...")`.
//! 5. [`Table`] and [`Plot`] hold the rest: `ctx.table(..)`, `ctx.plot(..)`.
//! 6. `ctx.time(threads, || ..)` times one function, `ctx.compare(Comparison { .. })` times ours beside the
//!    peers, alternately, on the same arrays with equal threads. Peers of this process (other crates) always
//!    run; those in Python (`peers/<system>.py`, see `peers/common.py`) with `--peers`.
//!
//! ```text
//! ctx.claim(Claim {
//!     statement: "the third version is 9.4 times faster than the first".into(),
//!     paper: 9.4.into(), here: found.into(), unit: "x",
//!     verdict: Verdict::within(found, 9.4, 0.1, 0.5),
//!     setup: "A*A of an R-MAT graph of scale 14, cost model, default constants".into(),
//! });
//! ctx.compare(Comparison {
//!     case: format!("R-MAT 2^{scale}"), threads: 1,
//!     ours: &mut || { black_box(spgemm(..)); }, our_error: Some(0.0),
//!     rivals: vec![Rival::new("sprs", "0.11.6", || { black_box(&s * &s); })],
//!     python: Some(PythonSide { arrays: &[("indptr", &indptr), ..], params: json!({}), error: &|out| .. }),
//!     work: Some(Work::Bytes(bytes)), note: "largest difference to f64",
//! })?;
//! ```

mod attention;
mod core;
mod crossquant;
mod cut_cross_entropy;
mod fft;
mod fireq;
mod flexq;
mod gemm;
mod kernel;
mod lut_gemm;
mod matrix_nuclear_norm;
mod qmcpy;
mod quant_formats;
mod sage_attention2;
mod sea;
mod smash;
mod snnk;
mod soft;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::ProgressBar;
use kc_core::KcRng;

use crate::machine::Machine;
use crate::peers::Sessions;
pub(crate) use crate::peers::{Comparison, PythonSide, Rival, Work};
pub(crate) use crate::record::{Axis, Claim, Figure, Plot, Section, Series, Table, Timing, Verdict};
use crate::timing::{self, Budget};

/// An experiment: what it is called on the command line and in the report, and what it does.
pub(crate) struct Experiment {
    /// The slug of a system, or a crate without the prefix `kc-`.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) run: fn(&mut Ctx) -> anyhow::Result<()>,
}

/// All experiments, in the order of the report.
pub(crate) const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        name: "attention",
        title: "Exact attention: forward, backward, decoding",
        run: attention::run,
    },
    Experiment { name: "core", title: "kc-core: vector mathematics", run: core::run },
    Experiment { name: "gemm", title: "kc-gemm: dense products", run: gemm::run },
    Experiment { name: "fft", title: "kc-fft: Walsh-Hadamard and Fourier transforms", run: fft::run },
    Experiment {
        name: "kernel",
        title: "kc-kernel: fast Gram algebra and Gaussian processes",
        run: kernel::run,
    },
    Experiment { name: "flexq", title: "FlexQ: 6-bit weights, 6- or 8-bit activations", run: flexq::run },
    Experiment {
        name: "crossquant",
        title: "CrossQuant: 8-bit activations by token and channel",
        run: crossquant::run,
    },
    Experiment { name: "fireq", title: "FireQ: INT4 weights, FP8 activations", run: fireq::run },
    Experiment {
        name: "cut_cross_entropy",
        title: "Cut cross-entropy: a large vocabulary without stored logits",
        run: cut_cross_entropy::run,
    },
    Experiment {
        name: "lut_gemm",
        title: "LUT-GEMM: weights as sums of signs, products by look-up",
        run: lut_gemm::run,
    },
    Experiment {
        name: "matrix_nuclear_norm",
        title: "Matrix nuclear norm: how compressed are hidden states",
        run: matrix_nuclear_norm::run,
    },
    Experiment {
        name: "qmcpy",
        title: "QMCPy: low-discrepancy points and adaptive cubature",
        run: qmcpy::run,
    },
    Experiment {
        name: "quant_formats",
        title: "Weight files: GPTQ, AWQ, compressed-tensors, MatMulNBits, GGUF",
        run: quant_formats::run,
    },
    Experiment {
        name: "sage_attention2",
        title: "SageAttention2: attention in 4 and 8 bits",
        run: sage_attention2::run,
    },
    Experiment { name: "soft", title: "SOFT: attention without softmax, through landmarks", run: soft::run },
    Experiment { name: "sea", title: "SEA: sparse linear attention with an estimated mask", run: sea::run },
    Experiment { name: "smash", title: "SMASH: sparse products row by row", run: smash::run },
    Experiment { name: "snnk", title: "SNNK: layers as products of random features", run: snnk::run },
];

/// The slope of log y over log x, by least squares: the exponent that a figure grows with.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let (mx, my) = (logs.iter().map(|p| p.0).sum::<f64>() / n, logs.iter().map(|p| p.1).sum::<f64>() / n);
    let up: f64 = logs.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
    up / logs.iter().map(|p| (p.0 - mx).powi(2)).sum::<f64>()
}

/// What the command line asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) quick: bool,
    pub(crate) peers: bool,
    pub(crate) seed: u64,
}

/// What an experiment works with, and where its findings go.
pub(crate) struct Ctx {
    settings: Settings,
    machine: Arc<Machine>,
    sessions: Sessions,
    bar: ProgressBar,
    section: Section,
}

impl Ctx {
    /// Runs one experiment and returns what it found, with the error that stopped it, if any.
    pub(crate) fn observe(
        experiment: &Experiment,
        settings: Settings,
        machine: Arc<Machine>,
        bar: ProgressBar,
    ) -> Section {
        let section =
            Section { system: experiment.name.into(), title: experiment.title.into(), ..Section::default() };
        let sessions = Sessions::new(experiment.name);
        let mut ctx = Ctx { settings, machine, sessions, bar, section };
        let start = Instant::now();
        let result = (experiment.run)(&mut ctx);
        ctx.section.seconds = start.elapsed().as_secs_f64();
        ctx.section.error = result.err().map(|error| format!("{error:#}"));
        ctx.section
    }

    /// The first with `--quick`, else the second.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.settings.quick { quick } else { full }
    }

    /// True if Python packages may be installed and used.
    pub(crate) fn peers(&self) -> bool {
        self.settings.peers
    }

    /// A generator of its own for each `stream`, repeatable through `--seed`.
    pub(crate) fn rng(&self, stream: u64) -> KcRng {
        KcRng::new(self.settings.seed, stream)
    }

    /// The machine and its measured ceilings.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Tells the reader of the progress bar what is going on.
    pub(crate) fn step(&self, message: impl Into<String>) {
        self.bar.set_message(format!("{}: {}", self.section.system, message.into()));
    }

    /// Records a claim.
    pub(crate) fn claim(&mut self, claim: Claim) {
        self.section.claims.push(claim);
    }

    /// Records a table.
    pub(crate) fn table(&mut self, table: Table) {
        self.section.tables.push(table);
    }

    /// Records a picture.
    pub(crate) fn plot(&mut self, plot: Plot) {
        self.section.plots.push(plot);
    }

    /// Runs `work` on a rayon pool of `threads` threads.
    pub(crate) fn on_threads<R: Send>(
        &self,
        threads: usize,
        work: impl FnOnce() -> R + Send,
    ) -> anyhow::Result<R> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("a thread pool")?;
        Ok(pool.install(work))
    }

    /// Seconds per call of `body` on `threads` threads. Pass what it computes to `std::hint::black_box`.
    pub(crate) fn time(&self, threads: usize, body: impl FnMut() + Send) -> anyhow::Result<Timing> {
        let budget = self.budget();
        self.on_threads(threads, || timing::time(budget, body))?
    }

    /// Times ours beside every peer and records a row for each. Returns our timing.
    pub(crate) fn compare(&mut self, comparison: Comparison<'_>) -> anyhow::Result<Timing> {
        let budget = self.budget();
        let sessions = self.settings.peers.then_some(&mut self.sessions);
        let (ours, rows) = crate::peers::compare(comparison, sessions, budget, &self.machine)?;
        self.section.peers.extend(rows);
        Ok(ours)
    }

    /// Theirs over ours, of the row that was recorded last.
    pub(crate) fn last_ratio(&self) -> Option<f64> {
        self.section.peers.last()?.ratio
    }

    /// Their time over ours for the newest row of that peer.
    pub(crate) fn ratio_to(&self, peer: &str) -> Option<f64> {
        self.section.peers.iter().rev().find(|row| row.peer == peer)?.ratio
    }

    fn budget(&self) -> Budget {
        Budget { time: Duration::from_millis(self.pick(250, 1500)), samples: self.pick(15, 51) }
    }
}
