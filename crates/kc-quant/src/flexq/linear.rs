//! [`FlexLinear`]: a linear layer on integer codes.

use std::ops::Range;

use kc_core::{Error, Float, Isa, Level, Result, Tensor, TensorView, TensorViewMut};
use rayon::prelude::*;

use super::activations::Activations;
use super::planes::Planes;
use super::portable::{Depth, PANELS, Portable, Scratch, strip};
use super::{QuantMatrix, QuantSpec, Scheme, reference};
use crate::interleaved::Interleaved;
use crate::uniform::{UniformGroups, Zeros};

/// Longest group whose sum of products of an unsigned and a signed byte always fits an `i32`.
const MAX_GROUP: usize = 65_793;
/// Rows of weights of one parallel piece of work.
const ROWS_PER_TASK: usize = 64;
/// Products with fewer multiplications stay on the calling thread.
const SERIAL: usize = 1 << 19;

/// Which kernel to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KernelChoice {
    /// The fastest of this processor.
    #[default]
    Auto,
    /// AVX-512 VNNI.
    Vnni,
    /// Bit planes, AND and population count: the paper's arithmetic.
    Popcount,
    /// AVX2.
    Avx2,
    /// Safe code for any processor.
    Portable,
    /// The definition, in plain loops.
    Reference,
}

impl KernelChoice {
    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            KernelChoice::Auto => "auto",
            KernelChoice::Vnni => "vnni",
            KernelChoice::Popcount => "popcount",
            KernelChoice::Avx2 => "avx2",
            KernelChoice::Portable => "portable",
            KernelChoice::Reference => "reference",
        }
    }
}

/// The kernel that a layer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kernel {
    /// AVX-512 VNNI.
    Vnni,
    /// Bit planes.
    Popcount,
    /// AVX2.
    Avx2,
    /// Safe code.
    Portable,
    /// The definition.
    Reference,
}

impl Kernel {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Kernel::Vnni => "vnni",
            Kernel::Popcount => "popcount",
            Kernel::Avx2 => "avx2",
            Kernel::Portable => "portable",
            Kernel::Reference => "reference",
        }
    }

    fn choose(choice: KernelChoice, isa: Isa) -> Result<Self> {
        let need = |kernel, level| {
            if isa.level() >= level {
                return Ok(kernel);
            }
            let reason =
                format!("it needs the level {level}, and {isa} is in use; `auto` chooses what there is");
            Err(Error::unsupported(format!("kernel {}", choice.name()), reason))
        };
        match choice {
            KernelChoice::Vnni => need(Kernel::Vnni, Level::Avx512Icl),
            KernelChoice::Avx2 => need(Kernel::Avx2, Level::Avx2),
            KernelChoice::Popcount => Ok(Kernel::Popcount),
            KernelChoice::Portable => Ok(Kernel::Portable),
            KernelChoice::Reference => Ok(Kernel::Reference),
            KernelChoice::Auto if isa.level() >= Level::Avx512Icl => Ok(Kernel::Vnni),
            KernelChoice::Auto if isa.level() >= Level::Avx2 => Ok(Kernel::Avx2),
            KernelChoice::Auto => Ok(Kernel::Portable),
        }
    }
}

/// Weights as the byte kernels read them: codes in panels, the rest `[strip][group][PANELS * lanes]`.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) codes: Interleaved,
    pub(super) scales: Vec<f32>,
    pub(super) zeros: Zeros,
    /// Sums of the unsigned codes of a group; empty where activations never have a zero.
    pub(super) code_sums: Vec<i32>,
}

impl Weights {
    fn pack(w: &UniformGroups, lanes: usize, with_sums: bool) -> Result<Self> {
        let codes = Interleaved::pack(w, lanes)?;
        let (row, groups, k, n) = (PANELS * lanes, w.groups(), w.shape()[1], w.shape()[0]);
        let places = n.div_ceil(row) * groups * row;
        // The place of row r of the strip s in group g, as an index of [N, G].
        let source = |i: usize| {
            let (s, g, r) = (i / (groups * row), i / row % groups, i % row);
            (s * row + r < n).then_some((s * row + r, g))
        };
        let spread = |values: &[f32]| -> Vec<f32> {
            (0..places).map(|i| source(i).map_or(0.0, |(n, g)| values[n * groups + g])).collect()
        };
        let code_sum = |i: usize| {
            source(i).map_or(0, |(n, g)| {
                let columns = g * w.group()..k.min((g + 1) * w.group());
                w.codes()[n * k..][columns].iter().map(|&c| i32::from(c)).sum()
            })
        };
        Ok(Self {
            codes,
            scales: spread(w.scales()),
            zeros: match w.zeros() {
                Zeros::Constant(zero) => Zeros::Constant(*zero),
                Zeros::PerGroup(zeros) => Zeros::PerGroup(
                    (0..places).map(|i| source(i).map_or(0, |(n, g)| zeros[n * groups + g])).collect(),
                ),
                Zeros::Offset(offsets) => Zeros::Offset(spread(offsets)),
            },
            code_sums: if with_sums { (0..places).map(code_sum).collect() } else { Vec::new() },
        })
    }

    fn bytes(&self) -> usize {
        let zeros = match &self.zeros {
            Zeros::Constant(_) => 0,
            Zeros::PerGroup(zeros) => size_of_val(zeros.as_slice()),
            Zeros::Offset(offsets) => size_of_val(offsets.as_slice()),
        };
        self.codes.bytes()
            + size_of_val(self.scales.as_slice())
            + size_of_val(self.code_sums.as_slice())
            + zeros
    }
}

/// What a kernel multiplies with.
#[derive(Debug)]
enum Packed {
    Bytes(Weights),
    Planes(Planes),
    Plain(UniformGroups),
}

/// A linear layer `y = x W^T + bias` on integer codes: weights packed for this processor, activations quantised in
/// every call in the same groups.
#[derive(Debug)]
pub struct FlexLinear {
    packed: Packed,
    kernel: Kernel,
    isa: Isa,
    /// How activations are quantised, but for their bits.
    spec: QuantSpec,
    shape: [usize; 2],
    group: usize,
    weight_bits: u8,
    order: Option<Vec<u32>>,
    bias: Option<Vec<f32>>,
    /// The largest magnitude of a zero of the weights.
    farthest_zero: u64,
}

impl FlexLinear {
    /// Packs `w` `[N, K]`; `bias` has N values.
    ///
    /// # Errors
    /// `Unsupported` for a kernel that this processor has not; `Argument` for groups of more than 65 793 columns,
    /// `Shape` or `NotFinite` for the bias.
    pub fn new(w: &QuantMatrix, bias: Option<&[f32]>, choice: KernelChoice) -> Result<Self> {
        Self::build(w.uniform(), w.spec(), bias, choice, Isa::best())
    }

    /// As [`new`](Self::new), at a level other than the best of the processor.
    pub fn new_with(isa: Isa, w: &QuantMatrix, bias: Option<&[f32]>, choice: KernelChoice) -> Result<Self> {
        Self::build(w.uniform(), w.spec(), bias, choice, isa)
    }

    /// Packs codes of any origin; activations are quantised symmetrically with f32 scales, in the same groups.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_uniform(w: &UniformGroups, bias: Option<&[f32]>, choice: KernelChoice) -> Result<Self> {
        Self::build(w, &QuantSpec::default(), bias, choice, Isa::best())
    }

    /// Takes bit planes in the layout of [`to_planes`](super::to_planes) and scales `[N, G]`, for the kernel that
    /// works on planes. The codes are symmetric.
    ///
    /// # Errors
    /// `Shape` for planes or scales of another shape.
    pub fn from_planes(
        planes: TensorView<'_, u32, 5>,
        scales: TensorView<'_, f32, 2>,
        group: usize,
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let planes = Planes::from_published(planes, scales, group)?;
        let ([n, k], bits) = (planes.shape(), planes.bits());
        Ok(Self {
            kernel: Kernel::Popcount,
            isa: Isa::best(),
            spec: QuantSpec::default(),
            shape: [n, k],
            group: planes.group(),
            weight_bits: bits,
            order: None,
            bias: crate::bias::checked(bias, n)?,
            farthest_zero: 1 << (bits - 1),
            packed: Packed::Planes(planes),
        })
    }

    fn build(
        w: &UniformGroups,
        spec: &QuantSpec,
        bias: Option<&[f32]>,
        choice: KernelChoice,
        isa: Isa,
    ) -> Result<Self> {
        let [n, k] = w.shape();
        if w.group() > MAX_GROUP {
            let expected = format!("at most {MAX_GROUP} columns, whose sums fit an i32");
            return Err(Error::argument("group", expected, w.group()));
        }
        let kernel = Kernel::choose(choice, isa)?;
        let with_sums = spec.scheme != Scheme::Sym;
        let packed = match kernel {
            Kernel::Vnni => Packed::Bytes(Weights::pack(w, 16, with_sums)?),
            Kernel::Avx2 | Kernel::Portable => Packed::Bytes(Weights::pack(w, 8, with_sums)?),
            Kernel::Popcount => Packed::Planes(Planes::from_uniform(w)),
            Kernel::Reference => Packed::Plain(w.clone()),
        };
        let farthest_zero = match w.zeros() {
            Zeros::Constant(zero) => u64::from(zero.unsigned_abs()),
            Zeros::PerGroup(zeros) => zeros.iter().map(|z| u64::from(z.unsigned_abs())).max().unwrap_or(0),
            Zeros::Offset(_) => 0,
        };
        Ok(Self {
            packed,
            kernel,
            isa,
            spec: *spec,
            shape: [n, k],
            group: w.group(),
            weight_bits: w.bits(),
            order: w.order().map(<[u32]>::to_vec),
            bias: crate::bias::checked(bias, n)?,
            farthest_zero,
        })
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The kernel that runs.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        let packed = match &self.packed {
            Packed::Bytes(w) => w.bytes(),
            Packed::Planes(w) => w.bytes(),
            Packed::Plain(w) => w.codes().len() + size_of_val(w.scales()),
        };
        packed + self.bias.as_ref().map_or(0, |b| size_of_val(b.as_slice()))
    }

    /// `y` `[M, N]` for `x` `[M, K]` with activations of `abits` (1 to 8) bits. No rows give no rows.
    ///
    /// # Errors
    /// `Shape` if K differs, `Argument` for the bits or a scale that its type cannot hold, `NotFinite` with the
    /// position of a NaN or infinity.
    pub fn forward(&self, x: TensorView<'_, f32, 2>, abits: u8) -> Result<Tensor<f32, 2>> {
        let mut y = Tensor::zeros([x.rows(), self.shape[0]])?;
        self.forward_into(x, abits, y.view_mut(), &mut Activations::new())?;
        Ok(y)
    }

    /// As [`forward`](Self::forward), into `y` of f32, f16 or bf16; `codes` is memory that is used again.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and `Shape` for `y`.
    pub fn forward_into<O: Float>(
        &self,
        x: TensorView<'_, f32, 2>,
        abits: u8,
        y: TensorViewMut<'_, O, 2>,
        codes: &mut Activations,
    ) -> Result<()> {
        let ([m, depth], [n, k]) = (x.shape(), self.shape);
        if depth != k {
            return Err(Error::shape("x", format!("[M, {k}] to match w [{n}, {k}]"), &[m, depth]));
        }
        if y.shape() != [m, n] {
            return Err(Error::shape("y", format!("[{m}, {n}]"), &y.shape()));
        }
        let spec = QuantSpec { bits: abits, ..self.spec };
        spec.check()?;
        codes.quantize(self.isa, x, &spec, self.group, self.order.as_deref())?;
        if m == 0 {
            return Ok(());
        }
        if self.may_overflow(codes) {
            let reason = "zeros so far out of the codes and groups so long that sums leave 32 bits; use smaller groups";
            return Err(Error::unsupported("scheme asym_free", reason));
        }
        self.multiply(codes, y)
    }

    /// True if a sum less its zeros might not fit an `i32`.
    fn may_overflow(&self, x: &Activations) -> bool {
        let zero = x.zeros.iter().map(|z| u64::from(z.unsigned_abs())).max().unwrap_or(0);
        let w = (1u64 << self.weight_bits) + self.farthest_zero;
        self.group as u64 * (128 + zero) * w > i32::MAX as u64
    }

    fn multiply<O: Float>(&self, x: &Activations, y: TensorViewMut<'_, O, 2>) -> Result<()> {
        let (m, [n, k]) = (x.rows, self.shape);
        let task = |(index, mut y): (usize, TensorViewMut<'_, O, 2>)| {
            let first = index * ROWS_PER_TASK;
            let rows = first..first + y.shape()[1];
            let store = |t: usize, n: usize, values: &mut [f32]| {
                if let Some(bias) = &self.bias {
                    values.iter_mut().zip(&bias[n..]).for_each(|(v, b)| *v += b);
                }
                let mut row = y.row_mut(t);
                if let Some(row) = row.as_mut_slice() {
                    row[n - first..].iter_mut().zip(values).for_each(|(y, v)| *y = O::from_f32(*v));
                } else {
                    for (i, v) in values.iter().enumerate() {
                        row.set([n - first + i], O::from_f32(*v));
                    }
                }
            };
            match &self.packed {
                Packed::Bytes(w) => self.strips(w, x, rows, store),
                Packed::Planes(w) => w.multiply(self.isa, x, rows, store),
                Packed::Plain(w) => reference::rows(w, x, rows, store),
            }
        };
        let pieces = y.chunks(1, ROWS_PER_TASK)?;
        if m.saturating_mul(n).saturating_mul(k) < SERIAL {
            pieces.into_iter().enumerate().for_each(task);
        } else {
            pieces.into_par_iter().enumerate().for_each(task);
        }
        Ok(())
    }

    fn strips(
        &self,
        w: &Weights,
        x: &Activations,
        rows: Range<usize>,
        mut store: impl FnMut(usize, usize, &mut [f32]),
    ) {
        let row = PANELS * w.codes.lanes();
        let depth = Depth::of(self.weight_bits, x.bits());
        let mut scratch = Scratch::new();
        for index in rows.start / row..rows.end.div_ceil(row) {
            let first = index * row;
            // The last strip may have more rows than the weights.
            let mut out = |t: usize, results: &mut [f32]| {
                let count = results.len().min(rows.end - first);
                store(t, first, &mut results[..count]);
            };
            match self.kernel {
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2 => super::x86::strip_avx2(self.isa, w, x, index, depth, &mut scratch, &mut out),
                #[cfg(target_arch = "x86_64")]
                Kernel::Vnni => super::x86::strip_vnni(self.isa, w, x, index, depth, &mut scratch, &mut out),
                _ => strip::<Portable, 16>(w, x, index, depth, &mut scratch, &mut out),
            }
        }
    }
}
