//! Ctrl-C: the first one asks the command to stop at the next good place, a second one ends it at once.

use std::{
    process,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static ON_NETWORK: AtomicBool = AtomicBool::new(false);

/// Listens for Ctrl-C from now on. Where the system allows no handler, Ctrl-C keeps its default effect.
pub fn listen() {
    let handler = || {
        if ASKED.swap(true, Ordering::Relaxed) {
            process::exit(130);
        }
        if ON_NETWORK.load(Ordering::Relaxed) {
            // A silent server could hold the answer back for a minute; nobody waits for that. What has been written
            // stays a partial file that the next run goes on from.
            thread::sleep(Duration::from_millis(800));
            if ON_NETWORK.load(Ordering::Relaxed) {
                crate::terminal::note("\nerror: interrupted; what has arrived is kept");
                process::exit(130);
            }
        }
    };
    // A failure here leaves the system's own behaviour in place, which is good enough to go on with.
    let _ = ctrlc::set_handler(handler);
}

/// Whether Ctrl-C was pressed.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Set once Ctrl-C was pressed.
pub fn flag() -> Arc<AtomicBool> {
    ASKED.clone()
}

/// While it lives, Ctrl-C does not wait for the network.
pub struct OnNetwork(());

impl OnNetwork {
    /// Begins such a stretch.
    pub fn begin() -> Self {
        ON_NETWORK.store(true, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for OnNetwork {
    fn drop(&mut self) {
        ON_NETWORK.store(false, Ordering::Relaxed);
    }
}
