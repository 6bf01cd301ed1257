//! The definition in plain loops: bit by bit, point by point, one random number at a time. For tests; the fast
//! code does not call it.

use std::ops::Range;

use kc_core::{Error, Result};

use super::nested::hash::{Key, LEVELS, MARGIN, spread};
use super::{DigitalNetConfig, GeneratingMatrices};
use crate::rng::{Seed, Sfc64};
use crate::sequence::{Order, Randomize};

/// The points `rows` of a configured net, which must not be scrambled nested (see [`Nested`]): integers of shape
/// (replications, rows, dimensions), and how many bits they have.
///
/// # Errors
/// Listed dimensions that are not there; `Unsupported` for nested scrambling.
pub fn digits(config: &DigitalNetConfig, rows: Range<u64>) -> Result<(u32, Vec<u64>)> {
    let alpha = config.alpha.max(1);
    let dims = config.dims.resolve(config.table.dims() / alpha)?;
    let d = dims.len();
    let components: Vec<usize> = if alpha == 1 { dims } else { (0..alpha * d).collect() };
    let table = config.table.matrices(&components)?;
    let r = config.replications;
    let (drop, table_bits) = match table.bits() {
        bits if bits > config.bits => (bits - config.bits, config.bits),
        bits => (0, bits),
    };
    let columns = table.shape()[2];
    let entry = |replication, dim, k| entry(&table, replication, dim, k) >> drop;
    let mut rng = config.seed.rng();

    // matrix[replication][dim][column]
    let mut scrambled = vec![vec![vec![0u64; columns]; components.len()]; r];
    let (mut bits, out_bits) = match config.randomize {
        Randomize::None | Randomize::Ds => (table_bits, config.bits.min(alpha as u32 * table_bits)),
        Randomize::Lms | Randomize::LmsDs => (config.bits, config.bits),
        _ => {
            return Err(Error::unsupported(
                "this randomisation",
                "none, ds, lms and lms-ds are defined here",
            ));
        }
    };
    for (replication, matrices) in scrambled.iter_mut().enumerate() {
        for (dim, matrix) in matrices.iter_mut().enumerate() {
            let scramble = matches!(config.randomize, Randomize::Lms | Randomize::LmsDs)
                .then(|| scramble_rows(&mut rng, table_bits, config.bits));
            for (k, column) in matrix.iter_mut().enumerate() {
                *column = entry(replication, dim, k);
                if let Some(rows) = &scramble {
                    *column = multiply(rows, *column);
                }
            }
        }
    }
    if alpha > 1 {
        for matrices in &mut scrambled {
            *matrices = matrices
                .chunks(alpha)
                .map(|group| {
                    let column = |k| group.iter().map(|matrix| matrix[k]).collect::<Vec<_>>();
                    (0..columns).map(|k| interlace(&column(k), bits, out_bits)).collect()
                })
                .collect();
        }
        bits = out_bits;
    }
    let shifted = matches!(config.randomize, Randomize::Ds | Randomize::LmsDs);
    let result_bits = if shifted { config.bits } else { bits };
    let mut out = Vec::new();
    for matrices in &scrambled {
        let shifts: Vec<u64> =
            matrices.iter().map(|_| if shifted { rng.bits(result_bits) } else { 0 }).collect();
        for index in rows.clone() {
            for (matrix, shift) in matrices.iter().zip(&shifts) {
                out.push(point(matrix, index, config.order) << (result_bits - bits) ^ shift);
            }
        }
    }
    Ok((result_bits, out))
}

fn entry(table: &GeneratingMatrices, replication: usize, dim: usize, k: usize) -> u64 {
    let [replications, dims, columns] = table.shape();
    table.values()[((replication % replications) * dims + dim) * columns + k]
}

/// One coordinate of point `index`: the sum of the columns that the index selects.
pub fn point(columns: &[u64], index: u64, order: Order) -> u64 {
    let selector = if order == Order::Gray { index ^ index >> 1 } else { index };
    columns
        .iter()
        .enumerate()
        .filter(|&(k, _)| selector >> k & 1 == 1)
        .fold(0, |sum, (_, column)| sum ^ column)
}

/// The rows of a random scrambling matrix: row k < `table_bits` has k random entries and a 1 on the diagonal, the
/// others are full.
pub fn scramble_rows(rng: &mut Sfc64, table_bits: u32, bits: u32) -> Vec<u64> {
    (0..bits)
        .map(|k| {
            let draw = rng.bits(table_bits);
            if k >= table_bits {
                return draw;
            }
            let kept = (0..k).map(|c| draw & 1 << (table_bits - 1 - c)).sum::<u64>();
            kept + (1 << (table_bits - 1 - k))
        })
        .collect()
}

/// The product of a matrix, given by rows, and a column: bit k is the parity of row k and the column.
pub fn multiply(rows: &[u64], column: u64) -> u64 {
    rows.iter().fold(0, |sum, row| sum << 1 | u64::from((row & column).count_ones() % 2))
}

/// Bit b of the result, counted from the top of `out_bits`, is bit b / alpha of component b mod alpha.
pub fn interlace(components: &[u64], bits: u32, out_bits: u32) -> u64 {
    let alpha = components.len() as u32;
    (0..out_bits).fold(0, |sum, b| {
        let (component, at) = (components[(b % alpha) as usize], b / alpha);
        sum << 1 | if at < bits { component >> (bits - 1 - at) & 1 } else { 0 }
    })
}

/// One coordinate's nested scrambling with random numbers drawn when first needed: a trie over the digits, as the
/// reference builds it.
#[derive(Debug)]
pub struct Nested {
    rng: Sfc64,
    bits: u32,
    root: Node,
}

#[derive(Debug)]
enum Node {
    /// Nothing below yet.
    Empty,
    /// One point: its digits from here on, and as many random bits.
    Leaf(u64, u64),
    /// The flip of this level's digit, and what lies below 0 and 1.
    Split(u64, Box<[Node; 2]>),
}

impl Nested {
    /// The trie of a coordinate with this seed; it knows the point 0.
    pub fn new(seed: &Seed, bits: u32) -> Self {
        let mut rng = seed.rng();
        let tail = rng.bits(bits);
        Self { rng, bits, root: Node::Leaf(0, tail) }
    }

    /// Scrambles a point of `bits` bits, which the trie remembers.
    pub fn scramble(&mut self, x: u64) -> u64 {
        x ^ flips(&mut self.root, x, self.bits, &mut self.rng)
    }
}

/// The flips of the last `level` digits, `x`, below a node.
fn flips(node: &mut Node, x: u64, level: u32, rng: &mut Sfc64) -> u64 {
    let Some(below) = level.checked_sub(1) else { return 0 };
    let tail = |bits: u64| bits & ((1 << below) - 1);
    match node {
        Node::Empty => {
            let random = rng.bits(level);
            *node = Node::Leaf(x, random);
            random
        }
        Node::Leaf(known, random) if *known == x => *random,
        Node::Leaf(known, random) => {
            // The known point moves down on its side; its first random bit stays as this level's flip.
            let (side, flip) = (*known >> below, *random >> below);
            let mut children = [Node::Empty, Node::Empty];
            children[side as usize] = Node::Leaf(tail(*known), tail(*random));
            *node = Node::Split(flip, Box::new(children));
            flips(node, x, level, rng)
        }
        Node::Split(flip, children) => {
            let child = &mut children[(x >> below) as usize];
            *flip << below | flips(child, tail(x), below, rng)
        }
    }
}

/// One coordinate's nested scrambling by hash, digit by digit, for matrices of so many columns: the coordinate's
/// seed is the one that [`Nested`] would get.
pub fn nested_hash(seed: &Seed, columns: usize, bits: u32, x: u64) -> u64 {
    let key = Key::new(seed.clone());
    let subtrees = bits.min(columns as u32 + MARGIN).div_ceil(LEVELS).min(64 / LEVELS);
    let digit = |level: u32| if level < bits { x >> (bits - 1 - level) & 1 } else { 0 };
    let local = |subtree: u32, levels: u32| {
        (0..levels).fold(0, |prefix, l| prefix << 1 | digit(subtree * LEVELS + l))
    };
    // The hash of the first digits, 6 for each subtree above.
    let hash = |subtree: u32| {
        (0..subtree).fold(key.start, |state, above| {
            let product = u128::from(state ^ spread(local(above, LEVELS))) * u128::from(key.factor);
            (product ^ product >> 64) as u64
        })
    };
    let flip = |level: u32| {
        let subtree = level / LEVELS;
        if subtree >= subtrees {
            return hash(subtrees) >> (63 - (level - subtrees * LEVELS)) & 1;
        }
        let depth = level % LEVELS;
        hash(subtree) >> (64 - (2 << depth) + local(subtree, depth)) & 1
    };
    (0..bits).fold(0, |sum, level| sum << 1 | (digit(level) ^ flip(level)))
}
