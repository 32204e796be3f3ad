//! Ctrl-C: the command ends at its next good place, with what it has to say; where that does not come soon, at once.

use crate::{out_file, system, terminal};
use std::{
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// What the command has to reach a good place. People wait about a second before they take a program for hung.
const GRACE: Duration = Duration::from_millis(700);

static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static ON_NETWORK: AtomicBool = AtomicBool::new(false);
static LAST_WORDS: Mutex<Option<Words>> = Mutex::new(None);

type Words = Box<dyn FnOnce() + Send>;

/// Listens for Ctrl-C from now on. Where the system allows no handler, Ctrl-C keeps its default effect.
pub fn listen() {
    // In a thread of its own: whatever the command waits for, a silent server, a driver, a long step, this comes.
    let handler = || {
        ASKED.store(true, Ordering::Relaxed);
        thread::sleep(GRACE);
        out_file::remove_unfinished();
        if let Some(say) = last_words().take() {
            say();
        }
        // What has been fetched stays a partial file that the next run goes on from.
        let kept = if ON_NETWORK.load(Ordering::Relaxed) { "; what has arrived is kept" } else { "" };
        terminal::note(&format!("error: interrupted{kept}"));
        system::exit_now(130);
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

fn last_words() -> MutexGuard<'static, Option<Words>> {
    LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the command would say at its end, for the case that Ctrl-C does not let it come there. It must not wait for
/// anything that the command may hold meanwhile, standard output for one. Only one at a time.
pub struct LastWords(());

impl LastWords {
    /// From now on `say` is called where Ctrl-C ends the process.
    pub fn new(say: impl FnOnce() + Send + 'static) -> Self {
        *last_words() = Some(Box::new(say));
        Self(())
    }
}

impl Drop for LastWords {
    /// The command has come to its end, and says it itself.
    fn drop(&mut self) {
        if last_words().take().is_none() {
            // It is being said, and the process ends then.
            loop {
                thread::park();
            }
        }
    }
}

/// While it lives, something is being fetched.
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
