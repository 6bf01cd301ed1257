//! [`LutLinear`]: a linear layer ready to run.

use kc_core::{Error, Isa, Level, Result, Tensor, TensorView, TensorViewMut};
use rayon::prelude::*;

use super::bcq::BcqMatrix;
use super::pack::{CODE_ROWS, Codes, Layout, OCTET, Planes, ROWS};
use super::portable;
use super::reconstruct::Reconstruct;
use super::table::{Entries, Narrow, Wide, fill8};
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::dense;

/// From so many tokens on, weights are reconstructed for a dense product: measured at 4096 x 4096 on a Zen 3 processor.
/// A product of 3 bits in f32 takes 0.57 ms a token by itself and 0.42 ms in the dense product, which takes 14 ms more for
/// whatever the tokens are; more bits cross earlier.
fn crossover(mode: LutMode, bits: u8) -> usize {
    match mode {
        LutMode::F32 if bits <= 3 => 96,
        LutMode::F32 if bits <= 6 => 32,
        LutMode::F32 => 16,
        LutMode::I16 | LutMode::I8 if bits <= 4 => 128,
        LutMode::I16 | LutMode::I8 => 32,
    }
}

/// Tokens whose tables are there at a time. The literal kernel's take half a megabyte each; all others have crossed over to
/// the dense product by then.
const BATCH: usize = 128;

/// Products with fewer weights times tokens stay on the calling thread.
const SERIAL: usize = 1 << 17;

/// The numbers that activations become in tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LutMode {
    /// f32: errors below `4e-6 sum |terms|`.
    #[default]
    F32,
    /// 13 bits, one scale per token and group: relative errors around 2e-4.
    I16,
    /// 7 bits, one scale per token and group: relative errors around 1.6 %.
    I8,
}

impl LutMode {
    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            LutMode::F32 => "f32",
            LutMode::I16 => "i16",
            LutMode::I8 => "i8",
        }
    }
}

/// Which code runs a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KernelChoice {
    /// The fastest of this processor.
    #[default]
    Auto,
    /// For AVX-512. There is no code for it beyond that for AVX2.
    Avx512,
    /// For AVX2.
    Avx2,
    /// Safe code for any processor.
    Portable,
    /// Tables of 256 f32 sums of eight activations, byte by byte: the published algorithm. [`LutMode::F32`] only.
    Literal,
}

impl KernelChoice {
    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            KernelChoice::Auto => "auto",
            KernelChoice::Avx512 => "avx512",
            KernelChoice::Avx2 => "avx2",
            KernelChoice::Portable => "portable",
            KernelChoice::Literal => "literal",
        }
    }
}

/// A linear layer `Y = X W^T + bias` with weights of 1 to 8 bits.
///
/// ```
/// use kc_core::TensorView;
/// use kc_quant::lut_gemm::{BcqMatrix, KernelChoice, LutLinear, LutMode, RtnSpec, rtn};
/// let w = TensorView::from_slice([2, 3], &[0.5f32, -0.25, 1.0, 0.125, 0.75, -0.5])?;
/// let q = BcqMatrix::from_uniform(&rtn(w, &RtnSpec { bits: 8, ..RtnSpec::default() })?)?;
/// let layer = LutLinear::new(&q, Some(&[0.0, 1.0]), LutMode::F32, KernelChoice::Auto)?;
/// let y = layer.forward(TensorView::from_slice([1, 3], &[1.0f32, 2.0, -1.0])?)?;
/// assert!((y[[0, 0]] + 1.0).abs() < 0.02 && (y[[0, 1]] - 3.125).abs() < 0.02);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug)]
pub struct LutLinear {
    weights: BcqMatrix,
    layout: Layout,
    bias: Option<Vec<f32>>,
    mode: LutMode,
    kernel: KernelChoice,
    isa: Isa,
    packed: Packed,
}

/// The weights as the kernel reads them.
#[derive(Debug)]
enum Packed {
    /// As they are stored.
    Rows,
    Codes(Vec<Codes>),
    Planes(Planes),
}

/// Memory of [`LutLinear::forward_into`] that is used again in every call.
#[derive(Debug, Clone, Default)]
pub struct LutScratch {
    /// Activations in stored order, `[M, K]`.
    rows: Vec<f32>,
    /// In octets, `[M, octets, 8]`.
    x: Vec<f32>,
    /// Sums of groups, `[M, G]`.
    sums: Vec<f32>,
    /// Tables of all tokens.
    floats: Vec<f32>,
    bytes: Vec<u8>,
    /// Scales of the tables, `[M, G]`.
    scales: Vec<f32>,
    /// Results, `[ceil(N/64), M, 64]`.
    blocks: Vec<f32>,
}

impl LutScratch {
    /// No memory yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl LutLinear {
    /// Packs `weights` for products of a mode, with an optional bias `[N]`.
    ///
    /// # Errors
    /// `Shape` and `NotFinite` for the bias; `Unsupported` for a kernel that this processor cannot run; `Argument` for
    /// integer tables in the literal kernel.
    pub fn new(
        weights: &BcqMatrix,
        bias: Option<&[f32]>,
        mode: LutMode,
        kernel: KernelChoice,
    ) -> Result<Self> {
        let n = weights.shape()[0];
        let bias = crate::bias::checked(bias, n)?;
        if kernel == KernelChoice::Literal && mode != LutMode::F32 {
            return Err(Error::argument("mode", "f32 for the literal kernel", mode.name()));
        }
        let isa = level(kernel)?;
        let kernel = match kernel {
            KernelChoice::Literal => KernelChoice::Literal,
            _ if isa.level() == Level::Portable => KernelChoice::Portable,
            _ => KernelChoice::Avx2,
        };
        let packed = match (kernel, mode) {
            (KernelChoice::Avx2, LutMode::F32) => Packed::Codes(Codes::pack(weights)?),
            (KernelChoice::Avx2, _) => Packed::Planes(Planes::pack(weights)?),
            _ => Packed::Rows,
        };
        let weights = weights.clone();
        Ok(Self { layout: Layout::of(&weights), weights, bias, mode, kernel, isa, packed })
    }

    /// `[N, K]` of the weights.
    pub fn shape(&self) -> [usize; 2] {
        self.weights.shape()
    }

    /// The weights.
    pub fn weights(&self) -> &BcqMatrix {
        &self.weights
    }

    /// The mode.
    pub fn mode(&self) -> LutMode {
        self.mode
    }

    /// The kernel that runs: avx2, portable or literal.
    pub fn kernel(&self) -> KernelChoice {
        self.kernel
    }

    /// From so many tokens on, weights are reconstructed in f32 for a dense product, whatever the mode. `None` for the
    /// literal kernel, which never does.
    pub fn crossover(&self) -> Option<usize> {
        (self.kernel != KernelChoice::Literal).then(|| crossover(self.mode, self.weights.bits()))
    }

    /// Bytes held: the weights as they are stored, which products of many tokens read, and as they are packed.
    pub fn bytes(&self) -> usize {
        match &self.packed {
            Packed::Rows => self.weights.bytes(),
            Packed::Codes(_) | Packed::Planes(_) => self.weights.bytes() + self.bytes_read(),
        }
    }

    /// Bytes of the weights that a product of a few tokens reads.
    pub fn bytes_read(&self) -> usize {
        match &self.packed {
            Packed::Rows => self.weights.bytes(),
            Packed::Codes(parts) => parts.iter().map(Codes::bytes).sum(),
            Packed::Planes(planes) => planes.bytes(),
        }
    }

    /// `X W^T + bias`, `[M, N]`, for `x` `[M, K]`. No tokens give no rows.
    pub fn forward(&self, x: TensorView<'_, f32, 2>) -> Result<Tensor<f32, 2>> {
        let mut out = Tensor::zeros([x.rows(), self.shape()[0]])?;
        self.forward_into(x, out.view_mut(), &mut LutScratch::new())?;
        Ok(out)
    }

    /// As [`forward`](Self::forward), into the caller's memory.
    ///
    /// # Errors
    /// `Shape` for `x` or `out`; `NotFinite` with the place of an activation that is NaN or infinite.
    pub fn forward_into(
        &self,
        x: TensorView<'_, f32, 2>,
        mut out: TensorViewMut<'_, f32, 2>,
        scratch: &mut LutScratch,
    ) -> Result<()> {
        let ([n, k], m) = (self.shape(), x.rows());
        if x.cols() != k {
            return Err(Error::shape("x", format!("[M, {k}] to match w"), &x.shape()));
        }
        if out.shape() != [m, n] {
            return Err(Error::shape("out", format!("{:?}", [m, n]), &out.shape()));
        }
        self.gather(x, &mut scratch.rows)?;
        if m == 0 {
            return Ok(());
        }
        if self.crossover().is_some_and(|tokens| m >= tokens) {
            let rows = TensorView::from_slice([m, k], &scratch.rows)?;
            let weights = Reconstruct { w: &self.weights, isa: self.isa };
            return dense::product(self.isa, rows, &weights, self.bias.as_deref(), out);
        }
        let rows = std::mem::take(&mut scratch.rows);
        for (batch, rows) in rows.chunks(BATCH * k).enumerate() {
            self.multiply(rows, batch * BATCH, &mut out, scratch);
        }
        scratch.rows = rows;
        Ok(())
    }

    /// The product of a batch of tokens, whose first is `first`.
    fn multiply(
        &self,
        rows: &[f32],
        first: usize,
        out: &mut TensorViewMut<'_, f32, 2>,
        scratch: &mut LutScratch,
    ) {
        let [n, k] = self.shape();
        let m = rows.len() / k;
        self.prepare(rows, m, scratch);
        let LutScratch { x, sums, floats, bytes, scales, blocks, .. } = scratch;
        blocks.resize(n.div_ceil(ROWS) * m * ROWS, 0.0);
        let tokens = Tokens { rows, x, sums, floats, bytes, scales, count: m };
        let body = |(p, block): (usize, &mut [f32])| self.block(p, &tokens, block);
        if m * n * k < SERIAL {
            blocks.chunks_mut(m * ROWS).enumerate().for_each(body);
        } else {
            blocks.par_chunks_mut(m * ROWS).enumerate().for_each(body);
        }
        for (p, block) in blocks.chunks_mut(m * ROWS).enumerate() {
            let columns = p * ROWS..n.min(p * ROWS + ROWS);
            for (token, values) in block.chunks_mut(ROWS).enumerate() {
                if let Some(bias) = &self.bias {
                    values.iter_mut().zip(&bias[columns.clone()]).for_each(|(y, bias)| *y += bias);
                }
                let mut row = out.row_mut(first + token);
                if let Some(row) = row.as_mut_slice() {
                    row[columns.clone()].copy_from_slice(&values[..columns.len()]);
                } else {
                    columns.clone().zip(values.iter()).for_each(|(column, &y)| row.set([column], y));
                }
            }
        }
    }

    /// The activations row by row, columns as the weights are stored.
    fn gather(&self, x: TensorView<'_, f32, 2>, rows: &mut Vec<f32>) -> Result<()> {
        rows.clear();
        for i in 0..x.rows() {
            let row = x.row(i).to_cow();
            if let Some(j) = row.iter().position(|x| !x.is_finite()) {
                return Err(Error::not_finite("x", &[i, j], f64::from(row[j])));
            }
            match self.weights.order() {
                Some(order) => rows.extend(order.iter().map(|&j| row[j as usize])),
                None => rows.extend_from_slice(&row),
            }
        }
        Ok(())
    }

    /// Octets, group sums and tables of all tokens.
    fn prepare(&self, rows: &[f32], m: usize, scratch: &mut LutScratch) {
        let LutScratch { x, sums, floats, bytes, scales, .. } = scratch;
        let (layout, k) = (self.layout, self.layout.columns);
        let (octets, groups) = (layout.octets(), layout.groups());
        sums.clear();
        if self.weights.offsets().is_none() {
            sums.resize(m * groups, 0.0);
        } else {
            for row in rows.chunks(k) {
                let group = |x: &[f32]| kc_core::math::sum_f64_with(self.isa, x) as f32;
                sums.extend(row.chunks(layout.group).map(group));
            }
        }
        x.resize(m * octets * OCTET, 0.0);
        for (row, x) in rows.chunks(k).zip(x.chunks_mut(octets * OCTET)) {
            layout.spread(row, x);
        }
        scales.resize(m * groups, 0.0);
        match (self.kernel, self.mode) {
            (KernelChoice::Literal, _) => {
                let tables = k.div_ceil(8);
                floats.resize(m * tables * 256, 0.0);
                for (row, out) in rows.chunks(k).zip(floats.chunks_mut(tables * 256)) {
                    row.chunks(8).zip(out.chunks_mut(256)).for_each(|(x, table)| fill8(x, table));
                }
            }
            (KernelChoice::Avx2, LutMode::F32) => {}
            (_, LutMode::F32) => {
                floats.resize(m * octets * 32, 0.0);
                portable::float_tables(x, floats);
            }
            (_, LutMode::I16) => self.integer_tables::<Wide>(x, scales, bytes),
            (_, LutMode::I8) => self.integer_tables::<Narrow>(x, scales, bytes),
        }
    }

    fn integer_tables<E: Entries>(&self, x: &[f32], scales: &mut [f32], bytes: &mut Vec<u8>) {
        let layout = self.layout;
        bytes.resize(x.len() / OCTET * E::BYTES, 0);
        let (mut x, mut out) = (x, &mut bytes[..]);
        for (at, scale) in scales.iter_mut().enumerate() {
            let octets = layout.group_octets(at % layout.groups());
            let (x_group, x_rest) = x.split_at(octets * OCTET);
            let (out_group, out_rest) = std::mem::take(&mut out).split_at_mut(octets * E::BYTES);
            *scale = super::build_tables::<E>(self.isa, x_group, out_group);
            (x, out) = (x_rest, out_rest);
        }
    }

    /// Results of 64 rows, `[M, 64]`.
    fn block(&self, p: usize, tokens: &Tokens<'_>, out: &mut [f32]) {
        match &self.packed {
            Packed::Rows => {
                let rows = p * ROWS..self.shape()[0].min(p * ROWS + ROWS);
                for (token, out) in out.chunks_mut(ROWS).enumerate() {
                    for (y, row) in out.iter_mut().zip(rows.clone()) {
                        *y = self.row(row, token, tokens);
                    }
                }
            }
            #[cfg(target_arch = "x86_64")]
            Packed::Codes(parts) => {
                out.fill(0.0);
                let stride = self.layout.octets() * OCTET;
                for codes in parts {
                    for panel in 0..ROWS / CODE_ROWS {
                        let index = p * (ROWS / CODE_ROWS) + panel;
                        if index * CODE_ROWS < self.shape()[0] {
                            let out = &mut out[panel * CODE_ROWS..];
                            x86::code_rows(self.isa, codes, index, tokens.x, stride, out);
                        }
                    }
                }
            }
            #[cfg(target_arch = "x86_64")]
            Packed::Planes(planes) => {
                for (token, out) in out.chunks_mut(ROWS).enumerate() {
                    let (bytes, scales) = (tokens.bytes(token), tokens.group(tokens.scales, token));
                    let sums = tokens.group(tokens.sums, token);
                    match self.mode {
                        LutMode::I8 => x86::narrow_panel(self.isa, planes, p, bytes, scales, sums, out),
                        _ => x86::wide_panel(self.isa, planes, p, bytes, scales, sums, out),
                    }
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            Packed::Codes(_) | Packed::Planes(_) => {}
        }
    }

    fn row(&self, row: usize, token: usize, tokens: &Tokens<'_>) -> f32 {
        let (w, layout, sums) = (&self.weights, self.layout, tokens.group(tokens.sums, token));
        let floats = tokens.part(tokens.floats, token);
        match (self.kernel, self.mode) {
            (KernelChoice::Literal, _) => {
                portable::literal_row(w, layout, row, tokens.part(tokens.rows, token), floats, sums)
            }
            (_, LutMode::F32) => portable::float_row(w, layout, row, floats, sums),
            (_, mode) => {
                let (bytes, scales) = (tokens.bytes(token), tokens.group(tokens.scales, token));
                if mode == LutMode::I16 {
                    portable::integer_row::<Wide>(w, layout, row, bytes, scales, sums)
                } else {
                    portable::integer_row::<Narrow>(w, layout, row, bytes, scales, sums)
                }
            }
        }
    }
}

/// What the rows of a product share; see [`LutScratch`].
struct Tokens<'a> {
    rows: &'a [f32],
    x: &'a [f32],
    sums: &'a [f32],
    floats: &'a [f32],
    bytes: &'a [u8],
    scales: &'a [f32],
    count: usize,
}

impl Tokens<'_> {
    /// What `all` holds for one token.
    fn part<'b, T>(&self, all: &'b [T], token: usize) -> &'b [T] {
        let len = all.len() / self.count;
        &all[token * len..][..len]
    }

    fn group<'b>(&self, all: &'b [f32], token: usize) -> &'b [f32] {
        self.part(all, token)
    }

    fn bytes(&self, token: usize) -> &[u8] {
        self.part(self.bytes, token)
    }
}

/// The level that a kernel needs.
fn level(kernel: KernelChoice) -> Result<Isa> {
    let at_least = |level: Level| {
        let reason = || format!("this processor has no {level}; choose auto or portable");
        Isa::detect(level).ok_or_else(|| Error::unsupported(format!("kernel {}", kernel.name()), reason()))
    };
    match kernel {
        KernelChoice::Auto => Ok(Isa::best()),
        KernelChoice::Avx512 => at_least(Level::Avx512),
        KernelChoice::Avx2 => at_least(Level::Avx2),
        KernelChoice::Portable | KernelChoice::Literal => Ok(Isa::PORTABLE),
    }
}
