//! The settings of a loss, and what backward passes are asked for.

use kc_core::{DType, Error, Isa, Result};

/// How the losses of the tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduction {
    /// The mean over the tokens that count (with class weights: over their weights).
    #[default]
    Mean,
    /// The sum.
    Sum,
    /// One loss per token, 0 at ignored places.
    None,
}

/// Below which key a block of the gradient is left out. The key of an entry is `|p - [j = target]|`, before any
/// scaling; with a gradient of the log-sum-exp `max(|p - [j = target]|, p)`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Filter {
    /// The precision of the inputs over 32: bf16 2^-12, f16 2^-15, f32 2^-28.
    #[default]
    Auto,
    /// This, at least 0.
    Value(f64),
    /// Nothing is left out.
    None,
}

impl Filter {
    /// The threshold for inputs of `dtype`; `None` for exact gradients.
    pub fn threshold(self, dtype: DType) -> Option<f64> {
        match self {
            Filter::None => None,
            Filter::Value(eps) => Some(eps),
            Filter::Auto => Some(match dtype {
                DType::BF16 => 2f64.powi(-12),
                DType::F16 => 2f64.powi(-15),
                DType::F64 => 2f64.powi(-57),
                _ => 2f64.powi(-28),
            }),
        }
    }
}

/// The variants of the method that have names of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Both gradients filtered.
    Cce,
    /// Nothing filtered.
    CceExact,
    /// The gradient of E filtered, that of C whole: for pretraining, where rare words need their small gradients.
    FullC,
    /// The gradient of C filtered, that of E whole.
    FullE,
}

/// How to compute a loss and its gradients. The default is the paper's setting.
#[derive(Debug, Clone, PartialEq)]
pub struct XentConfig {
    /// Targets of this value do not count.
    pub ignore_index: i64,
    /// Logits become `cap tanh(z / cap)`, `cap > 0`.
    pub softcap: Option<f64>,
    /// How the losses of the tokens become one.
    pub reduction: Reduction,
    /// Token `t` of a sequence predicts the target at `t + shift`; less than the length of a sequence.
    pub shift: usize,
    /// Which blocks of the gradients are left out.
    pub filter: Filter,
    /// Whether the gradient of E is filtered.
    pub filter_e: bool,
    /// Whether the gradient of C is filtered.
    pub filter_c: bool,
    /// Whether blocks are formed of words with similar mean logits (only when something is filtered).
    pub sort_vocab: bool,
    /// Share of the target that is spread over all words, 0 to 1. Above 0 nothing is filtered: every entry matters.
    pub label_smoothing: f64,
    /// Whether the gradient of E must be summed in f32. It always is, whatever the inputs: this is recorded only.
    pub accum_e_fp32: bool,
    /// Whether the gradient of C must be summed in f32. It always is, whatever the inputs: this is recorded only.
    pub accum_c_fp32: bool,
    /// A weight of at least 0 for each word.
    pub class_weights: Option<Vec<f32>>,
    /// Adds `z_loss * lse^2` of each token (reduced like the loss) to what is differentiated.
    pub z_loss: f64,
    /// Tokens and words of a filter block, 1 to 1024 each.
    pub block: (usize, usize),
    /// Whether NaN and infinity in the inputs are an error; else they go through.
    pub check_finite: bool,
    /// The instructions to use.
    pub isa: Isa,
}

impl Default for XentConfig {
    fn default() -> Self {
        Self {
            ignore_index: -100,
            softcap: None,
            reduction: Reduction::Mean,
            shift: 0,
            filter: Filter::Auto,
            filter_e: true,
            filter_c: true,
            sort_vocab: true,
            label_smoothing: 0.0,
            accum_e_fp32: false,
            accum_c_fp32: false,
            class_weights: None,
            z_loss: 0.0,
            block: (128, 128),
            check_finite: false,
            isa: Isa::best(),
        }
    }
}

impl XentConfig {
    /// The defaults with what a preset sets: filter and sums.
    pub fn preset(preset: Preset) -> Self {
        Self::default().with_preset(preset)
    }

    /// This, with what a preset sets.
    pub fn with_preset(mut self, preset: Preset) -> Self {
        if preset == Preset::CceExact {
            self.filter = Filter::None;
        }
        self.filter_e = preset != Preset::FullE;
        self.filter_c = preset != Preset::FullC;
        self.accum_e_fp32 = preset != Preset::Cce;
        self.accum_c_fp32 = preset != Preset::Cce;
        self
    }

    /// The threshold in force: `None` if nothing is filtered.
    pub fn threshold(&self, dtype: DType) -> Option<f64> {
        let any = (self.filter_e || self.filter_c) && self.label_smoothing == 0.0;
        self.filter.threshold(dtype).filter(|_| any)
    }

    pub(crate) fn check(&self, vocabulary: usize) -> Result<()> {
        if let Some(cap) = self.softcap
            && !(cap > 0.0 && cap.is_finite())
        {
            return Err(Error::argument("softcap", "a finite number above 0", cap));
        }
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            return Err(Error::argument("label_smoothing", "0 to 1", self.label_smoothing));
        }
        if let Filter::Value(eps) = self.filter
            && (eps.is_nan() || eps < 0.0)
        {
            return Err(Error::argument("filter_eps", "at least 0", eps));
        }
        if !self.z_loss.is_finite() {
            return Err(Error::argument("z_loss", "a finite number", self.z_loss));
        }
        for size in [self.block.0, self.block.1] {
            if !(1..=1024).contains(&size) {
                return Err(Error::argument("block", "1 to 1024 tokens and words", size));
            }
        }
        let Some(weights) = &self.class_weights else { return Ok(()) };
        if weights.len() != vocabulary {
            return Err(Error::shape("class_weights", format!("[{vocabulary}]"), &[weights.len()]));
        }
        if let Some(j) = weights.iter().position(|w| !(*w >= 0.0 && w.is_finite())) {
            let got = format!("{} at {j}", weights[j]);
            return Err(Error::argument("class_weights", "finite values of at least 0", got));
        }
        Ok(())
    }
}

/// Which gradients are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Of the embeddings.
    pub e: bool,
    /// Of the classifier.
    pub c: bool,
    /// Of the bias, if there is one.
    pub bias: bool,
}

impl Default for Need {
    fn default() -> Self {
        Self { e: true, c: true, bias: true }
    }
}

/// The gradient of what follows by the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Upstream<'a> {
    /// Of a loss that is one number.
    Scalar(f64),
    /// Of each token's loss, `[B, T - shift]` row by row.
    PerToken(&'a [f32]),
}

impl Default for Upstream<'_> {
    fn default() -> Self {
        Upstream::Scalar(1.0)
    }
}

/// What a backward pass starts from.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Seeds<'a> {
    /// By the loss.
    pub loss: Upstream<'a>,
    /// By the log-sum-exp of each token, `[B, T - shift]` row by row, if it is used elsewhere.
    pub lse: Option<&'a [f32]>,
}
