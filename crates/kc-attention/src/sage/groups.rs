//! Which rows share a scale.

use super::{Granularity, SageConfig};

/// Which rows of a head share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    granularity: Granularity,
    block: usize,
    warp: usize,
    /// Rows that follow each other and share a scale of [`Granularity::PerThread`]: 1 for queries, 2 for keys.
    run: usize,
}

impl Groups {
    /// Those of queries.
    pub fn of_queries(config: &SageConfig) -> Self {
        Groups { granularity: config.granularity, block: config.blkq, warp: config.warpq, run: 1 }
    }

    /// Those of keys.
    pub fn of_keys(config: &SageConfig) -> Self {
        Groups { granularity: config.granularity, block: config.blkk, warp: config.warpk, run: 2 }
    }

    /// Scales of `rows` rows. The last block has all its scales even if it has not all its rows.
    pub fn count(&self, rows: usize) -> usize {
        let warps = rows.div_ceil(self.block) * (self.block / self.warp);
        match self.granularity {
            Granularity::PerTensor => 1,
            Granularity::PerBlock => rows.div_ceil(self.block),
            Granularity::PerWarp => warps,
            Granularity::PerThread => warps * (8 / self.run),
            Granularity::PerToken => rows,
        }
    }

    /// The scale of row `row`.
    #[inline]
    pub fn of(&self, row: usize) -> usize {
        match self.granularity {
            Granularity::PerTensor => 0,
            Granularity::PerBlock => row / self.block,
            Granularity::PerWarp => row / self.warp,
            Granularity::PerThread => row / self.warp * (8 / self.run) + row % 8 / self.run,
            Granularity::PerToken => row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_of_the_table() {
        let with = |granularity| SageConfig { granularity, ..SageConfig::default() };
        let counts = |granularity| {
            let config = with(granularity);
            (Groups::of_queries(&config).count(130), Groups::of_keys(&config).count(130))
        };
        assert_eq!(counts(Granularity::PerTensor), (1, 1));
        assert_eq!(counts(Granularity::PerBlock), (2, 3));
        assert_eq!(counts(Granularity::PerWarp), (8, 3));
        assert_eq!(counts(Granularity::PerThread), (64, 12));
        assert_eq!(counts(Granularity::PerToken), (130, 130));
        let config = with(Granularity::PerThread);
        let (q, k) = (Groups::of_queries(&config), Groups::of_keys(&config));
        assert_eq!([0, 1, 7, 8, 31, 32].map(|r| q.of(r)), [0, 1, 7, 0, 7, 8]);
        assert_eq!([0, 1, 2, 7, 8, 63, 64].map(|r| k.of(r)), [0, 0, 1, 3, 0, 3, 4]);
    }
}
