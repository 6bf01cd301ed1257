//! Memory: aligned owned buffers, and bytes that are owned or mapped and shared.

#![expect(unsafe_code, reason = "owns a raw allocation so that it can be aligned and lazily zeroed")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::{Element, Error, Result};

/// Alignment, in bytes, of every [`AlignedBuf`]: one cache line and one AVX-512 register.
pub const ALIGN: usize = 64;

/// Blocks of this many bytes and more ask for huge pages.
const HUGE: usize = 4 << 20;

/// Tells the system that a large block will be filled, so that it may use huge pages: first touches and misses of the
/// address cache cost a tenth and more of a pass over it. Small blocks, and systems other than Linux, are left alone.
pub fn advise_huge_pages<T>(data: &mut [T]) {
    #[cfg(all(target_os = "linux", not(miri)))]
    if size_of_val(data) >= HUGE {
        unsafe extern "C" {
            fn madvise(address: *mut std::ffi::c_void, length: usize, advice: i32) -> i32;
        }
        const MADV_HUGEPAGE: i32 = 14;
        const PAGE: usize = 4096;
        let start = data.as_mut_ptr().cast::<u8>();
        let skip = start.align_offset(PAGE);
        // SAFETY: the range lies inside of the block, which is longer than a page, and starts at a page. The advice
        // changes no contents; a refusal is harmless, so the result is not needed.
        unsafe { madvise(start.add(skip).cast(), size_of_val(data) - skip, MADV_HUGEPAGE) };
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (data, HUGE);
}

/// An owned buffer of `T`, 64-byte aligned, zero-initialised.
///
/// Large buffers come straight from the system's zero pages, so that memory is touched only when it is
/// first written.
pub struct AlignedBuf<T: Element> {
    data: NonNull<T>,
    len: usize,
    block: NonNull<u8>,
    block_size: usize,
}

impl<T: Element> AlignedBuf<T> {
    /// A buffer of `len` zeros, or [`Error::TooLarge`] when the memory cannot be had.
    pub fn zeroed(len: usize) -> Result<Self> {
        let too_large = || {
            let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
            Error::too_large("buffer", bytes, isize::MAX as u64, "bytes")
        };
        if len == 0 {
            return Ok(Self { data: NonNull::dangling(), len: 0, block: NonNull::dangling(), block_size: 0 });
        }
        let block_size = len
            .checked_mul(size_of::<T>())
            .and_then(|bytes| bytes.checked_add(ALIGN))
            .ok_or_else(too_large)?;
        // Small alignment keeps the allocator on `calloc`, which hands out untouched zero pages;
        // the spare ALIGN bytes pay for aligning by hand.
        let layout = Layout::from_size_align(block_size, Self::BLOCK_ALIGN).map_err(|_| too_large())?;
        // SAFETY: the layout has a non-zero size (len > 0, and no Element is zero-sized).
        let block = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(too_large)?;
        let skip = block.as_ptr().align_offset(ALIGN);
        debug_assert!(skip < ALIGN);
        // SAFETY: skip < ALIGN, and the block has ALIGN spare bytes, so `data` and the `len` elements
        // behind it stay inside the block. ALIGN is a multiple of every element's alignment.
        let data = unsafe { block.add(skip) }.cast::<T>();
        let mut buf = Self { data, len, block, block_size };
        advise_huge_pages(&mut buf);
        Ok(buf)
    }

    const BLOCK_ALIGN: usize = 16;

    /// A copy of `source`.
    pub fn copy_of(source: &[T]) -> Result<Self> {
        let mut buf = Self::zeroed(source.len())?;
        buf.copy_from_slice(source);
        Ok(buf)
    }
}

impl<T: Element> Drop for AlignedBuf<T> {
    fn drop(&mut self) {
        if self.block_size > 0 {
            // SAFETY: block and layout are those of the allocation in `zeroed`, which succeeded with
            // exactly this size and alignment.
            unsafe {
                dealloc(
                    self.block.as_ptr(),
                    Layout::from_size_align_unchecked(self.block_size, Self::BLOCK_ALIGN),
                );
            }
        }
    }
}

impl<T: Element> Deref for AlignedBuf<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `data` points to `len` initialised elements (zero bytes are a valid T: Element is Pod)
        // that live as long as self.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl<T: Element> DerefMut for AlignedBuf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

// SAFETY: the buffer owns its memory exclusively, like a Vec; T is Send.
unsafe impl<T: Element> Send for AlignedBuf<T> {}
// SAFETY: shared access only reads, like a Vec; T is Sync.
unsafe impl<T: Element> Sync for AlignedBuf<T> {}

impl<T: Element> Clone for AlignedBuf<T> {
    fn clone(&self) -> Self {
        match Self::copy_of(self) {
            Ok(copy) => copy,
            // Clone cannot fail by its signature; running out of memory ends the process as for a Vec.
            Err(_) => std::alloc::handle_alloc_error(Layout::new::<T>()),
        }
    }
}

impl<T: Element> fmt::Debug for AlignedBuf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf").field("dtype", &T::DTYPE).field("len", &self.len).finish()
    }
}

/// Immutable bytes with shared ownership: a buffer in memory, a memory map, or a part of one.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Bytes {
    /// Shares everything that `owner` holds (a `Vec<u8>`, a memory map, ...).
    pub fn from_owner(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let range = 0..owner.as_ref().len();
        Self { owner: Arc::new(owner), range }
    }

    /// A part of these bytes, without a copy. `None` if the range does not lie inside.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.range.len() {
            return None;
        }
        let start = self.range.start + range.start;
        Some(Self { owner: Arc::clone(&self.owner), range: start..start + range.len() })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // An owner whose length shrinks is a bug of the owner; an empty slice is the safe answer.
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or(&[])
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: Element> From<AlignedBuf<T>> for Bytes {
    fn from(buf: AlignedBuf<T>) -> Self {
        struct Owner<T: Element>(AlignedBuf<T>);
        impl<T: Element> AsRef<[u8]> for Owner<T> {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        Bytes::from_owner(Owner(buf))
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bytes").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zeroed() {
        for len in [1usize, 3, 17, 1000, 1 << 20] {
            let buf = AlignedBuf::<f32>::zeroed(len).unwrap();
            assert_eq!(buf.as_ptr() as usize % ALIGN, 0);
            assert_eq!(buf.len(), len);
            assert!(buf.iter().all(|&x| x == 0.0));
        }
        assert!(AlignedBuf::<f64>::zeroed(0).unwrap().is_empty());
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(matches!(AlignedBuf::<f64>::zeroed(usize::MAX / 2), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn bytes_share_and_slice() {
        let bytes = Bytes::from_owner(vec![1u8, 2, 3, 4, 5]);
        let part = bytes.slice(1..4).unwrap();
        assert_eq!(&*part, &[2, 3, 4]);
        assert_eq!(&*part.slice(2..3).unwrap(), &[4]);
        assert!(part.slice(2..4).is_none());
    }
}
