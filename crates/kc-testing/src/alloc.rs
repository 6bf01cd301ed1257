//! An allocator that counts, for tests of memory claims.
//!
//! A test binary installs it once:
//!
//! ```
//! use kc_testing::alloc::{Counting, measure};
//! #[global_allocator]
//! static ALLOCATOR: Counting = Counting;
//!
//! let (sum, memory) = measure(|| vec![1u8; 1 << 20].iter().map(|&x| u64::from(x)).sum::<u64>());
//! assert_eq!(sum, 1 << 20);
//! assert!(memory.peak >= 1 << 20 && memory.count >= 1);
//! ```

#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering::Relaxed};

static ACTIVE: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The system's allocator, counted while [`measure`] runs.
#[derive(Debug)]
pub struct Counting;

/// What [`measure`] saw, from all threads of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Most bytes alive at once, beyond those alive at the start.
    pub peak: usize,
    /// Number of allocations.
    pub count: usize,
}

/// Runs `body` and tells what was allocated meanwhile. Measurements exclude each other, but other tests of
/// the same process do not stand still: keep such tests in a binary, or behind a lock, of their own, or
/// compare with bounds that leave room. The counting allocator must be installed.
pub fn measure<R>(body: impl FnOnce() -> R) -> (R, Memory) {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    LIVE.store(0, Relaxed);
    PEAK.store(0, Relaxed);
    COUNT.store(0, Relaxed);
    ACTIVE.store(true, Relaxed);
    let result = body();
    ACTIVE.store(false, Relaxed);
    (result, Memory { peak: PEAK.load(Relaxed).max(0) as usize, count: COUNT.load(Relaxed) })
}

fn grew(bytes: usize) {
    if ACTIVE.load(Relaxed) {
        COUNT.fetch_add(1, Relaxed);
        let live = LIVE.fetch_add(bytes as isize, Relaxed) + bytes as isize;
        PEAK.fetch_max(live, Relaxed);
    }
}

fn shrank(bytes: usize) {
    if ACTIVE.load(Relaxed) {
        LIVE.fetch_sub(bytes as isize, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments; counting touches only
// atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        shrank(layout.size());
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        grew(new_size);
        shrank(layout.size());
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}
