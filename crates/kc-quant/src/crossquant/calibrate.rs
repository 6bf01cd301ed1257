//! Channel maxima over calibration batches.

use kc_core::{Error, Isa, KcRng, Result, TensorView};

use super::encode;
use crate::rows::Rows;

/// What a calibration run remembers of one layer: the largest magnitude of each channel and, when
/// percentiles are wanted, a sample of tokens.
///
/// The sample holds the tokens with the smallest random keys; a token's key depends on the seed, the shard and
/// the token's number only. Statistics of several shards therefore [merge](Self::merge) to the same sample in
/// any order, and a sample that was never full gives exact percentiles.
///
/// ```
/// use kc_core::TensorView;
/// use kc_quant::crossquant::ColumnStats;
/// let mut stats = ColumnStats::new(2);
/// stats.observe(TensorView::from_slice([2, 2], &[1.0f32, -5.0, -2.0, 0.5])?)?;
/// stats.observe(TensorView::from_slice([1, 2], &[1.5f32, 4.0])?)?;
/// assert_eq!(stats.maxima(), [2.0, 5.0]);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnStats {
    maxima: Vec<f32>,
    rows: u64,
    sample: Option<Sample>,
}

/// Tokens with the smallest keys, sorted by key.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    seed: u64,
    shard: u32,
    capacity: usize,
    keys: Vec<Key>,
    /// `|x|` of each kept token, in the order of `keys`.
    values: Vec<Vec<f32>>,
}

/// A token's place in the sample: random first, then its shard and number, which make it unique.
type Key = [u64; 2];

/// [`ColumnStats`] as plain arrays, to be stored and read by the caller.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StatsState {
    /// Channel maxima, `[K]`.
    pub maxima: Vec<f32>,
    /// Tokens seen, and of the sample: seed, shard, capacity (0 without a sample).
    pub counts: [u64; 4],
    /// Two words per sampled token.
    pub keys: Vec<u64>,
    /// Sampled magnitudes, `[keys / 2, K]`.
    pub values: Vec<f32>,
}

impl ColumnStats {
    /// Tokens that [`with_sample`](Self::with_sample) keeps unless told otherwise.
    pub const DEFAULT_CAPACITY: usize = 4096;

    /// For `k` channels, maxima only.
    pub fn new(k: usize) -> Self {
        Self { maxima: vec![0.0; k], rows: 0, sample: None }
    }

    /// For `k` channels, with a sample of at most `capacity` tokens for percentiles. Statistics that are to
    /// be merged share `seed` and `capacity` and have different `shard` numbers. The sample takes
    /// `4 k capacity` bytes.
    pub fn with_sample(k: usize, capacity: usize, seed: u64, shard: u32) -> Result<Self> {
        if capacity == 0 {
            return Err(Error::argument("capacity", "at least 1", capacity));
        }
        let sample = Sample { seed, shard, capacity, keys: Vec::new(), values: Vec::new() };
        Ok(Self { maxima: vec![0.0; k], rows: 0, sample: Some(sample) })
    }

    /// Adds the tokens of a batch `[T, K]`. A batch with a value that is not finite changes nothing.
    pub fn observe(&mut self, x: TensorView<'_, f32, 2>) -> Result<()> {
        if x.cols() != self.maxima.len() {
            return Err(Error::shape("x", format!("[T, {}]", self.maxima.len()), &x.shape()));
        }
        let batch = encode::column_maxima(Isa::best(), "x", x)?;
        raise(&mut self.maxima, &batch);
        if let Some(sample) = &mut self.sample {
            let rows = Rows::of(x)?;
            for i in 0..x.rows() {
                sample.offer(self.rows + i as u64, rows.row(i));
            }
        }
        self.rows += x.rows() as u64;
        Ok(())
    }

    /// Adds what another run over the same layer has seen. Associative and commutative.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if other.maxima.len() != self.maxima.len() {
            return Err(Error::shape(
                "other",
                format!("[{}] channels", self.maxima.len()),
                &[other.maxima.len()],
            ));
        }
        match (&mut self.sample, &other.sample) {
            (None, None) => {}
            (Some(mine), Some(theirs)) if (mine.seed, mine.capacity) == (theirs.seed, theirs.capacity) => {
                mine.merge(theirs)?;
            }
            _ => {
                let text = "a sample of the same seed and capacity";
                return Err(Error::argument("other", text, "another, or none"));
            }
        }
        raise(&mut self.maxima, &other.maxima);
        self.rows += other.rows;
        Ok(())
    }

    /// Largest magnitude of each channel, `[K]`.
    pub fn maxima(&self) -> &[f32] {
        &self.maxima
    }

    /// Tokens seen.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The `percent`-th percentile (0 to 100) of each channel's magnitudes over the sampled tokens, linear
    /// between neighbours. 100 gives the maxima of all tokens, sampled or not; less needs a sample.
    pub fn percentile(&self, percent: f64) -> Result<Vec<f32>> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(Error::argument("percentile", "0 to 100", percent));
        }
        if percent == 100.0 {
            return Ok(self.maxima.clone());
        }
        let Some(sample) = &self.sample else {
            return Err(Error::unsupported("percentile", "these statistics were kept without a sample"));
        };
        if sample.keys.is_empty() {
            return Ok(self.maxima.clone());
        }
        let at = percent / 100.0 * (sample.keys.len() - 1) as f64;
        let (below, part) = (at.floor() as usize, at.fract());
        let mut column = vec![0.0f32; sample.keys.len()];
        let quantile = |j: usize| {
            column.iter_mut().zip(&sample.values).for_each(|(c, row)| *c = row[j]);
            column.sort_unstable_by(f32::total_cmp);
            let low = f64::from(column[below]);
            let high = f64::from(column[(below + 1).min(column.len() - 1)]);
            (low + (high - low) * part) as f32
        };
        Ok((0..self.maxima.len()).map(quantile).collect())
    }

    /// As plain arrays.
    pub fn state(&self) -> StatsState {
        let mut state = StatsState { maxima: self.maxima.clone(), ..StatsState::default() };
        state.counts[0] = self.rows;
        if let Some(sample) = &self.sample {
            state.counts = [self.rows, sample.seed, u64::from(sample.shard), sample.capacity as u64];
            state.keys = sample.keys.concat();
            state.values = sample.values.concat();
        }
        state
    }

    /// From plain arrays, as [`state`](Self::state) gave them.
    pub fn from_state(state: StatsState) -> Result<Self> {
        let k = state.maxima.len();
        if let Some(j) = state.maxima.iter().position(|c| !c.is_finite() || *c < 0.0) {
            let text = "finite values of at least 0";
            return Err(Error::argument("maxima", text, format!("{} at {j}", state.maxima[j])));
        }
        let [rows, seed, shard, capacity] = state.counts;
        let too_many = |_| Error::argument("counts", "a shard and capacity of 32 bits", shard.max(capacity));
        let (shard, capacity) =
            (u32::try_from(shard).map_err(too_many)?, u32::try_from(capacity).map_err(too_many)? as usize);
        let kept = state.keys.len() / 2;
        if !state.keys.len().is_multiple_of(2) || kept > capacity {
            return Err(Error::shape(
                "keys",
                format!("two words for each of at most {capacity}"),
                &[state.keys.len()],
            ));
        }
        if state.values.len() != kept.saturating_mul(k) {
            return Err(Error::shape("values", format!("[{kept}, {k}]"), &[state.values.len()]));
        }
        let keys = state.keys.as_chunks::<2>().0.to_vec();
        if !keys.is_sorted() {
            return Err(Error::argument("keys", "an ascending order", "another"));
        }
        let values = if k == 0 {
            vec![Vec::new(); kept]
        } else {
            state.values.chunks(k).map(<[f32]>::to_vec).collect()
        };
        let sample = (capacity > 0).then_some(Sample { seed, shard, capacity, keys, values });
        Ok(Self { maxima: state.maxima, rows, sample })
    }
}

impl Sample {
    /// Keeps the token if its key is among the smallest.
    fn offer(&mut self, number: u64, x: &[f32]) {
        // The shard takes the upper bits of the stream, so no two tokens share one.
        let id = (u64::from(self.shard) << 40) | number;
        let key = [KcRng::new(self.seed, id).next_u64(), id];
        let place = self.keys.partition_point(|k| *k < key);
        self.insert(place, key, || x.iter().map(|x| x.abs()).collect());
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        if other.keys.iter().any(|key| self.keys.binary_search(key).is_ok()) {
            return Err(Error::argument("other", "a shard that was not merged yet", other.shard));
        }
        for (key, row) in other.keys.iter().zip(&other.values) {
            let place = self.keys.partition_point(|k| k < key);
            self.insert(place, *key, || row.clone());
        }
        Ok(())
    }

    fn insert(&mut self, place: usize, key: Key, row: impl FnOnce() -> Vec<f32>) {
        if place < self.capacity {
            self.keys.insert(place, key);
            self.values.insert(place, row());
            self.keys.truncate(self.capacity);
            self.values.truncate(self.capacity);
        }
    }
}

fn raise(maxima: &mut [f32], others: &[f32]) {
    maxima.iter_mut().zip(others).for_each(|(m, o)| *m = m.max(*o));
}
