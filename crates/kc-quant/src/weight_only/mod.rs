//! Products of f32 activations with uniform codes, without dequantising the matrix: `Y = X W^T + bias`.
//!
//! ```text
//! y[m,n] = sum_g s[n,g] (sum_{k in g} x[m,k] q[n,k] - z[n,g] sum_{k in g} x[m,k]) + bias[n]
//! ```
//!
//! and `s S(x q) + o S(x)` for groups with an offset. Codes of 1 to 8 bits are held in 2, 4, 6 or 8.
//!
//! | Rows of `X` | What multiplies |
//! |---|---|
//! | 1, up to 4 bits | each group of `X` in three signed digits of a fixed-point number; 32 products in one instruction, exact sums |
//! | up to 64 | a lane of a register holds one row of `W`; a column is taken out of the packed word with a mask where it lies, converted, and multiplied with `x` times the power of two that undoes its place |
//! | more | [`kc_gemm`], whose panels are filled from the codes |
//!
//! | Item | Shape |
//! |---|---|
//! | weights | `[N, K]` codes, scales and zeros `[N, ceil(K / group)]` |
//! | `x`, `y` | `[M, K]`, `[M, N]` f32 |
//!
//! ```
//! use kc_core::TensorView;
//! use kc_quant::{UniformGroups, WeightOnly, Zeros};
//!
//! // Two rows of three 4-bit codes; 8 stands for 0.
//! let w = UniformGroups::new([2, 3], 4, 3, vec![9, 8, 15, 0, 8, 8], vec![0.5, 0.25], Zeros::Constant(8))?;
//! let product = WeightOnly::new(&w, Some(&[0.0, 10.0]))?;
//! let y = product.forward(TensorView::from_slice([1, 3], &[1.0f32, 2.0, -1.0])?)?;
//! assert_eq!(y.as_slice(), [0.5 - 3.5, -2.0 + 10.0]);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! # Accuracy
//! The error is below `4e-6` of the sum of the magnitudes `|s x q| + |s z x|` (`|s (q - z) x|` in products of many rows,
//! where codes are dequantised): sums run in f32, within a group in several parts. A single row of numbers of at most
//! 22 bits between the largest and the smallest of a group, such as decoded FP8, is multiplied in integers, exactly. Results depend on the level and on the number of rows, not on the threads.
//!
//! # Cost
//! One row reads `N K width / 8` bytes of codes once: 4096 x 4096 codes of 4 bits take 0.70 ms on one core of a Zen 3
//! processor (0.62 ms in integers), 24 products in a nanosecond, a quarter of the time of the f32 product, which is bound
//! by memory. Two to four rows share what is unpacked and reach 35.
//!
//! # When not to use it
//! With activations in 8 bits, integer products are faster; with thousands of rows the product is as fast as that
//! of f32 and saves memory only.

use kc_core::{Error, Isa, Result, Tensor, TensorView, TensorViewMut, math};

use crate::dense;
use crate::interleaved::Interleaved;
use crate::rows::Rows;
use crate::uniform::{UniformGroups, Zeros};

mod input;
mod panels;
mod portable;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod x86;

use input::{Integers, Prepared};
pub(crate) use panels::Dequantized;
use panels::gathered;

/// Rows of a panel of codes: lanes of the kernels' registers.
const LANES: usize = 8;

/// Most rows of `X` that share unpacked codes.
const MOST: usize = 4;

/// Up to so many rows of `X` the kernel on packed codes is faster than filling panels.
const FEW: usize = 64;

/// Products with fewer multiplications stay on the calling thread.
const SERIAL: usize = 1 << 18;

/// A piece of work of one thread has at least so many pairs of panels.
const PAIRS: usize = 8;

/// A value for each row of a panel.
type Lane = [f32; LANES];

/// Packed weights, ready for products.
#[derive(Debug, Clone)]
pub struct WeightOnly {
    packed: Interleaved,
    /// `[panel][group]`
    scales: Vec<Lane>,
    zeros: Offsets,
    bias: Option<Vec<f32>>,
    order: Option<Vec<u32>>,
}

/// What codes are counted from, `[panel][group]`.
#[derive(Debug, Clone)]
enum Offsets {
    Constant(f32),
    Zeros(Vec<Lane>),
    Added(Vec<Lane>),
}

/// The zeros of one panel.
#[derive(Debug, Clone, Copy)]
enum Zero<'a> {
    Constant(f32),
    Group(&'a [Lane]),
    Added(&'a [Lane]),
}

/// One panel of weights.
#[derive(Debug, Clone, Copy)]
struct Panel<'a> {
    codes: &'a [u8],
    scales: &'a [Lane],
    zero: Zero<'a>,
}

/// How the codes of a panel lie.
#[derive(Debug, Clone, Copy)]
struct Layout {
    width: u8,
    block_bytes: usize,
    group_blocks: usize,
}

impl WeightOnly {
    /// Packs the codes of `w` `[N, K]`. `bias` has one value per row.
    ///
    /// # Errors
    /// `Shape` or `NotFinite` for the bias; `TooLarge` if memory is short.
    pub fn new(w: &UniformGroups, bias: Option<&[f32]>) -> Result<Self> {
        let [n, _] = w.shape();
        let bias = crate::bias::checked(bias, n)?;
        let packed = Interleaved::pack(w, LANES)?;
        let groups = w.groups();
        let lanes = |value: &dyn Fn(usize) -> f32| {
            let mut out = vec![[0.0; LANES]; n.div_ceil(LANES) * groups];
            for i in 0..n * groups {
                let (row, g) = (i / groups, i % groups);
                out[row / LANES * groups + g][row % LANES] = value(i);
            }
            out
        };
        let zeros = match w.zeros() {
            Zeros::Constant(zero) => Offsets::Constant(*zero as f32),
            Zeros::PerGroup(zeros) => Offsets::Zeros(lanes(&|i| zeros[i] as f32)),
            Zeros::Offset(offsets) => Offsets::Added(lanes(&|i| offsets[i])),
        };
        Ok(Self {
            packed,
            scales: lanes(&|i| w.scales()[i]),
            zeros,
            bias,
            order: w.order().map(<[u32]>::to_vec),
        })
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.packed.shape()
    }

    /// Bytes held: codes, scales, zeros, bias and order.
    pub fn bytes(&self) -> usize {
        let zeros = match &self.zeros {
            Offsets::Constant(_) => 0,
            Offsets::Zeros(values) | Offsets::Added(values) => size_of_val(values.as_slice()),
        };
        let bias = self.bias.as_ref().map_or(0, |b| size_of_val(b.as_slice()));
        let order = self.order.as_ref().map_or(0, |o| size_of_val(o.as_slice()));
        self.packed.bytes() + size_of_val(self.scales.as_slice()) + zeros + bias + order
    }

    /// `X W^T + bias`, `[M, N]`, for `x` `[M, K]` with any strides. No rows give no rows.
    ///
    /// # Errors
    /// `Shape` if `x` has not K columns; `NotFinite` with the position of a NaN or infinity.
    pub fn forward(&self, x: TensorView<'_, f32, 2>) -> Result<Tensor<f32, 2>> {
        let mut out = Tensor::zeros([x.rows(), self.shape()[0]])?;
        self.forward_into(x, out.view_mut())?;
        Ok(out)
    }

    /// As [`forward`](Self::forward), into `out` `[M, N]`, which is not read.
    pub fn forward_into(&self, x: TensorView<'_, f32, 2>, out: TensorViewMut<'_, f32, 2>) -> Result<()> {
        self.forward_with(Isa::best(), x, out)
    }

    /// As [`forward_into`](Self::forward_into), at a level.
    pub fn forward_with(
        &self,
        isa: Isa,
        x: TensorView<'_, f32, 2>,
        out: TensorViewMut<'_, f32, 2>,
    ) -> Result<()> {
        let [n, k] = self.shape();
        if x.cols() != k {
            return Err(Error::shape("x", format!("[M, {k}] to match w"), &x.shape()));
        }
        if out.shape() != [x.rows(), n] {
            return Err(Error::shape("out", format!("{:?}", [x.rows(), n]), &out.shape()));
        }
        let rows = Rows::of(x)?;
        for i in 0..x.rows() {
            if let Some(j) = math::first_non_finite(rows.row(i)) {
                return Err(Error::not_finite("x", &[i, j], f64::from(rows.row(i)[j])));
            }
        }
        let bias = self.bias.as_deref();
        if x.rows() > FEW {
            let weights = Dequantized { weights: self, isa };
            return match &self.order {
                None => dense::product(isa, x, &weights, bias, out),
                Some(order) => {
                    let x = gathered(&rows, x.rows(), order)?;
                    dense::product(isa, x.view(), &weights, bias, out)
                }
            };
        }
        input::with_scratch(|scratch| {
            let pairs = n.div_ceil(2 * LANES);
            let parallel = x.rows() * n * k >= SERIAL && kc_core::par::threads() > 1;
            if x.rows() == 1
                && self.packed.width() <= 4
                && let Some(integers) = Integers::of(self, rows.row(0), scratch)
            {
                return self.few(isa, &Input::Integers(integers), 0..pairs, out, parallel);
            }
            let input = Input::Floats(Prepared::of(isa, self, &rows, x.rows(), scratch));
            self.few(isa, &input, 0..pairs, out, parallel)
        })
    }

    /// Rows of the result for `pairs` of panels; `out` begins with the first of their columns. Halves the work for
    /// idle threads.
    fn few(
        &self,
        isa: Isa,
        input: &Input<'_>,
        pairs: std::ops::Range<usize>,
        out: TensorViewMut<'_, f32, 2>,
        parallel: bool,
    ) -> Result<()> {
        if parallel && pairs.len() >= 2 * PAIRS {
            let middle = pairs.start + pairs.len() / 2;
            let (head, tail) = out.split_at(1, (middle - pairs.start) * 2 * LANES)?;
            let (a, b) = rayon::join(
                || self.few(isa, input, pairs.start..middle, head, true),
                || self.few(isa, input, middle..pairs.end, tail, true),
            );
            return a.and(b);
        }
        self.few_here(isa, input, pairs, out);
        Ok(())
    }

    fn few_here(
        &self,
        isa: Isa,
        input: &Input<'_>,
        pairs: std::ops::Range<usize>,
        mut out: TensorViewMut<'_, f32, 2>,
    ) {
        let layout = self.layout();
        let panels = self.shape()[0].div_ceil(self.packed.lanes());
        for (at, pair) in pairs.enumerate() {
            // A last panel without a neighbour stands in for it; what it would give is not stored.
            let both = [self.panel(2 * pair), self.panel((2 * pair + 1).min(panels - 1))];
            let (column, bias_at) = (at * 2 * LANES, pair * 2 * LANES);
            let width = (2 * LANES).min(out.shape()[1] - column);
            let bias = self.bias.as_ref().map(|bias| &bias[bias_at..bias_at + width]);
            match input {
                Input::Floats(input) => {
                    for first in (0..input.rows()).step_by(MOST) {
                        let rows = input.batch(first);
                        let mut sums = [[[0.0; LANES]; 2]; MOST];
                        multiply(isa, layout, both, rows.as_slice(), &mut sums);
                        for (r, sums) in sums.iter().enumerate().take(rows.as_slice().len()) {
                            write(out.row_mut(first + r), column, &sums.as_flattened()[..width], bias);
                        }
                    }
                }
                Input::Integers(row) => {
                    let mut sums = [[0.0; LANES]; 2];
                    multiply_one(isa, layout, both, *row, &mut sums);
                    write(out.row_mut(0), column, &sums.as_flattened()[..width], bias);
                }
            }
        }
    }

    fn layout(&self) -> Layout {
        Layout {
            width: self.packed.width(),
            block_bytes: self.packed.block_bytes(),
            group_blocks: self.packed.group_blocks(),
        }
    }

    fn panel(&self, index: usize) -> Panel<'_> {
        let groups = self.packed.groups();
        let part = |values: &'_ Vec<Lane>| index * groups..(index * groups + groups).min(values.len());
        let zero = match &self.zeros {
            Offsets::Constant(zero) => Zero::Constant(*zero),
            Offsets::Zeros(values) => Zero::Group(&values[part(values)]),
            Offsets::Added(values) => Zero::Added(&values[part(values)]),
        };
        Panel { codes: self.packed.panel(index), scales: &self.scales[part(&self.scales)], zero }
    }
}

/// The rows of a call as a kernel reads them.
enum Input<'a> {
    Floats(Prepared<'a>),
    Integers(Integers<'a>),
}

/// Stores sums plus bias from `column` on.
fn write(mut row: TensorViewMut<'_, f32, 1>, column: usize, sums: &[f32], bias: Option<&[f32]>) {
    for (j, sum) in sums.iter().enumerate() {
        row.set([column + j], sum + bias.map_or(0.0, |bias| bias[j]));
    }
}

/// `sums[p][lane]` of two panels and one row of `X` in integers, for codes of at most four bits.
fn multiply_one(isa: Isa, layout: Layout, panels: [Panel<'_>; 2], row: Integers<'_>, sums: &mut [Lane; 2]) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        level if level > kc_core::Level::Portable => x86::multiply_one(isa, layout, panels, row, sums),
        _ => portable::multiply_one(layout, panels, row, sums),
    }
}

/// `sums[r][p][lane]` of two panels and up to [`MOST`] rows of `X`.
fn multiply(
    isa: Isa,
    layout: Layout,
    panels: [Panel<'_>; 2],
    rows: &[input::Row<'_>],
    sums: &mut [[Lane; 2]; MOST],
) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        level if level > kc_core::Level::Portable => x86::multiply(isa, layout, panels, rows, sums),
        _ => portable::multiply(layout, panels, rows, sums),
    }
}
