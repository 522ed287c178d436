//! Keeping freed memory for the next tensor, and counting what lives.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Asks the C library to keep freed memory for later tensors instead of giving it back to the system.
///
/// A training step makes and drops the same few hundred large tensors again and again. By default glibc maps and unmaps
/// each of them, and the kernel clears every page of every one: a third of the processor's time in
/// `examples/conv_speed.rs`, against a tenth after this call. Call it once, first in `main`. The process's memory then
/// stays at its peak.
///
/// It does nothing where the C library is not glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes plain integers and may be called at any time; both settings are documented.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        // The main thread's heap, which holds tensors of any size, and one for each of the others: threads that decode would wait for each other's
        // locks at every picture. (Heaps of other threads hold 64 MB at most, and map what is larger in spite of the line above.)
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        libc::mallopt(libc::M_ARENA_MAX, i32::try_from(1 + 2 * threads).unwrap_or(i32::MAX));
        // -1: never trim.
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
}

/// The system's allocator, counting the bytes that live and their peak. A program that wants to know sets it as its own:
///
/// ```
/// use diptych_kernels::CountingAllocator;
///
/// #[global_allocator]
/// static ALLOCATOR: CountingAllocator = CountingAllocator;
///
/// let before = CountingAllocator::reset_peak();
/// drop(std::hint::black_box(vec![0u8; 1_000_000]));
/// assert!(CountingAllocator::peak() - before >= 1_000_000);
/// ```
///
/// What is asked for is counted, not what the system rounds it up to.
#[derive(Debug)]
pub struct CountingAllocator;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

impl CountingAllocator {
    /// The bytes that live now; 0 if the program has another allocator.
    pub fn live() -> usize {
        LIVE.load(Ordering::Relaxed)
    }

    /// The most bytes that lived at once since the last [`Self::reset_peak`].
    pub fn peak() -> usize {
        PEAK.load(Ordering::Relaxed)
    }

    /// Forgets the peak: it begins again at what lives now, which is returned.
    pub fn reset_peak() -> usize {
        let live = Self::live();
        PEAK.store(live, Ordering::Relaxed);
        live
    }

    fn add(bytes: usize) {
        let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
        PEAK.fetch_max(live, Ordering::Relaxed);
    }

    fn sub(bytes: usize) {
        LIVE.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator with the arguments as they came; counting allocates nothing.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's too.
        let memory = unsafe { System.alloc(layout) };
        if !memory.is_null() {
            Self::add(layout.size());
        }
        memory
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the system's too.
        let memory = unsafe { System.alloc_zeroed(layout) };
        if !memory.is_null() {
            Self::add(layout.size());
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from the system's allocator.
        unsafe { System.dealloc(memory, layout) };
        Self::sub(layout.size());
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `realloc`, and the memory came from the system's allocator.
        let moved = unsafe { System.realloc(memory, layout, size) };
        if !moved.is_null() {
            match size.checked_sub(layout.size()) {
                Some(more) => Self::add(more),
                None => Self::sub(layout.size() - size),
            }
        }
        moved
    }
}
