//! Sets that need no table of their own: independent points and simple formulas.

mod iid;

pub use iid::{Iid, IidConfig};
