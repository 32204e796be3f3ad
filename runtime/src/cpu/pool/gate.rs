//! Waiting: spin for a little while, then sleep.

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::locked;

/// Time that a waiting thread spins before it sleeps. A wake-up costs about as much, so this at most doubles a wait.
const SPIN_LIMIT: Duration = Duration::from_micros(20);

/// A place to wait for a condition over atomics: spin first, then sleep. Waking is one load where nobody sleeps.
#[derive(Default)]
pub(super) struct Gate {
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Gate {
    pub(super) fn wait(&self, ready: impl Fn() -> bool) {
        if spin_until(&ready) {
            return;
        }
        let mut guard = locked(&self.lock);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        // Pairs with the fence in `notify`: either `notify` sees this sleeper, or `ready` sees the announced store.
        fence(Ordering::SeqCst);
        while !ready() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes sleepers. Call it after the store that makes their conditions true.
    pub(super) fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) != 0 {
            // A sleeper between its last look and its sleep holds the lock, so taking it waits until the sleep has
            // begun.
            drop(locked(&self.lock));
            self.wake.notify_all();
        }
    }
}

fn spin_until(ready: impl Fn() -> bool) -> bool {
    // Most waits are far below a microsecond, so the first turns do without the clock.
    for _ in 0..64 {
        if ready() {
            return true;
        }
        std::hint::spin_loop();
    }
    let start = Instant::now();
    loop {
        for _ in 0..16 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() >= SPIN_LIMIT {
            return false;
        }
    }
}
