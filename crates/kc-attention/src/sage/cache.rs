//! A cache of keys and values for decoding, in 4 or 8 bits.
//!
//! ```text
//! key j:   s_j = max|k_j - km| / qmax        codes = round((k_j - km) / s_j)
//! scores:  scale (s_q s_j (codes_q . codes_j) + q . km)
//! ```
//!
//! `km` is any vector, frozen when the cache is made: it shifts all scores of a query alike, so the output does not
//! depend on it and the lse gets it back exactly. Each key has a scale of its own. Values are halves, or codes with a factor per channel and page of
//! keys; the values of the page that is being filled are kept as they came, so that its codes do not depend on how many tokens came at
//! a time. Queries are rounded to 8 bits. Attention reads codes only: 1.5 bytes per key and channel with 4 bits and E4M3,
//! instead of 8 for f32.

use kc_core::half::slice::HalfFloatSliceExt;
use kc_core::{AnyTensor, Error, Float, Isa, Result, Tensor, TensorView, bytemuck, f16};
use kc_quant::fp8;
use rayon::prelude::*;

use super::decode;
use super::rows::{self, Rows};
use super::{QkBits, smooth};
use crate::Attention;
use crate::exact::check_finite;
use crate::layout::{Dims, Layout};

/// The smallest magnitude that a group is given.
const FLOOR: f32 = 1e-7;

/// How values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum CacheValues {
    /// IEEE halves: 2 bytes.
    F16,
    /// Within ±127 times a factor per channel and page: 1 byte.
    Int8,
    /// E4M3 times a factor per channel and page: 1 byte.
    #[default]
    Fp8,
}

impl CacheValues {
    /// Bytes of a value.
    pub(super) fn bytes(self) -> usize {
        if self == CacheValues::F16 { 2 } else { 1 }
    }

    /// The largest code.
    fn limit(self) -> f32 {
        match self {
            CacheValues::F16 => f32::INFINITY,
            CacheValues::Int8 => 127.0,
            CacheValues::Fp8 => fp8::MAX,
        }
    }

    fn name(self) -> &'static str {
        match self {
            CacheValues::F16 => "f16",
            CacheValues::Int8 => "int8",
            CacheValues::Fp8 => "fp8",
        }
    }
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheConfig {
    /// Bits of a key's codes.
    pub bits: QkBits,
    /// How values are stored.
    pub values: CacheValues,
    /// Keys of a page, a multiple of 64.
    pub page: usize,
    /// Factor of the scores, finite; `D^(-1/2)` if `None`.
    pub scale: Option<f32>,
    /// The order of the axes of what comes and goes.
    pub layout: Layout,
    /// Whether NaN and infinities are errors.
    pub check_finite: bool,
    /// The highest level to use.
    pub isa: Isa,
}

impl Default for CacheConfig {
    /// 4-bit keys and E4M3 values, in pages of 64.
    fn default() -> Self {
        CacheConfig {
            bits: QkBits::Int4,
            values: CacheValues::Fp8,
            page: 64,
            scale: None,
            layout: Layout::Hnd,
            check_finite: true,
            isa: Isa::best(),
        }
    }
}

/// Keys and values of the tokens so far, `batch` times `kv_heads` heads of `channels` channels.
///
/// ```
/// use kc_attention::sage::{CacheConfig, SageKvCache};
/// use kc_core::Tensor;
///
/// let k = Tensor::<f32, 4>::from_fn([1, 1, 20, 16], |[_, _, j, c]| ((j * 5 + c) % 9) as f32 * 0.1)?;
/// let v = Tensor::<f32, 4>::from_fn([1, 1, 20, 16], |[_, _, j, _]| j as f32)?;
/// let mut cache = SageKvCache::for_keys(k.view(), CacheConfig::default())?;
/// cache.append(k.view(), v.view())?;
/// let q = Tensor::<f32, 4>::from_fn([1, 2, 1, 16], |[_, h, _, c]| (h * c) as f32 * 0.1)?;
/// let out = cache.attend(q.view(), true)?.out;
/// assert_eq!((cache.len(), out.shape()), (20, [1, 2, 1, 16]));
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SageKvCache {
    pub(super) config: CacheConfig,
    batch: usize,
    kv_heads: usize,
    pub(super) channels: usize,
    len: usize,
    pub(super) heads: Vec<Head>,
}

/// The codes of a head.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Head {
    /// What was taken off the keys.
    pub(super) mean: Vec<f32>,
    /// Page by page `[words][page][4 bytes]`: of each key 4 codes of 8 bits, or 8 of 4 bits, the even channels low.
    pub(super) keys: Vec<u8>,
    /// One per key; 0 where a page is not filled.
    pub(super) scales: Vec<f32>,
    /// Page by page `[page][padded channels]`.
    pub(super) values: Vec<u8>,
    /// Page by page, one per padded channel; empty for halves.
    pub(super) deltas: Vec<f32>,
    /// The values of the page that is being filled, `[keys][channels]`; empty for halves.
    open: Vec<f32>,
}

impl SageKvCache {
    /// An empty cache. `mean` `[batch, kv_heads, channels]` is taken off every key: best the mean of keys like those to
    /// come; zeros if `None`.
    ///
    /// # Errors
    /// `Empty` without channels; `Argument` for the page or the scale; `Shape` or `NotFinite` for the mean.
    pub fn new(
        [batch, kv_heads, channels]: [usize; 3],
        mean: Option<TensorView<'_, f32, 3>>,
        config: CacheConfig,
    ) -> Result<Self> {
        if channels == 0 {
            return Err(Error::empty("channels"));
        }
        if config.page == 0 || !config.page.is_multiple_of(decode::LANES) {
            return Err(Error::argument("page", format!("a multiple of {}", decode::LANES), config.page));
        }
        if let Some(scale) = config.scale
            && !scale.is_finite()
        {
            return Err(Error::argument("scale", "a finite number", scale));
        }
        let shape = [batch, kv_heads, channels];
        if let Some(mean) = mean {
            if mean.shape() != shape {
                return Err(Error::shape("mean", format!("{shape:?}"), &mean.shape()));
            }
            check_finite("mean", mean.unsqueezed())?;
        }
        let head = |unit: usize| Head {
            mean: match mean {
                Some(mean) => mean.matrix(unit / kv_heads).row(unit % kv_heads).to_vec(),
                None => vec![0.0; channels],
            },
            ..Head::default()
        };
        let heads = (0..batch * kv_heads).map(head).collect();
        Ok(SageKvCache { config, batch, kv_heads, channels, len: 0, heads })
    }

    /// An empty cache that takes the mean of `k` off every key.
    ///
    /// # Errors
    /// As [`new`](Self::new) and `NotFinite` for `k`.
    pub fn for_keys<E: Float>(k: TensorView<'_, E, 4>, config: CacheConfig) -> Result<Self> {
        if config.check_finite {
            check_finite("k", k)?;
        }
        let k = config.layout.heads_first(k)?;
        let [batch, kv_heads, _, channels] = k.shape();
        let mut cache = Self::new([batch, kv_heads, channels], None, config)?;
        for (unit, head) in cache.heads.iter_mut().enumerate() {
            let k = k.outer(unit / kv_heads).matrix(unit % kv_heads);
            if k.rows() > 0 {
                head.mean = smooth::channel_mean(config.isa, k);
            }
        }
        Ok(cache)
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The settings.
    pub fn config(&self) -> &CacheConfig {
        &self.config
    }

    /// Bytes of codes, scales, factors, means and the open page.
    pub fn bytes(&self) -> usize {
        let floats = |h: &Head| h.mean.len() + h.scales.len() + h.deltas.len() + h.open.len();
        self.heads.iter().map(|h| h.keys.len() + h.values.len() + 4 * floats(h)).sum()
    }

    /// Channels of a row of values, padded.
    pub(super) fn wide(&self) -> usize {
        self.channels.next_multiple_of(decode::WIDE)
    }

    /// Words of a key.
    pub(super) fn words(&self) -> usize {
        self.channels.div_ceil(self.per_word())
    }

    fn per_word(&self) -> usize {
        if self.config.bits == QkBits::Int4 { 8 } else { 4 }
    }

    /// Appends tokens: keys and values `[B, Hkv, n, D]` in the configuration's layout.
    ///
    /// # Errors
    /// `Shape`; `NotFinite` (then nothing was appended).
    pub fn append<E: Float>(&mut self, k: TensorView<'_, E, 4>, v: TensorView<'_, E, 4>) -> Result<()> {
        if self.config.check_finite {
            check_finite("k", k)?;
            check_finite("v", v)?;
        }
        let (k, v) = (self.config.layout.heads_first(k)?, self.config.layout.heads_first(v)?);
        let [_, _, n, _] = k.shape();
        let want = [self.batch, self.kv_heads, n, self.channels];
        if k.shape() != want {
            return Err(Error::shape("k", format!("{want:?} of the cache"), &k.shape()));
        }
        if v.shape() != want {
            return Err(Error::shape("v", format!("{want:?} to match k"), &v.shape()));
        }
        let (first, kv_heads) = (self.len, self.kv_heads);
        let sizes = self.sizes();
        self.heads.par_iter_mut().enumerate().try_for_each(|(unit, head)| {
            let [k, v] = [k, v].map(|x| x.outer(unit / kv_heads).matrix(unit % kv_heads));
            let (mut keys, mut values) = (Rows::new(k), Rows::new(v));
            for j in 0..n {
                head.push(&sizes, first + j, keys.get(j), values.get(j))?;
            }
            head.close(&sizes, first + n)
        })?;
        self.len += n;
        Ok(())
    }

    fn sizes(&self) -> Sizes {
        let CacheConfig { bits, values, page, isa, .. } = self.config;
        let (words, per_word, wide) = (self.words(), self.per_word(), self.wide());
        Sizes { bits, values, page, isa, words, per_word, wide, channels: self.channels }
    }

    /// Attention of the queries of the newest tokens `[B, Hq, Nq, D]` (in the configuration's layout) over all tokens;
    /// `causal` lets the last query see all and each before it one fewer. Query head `h` reads key head `h / (Hq / Hkv)`. The lse
    /// `[B, Hq, Nq]` is always there. Meant for few queries: each costs a pass over the codes in the cache of the processor.
    ///
    /// # Errors
    /// `Shape`; `Empty` without tokens; `NotFinite`.
    pub fn attend<E: Float>(&self, q: TensorView<'_, E, 4>, causal: bool) -> Result<Attention<E>> {
        if self.config.check_finite {
            check_finite("q", q)?;
        }
        let heads_first = self.config.layout.heads_first(q)?;
        let keys = [self.batch, self.kv_heads, self.len, self.channels];
        let [batch, _, _, channels] = heads_first.shape();
        if [batch, channels] != [self.batch, self.channels] {
            let expected = format!("[{}, Hq, Nq, {}] of the cache", self.batch, self.channels);
            return Err(Error::shape("q", expected, &heads_first.shape()));
        }
        let dims = Dims::of(heads_first.shape(), keys, keys)?;
        let mut out = Tensor::zeros(q.shape())?;
        let mut lse = Tensor::zeros([dims.batch, dims.heads, dims.queries])?;
        if !out.is_empty() {
            decode::attend(self, heads_first, &dims, causal, &mut out, &mut lse)?;
        }
        Ok(Attention { out, lse: Some(lse) })
    }

    /// The codes of key `j` of a head, in the order of the channels.
    fn key(&self, unit: usize, j: usize) -> Vec<i8> {
        let (page, at) = (j / self.config.page, j % self.config.page);
        let words = self.words();
        let code = |c: usize| {
            let (word, place) = (c / self.per_word(), c % self.per_word());
            let start = ((page * words + word) * self.config.page + at) * 4;
            match self.config.bits {
                QkBits::Int8 => self.heads[unit].keys[start + place] as i8,
                QkBits::Int4 => {
                    let byte = self.heads[unit].keys[start + place / 2];
                    // The nibble as the high half of a signed byte, moved down with its sign.
                    ((if place % 2 == 0 { byte << 4 } else { byte & 0xf0 }) as i8) >> 4
                }
            }
        };
        (0..self.channels).map(code).collect()
    }

    /// Everything as named tensors, to store: `k_codes` int8 `[B, Hkv, N, D]` or, for 4 bits, two's-complement nibbles
    /// `[B, Hkv, N, ceil(D / 2)]` with channel `2i` low in byte `i`; `k_scale` `[B, Hkv, N]`, `km` `[B, Hkv, D]`; `v_codes` (f16, int8 or E4M3
    /// bytes) `[B, Hkv, N, D]`, `v_delta` `[B, Hkv, pages, D]` and `v_open` `[B, Hkv, open, D]` unless halves; `settings`: bits,
    /// format of the values (0 f16, 1 int8, 2 fp8), page.
    ///
    /// # Errors
    /// Only for want of memory.
    pub fn to_tensors(&self) -> Result<Vec<(String, AnyTensor)>> {
        let [b, h, n, d] = [self.batch, self.kv_heads, self.len, self.channels];
        let (wide, page) = (self.wide(), self.config.page);
        let unit = |b: usize, h2: usize| b * h + h2;
        let mut all = Vec::new();
        let mut put = |name: &str, tensor: AnyTensor| all.push((name.to_owned(), tensor));
        let mut codes = Tensor::<i8, 4>::zeros([b, h, n, d])?;
        for (row, codes) in codes.as_mut_slice().chunks_exact_mut(d).enumerate() {
            codes.copy_from_slice(&self.key(row / n, row % n));
        }
        put(
            "k_codes",
            match self.config.bits {
                QkBits::Int8 => codes.into_any(),
                QkBits::Int4 => Tensor::<u8, 4>::from_fn([b, h, n, d.div_ceil(2)], |[i, g, j, c]| {
                    let high = if 2 * c + 1 < d { codes[[i, g, j, 2 * c + 1]] } else { 0 };
                    (codes[[i, g, j, 2 * c]] as u8 & 15) | ((high as u8) << 4)
                })?
                .into_any(),
            },
        );
        let scale = |[i, g, j]: [usize; 3]| self.heads[unit(i, g)].scales[j];
        put("k_scale", Tensor::from_fn([b, h, n], scale)?.into_any());
        put("km", Tensor::from_fn([b, h, d], |[i, g, c]| self.heads[unit(i, g)].mean[c])?.into_any());
        let byte = |[i, g, j, c]: [usize; 4]| self.heads[unit(i, g)].values[j * wide + c];
        let values = match self.config.values {
            CacheValues::F16 => Tensor::<f16, 4>::from_fn([b, h, n, d], |[i, g, j, c]| {
                let at = 2 * (j * wide + c);
                let bytes = &self.heads[unit(i, g)].values;
                f16::from_ne_bytes([bytes[at], bytes[at + 1]])
            })?
            .into_any(),
            CacheValues::Int8 => Tensor::<i8, 4>::from_fn([b, h, n, d], |i| byte(i) as i8)?.into_any(),
            CacheValues::Fp8 => Tensor::<u8, 4>::from_fn([b, h, n, d], byte)?.into_any(),
        };
        put("v_codes", values);
        if self.config.values != CacheValues::F16 {
            let delta = |[i, g, p, c]: [usize; 4]| self.heads[unit(i, g)].deltas[p * wide + c];
            put("v_delta", Tensor::from_fn([b, h, n.div_ceil(page), d], delta)?.into_any());
            let open = |[i, g, j, c]: [usize; 4]| self.heads[unit(i, g)].open[j * d + c];
            put("v_open", Tensor::from_fn([b, h, n % page, d], open)?.into_any());
        }
        let bits = if self.config.bits == QkBits::Int4 { 4 } else { 8 };
        let values = match self.config.values {
            CacheValues::F16 => 0,
            CacheValues::Int8 => 1,
            CacheValues::Fp8 => 2,
        };
        put("settings", Tensor::from_slice([3], &[bits, values, page as i64])?.into_any());
        Ok(all)
    }

    /// A cache from what [`to_tensors`](Self::to_tensors) gave; of `config`, bits, format and page are those of the tensors.
    ///
    /// # Errors
    /// `Argument` for a tensor that is missing or settings that are not known; `Shape` and `DType`; `NotFinite` for scales, means and factors;
    /// `Index` for codes that cannot occur.
    pub fn from_tensors(tensors: &[(String, AnyTensor)], config: CacheConfig) -> Result<Self> {
        let find = |name: &'static str| {
            let found = tensors.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor);
            found.ok_or_else(|| Error::argument(name, "a tensor of that name", "none"))
        };
        let settings: Tensor<i64, 1> = find("settings")?.to_tensor("settings")?;
        let (bits, values, page) = match *settings.as_slice() {
            [bits @ (4 | 8), values @ 0..=2, page] if (1..=1 << 20).contains(&page) => {
                (bits, values, page as usize)
            }
            _ => {
                return Err(Error::argument(
                    "settings",
                    "bits, format, page",
                    format!("{:?}", settings.as_slice()),
                ));
            }
        };
        let bits = if bits == 4 { QkBits::Int4 } else { QkBits::Int8 };
        let values = [CacheValues::F16, CacheValues::Int8, CacheValues::Fp8][values as usize];
        let config = CacheConfig { bits, values, page, ..config };
        let mean: Tensor<f32, 3> = find("km")?.to_tensor("km")?;
        let scale: Tensor<f32, 3> = find("k_scale")?.to_tensor("k_scale")?;
        check_finite("k_scale", scale.view().unsqueezed())?;
        let mut cache = Self::new(mean.shape(), Some(mean.view()), config)?;
        let ([b, h, d], n) = (mean.shape(), scale.shape()[2]);
        let expect = |name: &'static str, tensor: &AnyTensor, want: [usize; 4]| {
            if tensor.shape() == want {
                Ok(())
            } else {
                Err(Error::shape(name, format!("{want:?}"), tensor.shape()))
            }
        };
        if scale.shape() != [b, h, n] {
            return Err(Error::shape("k_scale", format!("[{b}, {h}, N]"), &scale.shape()));
        }
        let codes = find("k_codes")?;
        let codes: Tensor<i8, 4> = match bits {
            QkBits::Int8 => codes.to_tensor("k_codes")?,
            QkBits::Int4 => {
                expect("k_codes", codes, [b, h, n, d.div_ceil(2)])?;
                let packed: Tensor<u8, 4> = codes.to_tensor("k_codes")?;
                Tensor::from_fn([b, h, n, d], |[i, g, j, c]| {
                    let byte = packed[[i, g, j, c / 2]];
                    ((if c % 2 == 0 { byte << 4 } else { byte & 0xf0 }) as i8) >> 4
                })?
            }
        };
        if codes.shape() != [b, h, n, d] {
            return Err(Error::shape("k_codes", format!("{:?}", [b, h, n, d]), &codes.shape()));
        }
        let limit = bits.limit() as i8;
        if let Some(at) = codes.as_slice().iter().position(|c| !(-limit..=limit).contains(c)) {
            return Err(Error::argument("k_codes", format!("codes within ±{limit}"), codes.as_slice()[at]));
        }
        let stored = find("v_codes")?;
        expect("v_codes", stored, [b, h, n, d])?;
        let numbers: Vec<u8> = match values {
            CacheValues::F16 => {
                let halves: Tensor<f16, 4> = stored.to_tensor("v_codes")?;
                check_finite("v_codes", halves.view())?;
                halves.as_slice().iter().flat_map(|x| x.to_ne_bytes()).collect()
            }
            CacheValues::Int8 => {
                let codes: Tensor<i8, 4> = stored.to_tensor("v_codes")?;
                codes.as_slice().iter().map(|x| *x as u8).collect()
            }
            CacheValues::Fp8 => {
                let codes: Tensor<u8, 4> = stored.to_tensor("v_codes")?;
                fp8::check("v_codes", codes.as_slice())?;
                codes.into_vec()
            }
        };
        let (deltas, open) = match values {
            CacheValues::F16 => (None, None),
            _ => {
                let (deltas, open) = (find("v_delta")?, find("v_open")?);
                expect("v_delta", deltas, [b, h, n.div_ceil(page), d])?;
                expect("v_open", open, [b, h, n % page, d])?;
                let (deltas, open): (Tensor<f32, 4>, Tensor<f32, 4>) =
                    (deltas.to_tensor("v_delta")?, open.to_tensor("v_open")?);
                check_finite("v_delta", deltas.view())?;
                check_finite("v_open", open.view())?;
                (Some(deltas), Some(open))
            }
        };
        let (sizes, size) = (cache.sizes(), values.bytes());
        for (unit, head) in cache.heads.iter_mut().enumerate() {
            for j in 0..n {
                let row = unit * n + j;
                head.put_key(&sizes, j, &codes.as_slice()[row * d..][..d], scale.as_slice()[row]);
                head.values[j * sizes.wide * size..][..d * size]
                    .copy_from_slice(&numbers[row * d * size..][..d * size]);
            }
            if let (Some(deltas), Some(open)) = (&deltas, &open) {
                let pages = n.div_ceil(page);
                for p in 0..pages {
                    let from = &deltas.as_slice()[(unit * pages + p) * d..][..d];
                    head.deltas[p * sizes.wide..][..d].copy_from_slice(from);
                }
                head.open = open.as_slice()[unit * (n % page) * d..][..n % page * d].to_vec();
            }
        }
        cache.len = n;
        Ok(cache)
    }

    /// The format of the values, as it appears in reports.
    pub fn values_name(&self) -> &'static str {
        self.config.values.name()
    }
}

/// The sizes that a head is filled by.
struct Sizes {
    bits: QkBits,
    values: CacheValues,
    page: usize,
    isa: Isa,
    words: usize,
    per_word: usize,
    wide: usize,
    channels: usize,
}

impl Head {
    /// Adds token `j`, whose values get their codes when the page is full or [`close`](Self::close) is called.
    fn push(&mut self, sizes: &Sizes, j: usize, key: &[f32], value: &[f32]) -> Result<()> {
        let amax = f32::from_bits(rows::largest(sizes.isa, key, &self.mean)).clamp(FLOOR, f32::MAX);
        let limit = sizes.bits.limit();
        let mut codes = vec![0i8; sizes.channels];
        rows::encode(sizes.isa, key, &self.mean, limit / amax, limit, &mut codes);
        self.put_key(sizes, j, &codes, amax / limit);
        if sizes.values == CacheValues::F16 {
            let mut halves = vec![f16::ZERO; sizes.channels];
            halves.convert_from_f32_slice(value);
            let to = &mut self.values[2 * j * sizes.wide..][..2 * sizes.channels];
            to.copy_from_slice(bytemuck::cast_slice(&halves));
            return Ok(());
        }
        self.open.extend_from_slice(value);
        if (j + 1).is_multiple_of(sizes.page) {
            self.close(sizes, j + 1)?;
            self.open.clear();
        }
        Ok(())
    }

    /// Writes the codes of key `j`, making room for its page.
    fn put_key(&mut self, sizes: &Sizes, j: usize, codes: &[i8], scale: f32) {
        let (page, at) = (j / sizes.page, j % sizes.page);
        if at == 0 {
            let pages = page + 1;
            self.keys.resize(pages * sizes.words * sizes.page * 4, 0);
            self.scales.resize(pages * sizes.page, 0.0);
            self.values.resize(pages * sizes.page * sizes.wide * sizes.values.bytes(), 0);
            if sizes.values != CacheValues::F16 {
                self.deltas.resize(pages * sizes.wide, 1.0);
            }
        }
        self.scales[j] = scale;
        for (word, codes) in codes.chunks(sizes.per_word).enumerate() {
            let to = &mut self.keys[((page * sizes.words + word) * sizes.page + at) * 4..][..4];
            match sizes.bits {
                QkBits::Int8 => to.iter_mut().zip(codes).for_each(|(to, c)| *to = *c as u8),
                QkBits::Int4 => {
                    for (to, pair) in to.iter_mut().zip(codes.chunks(2)) {
                        *to = (pair[0] as u8 & 15) | (pair.get(1).map_or(0, |c| *c as u8) << 4);
                    }
                }
            }
        }
    }

    /// Gives the values of the open page, which ends before token `end`, their factors and codes.
    fn close(&mut self, sizes: &Sizes, end: usize) -> Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let (d, count) = (sizes.channels, self.open.len() / sizes.channels);
        let first = end - count;
        let deltas = &mut self.deltas[first / sizes.page * sizes.wide..][..d];
        let mut tops = vec![0u32; d];
        for row in self.open.chunks_exact(d) {
            rows::widen(sizes.isa, row, &[], &mut tops);
        }
        let limit = sizes.values.limit();
        let mut inverse = vec![0.0f32; d];
        for ((delta, inverse), top) in deltas.iter_mut().zip(&mut inverse).zip(&tops) {
            let top = f32::from_bits(*top).min(f32::MAX);
            *delta = if top > 0.0 { (top / limit).max(f32::MIN_POSITIVE) } else { 1.0 };
            *inverse = 1.0 / *delta;
        }
        let mut scaled = vec![0.0f32; d];
        let mut codes = vec![0i8; d];
        for (j, row) in self.open.chunks_exact(d).enumerate() {
            let to = &mut self.values[(first + j) * sizes.wide..][..d];
            if sizes.values == CacheValues::Int8 {
                rows::encode_channels(sizes.isa, row, &inverse, limit, &mut codes);
                to.copy_from_slice(bytemuck::cast_slice(&codes));
                continue;
            }
            scaled.iter_mut().zip(row).zip(&inverse).for_each(|((s, x), i)| *s = x * i);
            fp8::encode_slice_with(sizes.isa, &scaled, to)?;
        }
        Ok(())
    }
}
