//! What a loss is computed of, and the list of tokens that count.

use kc_core::{Element, Error, Result, TensorView, bf16, f16};
use kc_gemm::Operand;

use crate::config::XentConfig;
use crate::kernel::Scalar;

/// An element of E and C: f32, f16, bf16 (sums in f32) or f64 (sums in f64).
pub trait Embedding: Operand<Sum: Scalar> {
    #[doc(hidden)]
    fn widen(from: &[Self], to: &mut [Self::Sum]);
    #[doc(hidden)]
    fn as_wide(row: &[Self]) -> Option<&[Self::Sum]>;
}

macro_rules! embedding {
    ($($t:ty: $plain:literal, $convert:expr;)*) => {$(
        impl Embedding for $t {
            #[inline]
            fn widen(from: &[Self], to: &mut [Self::Sum]) {
                $convert(from, to);
            }
            #[inline]
            fn as_wide(row: &[Self]) -> Option<&[Self::Sum]> {
                if $plain { kc_core::bytemuck::try_cast_slice(row).ok() } else { None }
            }
        }
    )*};
}

embedding! {
    f32: true, |from: &[f32], to: &mut [f32]| to.copy_from_slice(from);
    f64: true, |from: &[f64], to: &mut [f64]| to.copy_from_slice(from);
    f16: false, |from: &[f16], to: &mut [f32]| {
        kc_core::half::slice::HalfFloatSliceExt::convert_to_f32_slice(from, to);
    };
    bf16: false, |from: &[bf16], to: &mut [f32]| {
        for (to, x) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(x.to_bits()) << 16);
        }
    };
}

/// An integer type of targets: i64 or i32.
pub trait Target: Element + Into<i64> {}

impl Target for i32 {}
impl Target for i64 {}

/// Embeddings, with or without an axis of sequences.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tokens<'a, T: Embedding> {
    /// `[T, D]`
    One(TensorView<'a, T, 2>),
    /// `[B, T, D]`
    Many(TensorView<'a, T, 3>),
}

impl<'a, T: Embedding> Tokens<'a, T> {
    /// `[B, T, D]`
    fn shape(&self) -> [usize; 3] {
        match self {
            Tokens::One(e) => [1, e.rows(), e.cols()],
            Tokens::Many(e) => e.shape(),
        }
    }

    fn row(&self, index: usize) -> TensorView<'a, T, 1> {
        match self {
            Tokens::One(e) => e.row(index),
            Tokens::Many(e) => {
                let length = e.shape()[1];
                e.matrix(index / length).row(index % length)
            }
        }
    }
}

/// Embeddings, classifier and targets of a loss.
#[derive(Debug, Clone)]
pub struct XentInput<'a, T: Embedding> {
    pub(crate) e: Tokens<'a, T>,
    /// `[V, D]`
    pub(crate) c: TensorView<'a, T, 2>,
    /// `[B, T]`, row by row.
    pub(crate) targets: Vec<i64>,
    pub(crate) bias: Option<&'a [T::Sum]>,
}

impl<'a, T: Embedding> XentInput<'a, T> {
    /// One sequence: `e` `[N, D]`, `c` `[V, D]`, `targets` `[N]`.
    ///
    /// # Errors
    /// `Shape` if they do not fit together, `Empty` without words or dimensions.
    pub fn new<I: Target>(
        e: TensorView<'a, T, 2>,
        c: TensorView<'a, T, 2>,
        targets: TensorView<'_, I, 1>,
    ) -> Result<Self> {
        if targets.shape()[0] != e.rows() {
            return Err(Error::shape("targets", format!("[{}] to match e", e.rows()), &targets.shape()));
        }
        Self::checked(Tokens::One(e), c, targets.iter().map(Into::into).collect())
    }

    /// Several sequences of one length: `e` `[B, T, D]`, `c` `[V, D]`, `targets` `[B, T]`. A shift stays inside of a
    /// sequence.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn batched<I: Target>(
        e: TensorView<'a, T, 3>,
        c: TensorView<'a, T, 2>,
        targets: TensorView<'_, I, 2>,
    ) -> Result<Self> {
        let [b, t, _] = e.shape();
        if targets.shape() != [b, t] {
            return Err(Error::shape("targets", format!("[{b}, {t}] to match e"), &targets.shape()));
        }
        Self::checked(Tokens::Many(e), c, targets.iter().map(Into::into).collect())
    }

    fn checked(e: Tokens<'a, T>, c: TensorView<'a, T, 2>, targets: Vec<i64>) -> Result<Self> {
        let d = e.shape()[2];
        if c.cols() != d {
            return Err(Error::shape("c", format!("[V, {d}] to match e {:?}", e.shape()), &c.shape()));
        }
        if d == 0 {
            return Err(Error::empty("e"));
        }
        if c.rows() == 0 {
            return Err(Error::empty("c"));
        }
        let most = u32::MAX as usize - 1;
        if c.rows() > most || targets.len() > most {
            let need = c.rows().max(targets.len()) as u64;
            return Err(Error::too_large("targets and c", need, most as u64, "rows"));
        }
        Ok(Self { e, c, targets, bias: None })
    }

    /// With a bias for each word.
    ///
    /// # Errors
    /// `Shape` if its length is not V.
    pub fn bias(mut self, bias: &'a [T::Sum]) -> Result<Self> {
        if bias.len() != self.c.rows() {
            return Err(Error::shape("bias", format!("[{}]", self.c.rows()), &[bias.len()]));
        }
        self.bias = Some(bias);
        Ok(self)
    }

    /// Sequences, and tokens of each.
    pub fn tokens(&self) -> [usize; 2] {
        [self.e.shape()[0], self.e.shape()[1]]
    }

    /// Words: V.
    pub fn vocabulary(&self) -> usize {
        self.c.rows()
    }

    /// Length of an embedding: D.
    pub fn dim(&self) -> usize {
        self.c.cols()
    }

    /// Columns from `start` on of token `index` (of B T), widened.
    pub(crate) fn token_into(&self, index: usize, start: usize, to: &mut [T::Sum]) {
        row_into(self.e.row(index), start, to);
    }
}

/// Columns from `start` on of a row, widened.
pub(crate) fn row_into<T: Embedding>(row: TensorView<'_, T, 1>, start: usize, to: &mut [T::Sum]) {
    if let Some(row) = row.as_slice() {
        T::widen(&row[start..start + to.len()], to);
        return;
    }
    for (k, to) in to.iter_mut().enumerate() {
        let mut one = [<T::Sum>::default()];
        T::widen(&[row.at([start + k])], &mut one);
        *to = one[0];
    }
}

/// A token that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    /// Its row of E, counted over all sequences.
    pub(crate) row: u32,
    /// Its place in `[B, T - shift]`.
    pub(crate) at: u32,
    /// Its target in this part of the vocabulary, or [`ELSEWHERE`].
    pub(crate) target: u32,
}

/// The target stands in another shard.
pub(crate) const ELSEWHERE: u32 = u32::MAX;

/// The tokens that count, and the shape `[B, T - shift]` of their results. `start` is the first word of this shard
/// of `vocabulary` words.
pub(crate) fn tokens<T: Embedding>(
    input: &XentInput<'_, T>,
    config: &XentConfig,
    start: usize,
    vocabulary: usize,
) -> Result<(Vec<Token>, [usize; 2])> {
    config.check(vocabulary)?;
    let [b, t] = input.tokens();
    if config.shift > 0 && config.shift >= t {
        return Err(Error::argument("shift", format!("below the {t} tokens of a sequence"), config.shift));
    }
    let length = t - config.shift;
    let mut out = Vec::new();
    for (index, &target) in input.targets.iter().enumerate() {
        if target == config.ignore_index {
            continue;
        }
        let word = usize::try_from(target).ok().filter(|&word| word < vocabulary).ok_or_else(|| {
            let expected = format!("0 to {} or {}", vocabulary - 1, config.ignore_index);
            Error::argument("targets", expected, format!("{target} at {index}"))
        })?;
        let (sequence, place) = (index / t, index % t);
        if place < config.shift {
            continue;
        }
        let at = place - config.shift;
        let local = word.checked_sub(start).filter(|&word| word < input.vocabulary());
        out.push(Token {
            row: (sequence * t + at) as u32,
            at: (sequence * length + at) as u32,
            target: local.map_or(ELSEWHERE, |word| word as u32),
        });
    }
    if config.check_finite {
        match input.e {
            Tokens::One(e) => finite("e", e.iter())?,
            Tokens::Many(e) => finite("e", e.iter())?,
        }
        finite("c", input.c.iter())?;
        finite("bias", input.bias.unwrap_or_default().iter().copied())?;
    }
    Ok((out, [b, length]))
}

fn finite<F: kc_core::Float>(arg: &'static str, mut values: impl Iterator<Item = F>) -> Result<()> {
    let mut last = 0.0;
    let found = values.position(|x| {
        last = x.to_f64();
        !last.is_finite()
    });
    found.map_or(Ok(()), |index| Err(Error::not_finite(arg, &[index], last)))
}
