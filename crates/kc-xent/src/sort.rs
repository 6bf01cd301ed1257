//! The order of the vocabulary in which blocks are formed.

use kc_core::{Element, Error, Result};

/// A permutation of the words. Words with similar mean logits stand together, so that blocks of unlikely words can
/// be left out as a whole. Mean logits drift slowly in training: an order may serve for many steps.
///
/// ```
/// let order = kc_xent::VocabOrder::by_logits(&[0.5, -1.0, 0.0]);
/// assert_eq!(order.as_slice(), [1, 2, 0]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VocabOrder(Vec<u32>);

impl VocabOrder {
    /// By mean logit, ascending; equals stay in place.
    pub fn by_logits(mean: &[f32]) -> Self {
        let mut order: Vec<u32> = (0..mean.len() as u32).collect();
        order.sort_by(|&a, &b| mean[a as usize].total_cmp(&mean[b as usize]));
        Self(order)
    }

    /// A given permutation.
    ///
    /// # Errors
    /// `Argument` if it is none.
    pub fn new(order: Vec<u32>) -> Result<Self> {
        let mut seen = vec![false; order.len()];
        for &word in &order {
            match seen.get_mut(word as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(Error::argument("order", "every word once", word)),
            }
        }
        Ok(Self(order))
    }

    /// The words, in order.
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// Number of words.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without words.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Moves row `k` of `width` elements to row `order[k]`, in place, along the cycles of the permutation.
pub(crate) fn unpermute_rows<S: Element>(rows: &mut [S], order: &[u32], width: usize) {
    let mut done = vec![false; order.len()];
    let mut held = vec![S::default(); width];
    for start in 0..order.len() {
        if done[start] {
            continue;
        }
        held.copy_from_slice(&rows[start * width..(start + 1) * width]);
        let mut at = start;
        loop {
            let to = order[at] as usize;
            held.swap_with_slice(&mut rows[to * width..(to + 1) * width]);
            done[to] = true;
            at = to;
            if at == start {
                break;
            }
        }
    }
}
