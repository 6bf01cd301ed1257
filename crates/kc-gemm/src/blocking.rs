//! Block sizes from the caches of this processor.

use std::sync::OnceLock;

/// Sizes of the data caches of one core, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caches {
    pub(crate) l1: usize,
    pub(crate) l2: usize,
    pub(crate) l3: usize,
}

impl Caches {
    /// What most processors have at least.
    const USUAL: Caches = Caches { l1: 32 << 10, l2: 512 << 10, l3: 8 << 20 };

    /// The caches of this processor, asked once.
    pub(crate) fn here() -> Self {
        static HERE: OnceLock<Caches> = OnceLock::new();
        *HERE.get_or_init(|| detect().unwrap_or(Self::USUAL))
    }
}

/// Leaf 4 (Intel) or 0x8000001D (AMD): one sub-leaf per cache.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn detect() -> Option<Caches> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    let amd = __cpuid(0).ebx == u32::from_le_bytes(*b"Auth");
    let (root, leaf) = if amd { (0x8000_0000, 0x8000_001d) } else { (0, 4) };
    if __cpuid(root).eax < leaf {
        return None;
    }
    let mut found = [0usize; 4];
    for index in 0..8 {
        let part = __cpuid_count(leaf, index);
        let (kind, level) = (part.eax & 31, (part.eax >> 5 & 7) as usize);
        if kind == 0 {
            break;
        }
        // 1 = data, 3 = data and instructions.
        if (kind == 1 || kind == 3) && level < found.len() {
            let ways = (part.ebx >> 22) as usize + 1;
            let partitions = (part.ebx >> 12 & 0x3ff) as usize + 1;
            let line = (part.ebx & 0xfff) as usize + 1;
            found[level] = ways * partitions * line * (part.ecx as usize + 1);
        }
    }
    let [_, l1, l2, l3] = found;
    (l1 > 0 && l2 > 0).then_some(Caches { l1, l2, l3 })
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn detect() -> Option<Caches> {
    None
}

/// How a product is cut: `mc` rows, `kc` of the sum and `nc` columns at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocking {
    pub(crate) mc: usize,
    pub(crate) kc: usize,
    pub(crate) nc: usize,
}

impl Blocking {
    /// A panel of `nr` columns takes two thirds of the first cache, a block of rows 3/8 of the second, a block of
    /// columns an eighth of the third. The cut of the sum depends on its length, the tile and the caches only:
    /// never on the other sizes or on the threads.
    pub(crate) fn of(caches: Caches, size: usize, [mr, nr]: [usize; 2], [m, k]: [usize; 2]) -> Self {
        let even = |len: usize, most: usize, unit: usize| {
            len.div_ceil(len.div_ceil(most).max(1)).next_multiple_of(unit).clamp(unit, most)
        };
        let most_k = (caches.l1 * 2 / 3 / (nr * size) / 8 * 8).clamp(64, 1024);
        let kc = even(k, most_k, 8);
        let most_m = (caches.l2 * 3 / 8 / (most_k * size) / mr * mr).max(mr);
        let mc = even(m, most_m, mr);
        let third = (caches.l3 / 8).clamp(1 << 20, 8 << 20);
        let nc = (third / (most_k * size) / nr * nr).max(nr);
        Self { mc, kc, nc }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_tiles_that_fit() {
        for caches in [Caches::USUAL, Caches { l1: 48 << 10, l2: 2 << 20, l3: 0 }, Caches::here()] {
            for (size, tile) in [(4, [6, 16]), (8, [6, 8]), (4, [14, 32]), (8, [14, 16]), (4, [4, 8])] {
                for (m, k) in [(0, 0), (1, 1), (100, 100), (2048, 2048), (5000, 333)] {
                    let Blocking { mc, kc, nc } = Blocking::of(caches, size, tile, [m, k]);
                    assert!(mc % tile[0] == 0 && nc % tile[1] == 0 && mc > 0 && kc > 0 && nc > 0);
                    assert!(kc * tile[1] * size <= caches.l1);
                    assert!(mc * kc * size <= caches.l2);
                }
            }
        }
    }
}
