//! What a whole forward pass does without, said from outside of it.

use std::cell::Cell;

thread_local! {
    static GRAD: Cell<bool> = const { Cell::new(true) };
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, on this thread, with segments that keep nothing for a backward pass; their results are no part of a graph.
///
/// Layers still train: batch norm takes the batch's statistics and moves the running ones. This is how a target network or a key encoder runs.
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    let _before = Before::set(&GRAD, false);
    f()
}

/// Runs `f`, on this thread, with running statistics that stay as they are, for a forward pass that will be repeated.
pub fn hold_statistics<R>(f: impl FnOnce() -> R) -> R {
    let _before = Before::set(&HELD, true);
    f()
}

/// Whether segments keep what a backward pass needs.
pub(super) fn grad() -> bool {
    GRAD.get()
}

/// Whether running statistics stay as they are.
pub(crate) fn statistics_held() -> bool {
    HELD.get()
}

/// Puts a mode back when it goes, also in a panic.
struct Before {
    mode: &'static std::thread::LocalKey<Cell<bool>>,
    value: bool,
}

impl Before {
    fn set(mode: &'static std::thread::LocalKey<Cell<bool>>, value: bool) -> Self {
        Self { mode, value: mode.replace(value) }
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        self.mode.set(self.value);
    }
}
