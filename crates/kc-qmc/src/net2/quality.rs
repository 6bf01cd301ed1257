//! How good a net is.

/// Independent binary vectors, each reduced to a leading bit of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Basis {
    /// The vector whose leading bit is bit i, or 0.
    vectors: [u64; 64],
}

impl Default for Basis {
    fn default() -> Self {
        Self { vectors: [0; 64] }
    }
}

impl Basis {
    /// Adds a vector; false if it depends on those before.
    pub(super) fn insert(&mut self, mut vector: u64) -> bool {
        while let Some(lead) = vector.checked_ilog2() {
            let known = &mut self.vectors[lead as usize];
            if *known == 0 {
                *known = vector;
                return true;
            }
            vector ^= *known;
        }
        false
    }
}
