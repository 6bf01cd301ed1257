//! Which cells of the estimate are kept: the largest of each group, counted exactly.
//!
//! Probabilities are not negative, so their bits order as they do. The threshold is found by two or three counting passes
//! over the bits, never by sorting; cells equal to the threshold are taken in the order of their flat index.

use kc_core::math::Real;
use kc_core::{DType, Error, Isa, Level, Result, TensorView, bytemuck, shape::checked_len};
use rayon::prelude::*;

use super::{Group, SeaConfig};

/// Kept cells, `[N, H, T, t_m]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    shape: [usize; 4],
    keep: Vec<bool>,
}

impl Kept {
    /// From `[N, H, T, t_m]` flags.
    ///
    /// # Errors
    /// If their number does not fit.
    pub fn new(shape: [usize; 4], keep: Vec<bool>) -> Result<Self> {
        if checked_len("keep", &shape)? != keep.len() {
            return Err(Error::shape("keep", format!("{shape:?}"), &[keep.len()]));
        }
        Ok(Kept { shape, keep })
    }

    /// `[N, H, T, t_m]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Row-major flags.
    pub fn as_slice(&self) -> &[bool] {
        &self.keep
    }

    /// Whether a cell is kept.
    ///
    /// # Panics
    /// If there is no such cell, as for slices.
    pub fn get(&self, [n, h, t, b]: [usize; 4]) -> bool {
        let [_, heads, rows, t_m] = self.shape;
        self.keep[((n * heads + h) * rows + t) * t_m + b]
    }
}

/// How many cells of a group of `size` are kept: `budget` rounded half to even, at least 1, at most all.
pub(super) fn count(budget: f64, size: usize) -> usize {
    (budget.round_ties_even().max(1.0) as usize).min(size)
}

/// How many cells of all heads a query with `width` columns keeps.
pub(super) fn count_of_query(config: &SeaConfig, width: usize) -> usize {
    let (heads, t_m) = (config.heads as f64, config.t_m as f64);
    count(heads * config.k * config.oversample * t_m / width as f64, config.heads * config.t_m)
}

/// How many cells a query with `width` columns keeps in each head.
pub(super) fn count_of_head(config: &SeaConfig, width: usize) -> usize {
    count(config.k * config.oversample * config.t_m as f64 / width as f64, config.t_m)
}

/// Scratch of [`select`].
#[derive(Debug, Default)]
pub(super) struct Selector {
    counts: Vec<u32>,
    near: Vec<u32>,
    places: Vec<u32>,
    /// A little below the last threshold of a stream: where the next one is looked for first.
    guess: u32,
}

/// Bits of the key that the first pass looks at; the rest is left to the few cells in the bucket of the threshold.
const COARSE: u32 = 12;

impl Selector {
    /// The bits of the `count`-th largest of `keys`, and how many cells equal to it belong to the `count`.
    ///
    /// Keys are the bits of f32 numbers that are not negative; `count` is 1 to their number.
    pub(super) fn threshold(&mut self, keys: &[u32], count: usize) -> (u32, usize) {
        // The sign bit is 0: the top bits are 19..31.
        let shift = 31 - COARSE;
        self.counts.clear();
        self.counts.resize(1 << COARSE, 0);
        for &key in keys {
            self.counts[(key >> shift) as usize & ((1 << COARSE) - 1)] += 1;
        }
        let (mut left, mut bucket) = (count, (1usize << COARSE) - 1);
        while (self.counts[bucket] as usize) < left {
            left -= self.counts[bucket] as usize;
            bucket -= 1;
        }
        self.near.clear();
        for &key in keys {
            if (key >> shift) as usize == bucket {
                self.near.push(key);
            }
        }
        let at = self.near.len() - left;
        let (_, &mut threshold, above) = self.near.select_nth_unstable(at);
        let larger = above.iter().filter(|&&key| key > threshold).count();
        (threshold, left - larger)
    }
}

impl Selector {
    /// Appends the places of the `count` largest of `values`, rising. Neighbouring queries have similar thresholds, so
    /// only the values above a guess are looked at closely; the guess does not change the result.
    pub(super) fn cells(&mut self, isa: Isa, values: &[f32], count: usize, cells: &mut Vec<u32>) {
        let keys: &[u32] = bytemuck::cast_slice(values);
        if count >= keys.len() {
            cells.extend(0..keys.len() as u32);
            return;
        }
        let mut places = std::mem::take(&mut self.places);
        places.clear();
        if self.guess > 0 {
            at_least(isa, keys, self.guess, &mut places);
        }
        let (threshold, equal) = if places.len() >= count {
            self.near.clear();
            self.near.extend(places.iter().map(|&place| keys[place as usize]));
            let at = self.near.len() - count;
            let (_, &mut threshold, above) = self.near.select_nth_unstable(at);
            let larger = above.iter().filter(|&&key| key > threshold).count();
            (threshold, count - larger)
        } else {
            let found = self.threshold(keys, count);
            places.clear();
            at_least(isa, keys, found.0.max(1), &mut places);
            found
        };
        if threshold == 0 {
            places.clear();
            places.extend(0..keys.len() as u32);
        }
        let mut equal = equal;
        for &place in &places {
            let key = keys[place as usize];
            if key > threshold || (key == threshold && equal > 0) {
                equal -= usize::from(key == threshold);
                cells.push(place);
            }
        }
        self.places = places;
        self.guess = (f32::from_bits(threshold) * 0.95).to_bits();
    }
}

/// Appends the places of keys of at least `least`, which is above 0.
fn at_least(isa: Isa, keys: &[u32], least: u32, places: &mut Vec<u32>) {
    #[cfg(target_arch = "x86_64")]
    if isa.level() >= Level::Avx2 {
        return super::x86::at_least(isa, keys, least, places);
    }
    let _ = (isa, Level::Avx2);
    super::portable::at_least(keys, least, 0, places);
}

/// The cells with the `count` largest values: `keep` gets their flags. Ties go to the lower index.
pub(super) fn select<T: Real>(values: &[T], count: usize, keep: &mut [bool], selector: &mut Selector) {
    if T::DTYPE == DType::F32 {
        let keys: &[u32] = bytemuck::cast_slice(values);
        let (threshold, mut equal) = selector.threshold(keys, count);
        for (key, keep) in keys.iter().zip(keep) {
            *keep = *key > threshold || (*key == threshold && equal > 0);
            equal -= usize::from(*key == threshold && equal > 0);
        }
        return;
    }
    // Training in f64: order by value, then by index.
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    let before = |a: &u32, b: &u32| {
        values[*b as usize].to_f64().total_cmp(&values[*a as usize].to_f64()).then(a.cmp(b))
    };
    if count < order.len() {
        order.select_nth_unstable_by(count, before);
    }
    keep.fill(false);
    order[..count].iter().for_each(|&at| keep[at as usize] = true);
}

/// The cells that the mask is made of: the largest of `prob` `[N, H, T, t_m]` in each group. Padded queries keep none.
///
/// # Errors
/// Shapes and lengths that do not fit, values that are negative or not finite.
pub fn topk_mask<T: Real>(prob: TensorView<'_, T, 4>, lengths: &[usize], config: &SeaConfig) -> Result<Kept> {
    config.check()?;
    let [batch, heads, rows, t_m] = prob.shape();
    if heads != config.heads || t_m != config.t_m {
        let want = format!("[N, {}, T, {}]", config.heads, config.t_m);
        return Err(Error::shape("prob", want, &prob.shape()));
    }
    if lengths.len() != batch || lengths.iter().any(|&len| len == 0 || len > rows) {
        return Err(Error::argument(
            "lengths",
            format!("{batch} lengths of 1 to {rows}"),
            format!("{lengths:?}"),
        ));
    }
    let mut prob = prob.to_tensor()?;
    // Zeros have one sign, so that bits order as numbers do.
    prob.as_mut_slice().iter_mut().for_each(|x| *x = *x + T::ZERO);
    let values = prob.as_slice();
    if let Some(at) = values.iter().position(|x| *x < T::ZERO || !x.to_f64().is_finite()) {
        return Err(Error::not_finite("prob", &[at], values[at].to_f64()));
    }
    let mut keep = vec![false; values.len()];
    let budget = config.k * config.oversample;
    let cells = heads * rows * t_m;
    if cells == 0 {
        return Kept::new(prob.shape(), keep);
    }
    for (n, keep) in keep.chunks_exact_mut(cells).enumerate() {
        let (values, len) = (&values[n * cells..(n + 1) * cells], lengths[n]);
        let head = |h: usize| h * rows * t_m..(h * rows + len) * t_m;
        match config.group {
            Group::CausalBatch => {
                let chosen: Vec<Vec<bool>> = (0..len)
                    .into_par_iter()
                    .map_init(Selector::default, |selector, t| {
                        let width = if config.causal { t + 1 } else { len };
                        let row: Vec<T> = (0..heads)
                            .flat_map(|h| values[(h * rows + t) * t_m..][..t_m].iter().copied())
                            .collect();
                        let mut chosen = vec![false; row.len()];
                        select(&row, count_of_query(config, width), &mut chosen, selector);
                        chosen
                    })
                    .collect();
                for (t, chosen) in chosen.iter().enumerate() {
                    for (h, chosen) in chosen.chunks_exact(t_m).enumerate() {
                        keep[(h * rows + t) * t_m..][..t_m].copy_from_slice(chosen);
                    }
                }
            }
            Group::Query => {
                let many = count_of_head(config, len);
                let work = keep.par_chunks_exact_mut(t_m).zip(values.par_chunks_exact(t_m)).enumerate();
                work.for_each_init(Selector::default, |selector, (row, (keep, values))| {
                    if row % rows < len {
                        select(values, many, keep, selector);
                    }
                });
            }
            Group::Head => {
                let many = count(budget * t_m as f64, len * t_m);
                let mut selector = Selector::default();
                for h in 0..heads {
                    select(&values[head(h)], many, &mut keep[head(h)], &mut selector);
                }
            }
            Group::Batch => {
                let valid: Vec<T> = (0..heads).flat_map(|h| values[head(h)].iter().copied()).collect();
                let mut chosen = vec![false; valid.len()];
                let many = count(heads as f64 * budget * t_m as f64, valid.len());
                select(&valid, many, &mut chosen, &mut Selector::default());
                for (h, chosen) in chosen.chunks_exact(len * t_m).enumerate() {
                    keep[head(h)].copy_from_slice(chosen);
                }
            }
        }
    }
    Kept::new(prob.shape(), keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_round_half_to_even() {
        assert_eq!([0.2, 1.5, 2.5, 3.5, 90.0].map(|x| count(x, 50)), [1, 2, 2, 4, 50]);
    }

    #[test]
    fn selection_is_that_of_a_sort() {
        let mut rng = kc_core::KcRng::new(3, 0);
        for size in [1usize, 2, 7, 100, 1000] {
            for levels in [2u64, 5, 1000] {
                let values: Vec<f32> = (0..size).map(|_| rng.below(levels) as f32 / 7.0).collect();
                let mut order: Vec<usize> = (0..size).collect();
                order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
                for many in [1, size / 3 + 1, size] {
                    let mut want = vec![false; size];
                    order[..many].iter().for_each(|&at| want[at] = true);
                    let (mut got, mut wide) = (vec![false; size], vec![true; size]);
                    let mut selector = Selector::default();
                    select(&values, many, &mut got, &mut selector);
                    for guess in [0, 0x3dcc_cccd, 0x3f80_0000] {
                        (selector.guess, selector.places) = (guess, vec![7]);
                        let mut cells = Vec::new();
                        selector.cells(Isa::best(), &values, many, &mut cells);
                        let mut got = vec![false; size];
                        cells.iter().for_each(|&at| got[at as usize] = true);
                        assert!(got == want && cells.is_sorted(), "{size} {levels} {many} {guess}");
                    }
                    let values: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
                    select(&values, many, &mut wide, &mut Selector::default());
                    assert_eq!((&got, &wide), (&want, &want), "{size} {levels} {many}");
                }
            }
        }
    }
}
