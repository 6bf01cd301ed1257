//! Nested uniform scrambling: a tree in which every prefix of digits has its own permutation of the next digit.
//!
//! A leaf stands for all points that share a prefix that no second point has, and has drawn a permutation for each of
//! its remaining digits at once. When a point with other digits comes, the leaf moves one level down and leaves its
//! first permutation behind. Points must therefore come in order, from the first. The permutations of a leaf are not
//! stored but drawn again where it splits.

use kc_core::{Error, Result};

use super::coordinate::sum_of_digits;
use super::matrix::DigitMatrix;
use super::random;
use crate::rng::Sfc64;

/// Points of a tree, at most.
const MOST: u64 = 1 << 24;

/// That a tree can grow to so many points.
pub(super) fn check_rows(end: u64) -> Result<()> {
    if end > MOST {
        return Err(Error::too_large("rows", end, MOST, "points of nested scrambling by the tree"));
    }
    Ok(())
}

/// The tree of one coordinate of one replication.
#[derive(Debug, Clone)]
pub(super) struct Trie {
    matrix: DigitMatrix,
    rng: Sfc64,
    /// Digits of a scrambled point.
    digits: usize,
    /// The root is the first.
    nodes: Vec<Node>,
    /// Permutations and children of inner nodes, `base` of each for every one.
    permutations: Vec<u16>,
    children: Vec<u32>,
    /// Digits of the points of leaves before and after scrambling, `digits` of each for every leaf.
    plain: Vec<u16>,
    scrambled: Vec<u16>,
    /// The leaf of each point so far.
    rows: Vec<u32>,
}

#[derive(Debug, Clone)]
enum Node {
    /// A leaf by its number, and where its permutations are drawn from.
    Leaf(u32, Box<Sfc64>),
    /// An inner node by its number.
    Inner(usize),
}

/// No child: the root is nobody's.
const NONE: u32 = 0;

impl Trie {
    pub(super) fn new(matrix: DigitMatrix, rng: Sfc64, digits: usize) -> Self {
        let mut trie = Self {
            matrix,
            rng,
            digits,
            nodes: Vec::new(),
            permutations: Vec::new(),
            children: Vec::new(),
            plain: Vec::new(),
            scrambled: Vec::new(),
            rows: Vec::new(),
        };
        let origin = vec![0; digits];
        trie.new_leaf(0, &origin, &[]);
        trie
    }

    /// Draws the permutations of a leaf at `depth` for the digits of `x`, whose first digits became `prefix`. The
    /// number of its node.
    fn new_leaf(&mut self, depth: usize, x: &[u16], prefix: &[u16]) -> u32 {
        let leaf = (self.plain.len() / self.digits) as u32;
        let here = Box::new(self.rng.clone());
        self.plain.extend_from_slice(x);
        self.scrambled.extend_from_slice(prefix);
        let mut permutation = vec![0; self.matrix.base as usize];
        for &digit in &x[depth..] {
            random::permutation(&mut self.rng, &mut permutation);
            self.scrambled.push(permutation[usize::from(digit)]);
        }
        self.nodes.push(Node::Leaf(leaf, here));
        (self.nodes.len() - 1) as u32
    }

    /// Adds the points up to `end`.
    pub(super) fn grow(&mut self, end: u64) {
        let mut x = vec![0u16; self.digits];
        for i in self.rows.len() as u64..end {
            for (slot, digit) in x.iter_mut().zip(self.matrix.digits(i)) {
                *slot = digit as u16;
            }
            let leaf = self.insert(&x);
            self.rows.push(leaf);
        }
    }

    /// The leaf of the point with digits `x`.
    fn insert(&mut self, x: &[u16]) -> u32 {
        let base = self.matrix.base as usize;
        let mut prefix = Vec::with_capacity(self.digits);
        let mut at = 0;
        loop {
            let depth = prefix.len();
            let inner = match &mut self.nodes[at] {
                Node::Inner(inner) => *inner,
                Node::Leaf(leaf, rng) => {
                    let known = &self.plain[*leaf as usize * self.digits..][..self.digits];
                    if known[depth..] == x[depth..] {
                        return *leaf;
                    }
                    // The leaf moves to the child of its own digit.
                    let (leaf, mut rng, digit) = (*leaf, rng.clone(), usize::from(known[depth]));
                    let inner = self.children.len() / base;
                    self.permutations.resize((inner + 1) * base, 0);
                    self.children.resize((inner + 1) * base, NONE);
                    random::permutation(&mut rng, &mut self.permutations[inner * base..]);
                    self.children[inner * base + digit] = self.nodes.len() as u32;
                    self.nodes[at] = Node::Inner(inner);
                    self.nodes.push(Node::Leaf(leaf, rng));
                    inner
                }
            };
            let digit = usize::from(x[depth]);
            prefix.push(self.permutations[inner * base + digit]);
            match self.children[inner * base + digit] {
                NONE => {
                    let leaf = (self.plain.len() / self.digits) as u32;
                    self.children[inner * base + digit] = self.new_leaf(depth + 1, x, &prefix);
                    return leaf;
                }
                child => at = child as usize,
            }
        }
    }

    /// The scrambled digits of point `i`.
    fn scrambled(&self, i: u64) -> &[u16] {
        &self.scrambled[self.rows[i as usize] as usize * self.digits..][..self.digits]
    }
}

/// Writes the values of the rows from `first` on, of `digits` digits that come in turn from the trees.
pub(super) fn fill(tries: &[Trie], digits: usize, first: u64, out: &mut [f64]) {
    let (alpha, base) = (tries.len(), tries[0].matrix.base);
    for (i, value) in (first..).zip(out) {
        *value = if let [trie] = tries {
            sum_of_digits(base, trie.scrambled(i)[..digits].iter().map(|&d| u32::from(d)))
        } else {
            let digit = |k: usize| u32::from(tries[k % alpha].scrambled(i)[k / alpha]);
            sum_of_digits(base, (0..digits).map(digit))
        };
    }
}
