//! Factors of keys and queries around rotary positions.
//!
//! Before the rotation the two channels of a pair may only have the same factor, for then it commutes with turning them.
//! Behind it any channel may have its own, applied at run time; the few channels with the largest keys get one.

use kc_core::{Error, Result, Tensor, TensorView, TensorViewMut};

use super::smooth::Heads;

/// Which channels are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PairStyle {
    /// `i` and `i + hd / 2`: Llama.
    #[default]
    Half,
    /// `2 i` and `2 i + 1`: GPT-J.
    Interleaved,
}

impl PairStyle {
    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            PairStyle::Half => "half",
            PairStyle::Interleaved => "interleaved",
        }
    }

    /// The channel that is rotated together with `channel`, in heads of `hd`.
    pub const fn partner(self, channel: usize, hd: usize) -> usize {
        match self {
            PairStyle::Half => (channel + hd / 2) % hd,
            PairStyle::Interleaved => channel ^ 1,
        }
    }
}

/// How [`rope_scales`] chooses factors. The default is that of the published run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    /// The largest norm of a pair before the rotation becomes this.
    pub alpha: f64,
    /// The largest magnitude of the channels chosen behind the rotation becomes this.
    pub beta: f64,
    /// Channels of a head chosen behind the rotation, at most half of them; their partners come along.
    pub top_k: usize,
    /// Which channels are rotated together.
    pub style: PairStyle,
}

impl Default for RopeConfig {
    fn default() -> Self {
        Self { alpha: 8.0, beta: 8.0, top_k: 8, style: PairStyle::Half }
    }
}

/// Before or behind the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before: fold these into the projections.
    Pre,
    /// Behind: apply these at run time.
    Post,
}

/// Factors of the channels of each key/value head. Queries have the reciprocals.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeScales {
    pre: Tensor<f64, 2>,
    post: Tensor<f64, 2>,
}

/// Factors from calibration keys before and behind the rotation, both `[T, KVH, hd]`.
///
/// # Errors
/// `Shape` unless both agree; `NotFinite`; `Argument` for an odd `hd`, `top_k` above `hd / 2`, or `alpha` or `beta` that
/// are not positive.
pub fn rope_scales(
    pre: TensorView<'_, f32, 3>,
    post: TensorView<'_, f32, 3>,
    config: &RopeConfig,
) -> Result<RopeScales> {
    let [t, heads, hd] = pre.shape();
    if post.shape() != pre.shape() {
        return Err(Error::shape("k_post", format!("{:?} to match k_pre", pre.shape()), &post.shape()));
    }
    if !hd.is_multiple_of(2) {
        return Err(Error::argument("k_pre", "an even number of channels", hd));
    }
    if config.top_k > hd / 2 {
        return Err(Error::argument("top_k", format!("at most {}", hd / 2), config.top_k));
    }
    for (name, value) in [("alpha", config.alpha), ("beta", config.beta)] {
        if !(value.is_finite() && value > 0.0) {
            return Err(Error::argument(name, "a positive number", value));
        }
    }
    for (name, k) in [("k_pre", pre), ("k_post", post)] {
        check_finite(name, k)?;
    }
    let mut scales = RopeScales { pre: Tensor::zeros([heads, hd])?, post: Tensor::zeros([heads, hd])? };
    scales.pre.as_mut_slice().fill(1.0);
    scales.post.as_mut_slice().fill(1.0);
    let at = |k: TensorView<'_, f32, 3>, i, h, c| f64::from(k.at([i, h, c]));
    for h in 0..heads {
        for c in 0..hd {
            let partner = config.style.partner(c, hd);
            let norm = |i| at(pre, i, h, c).hypot(at(pre, i, h, partner));
            let largest = (0..t).map(norm).fold(0.0, f64::max);
            scales.pre[[h, c]] = if largest == 0.0 { 1.0 } else { config.alpha / largest };
        }
        let largest: Vec<f64> =
            (0..hd).map(|c| (0..t).map(|i| at(post, i, h, c).abs()).fold(0.0, f64::max)).collect();
        let mut order: Vec<usize> = (0..hd).collect();
        // Stable: the smaller index comes first among equals.
        order.sort_by(|&a, &b| largest[b].total_cmp(&largest[a]));
        for &top in &order[..config.top_k] {
            for c in [top, config.style.partner(top, hd)] {
                scales.pre[[h, c]] = 1.0;
                scales.post[[h, c]] = if largest[c] == 0.0 { 1.0 } else { config.beta / largest[c] };
            }
        }
    }
    Ok(scales)
}

impl RopeScales {
    /// The factors of keys, `[KVH, hd]`.
    pub fn keys(&self, stage: Stage) -> TensorView<'_, f64, 2> {
        match stage {
            Stage::Pre => self.pre.view(),
            Stage::Post => self.post.view(),
        }
    }

    /// The factors of queries, `[H, hd]`: the reciprocals, for `group` query heads to a key/value head.
    pub fn queries(&self, stage: Stage, group: usize) -> Result<Tensor<f64, 2>> {
        let keys = self.keys(stage);
        let [heads, hd] = keys.shape();
        if group == 0 {
            return Err(Error::argument("group", "at least 1 query head", group));
        }
        Tensor::from_fn([heads * group, hd], |[h, c]| 1.0 / keys.at([h / group, c]))
    }

    /// Multiplies keys `[T, KVH, hd]`.
    ///
    /// # Errors
    /// `Shape` unless heads and channels agree.
    pub fn apply_to_keys(&self, stage: Stage, k: TensorViewMut<'_, f32, 3>) -> Result<()> {
        multiply("k", self.keys(stage), k)
    }

    /// Multiplies queries `[T, H, hd]` with the reciprocals; a query head `h` belongs to key/value head `h / (H / KVH)`.
    ///
    /// # Errors
    /// `Argument` unless the key/value heads divide the heads; `Shape` unless the channels agree.
    pub fn apply_to_queries(&self, stage: Stage, q: TensorViewMut<'_, f32, 3>) -> Result<()> {
        let group = Heads { heads: q.shape()[1], kv_heads: self.pre.shape()[0] }.group()?;
        multiply("q", self.queries(stage, group)?.view(), q)
    }

    /// The key projection `[KVH hd, D]` and its bias with the factors before the rotation in its rows.
    ///
    /// # Errors
    /// `Shape` unless the rows agree.
    pub fn fold_keys(
        &self,
        w: TensorView<'_, f64, 2>,
        bias: Option<&[f64]>,
    ) -> Result<(Tensor<f64, 2>, Option<Vec<f64>>)> {
        fold(self.pre.as_slice(), w, bias)
    }

    /// The query projection `[H hd, D]` and its bias with the reciprocals in its rows.
    ///
    /// # Errors
    /// `Shape` unless the rows are those of a multiple of the key/value heads.
    pub fn fold_queries(
        &self,
        w: TensorView<'_, f64, 2>,
        bias: Option<&[f64]>,
    ) -> Result<(Tensor<f64, 2>, Option<Vec<f64>>)> {
        let rows = self.pre.len().max(1);
        let group = (w.rows() / rows).max(1);
        fold(self.queries(Stage::Pre, group)?.as_slice(), w, bias)
    }
}

fn fold(
    factors: &[f64],
    w: TensorView<'_, f64, 2>,
    bias: Option<&[f64]>,
) -> Result<(Tensor<f64, 2>, Option<Vec<f64>>)> {
    if w.rows() != factors.len() {
        return Err(Error::shape("w", format!("[{}, D], one row per channel", factors.len()), &w.shape()));
    }
    if let Some(bias) = bias.filter(|b| b.len() != factors.len()) {
        return Err(Error::shape("bias", format!("[{}]", factors.len()), &[bias.len()]));
    }
    let folded = Tensor::from_fn(w.shape(), |[n, j]| w.at([n, j]) * factors[n])?;
    Ok((folded, bias.map(|bias| bias.iter().zip(factors).map(|(b, f)| b * f).collect())))
}

fn multiply(
    name: &'static str,
    factors: TensorView<'_, f64, 2>,
    mut x: TensorViewMut<'_, f32, 3>,
) -> Result<()> {
    let ([t, heads, hd], want) = (x.shape(), factors.shape());
    if [heads, hd] != want {
        return Err(Error::shape(name, format!("[T, {}, {}]", want[0], want[1]), &x.shape()));
    }
    for i in 0..t {
        for h in 0..heads {
            for c in 0..hd {
                let old = f64::from(x.as_view().at([i, h, c]));
                x.set([i, h, c], (old * factors.at([h, c])) as f32);
            }
        }
    }
    Ok(())
}

pub(super) fn check_finite(name: &'static str, x: TensorView<'_, f32, 3>) -> Result<()> {
    let [_, heads, hd] = x.shape();
    match x.iter().position(|x| !x.is_finite()) {
        Some(at) => {
            let index = [at / (heads * hd), at / hd % heads, at % hd];
            Err(Error::not_finite(name, &index, f64::from(x.at(index))))
        }
        None => Ok(()),
    }
}
