//! [`SeaConfig`]: what a layer looks like.

use kc_core::{Error, Result};

/// Which cells compete for the places of the mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Group {
    /// The cells of one query, all heads together.
    #[default]
    CausalBatch,
    /// The cells of one query and head. Bidirectional only.
    Query,
    /// All queries of one head. Bidirectional only.
    Head,
    /// All queries and heads. Bidirectional only.
    Batch,
}

impl Group {
    /// All of them.
    pub const ALL: [Group; 4] = [Group::CausalBatch, Group::Query, Group::Head, Group::Batch];

    /// The name in settings files.
    pub const fn name(self) -> &'static str {
        match self {
            Group::CausalBatch => "causal_batch",
            Group::Query => "query",
            Group::Head => "head",
            Group::Batch => "batch",
        }
    }

    /// The group of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.name() == name)
    }
}

/// How many columns a chosen cell of the estimate may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Span {
    /// At most `k` (rounded down, at least 1), spread over the cell.
    #[default]
    K,
    /// At most so many, spread over the cell.
    At(usize),
    /// All of them.
    All,
}

/// The settings of a layer.
///
/// ```
/// use kc_attention::sea::SeaConfig;
/// let config = SeaConfig { t_m: 256, k: 64.0, nb_factor: 8.0, causal: true, ..SeaConfig::default() };
/// assert_eq!((config.features(), config.splits(), config.width()), (33, 2, 64));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SeaConfig {
    /// Heads, at least 1.
    pub heads: usize,
    /// Channels of a head, at least 1.
    pub head_dim: usize,
    /// Cells of an estimated row; a multiple of 4 (causal) or 2. 128 as a rule, 256 for long contexts.
    pub t_m: usize,
    /// Entries to keep per query and head, counted in tokens; above 0. 7 as a rule, 64 for language models.
    pub k: f64,
    /// Divides the number of random features; above 0.
    pub nb_factor: f64,
    /// Whether a query sees only the keys up to itself.
    pub causal: bool,
    /// Which cells compete.
    pub group: Group,
    /// How wide a cell opens.
    pub max_span: Span,
    /// Factor of `k` in the count of cells; above 0.
    pub oversample: f64,
    /// Whether the sparse part is scaled by a learned gate per query.
    pub partial_scaler: bool,
    /// Factor of the scores; `None` for `head_dim^-1/2`.
    pub scale: Option<f64>,
    /// Most tokens of a causal layer: rows of `pos`.
    pub max_len: usize,
    /// Whether values of `q` and `k` behind `lengths` are kept out of the estimator too. The published layer lets them
    /// into the sums of its linear attention and into the convolutions, and so do the defaults here.
    pub mask_padding: bool,
}

impl Default for SeaConfig {
    fn default() -> Self {
        SeaConfig {
            heads: 12,
            head_dim: 64,
            t_m: 128,
            k: 7.0,
            nb_factor: 1.0,
            causal: false,
            group: Group::CausalBatch,
            max_span: Span::K,
            oversample: 1.0,
            partial_scaler: true,
            scale: None,
            max_len: 2048,
            mask_padding: false,
        }
    }
}

impl SeaConfig {
    /// Random features of the linear attention: `floor(d ln d / nb_factor)`, at least 1.
    pub fn features(&self) -> usize {
        let d = self.head_dim as f64;
        ((d * d.ln() / self.nb_factor) as usize).max(1)
    }

    /// Channels that the row decoder makes of one head.
    pub fn splits(&self) -> usize {
        if self.causal { 2 } else { 4 }
    }

    /// Width of the decoded rows.
    pub fn width(&self) -> usize {
        self.t_m / if self.causal { 4 } else { 2 }
    }

    /// Channels of the convolutions.
    pub fn channels(&self) -> usize {
        self.heads * self.splits()
    }

    /// The factor of the scores.
    pub fn score_scale(&self) -> f64 {
        self.scale.unwrap_or_else(|| (self.head_dim as f64).powf(-0.5))
    }

    /// The most columns of a cell; `usize::MAX` for all.
    pub fn span(&self) -> usize {
        match self.max_span {
            Span::K => (self.k as usize).max(1),
            Span::At(n) => n.max(1),
            Span::All => usize::MAX,
        }
    }

    /// Refuses settings that no layer can have.
    ///
    /// # Errors
    /// `t_m` (not a multiple of 4, or of 2), `k`, `nb_factor`, `oversample`, `scale`, `heads`, `head_dim`, `group` with
    /// `causal`, or sizes beyond what memory can hold.
    pub fn check(&self) -> Result<()> {
        let step = if self.causal { 4 } else { 2 };
        if self.t_m == 0 || !self.t_m.is_multiple_of(step) {
            return Err(Error::argument("t_m", format!("a multiple of {step}, above 0"), self.t_m));
        }
        for (name, value) in [("heads", self.heads), ("head_dim", self.head_dim)] {
            if value == 0 {
                return Err(Error::argument(name, "at least 1", value));
            }
        }
        for (name, value) in [("k", self.k), ("nb_factor", self.nb_factor), ("oversample", self.oversample)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::argument(name, "a finite number above 0", value));
            }
        }
        if let Some(scale) = self.scale
            && !scale.is_finite()
        {
            return Err(Error::argument("scale", "a finite number", scale));
        }
        if self.max_span == Span::At(0) {
            return Err(Error::argument("max_span", "at least 1", 0));
        }
        if self.causal && self.group != Group::CausalBatch {
            return Err(Error::argument("group", "causal_batch for a causal layer", self.group.name()));
        }
        // Everything below multiplies these; one bound keeps all products far from overflow.
        let sizes = [self.heads, self.head_dim, self.t_m, self.max_len];
        for (name, value) in ["heads", "head_dim", "t_m", "max_len"].into_iter().zip(sizes) {
            if value > 1 << 24 {
                return Err(Error::too_large(name, value as u64, 1 << 24, "elements"));
            }
        }
        if self.features() > 1 << 24 {
            return Err(Error::argument(
                "nb_factor",
                "one that leaves at most 2^24 features",
                self.nb_factor,
            ));
        }
        Ok(())
    }
}
