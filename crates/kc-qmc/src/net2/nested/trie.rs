//! Flips drawn when they are first needed, in the order of the reference.
//!
//! The reference keeps a binary trie over the digits. A leaf holds the remaining digits of the one point below it
//! and as many random bits; a second point that comes there splits it level by level until their digits differ,
//! and then draws random bits for the digits that follow. So a new point shares the flips of the known point that
//! agrees with it longest, up to and with the first digit that differs, and draws the rest. Only places where two
//! points part need a node (a crit-bit tree), and a leaf can hold all flips of its point.

use crate::rng::Sfc64;

/// A link to a leaf has this bit set; one to a node has not.
const LEAF: u32 = 1 << 31;

/// One coordinate's flips.
#[derive(Debug, Clone)]
pub(super) struct Trie {
    rng: Sfc64,
    root: u32,
    nodes: Vec<Node>,
    leaves: Vec<Leaf>,
    /// Where the search may begin for each value of the first [`JUMP`] digits; empty while the trie grows.
    jumps: Vec<u32>,
    bits: u32,
}

/// Digits that a search may skip.
const JUMP: u32 = 12;

/// Where points part: all points below agree in the bits above `bit`.
#[derive(Debug, Clone, Copy)]
struct Node {
    bit: u32,
    /// Those whose bit is 0, and 1.
    children: [u32; 2],
}

#[derive(Debug, Clone, Copy)]
struct Leaf {
    x: u64,
    flips: u64,
}

impl Trie {
    /// The trie that knows the point 0, of so many bits.
    pub(super) fn new(mut rng: Sfc64, bits: u32) -> Self {
        let origin = Leaf { x: 0, flips: rng.bits(bits) };
        Self { rng, root: LEAF, nodes: Vec::new(), leaves: vec![origin], jumps: Vec::new(), bits }
    }

    /// Bytes of what is known.
    pub(super) fn bytes(&self) -> usize {
        let links = size_of::<u32>() * self.jumps.capacity();
        size_of::<Node>() * self.nodes.capacity() + size_of::<Leaf>() * self.leaves.capacity() + links
    }

    /// The known point that agrees with `x` in as many leading bits as any.
    fn nearest(&self, x: u64) -> Leaf {
        let first = match self.jumps[..] {
            [] => self.root,
            ref jumps => jumps[(x >> (self.bits - JUMP)) as usize],
        };
        self.leaves[(self.search(first, x, 0) & !LEAF) as usize]
    }

    /// Follows `x` from a link down to a leaf, or to a node that decides over a bit below `last`.
    fn search(&self, mut link: u32, x: u64, last: u32) -> u32 {
        while link & LEAF == 0 {
            let node = &self.nodes[link as usize];
            if node.bit < last {
                break;
            }
            link = node.children[(x >> node.bit & 1) as usize];
        }
        link
    }

    /// Makes searches of the trie, which will not grow any more, short.
    pub(super) fn freeze(&mut self) {
        if let Some(last) = self.bits.checked_sub(JUMP) {
            self.jumps = (0..1 << JUMP).map(|digits| self.search(self.root, digits << last, last)).collect();
        }
    }

    /// The flips of `x` as far as they are known, and the bits (from the lowest on) where they are not.
    pub(super) fn flips(&self, x: u64) -> (u64, u64) {
        let leaf = self.nearest(x);
        let open = (x ^ leaf.x).checked_ilog2().map_or(0, |bit| (1 << bit) - 1);
        (leaf.flips, open)
    }

    /// Makes all flips of `x` known.
    pub(super) fn insert(&mut self, x: u64) {
        // A crit-bit search may end at a point that parts from x early, but then no point agrees longer.
        let leaf = self.nearest(x);
        let Some(bit) = (x ^ leaf.x).checked_ilog2() else { return };
        let flips = leaf.flips >> bit << bit | self.rng.bits(bit);
        let new = LEAF | self.leaves.len() as u32;
        self.leaves.push(Leaf { x, flips });

        // Nodes further down have lower bits.
        let (mut parent, mut other) = (None, self.root);
        while other & LEAF == 0 {
            let node = self.nodes[other as usize];
            if node.bit < bit {
                break;
            }
            let side = (x >> node.bit & 1) as usize;
            parent = Some((other as usize, side));
            other = node.children[side];
        }
        let next = self.nodes.len() as u32;
        match parent {
            None => self.root = next,
            Some((node, side)) => self.nodes[node].children[side] = next,
        }
        let children = if x >> bit & 1 == 1 { [other, new] } else { [new, other] };
        self.nodes.push(Node { bit, children });
    }
}
