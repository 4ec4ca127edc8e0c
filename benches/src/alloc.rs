//! A global allocator that counts, for programs that ask it to.
//!
//! Counting is off except inside [`start`] … [`stop`], where it costs one contended atomic add for each allocation; outside, one
//! relaxed load. So times and allocations are taken in separate batches and neither spoils the other.

#![expect(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait; each method passes its arguments unchanged to System"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

static ON: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The system allocator, with a count of its `alloc`, `alloc_zeroed` and `realloc` calls.
///
/// Install it with `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

/// Starts counting from zero, on all threads.
pub fn start() {
    COUNT.store(0, Relaxed);
    ON.store(true, Relaxed);
}

/// Stops counting and returns how many allocations were made since [`start`].
pub fn stop() -> u64 {
    ON.store(false, Relaxed);
    COUNT.load(Relaxed)
}

fn note() {
    if ON.load(Relaxed) {
        COUNT.fetch_add(1, Relaxed);
    }
}

// SAFETY: every method forwards to `System`, which upholds the contract; `note` neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are passed on as they are.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}
