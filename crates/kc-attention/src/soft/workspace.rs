//! Memory that calls use one after the other.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use kc_core::{AlignedBuf, Result};

use super::Scalar;

/// More blocks than this are given back to the system, the oldest first.
const BLOCKS: usize = 16;

/// Blocks of memory that a call takes and the next finds again. The system hands out memory in pages, and a call that
/// touches new ones each time can wait for them longer than it computes. Clones share their blocks.
#[derive(Debug, Clone)]
pub struct SoftWorkspace<T: Scalar> {
    free: Arc<Mutex<Vec<AlignedBuf<T>>>>,
}

impl<T: Scalar> Default for SoftWorkspace<T> {
    fn default() -> Self {
        SoftWorkspace { free: Arc::default() }
    }
}

impl<T: Scalar> SoftWorkspace<T> {
    /// Bytes of the blocks that no call holds.
    pub fn bytes(&self) -> usize {
        self.with(|free| free.iter().map(|block| block.len() * size_of::<T>()).sum())
    }

    fn with<R>(&self, change: impl FnOnce(&mut Vec<AlignedBuf<T>>) -> R) -> R {
        // The list is whole between any two of its operations, whatever happened to a thread that had it.
        change(&mut self.free.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A block of `len` elements of any values: a free one, or a new one.
    pub(super) fn take(from: Option<&Self>, len: usize) -> Result<Block<T>> {
        let found = from.and_then(|workspace| {
            workspace
                .with(|free| free.iter().position(|block| block.len() == len).map(|at| free.swap_remove(at)))
        });
        let data = found.map_or_else(|| AlignedBuf::zeroed(len), Ok)?;
        Ok(Block { data: Some(data), home: from.cloned() })
    }
}

/// A block, which goes back to its workspace when it is dropped.
#[derive(Debug, Clone)]
pub(super) struct Block<T: Scalar> {
    /// There until the block is dropped.
    data: Option<AlignedBuf<T>>,
    home: Option<SoftWorkspace<T>>,
}

impl<T: Scalar> Deref for Block<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.data.as_deref().unwrap_or_default()
    }
}

impl<T: Scalar> DerefMut for Block<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.data.as_deref_mut().unwrap_or_default()
    }
}

impl<T: Scalar> Drop for Block<T> {
    fn drop(&mut self) {
        if let (Some(data), Some(home)) = (self.data.take(), &self.home) {
            home.with(|free| {
                if free.len() == BLOCKS {
                    free.remove(0);
                }
                free.push(data);
            });
        }
    }
}
