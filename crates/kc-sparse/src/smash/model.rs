//! A deterministic cost model of the machine that SMASH was written for: blocks of many simple threads with a
//! scratchpad under their own control and a DMA engine.
//!
//! Three published versions are run on it: V1 gives rows to threads in turn, hashes by the high bits, clears
//! and writes back by the threads; V2 cuts the products into tokens that the least loaded thread takes, and
//! hashes by the low bits; V3 also keeps fragments (index in the table, entries dense) and leaves clearing and
//! write-back to the DMA engine. The rules and constants of this model are its own, chosen before any result
//! was seen and never fitted; its figures are "model" figures, not those of any real machine.
//!
//! All quantities are integers, so two implementations agree exactly. Cost: one hash table walk per product.
//!
//! ```
//! use kc_sparse::smash::{generate, model::{simulate, BlockConfig, Version}};
//! let a = generate::rmat(8, 8, generate::GRAPH500, 1)?;
//! let run = |v| simulate(a.view(), a.view(), v, &BlockConfig::default());
//! let (v1, v3) = (run(Version::V1)?, run(Version::V3)?);
//! assert!(v3.cycles < v1.cycles && v3.nnz_c == v1.nnz_c);
//! # Ok::<(), kc_core::Error>(())
//! ```

use std::ops::Range;

use kc_core::{Error, Result};

use super::{check_inner, schedule};
use crate::csr::{CsrView, Index, Value};

/// Which version of SMASH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Atomic hashing.
    V1,
    /// Tokenization.
    V2,
    /// Fragmenting memory.
    V3,
}

impl Version {
    /// All versions, in order.
    pub const ALL: [Version; 3] = [Version::V1, Version::V2, Version::V3];

    /// 1, 2 or 3.
    pub const fn number(self) -> u32 {
        match self {
            Version::V1 => 1,
            Version::V2 => 2,
            Version::V3 => 3,
        }
    }
}

/// The modelled block. Latencies in cycles.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockConfig {
    /// Cores, each issuing one instruction per cycle.
    pub cores: u64,
    /// Threads of each core.
    pub threads_per_core: u64,
    /// Clock in GHz.
    pub clock_ghz: f64,
    /// Bytes of the scratchpad.
    pub spad_bytes: u64,
    /// Numerator of the load factor of the tables.
    pub load_factor_num: u64,
    /// Denominator of the load factor of the tables.
    pub load_factor_den: u64,
    /// Products of a token (V2, V3).
    pub token_products: u64,
    /// Bytes per cycle to and from memory.
    pub dram_bytes_per_cycle: u64,
    /// Bytes per cycle at which the DMA engine fills the scratchpad.
    pub dma_fill_bytes_per_cycle: u64,
    /// A line from memory.
    pub lat_dram: u64,
    /// A word from the first cache.
    pub lat_l1: u64,
    /// A word from the scratchpad.
    pub lat_spad: u64,
    /// An atomic operation.
    pub lat_atomic: u64,
    /// Arithmetic.
    pub lat_alu: u64,
}

impl Default for BlockConfig {
    fn default() -> Self {
        Self {
            cores: 4,
            threads_per_core: 16,
            clock_ghz: 1.4,
            spad_bytes: 1 << 22,
            load_factor_num: 1,
            load_factor_den: 2,
            token_products: 256,
            dram_bytes_per_cycle: 16,
            dma_fill_bytes_per_cycle: 64,
            lat_dram: 180,
            lat_l1: 2,
            lat_spad: 6,
            lat_atomic: 10,
            lat_alu: 2,
        }
    }
}

/// What the model counted.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockReport {
    /// The version.
    pub version: u32,
    /// Slots of the table.
    pub slots: u64,
    /// Windows of rows.
    pub windows: u64,
    /// All cycles.
    pub cycles: u64,
    /// Cycles of the distribution of rows to windows.
    pub cycles_distribution: u64,
    /// Cycles of clearing tables.
    pub cycles_clear: u64,
    /// Cycles of hashing.
    pub cycles_hash: u64,
    /// Cycles of writing back. V3 hides those of all windows but the last behind the hashing of the next window;
    /// the hidden ones are counted here, and not in `cycles`.
    pub cycles_writeback: u64,
    /// The cycles at the block's clock.
    pub milliseconds: f64,
    /// Bytes moved over bytes that could have been moved.
    pub dram_utilisation: f64,
    /// Words that did not fetch a line.
    pub l1_hit_rate: f64,
    /// Instructions per cycle of the block.
    pub ipc: f64,
    /// Longest thread over the mean thread, summed over windows.
    pub imbalance: f64,
    /// Slots looked at per product.
    pub mean_probes: f64,
    /// Products.
    pub products: u64,
    /// Slots looked at.
    pub probes: u64,
    /// Units of work that threads took.
    pub tokens: u64,
    /// Entries of the result.
    pub nnz_c: u64,
    /// Bytes to and from memory.
    pub dram_bytes: u64,
    /// Words read.
    pub words: u64,
    /// Lines read.
    pub lines: u64,
    /// Instructions.
    pub instr: u64,
}

/// Bytes of a line.
const LINE: u64 = 64;

/// Lines that elements `s..e` of width `w` touch.
fn lines(s: u64, e: u64, w: u64) -> u64 {
    if e <= s { 0 } else { (w * e - 1) / LINE - w * s / LINE + 1 }
}

/// Costs of a piece of work.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    words: u64,
    lines: u64,
    instr: u64,
    latency: u64,
}

impl Cost {
    fn add(&mut self, other: Cost) {
        self.words += other.words;
        self.lines += other.lines;
        self.instr += other.instr;
        self.latency += other.latency;
    }
}

/// A part of a row of B: entry `q` of A, entries `b` of B.
struct Segment {
    q: usize,
    b: Range<usize>,
}

/// What one thread does at once: entries `q` of A's row, and their segments.
struct Unit {
    q: Range<usize>,
    segments: Vec<Segment>,
}

/// The largest power of two up to `x`; 0 for 0.
fn floor_power(x: u64) -> u64 {
    if x == 0 { 0 } else { 1 << x.ilog2() }
}

impl BlockConfig {
    fn check(&self) -> Result<()> {
        let positive = [
            ("cores", self.cores),
            ("threads_per_core", self.threads_per_core),
            ("load_factor_num", self.load_factor_num),
            ("load_factor_den", self.load_factor_den),
            ("token_products", self.token_products),
            ("dram_bytes_per_cycle", self.dram_bytes_per_cycle),
            ("dma_fill_bytes_per_cycle", self.dma_fill_bytes_per_cycle),
        ];
        for (name, value) in positive {
            if value == 0 || value > 1 << 20 {
                return Err(Error::argument(name, "1 to 2^20", value));
            }
        }
        let latencies = [self.lat_dram, self.lat_l1, self.lat_spad, self.lat_atomic, self.lat_alu];
        if latencies.iter().any(|&l| l > 1 << 20) {
            return Err(Error::argument("latencies", "at most 2^20 cycles", format!("{latencies:?}")));
        }
        if self.cores * self.threads_per_core > 1 << 20 {
            return Err(Error::argument("cores", "at most 2^20 threads", self.cores * self.threads_per_core));
        }
        if self.load_factor_num > self.load_factor_den {
            let got = format!("{} / {}", self.load_factor_num, self.load_factor_den);
            return Err(Error::argument("load_factor", "at most 1", got));
        }
        if self.spad_bytes > 1 << 32 {
            return Err(Error::too_large("spad_bytes", self.spad_bytes, 1 << 32, "bytes"));
        }
        if !(self.clock_ghz > 0.0 && self.clock_ghz.is_finite()) {
            return Err(Error::argument("clock_ghz", "a positive number", self.clock_ghz));
        }
        Ok(())
    }

    /// Slots of the table of `version`.
    fn slots(&self, version: Version) -> u64 {
        match version {
            Version::V1 | Version::V2 => floor_power(self.spad_bytes / 16),
            // A slot takes 8 bytes, and each entry that the load factor admits takes 12.
            Version::V3 => {
                let (num, den) = (self.load_factor_num, self.load_factor_den);
                floor_power(self.spad_bytes * den / (8 * den + 12 * num))
            }
        }
    }

    /// Cycles of `count` threads' latencies, instructions and bytes that overlap.
    fn phase(&self, latency: u64, instr: u64, bytes: u64) -> u64 {
        latency.max(instr).max(bytes.div_ceil(self.dram_bytes_per_cycle))
    }
}

/// Runs `A B` on the model. Values are not looked at.
///
/// Fails if the shapes do not fit, a setting is out of range, or a row needs more slots than the scratchpad has.
pub fn simulate<L: Value, R: Value, I: Index>(
    a: CsrView<'_, L, I>,
    b: CsrView<'_, R, I>,
    version: Version,
    config: &BlockConfig,
) -> Result<BlockReport> {
    check_inner(a, b)?;
    config.check()?;
    let weights = schedule::weights(a, b, false);
    let slots = config.slots(version);
    let bound = |i: usize| (weights[i + 1] - weights[i]).min(b.ncols() as u64);
    // A row takes its entries over the load factor; windows are as many rows as fit.
    let capacity = slots * config.load_factor_num / config.load_factor_den;
    let windows = windows(a.nrows(), bound, capacity)?;

    let threads = config.cores * config.threads_per_core;
    let (nnz, m) = (a.nnz() as u64, a.nrows() as u64);
    let mut total = Cost {
        words: 3 * nnz + m + 1,
        lines: lines(0, nnz, 4) + lines(0, m + 1, 8) + nnz,
        ..Cost::default()
    };
    total.instr = total.words + nnz;
    let latency =
        total.lines * config.lat_dram + (total.words - total.lines) * config.lat_l1 + nnz * config.lat_alu;
    let distribution =
        config.phase(latency.div_ceil(threads), total.instr.div_ceil(config.cores), LINE * total.lines);

    let mut run =
        Run { a, b, version, config, keys: vec![u64::MAX; slots as usize], slots, tokens: 0, probes: 0 };
    let (mut clear, mut hash, mut writeback, mut hidden) = (0u64, 0u64, 0u64, 0u64);
    let (mut nnz_c, mut longest, mut all) = (0u64, 0u64, 0u64);
    // V3: bytes of the window before, copied while this one is hashed, and the cycles that the copies would take.
    let mut pending = 0u64;
    let copy = |bytes: u64| bytes.div_ceil(config.dram_bytes_per_cycle);
    for window in &windows {
        let mut load = vec![0u64; threads as usize];
        let mut issued = vec![0u64; threads as usize];
        let (cost, used) = run.window(window.clone(), bound, &mut load, &mut issued);
        let latency = load.iter().copied().max().unwrap_or(0);
        let core = |c: &[u64]| c.iter().sum::<u64>();
        let instr = issued.chunks(config.threads_per_core as usize).map(core).max().unwrap_or(0);
        hash += config.phase(latency, instr, LINE * cost.lines + pending);
        longest += latency;
        all += load.iter().sum::<u64>();
        total.add(cost);
        nnz_c += used;
        if version == Version::V3 {
            clear += (8 * slots).div_ceil(config.dma_fill_bytes_per_cycle);
            total.instr += 2;
            hidden += copy(pending);
            pending = 12 * used;
        } else {
            let scan = slots.div_ceil(threads) * config.lat_spad;
            clear += scan.max(slots.div_ceil(config.cores));
            writeback += config.phase(
                scan + (2 * used).div_ceil(threads) * config.lat_l1,
                (slots + 2 * used).div_ceil(config.cores),
                12 * used,
            );
            total.instr += slots + slots + 2 * used;
        }
    }
    writeback += copy(pending);

    let cycles = distribution + clear + hash + writeback;
    let products = weights[a.nrows()];
    let dram_bytes = LINE * total.lines + 12 * nnz_c;
    let ratio = |x: f64, y: f64| if y == 0.0 { 0.0 } else { x / y };
    Ok(BlockReport {
        version: version.number(),
        slots,
        windows: windows.len() as u64,
        cycles,
        cycles_distribution: distribution,
        cycles_clear: clear,
        cycles_hash: hash,
        cycles_writeback: writeback + hidden,
        milliseconds: cycles as f64 / (config.clock_ghz * 1e6),
        dram_utilisation: ratio(dram_bytes as f64, (config.dram_bytes_per_cycle * cycles) as f64),
        l1_hit_rate: 1.0 - ratio(total.lines as f64, total.words as f64),
        ipc: ratio(total.instr as f64, cycles as f64),
        imbalance: ratio((threads * longest) as f64, all as f64),
        mean_probes: ratio(run.probes as f64, products as f64),
        products,
        probes: run.probes,
        tokens: run.tokens,
        nnz_c,
        dram_bytes,
        words: total.words,
        lines: total.lines,
        instr: total.instr,
    })
}

/// Greedy runs of rows whose bounds fit `capacity`.
fn windows(rows: usize, bound: impl Fn(usize) -> u64, capacity: u64) -> Result<Vec<Range<usize>>> {
    let mut windows = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for i in 0..rows {
        let u = bound(i);
        if u > capacity {
            let what = format!("row {i} needs more slots than the scratchpad has");
            return Err(Error::too_large(what, u, capacity, "slots"));
        }
        if sum + u > capacity {
            windows.push(start..i);
            (start, sum) = (i, 0);
        }
        sum += u;
    }
    if start < rows {
        windows.push(start..rows);
    }
    Ok(windows)
}

/// The state of a simulation.
struct Run<'a, L, R, I> {
    a: CsrView<'a, L, I>,
    b: CsrView<'a, R, I>,
    version: Version,
    config: &'a BlockConfig,
    /// Row of the window times columns of B, plus the column; `u64::MAX` is empty.
    keys: Vec<u64>,
    slots: u64,
    tokens: u64,
    probes: u64,
}

impl<L: Value, R: Value, I: Index> Run<'_, L, R, I> {
    /// Hashes one window: its cost, and the entries that it holds at the end. Latency and instructions go
    /// to the threads.
    fn window(
        &mut self,
        rows: Range<usize>,
        bound: impl Fn(usize) -> u64,
        load: &mut [u64],
        issued: &mut [u64],
    ) -> (Cost, u64) {
        self.keys.fill(u64::MAX);
        let (mut cost, mut used, mut base) = (Cost::default(), 0, 0);
        for i in rows.clone() {
            let local = (i - rows.start) as u64;
            // Slots that the row is given: its bound over the load factor.
            let cap = bound(i) * self.config.load_factor_den / self.config.load_factor_num;
            for unit in self.units(i) {
                let mut work = self.unit(&unit, local, base, cap, &mut used);
                let thread = if self.version == Version::V1 {
                    local as usize % load.len()
                } else {
                    work.latency += self.config.lat_atomic;
                    work.instr += 1;
                    // The first of the least loaded.
                    (0..load.len()).min_by_key(|&t| load[t]).unwrap_or(0)
                };
                load[thread] += work.latency;
                issued[thread] += work.instr;
                cost.add(work);
                self.tokens += 1;
            }
            base += cap;
        }
        (cost, used)
    }

    /// The units of row `i`: the row itself, or its products cut into tokens.
    fn units(&self, i: usize) -> Vec<Unit> {
        let entries = self.a.range(i);
        if entries.is_empty() {
            return Vec::new();
        }
        let whole = |q: usize| Segment { q, b: self.b.range(self.a.indices()[q].to_usize()) };
        if self.version == Version::V1 {
            return vec![Unit { segments: entries.clone().map(whole).collect(), q: entries }];
        }
        let size = self.config.token_products as usize;
        let (mut units, mut segments, mut room, mut first) = (Vec::new(), Vec::new(), size, entries.start);
        for q in entries.clone() {
            let Range { mut start, end } = whole(q).b;
            loop {
                if room == 0 {
                    units.push(Unit {
                        q: first..self.past(&segments, first),
                        segments: std::mem::take(&mut segments),
                    });
                    (room, first) = (size, q);
                }
                let n = room.min(end - start);
                segments.push(Segment { q, b: start..start + n });
                start += n;
                room -= n;
                if start == end {
                    break;
                }
            }
        }
        units.push(Unit { q: first..self.past(&segments, first), segments });
        units
    }

    /// The entry of A after those that the segments belong to.
    fn past(&self, segments: &[Segment], first: usize) -> usize {
        segments.last().map_or(first, |s| s.q + 1)
    }

    /// What a unit costs; its products enter the table.
    fn unit(&mut self, unit: &Unit, local: u64, base: u64, cap: u64, used: &mut u64) -> Cost {
        let c = self.config;
        let (q0, q1) = (unit.q.start as u64, unit.q.end as u64);
        let read = lines(q0, q1, 4) + lines(q0, q1, 8);
        let words = 2 * (q1 - q0);
        let mut cost = Cost {
            words,
            lines: read,
            instr: words,
            latency: read * c.lat_dram + (words - read.min(words)) * c.lat_l1,
        };
        for Segment { b, .. } in &unit.segments {
            let n = b.len() as u64;
            let read = lines(b.start as u64, b.end as u64, 4) + lines(b.start as u64, b.end as u64, 8);
            cost.add(Cost {
                words: 2 + 2 * n,
                lines: 1 + read,
                instr: 2 + 2 * n,
                latency: c.lat_dram + c.lat_l1 + read * c.lat_dram + (2 * n - read.min(2 * n)) * c.lat_l1,
            });
            for j in b.clone() {
                let probes = self.probe(local, self.b.indices()[j].to_usize() as u64, base, cap, used);
                self.probes += probes;
                cost.instr += 3 + probes;
                cost.latency += c.lat_alu + probes * c.lat_spad + c.lat_atomic;
            }
        }
        cost
    }

    /// Finds or enters a key; the slots looked at.
    fn probe(&mut self, local: u64, column: u64, base: u64, cap: u64, used: &mut u64) -> u64 {
        let n = self.b.ncols() as u64;
        let offset = match self.version {
            Version::V1 => (u128::from(column) * u128::from(cap) / u128::from(n)) as u64,
            Version::V2 | Version::V3 => column % cap,
        };
        let key = local * n + column;
        let mut at = (base + offset) & (self.slots - 1);
        let mut probes = 1;
        loop {
            let slot = &mut self.keys[at as usize];
            if *slot == key {
                return probes;
            }
            if *slot == u64::MAX {
                *slot = key;
                *used += 1;
                return probes;
            }
            at = (at + 1) & (self.slots - 1);
            probes += 1;
        }
    }
}
