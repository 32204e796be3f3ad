//! Ctrl-C: the command ends at its next good place, and prints its results so far; where no such place comes soon, it
//! ends at once.

use crate::{out_file, system, terminal};
use std::{
    mem,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Time that the command has to reach a good place. People wait about a second before they think that a program hangs.
const GRACE: Duration = Duration::from_millis(700);

static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static IN_ANSWER: AtomicBool = AtomicBool::new(false);
static ON_NETWORK: AtomicBool = AtomicBool::new(false);
static LAST_WORDS: Mutex<Vec<(u64, Words)>> = Mutex::new(Vec::new());

static SERVER: Mutex<Option<Box<dyn Fn() + Send>>> = Mutex::new(None);

type Words = Box<dyn FnOnce() + Send>;

/// Listens for Ctrl-C from now on. Where the system allows no handler, Ctrl-C keeps its default effect.
pub fn listen() {
    // A thread of its own, which runs during any wait: for a silent server, a driver, a long step.
    let handler = || {
        let again = ASKED.swap(true, Ordering::Relaxed);
        if IN_ANSWER.load(Ordering::Relaxed) && !again {
            return;
        }
        if let Some(stop) = server().as_ref().filter(|_| !again) {
            return stop();
        }
        thread::sleep(GRACE);
        out_file::remove_unfinished();
        let all = mem::take(&mut *last_words());
        all.into_iter().rev().for_each(|(_, say)| say());
        // Fetched bytes stay in a partial file, and the next run continues it.
        let kept = if ON_NETWORK.load(Ordering::Relaxed) { "; what has arrived is kept" } else { "" };
        terminal::always(&format!("error: interrupted{kept}"));
        system::exit_now(130);
    };
    // A failure leaves the system's own behaviour in place, which is good enough.
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

fn last_words() -> MutexGuard<'static, Vec<(u64, Words)>> {
    LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The command's last lines, or bytes that it has not written yet, for the case that Ctrl-C ends it before it comes to
/// them. This must not wait for anything that the command may hold for long, such as standard output. A part of the
/// command may have some while the command has its own: the latest come first.
pub struct LastWords(u64);

impl LastWords {
    /// Sets `say` to be called where Ctrl-C ends the process.
    pub fn new(say: impl FnOnce() + Send + 'static) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        last_words().push((number, Box::new(say)));
        Self(number)
    }
}

impl Drop for LastWords {
    /// The command has reached its end and prints the lines itself.
    fn drop(&mut self) {
        let mut all = last_words();
        let before = all.len();
        all.retain(|(number, _)| *number != self.0);
        if all.len() == before {
            drop(all);
            // Another thread is printing them, and then ends the process.
            loop {
                thread::park();
            }
        }
    }
}

/// An answer of a chat is under way while this lives: Ctrl-C ends the answer alone, and ends the command where it is
/// pressed once more before the answer has ended.
pub struct InAnswer(());

impl InAnswer {
    /// Begins an answer.
    pub fn begin() -> Self {
        IN_ANSWER.store(true, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for InAnswer {
    fn drop(&mut self) {
        IN_ANSWER.store(false, Ordering::Relaxed);
        ASKED.store(false, Ordering::Relaxed);
    }
}

/// A fetch is under way while this lives.
pub struct OnNetwork(());

impl OnNetwork {
    /// Begins a fetch.
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

fn server() -> MutexGuard<'static, Option<Box<dyn Fn() + Send>>> {
    SERVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server runs while this lives: Ctrl-C asks it to stop, and ends the command where it is pressed once more before the
/// server has stopped.
pub struct Serving(());

impl Serving {
    /// Calls `stop` at Ctrl-C from now on.
    pub fn begin(stop: impl Fn() + Send + 'static) -> Self {
        *server() = Some(Box::new(stop));
        Self(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        *server() = None;
    }
}
