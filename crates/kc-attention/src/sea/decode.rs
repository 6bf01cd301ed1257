//! One token at a time.

use kc_core::{Error, Result, Tensor, TensorView};

use super::plan::Plan;
use super::stream::{HeadSums, Source, Stream};
use super::{SeaLayer, finite};

/// What a causal layer remembers of a batch of sequences: the keys and values of all tokens, and else a state whose size
/// does not depend on their number.
#[derive(Debug)]
pub struct SeaState {
    plan: Plan,
    streams: Vec<Stream>,
    /// Keys and values of each batch entry `[H, capacity, d]`.
    cache: Vec<[Vec<f32>; 2]>,
    capacity: usize,
    tokens: usize,
}

impl SeaState {
    /// Tokens seen.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Bytes of the state without keys and values: the same after every token.
    pub fn state_bytes(&self) -> usize {
        self.streams.iter().map(Stream::bytes).sum()
    }

    /// Bytes of the keys and values.
    pub fn cache_bytes(&self) -> usize {
        self.cache.iter().flatten().map(|x| size_of_val(&x[..])).sum()
    }
}

impl SeaLayer<f32> {
    /// A state of `batch` sequences without tokens.
    ///
    /// # Errors
    /// If the layer is bidirectional.
    pub fn state(&self, batch: usize) -> Result<SeaState> {
        if !self.config.causal {
            return Err(Error::unsupported("decoding", "a bidirectional layer needs all tokens at once"));
        }
        let plan = Plan::new(self.isa, &self.config, &self.params);
        let sums = || vec![HeadSums::start(&plan); self.config.heads];
        let streams = (0..batch).map(|_| Stream::new(&plan, 0, sums())).collect();
        let cache = (0..batch).map(|_| [Vec::new(), Vec::new()]).collect();
        Ok(SeaState { plan, streams, cache, capacity: 0, tokens: 0 })
    }

    /// Attention of the next token of each sequence: `q`, `k`, `v` `[N, H, 1, d]`, as the last row of
    /// [`forward`](Self::forward) on all tokens so far. Constant time, apart from reading the chosen keys.
    ///
    /// # Errors
    /// Shapes that do not fit the state, more tokens than positions, numbers that are not finite. If they arise inside, from
    /// inputs too large to square, the state is spent.
    pub fn decode(
        &self,
        state: &mut SeaState,
        q: TensorView<'_, f32, 4>,
        k: TensorView<'_, f32, 4>,
        v: TensorView<'_, f32, 4>,
    ) -> Result<Tensor<f32, 4>> {
        let (h, d) = (self.config.heads, self.config.head_dim);
        let shape = [state.streams.len(), h, 1, d];
        for (name, x) in [("q", q), ("k", k), ("v", v)] {
            if x.shape() != shape {
                return Err(Error::shape(name, format!("{shape:?}"), &x.shape()));
            }
            finite(name, x)?;
        }
        let most = self.params.pos.len() / d;
        if state.tokens >= most {
            return Err(Error::too_large("q", state.tokens as u64 + 1, most as u64, "tokens (rows of pos)"));
        }
        if state.tokens == state.capacity {
            let capacity = (2 * state.capacity).clamp(64, most.max(64));
            for cache in state.cache.iter_mut().flatten() {
                let mut grown = vec![0.0; h * capacity * d];
                let old = state.capacity * d;
                for (to, from) in grown.chunks_exact_mut(capacity * d).zip(cache.chunks_exact(old.max(1))) {
                    to[..old].copy_from_slice(from);
                }
                *cache = grown;
            }
            state.capacity = capacity;
        }
        let (q, k, v) = (q.to_tensor()?, k.to_tensor()?, v.to_tensor()?);
        let mut out = Tensor::zeros(shape)?;
        let stride = state.capacity * d;
        for (i, out) in out.as_mut_slice().chunks_exact_mut(h * d).enumerate() {
            let part = i * h * d..(i + 1) * h * d;
            let [q, k, v] = [&q, &k, &v].map(|x| &x.as_slice()[part.clone()]);
            let [keys, values] = &mut state.cache[i];
            for head in 0..h {
                let to = head * stride + state.tokens * d..head * stride + (state.tokens + 1) * d;
                keys[to.clone()].copy_from_slice(&k[head * d..(head + 1) * d]);
                values[to].copy_from_slice(&v[head * d..(head + 1) * d]);
            }
            let source =
                Source { k: keys, v: values, stride, q, own: [q, k, v], first: state.tokens, near: d };
            let mut rows: Vec<&mut [f32]> = out.chunks_exact_mut(d).collect();
            state.streams[i].step(&state.plan, &source, 1, Some(&mut rows))?;
        }
        state.tokens += 1;
        Ok(out)
    }
}
