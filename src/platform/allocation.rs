//! An allocator that counts what the calling thread asks for. Part of test binaries alone: of this library's, where it
//! judges the hot loop, and of `tests/wire`, where it judges the decoders.
#![expect(unsafe_code, reason = "only a global allocator sees every allocation")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every method hands its arguments unchanged to the system's allocator; counting touches a `Cell` only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and the pointer came from the system.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller keeps the contract of `realloc`, and the pointer came from the system.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn note(size: usize) {
    // A thread that is ending has no counter any more; nothing of a test is allocated there.
    let _ended = ASKED.try_with(|asked| asked.set(asked.get() + size));
}

/// How many bytes `work` asked for in all, freed ones counted too.
pub(crate) fn asked_by(work: impl FnOnce()) -> usize {
    let before = ASKED.with(Cell::get);
    work();
    ASKED.with(Cell::get) - before
}

#[test]
fn the_allocator_counts_what_is_asked_for() {
    let asked = asked_by(|| drop(std::hint::black_box(vec![0_u8; 9000])));
    assert_eq!(asked, 9000);
}
