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
use std::cell::Cell;

/// What one thread has allocated since counting began on it.
#[derive(Clone, Copy)]
struct Counters {
    live: isize,
    peak: isize,
    count: usize,
}

thread_local! {
    // Constant and without a destructor, so that reading it never allocates.
    static COUNTERS: Cell<Option<Counters>> = const { Cell::new(None) };
}

/// The system's allocator, counted while [`measure`] runs.
#[derive(Debug)]
pub struct Counting;

/// What [`measure`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Most bytes alive at once, beyond those alive at the start.
    pub peak: usize,
    /// Number of allocations.
    pub count: usize,
}

/// Runs `body` on a thread of its own, which is also the only thread of its rayon pool, and tells what was
/// allocated there: other tests of the process do not disturb the figures. The counting allocator must be
/// installed.
///
/// # Panics
/// If `body` panics or the thread cannot be had.
pub fn measure<R: Send>(body: impl FnOnce() -> R + Send) -> (R, Memory) {
    let run = || {
        let pool = match rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build() {
            Ok(pool) => pool,
            Err(error) => panic!("no pool: {error}"),
        };
        pool.install(|| {
            COUNTERS.set(Some(Counters { live: 0, peak: 0, count: 0 }));
            let result = body();
            let seen = COUNTERS.take();
            let memory = seen.map_or(Memory { peak: 0, count: 0 }, |c| Memory {
                peak: c.peak.max(0) as usize,
                count: c.count,
            });
            (result, memory)
        })
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn grew(bytes: usize) {
    if let Some(mut c) = COUNTERS.get() {
        c.count += 1;
        c.live += bytes as isize;
        c.peak = c.peak.max(c.live);
        COUNTERS.set(Some(c));
    }
}

fn shrank(bytes: usize) {
    if let Some(mut c) = COUNTERS.get() {
        c.live -= bytes as isize;
        COUNTERS.set(Some(c));
    }
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments; counting touches only
// a constant-initialised thread-local cell.
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
