//! Buffers of a thread that are kept from call to call.

use std::cell::RefCell;

use kc_core::bytemuck;
use kc_core::{AlignedBuf, Result};

use crate::Scalar;

/// `body` with `len` elements that hold what an earlier call left there.
pub(crate) fn with<T: Scalar, R>(len: usize, body: impl FnOnce(&mut [T]) -> Result<R>) -> Result<R> {
    thread_local! {
        static KEPT: RefCell<Vec<AlignedBuf<u8>>> = const { RefCell::new(Vec::new()) };
    }
    const MOST: usize = 4;
    let bytes = len.saturating_mul(size_of::<T>());
    // Taken out while in use: a thread that waits inside of a product may start on another tile.
    let kept = KEPT.with_borrow_mut(|kept| {
        kept.iter().position(|buffer| buffer.len() >= bytes).map(|at| kept.swap_remove(at))
    });
    let mut buffer = match kept {
        Some(buffer) => buffer,
        // Never empty, so that it is aligned for every type.
        None => AlignedBuf::zeroed(bytes.max(1).next_multiple_of(4096))?,
    };
    let result = body(bytemuck::cast_slice_mut(&mut buffer[..bytes]));
    KEPT.with_borrow_mut(|kept| {
        if kept.len() == MOST
            && let Some(smallest) = (0..MOST).min_by_key(|&i| kept[i].len())
        {
            kept.swap_remove(smallest);
        }
        kept.push(buffer);
    });
    result
}
