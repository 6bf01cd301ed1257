//! Which words of a chunk are computed.

use kc_core::Isa;

use crate::backward::Terms;
use crate::config::XentConfig;
use crate::input::Embedding;
use crate::kernel::Scalar;

/// What is tested, and for which gradients it counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Filtering {
    /// Blocks whose keys are all below this are left out.
    pub(crate) threshold: Option<f64>,
    /// Whether the gradient of E leaves them out.
    pub(crate) e: bool,
    /// Whether the gradient of C does.
    pub(crate) c: bool,
    /// Whether a certain token (p near 1) still matters, through its log-sum-exp.
    pub(crate) by_lse: bool,
    /// One word with all tokens of the panel is a block; else the whole chunk is.
    pub(crate) by_word: bool,
}

impl Filtering {
    pub(crate) fn new<T: Embedding>(config: &XentConfig, by_lse: bool) -> Self {
        let threshold = config.threshold(T::DTYPE);
        let on = threshold.is_some();
        Self { threshold, e: config.filter_e && on, c: config.filter_c && on, by_lse, by_word: false }
    }

    /// Decides for a chunk of logits `z`. `targets`: (word, token), by word.
    pub(crate) fn choose<S: Scalar>(
        &self,
        isa: Isa,
        z: &mut [S],
        r: usize,
        terms: &Terms<S>,
        targets: &[(usize, usize)],
        out: &mut Kept,
    ) {
        let words = z.len() / r;
        let all = 0..words as u16;
        out.kept.clear();
        out.of = if self.by_word { words } else { 1 };
        let Some(eps) = self.threshold else {
            out.kept.extend(all.clone());
            out.computed.clone_from(&out.kept);
            out.units = out.of;
            return;
        };
        let limit = S::from_f64(eps.ln());
        let mut rest = targets;
        for j in 0..words {
            let row = &mut z[j * r..(j + 1) * r];
            let here = rest.iter().take_while(|target| target.0 == j).count();
            let (own, others) = rest.split_at(here);
            rest = others;
            // The key of a target is not p; its logit stands aside for the test.
            let mut aside = [S::ZERO; 8];
            let mut reached = own.iter().any(|&(_, i)| self.target_reaches(row[i], i, terms, eps));
            if !reached {
                for (slot, &(_, i)) in aside.iter_mut().zip(own) {
                    *slot = row[i];
                    row[i] = S::from_f32(-1e38);
                }
                // More targets than places for them: one by one.
                reached = if own.len() <= aside.len() {
                    S::reaches(isa, row, &terms.hi, limit)
                } else {
                    let target = |i: usize| own.iter().any(|own| own.1 == i);
                    (0..r).any(|i| !target(i) && !(row[i] - terms.hi[i] < limit))
                };
                for (slot, &(_, i)) in aside.iter().zip(own) {
                    row[i] = *slot;
                }
            }
            if reached {
                if !self.by_word {
                    out.kept.clear();
                    out.kept.extend(all.clone());
                    break;
                }
                out.kept.push(j as u16);
            }
        }
        out.units = if self.by_word { out.kept.len() } else { usize::from(!out.kept.is_empty()) };
        if self.e && self.c {
            out.computed.clone_from(&out.kept);
        } else {
            out.computed.clear();
            out.computed.extend(all);
        }
    }

    fn target_reaches<S: Scalar>(&self, z: S, i: usize, terms: &Terms<S>, eps: f64) -> bool {
        let p = ((z - terms.hi[i]) - terms.lo[i]).to_f64().exp();
        let key = if self.by_lse { (p - 1.0).abs().max(p) } else { (p - 1.0).abs() };
        !(key < eps)
    }
}

/// The words of a chunk that are computed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    /// Those that passed.
    pub(crate) kept: Vec<u16>,
    /// Those whose gradients of logits are needed.
    pub(crate) computed: Vec<u16>,
    /// Blocks that passed.
    pub(crate) units: usize,
    /// Blocks tested.
    pub(crate) of: usize,
}

impl Kept {
    /// Words for the gradient of E.
    pub(crate) fn for_e(&self, filtered: bool) -> &[u16] {
        if filtered { &self.kept } else { &self.computed }
    }
}
