//! Nested uniform scrambling: every digit is flipped by a bit of its own for each value of the digits before it.

use std::ops::Range;

use kc_core::{Error, Isa, Result};
use rayon::prelude::*;

use super::columns::Columns;
use super::scramble::Interlace;
use crate::rng::Seed;
use crate::sequence::NusEngine;

pub(super) mod hash;
mod trie;

use hash::{Hash, Key};
use trie::Trie;

/// Points that [`NusEngine::Auto`] scrambles as the trie does. The flips of all digits that these points pass
/// through come from their trie, those of other points below where they leave it from the hash.
pub(super) const AUTO_ROWS: u64 = 1 << 12;

/// Points times coordinates times replications that tries may hold: at most 28 bytes each.
const TRIE_POINTS: u64 = 1 << 28;

/// The flips of all replications and coordinates.
#[derive(Debug, Clone)]
pub(super) struct Nested {
    engine: NusEngine,
    /// Coordinates before interlacing.
    width: usize,
    bits: u32,
    hash: Hash,
    /// (replications, width).
    keys: Vec<Key>,
    /// (replications, width); empty for the hash engine.
    tries: Vec<Trie>,
    /// Rows that the tries hold.
    grown: u64,
    interlace: Option<Interlace>,
}

impl Nested {
    /// For points of `bits` bits from matrices of so many columns, interlaced in the end; spawns a seed for each
    /// of `replications` times `width` coordinates.
    pub(super) fn new(
        engine: NusEngine,
        seed: &mut Seed,
        replications: usize,
        width: usize,
        columns: usize,
        bits: u32,
        interlace: Option<Interlace>,
    ) -> Self {
        let seeds = seed.spawn(replications * width);
        let tries = match engine {
            NusEngine::Hash => Vec::new(),
            NusEngine::Trie | NusEngine::Auto => {
                seeds.iter().map(|seed| Trie::new(seed.rng(), bits)).collect()
            }
        };
        let keys = seeds.into_iter().map(Key::new).collect();
        Self { engine, width, bits, hash: Hash::new(columns, bits), keys, tries, grown: 0, interlace }
    }

    /// Lets the tries grow as far as the points before row `end` need. The order of rows decides over the random
    /// numbers, so all rows from 0 on enter, whichever are asked for.
    ///
    /// # Errors
    /// `TooLarge` if the tries would hold more than 2^28 points.
    pub(super) fn grow(&mut self, matrices: &[Columns], end: u64) -> Result<()> {
        let end = match self.engine {
            NusEngine::Hash => return Ok(()),
            NusEngine::Auto => end.min(AUTO_ROWS),
            NusEngine::Trie => end,
        };
        if end <= self.grown {
            return Ok(());
        }
        let need = end.saturating_mul(self.tries.len() as u64);
        if need > TRIE_POINTS {
            let arg = "points in the trie of nested scrambling (the hash engine has no limit)";
            return Err(Error::too_large(arg, need, TRIE_POINTS, "values"));
        }
        let (rows, width) = (self.grown..end, self.width);
        let freeze = self.engine == NusEngine::Auto && end == AUTO_ROWS;
        self.tries.par_iter_mut().enumerate().for_each(|(at, trie)| {
            let columns = &matrices[at / width % matrices.len()];
            columns.coordinate(at % width, rows.clone(), |x| trie.insert(x));
            if freeze {
                trie.freeze();
            }
        });
        self.grown = end;
        Ok(())
    }

    /// Scrambles rows of one replication in place.
    pub(super) fn scramble(&self, isa: Isa, replication: usize, rows: &mut [u64]) {
        let range = replication * self.width..(replication + 1) * self.width;
        match self.engine {
            NusEngine::Hash => self.hash.scramble(isa, &self.keys[range], rows),
            NusEngine::Trie => each_coordinate(&self.tries[range], rows, |trie, _, x| *x ^= trie.flips(*x).0),
            NusEngine::Auto => {
                let mut known = vec![(0, 0); rows.len()];
                let mut any_open = 0;
                each_coordinate(&self.tries[range.clone()], rows, |trie, at, x| {
                    let (flips, open) = trie.flips(*x);
                    known[at] = (*x ^ flips, open);
                    any_open |= open;
                });
                if any_open != 0 {
                    self.hash.scramble(isa, &self.keys[range], rows);
                }
                for (x, (scrambled, open)) in rows.iter_mut().zip(known) {
                    *x = scrambled & !open | *x & open;
                }
            }
        }
    }

    /// Cuts rows into batches whose integers stay in a cache: the first, or for tries, each of which should be
    /// used for long, the second.
    pub(super) fn batches(&self, rows: Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
        let values = if self.tries.is_empty() { 1 << 11 } else { 1 << 15 };
        let step = (values / self.width as u64).max(1);
        let count = (rows.end - rows.start).div_ceil(step);
        (0..count).map(move |k| {
            let start = rows.start + k * step;
            start..(rows.end - start).min(step) + start
        })
    }

    /// Bytes of keys and tries.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.keys[..])
            + self.tries.iter().map(|trie| size_of_val(trie) + trie.bytes()).sum::<usize>()
    }

    /// Coordinates before interlacing.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// How groups of coordinates become one.
    pub(super) fn interlace(&self) -> Option<&Interlace> {
        self.interlace.as_ref()
    }

    /// Numbers that tell this scrambling from others.
    pub(super) fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.keys.iter().map(Key::word).chain([u64::from(self.bits)])
    }
}

/// Calls `body` with the trie, the place and the value of each of some rows, one coordinate after the other.
fn each_coordinate(tries: &[Trie], rows: &mut [u64], mut body: impl FnMut(&Trie, usize, &mut u64)) {
    for (j, trie) in tries.iter().enumerate() {
        for at in (j..rows.len()).step_by(tries.len()) {
            body(trie, at, &mut rows[at]);
        }
    }
}
