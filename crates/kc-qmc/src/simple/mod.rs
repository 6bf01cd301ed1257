//! Sets that need no table of matrices: independent points, Kronecker sequences, and closed sets of `n` points.
//!
//! | Set | Points | Randomization |
//! |---|---|---|
//! | [`Iid`] | independent and uniform | - |
//! | [`Kronecker`] | `frac(i alpha + shift)` | shift |
//! | [`Hammersley`] | `(i / n, Halton's point i)` | none |
//! | [`Korobov`] | `frac(frac(i z / n) + shift)`, `z = (1, a, a^2, ...)` | shift |
//! | [`LatinHypercube`] | one in each of `n` slices of every coordinate | jitter, or centres |
//!
//! The last three are closed: their points depend on `n`, so only rows `0..n` can be asked for, and `n` is the number
//! of points.
//!
//! ```
//! use kc_qmc::{Sequence, simple::{Korobov, KorobovConfig}};
//!
//! let mut config = KorobovConfig::new(2, 7u64);
//! config.randomize = kc_qmc::Randomize::None;
//! let x = Korobov::new(config)?.points(0..8)?;
//! assert_eq!(x.as_slice()[2..4], [0.125, 0.375]);
//! # Ok::<(), kc_core::Error>(())
//! ```

use kc_core::{Error, Result};

use crate::sequence::Randomize;

mod hammersley;
mod iid;
mod korobov;
mod kronecker;
mod latin;

pub use hammersley::{Hammersley, HammersleyConfig};
pub use iid::{Iid, IidConfig};
pub use korobov::{Korobov, KorobovConfig, KorobovParameter, search_korobov};
pub use kronecker::{Kronecker, KroneckerConfig, KroneckerVector};
pub use latin::{LatinHypercube, LatinHypercubeConfig};

/// Points of a closed set, at most: they are made at once.
const CLOSED: u128 = 1 << 32;

/// Whether a set that knows shift and none is shifted; equal replications are refused.
fn is_shifted(randomize: Randomize, replications: usize) -> Result<bool> {
    match randomize {
        Randomize::Shift => Ok(true),
        Randomize::None if replications > 1 => {
            Err(crate::blocks::replications_need_randomization(replications))
        }
        Randomize::None => Ok(false),
        other => Err(Error::argument("randomize", "shift or none", format!("{other:?}"))),
    }
}

/// `x + shift` modulo 1, both in `[0, 1)`.
fn shifted(x: f64, shift: f64) -> f64 {
    let x = x + shift;
    if x >= 1.0 { x - 1.0 } else { x }
}
