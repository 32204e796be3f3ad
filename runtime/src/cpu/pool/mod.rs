//! The thread pool: one [`Pool::run`] covers a whole step of a model, hundreds of [`Worker::for_each`] phases long.
//!
//! # How a phase works
//!
//! Every worker walks through the same phases in the same order. One atomic word holds the number of the current phase
//! and the next unclaimed item. A worker claims items with a compare-and-swap until none are left, then adds the number
//! that it finished to `done`. The worker that completes the count opens the next phase by writing the word anew. So a
//! phase costs a worker one atomic operation an item and one more, and it ends when all *items* are done, even before
//! all workers have come. A worker that the operating system has put aside between two phases delays no other; when it
//! returns, it finds a later phase in the word and skips to it. This keeps the pool usable beside a busy process.
//!
//! Waiting means spinning for at most 20 µs, then sleeping on a condition variable. Nothing is allocated after
//! [`Pool::new`].

mod cores;
mod gate;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use gate::Gate;

thread_local! {
    /// Set while this thread runs a pool's closure, because a nested run would wait for itself.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A fixed set of threads that run one closure together. The thread that calls [`Pool::run`] is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    /// Held for the length of a run: callers from several threads take turns.
    turn: Mutex<()>,
}

impl Pool {
    /// Starts `threads - 1` threads (`threads` counts the caller; 0 is taken as 1).
    ///
    /// # Errors
    /// The operating system's error where a thread cannot be started; the threads already started are ended.
    pub fn new(threads: usize) -> io::Result<Self> {
        let count = threads.max(1);
        let mut pool = Pool { shared: Arc::new(Shared::new(count)), handles: Vec::new(), turn: Mutex::new(()) };
        for index in 1..count {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new().name(format!("handmill-{index}"));
            pool.handles.push(thread.spawn(move || shared.serve(index))?);
        }
        Ok(pool)
    }

    /// The number of hardware threads that this process may use: affinity and quota as the operating system reports
    /// them.
    pub fn hardware_threads() -> usize {
        cores::logical()
    }

    /// The number of physical cores that this process may use: [`Pool::hardware_threads`] without the second threads of
    /// a core, where the system tells which those are, and on macOS without efficiency cores.
    pub fn default_threads() -> usize {
        let allowed = cores::logical();
        cores::physical().map_or(allowed, |cores| cores.clamp(1, allowed))
    }

    /// Threads that take part in a run, the caller included.
    pub fn threads(&self) -> usize {
        self.shared.count
    }

    /// Runs `f` once on every thread, as worker 0 on the caller's, and returns when all calls have returned.
    ///
    /// The calling thread alone carries out a run inside a run.
    ///
    /// # Panics
    /// If `f` panics on any thread, the others are stopped at their next phase and the first panic is raised again
    /// here. The pool stays usable.
    pub fn run(&self, f: &(dyn Fn(&Worker<'_>) + Sync)) {
        if self.shared.count == 1 || INSIDE.get() {
            return f(&Worker { shared: None, index: 0, phase: Cell::new(0) });
        }
        let turn = locked(&self.turn);
        let shared = &*self.shared;
        let phase = phase_of(shared.claim.load(Ordering::Acquire));
        // SAFETY: only the lifetime changes. The pointer is used by workers between the opening of this epoch and their
        // decrement of `running`, and this function does not return before `running` is zero.
        let task = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(f) };
        // SAFETY: `turn` is held and no worker is inside a run, so nobody else touches the cell.
        unsafe { *shared.job.get() = Some(Job { task, phase }) };
        shared.running.store(shared.count - 1, Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::Release);
        shared.idle.notify();
        shared.work(f, 0, phase);
        shared.finished.wait(|| shared.running.load(Ordering::Acquire) == 0);
        if shared.stopped.load(Ordering::Acquire) {
            let next = phase_of(shared.claim.load(Ordering::Acquire)).wrapping_add(1);
            shared.claim.store(word(next, 0), Ordering::Release);
            shared.done.store(0, Ordering::Release);
            shared.stopped.store(false, Ordering::Release);
            let panic = locked(&shared.panic).take();
            drop(turn);
            resume_unwind(panic.unwrap_or_else(|| Box::new("a worker stopped")));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::Release);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        self.shared.idle.notify();
        for handle in self.handles.drain(..) {
            // The result holds nothing: a worker catches the panics of tasks.
            let _ = handle.join();
        }
    }
}

/// One thread's part in a run.
///
/// All workers must make the same sequence of [`Worker::for_each`] and [`Worker::barrier`] calls with the same counts.
pub struct Worker<'p> {
    /// `None` where the worker is alone and needs no coordination.
    shared: Option<&'p Shared>,
    index: usize,
    /// The phase that this worker enters next.
    phase: Cell<u32>,
}

impl Worker<'_> {
    /// This worker's number, `0..count()`; the caller of the run is 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Workers in this run.
    pub fn count(&self) -> usize {
        self.shared.map_or(1, |shared| shared.count)
    }

    /// Calls `f` for every item of `0..n`, each on exactly one worker, and returns once all items are done.
    ///
    /// Code may touch data that another phase writes only inside of items: a worker that got no item may leave a phase
    /// long after the others, and run its code *between* phases while they are several phases further.
    pub fn for_each(&self, n: usize, mut f: impl FnMut(usize)) {
        let Some(shared) = self.shared else { return (0..n).for_each(f) };
        let mut base = 0;
        while base < n {
            let part = (n - base).min(u32::MAX as usize) as u32;
            self.phase(shared, part, |item| f(base + item as usize));
            base += part as usize;
        }
    }

    /// Calls `f` on one worker, the first to come; the others wait for it.
    pub fn single(&self, mut f: impl FnMut()) {
        self.for_each(1, |_| f());
    }

    /// Waits until every worker has come here. `for_each` needs no barrier to order its data; this is for work that
    /// belongs to a worker instead of an item.
    pub fn barrier(&self) {
        let Some(shared) = self.shared else { return };
        let phase = self.enter();
        if shared.done.fetch_add(1, Ordering::AcqRel) + 1 == shared.count as u32 {
            shared.open(phase.wrapping_add(1));
        } else {
            shared.wait_for_end_of(phase);
        }
    }

    fn enter(&self) -> u32 {
        let phase = self.phase.get();
        self.phase.set(phase.wrapping_add(1));
        phase
    }

    #[inline]
    fn phase(&self, shared: &Shared, n: u32, mut f: impl FnMut(u32)) {
        let phase = self.enter();
        let mut finished = 0;
        let mut claim = shared.claim.load(Ordering::Acquire);
        loop {
            if phase_of(claim) != phase {
                return; // over: the others did it all
            }
            let item = claim as u32;
            if item >= n {
                break;
            }
            match shared.claim.compare_exchange_weak(claim, claim + 1, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => {
                    f(item);
                    finished += 1;
                    claim = shared.claim.load(Ordering::Acquire);
                }
                Err(now) => claim = now,
            }
        }
        // The worker that adds the last finished items has seen all the others' additions, and so all their writes.
        if finished == n || (finished > 0 && shared.done.fetch_add(finished, Ordering::AcqRel) + finished == n) {
            shared.open(phase.wrapping_add(1));
        } else {
            shared.wait_for_end_of(phase);
        }
    }
}

type Task<'a> = dyn Fn(&Worker<'_>) + Sync + 'a;

#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    /// The phase that was open when the run began: all workers count from it.
    phase: u32,
}

/// Cache lines of its own (two, because of the adjacent-line prefetcher) for a word that other threads write often.
#[repr(align(128))]
struct Line<T>(T);

impl<T> std::ops::Deref for Line<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

struct Shared {
    count: usize,
    /// Number of the current phase (upper half) and its next unclaimed item (lower half).
    claim: Line<AtomicU64>,
    /// Items of the current phase that are finished and reported.
    done: Line<AtomicU32>,
    /// Counts runs; a change makes idle workers look at `job`.
    epoch: Line<AtomicU32>,
    /// Workers, without the caller, that have not yet left the current run.
    running: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    shutdown: AtomicBool,
    /// A task panicked: workers that wait for a phase give up.
    stopped: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    idle: Gate,
    phases: Gate,
    finished: Gate,
}

// SAFETY: `job` is the only part that is not Sync by itself. It is written by the holder of `Pool::turn` while no worker
// is inside a run, and read by workers after the acquire load that saw the new epoch; the task it points to is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `job` is only followed inside a run.
unsafe impl Send for Shared {}

impl Shared {
    fn new(count: usize) -> Self {
        Shared {
            count,
            claim: Line(AtomicU64::new(0)),
            done: Line(AtomicU32::new(0)),
            epoch: Line(AtomicU32::new(0)),
            running: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            shutdown: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            panic: Mutex::new(None),
            idle: Gate::default(),
            phases: Gate::default(),
            finished: Gate::default(),
        }
    }

    /// The life of a pool thread.
    fn serve(&self, index: usize) {
        let mut seen = 0;
        loop {
            self.idle.wait(|| self.epoch.load(Ordering::Acquire) != seen);
            seen = self.epoch.load(Ordering::Acquire);
            if self.shutdown.load(Ordering::Acquire) {
                return;
            }
            // SAFETY: the acquire load above saw the epoch that was opened after `job` was written, and `job` is not
            // written again before this worker's decrement of `running`.
            if let Some(job) = unsafe { *self.job.get() } {
                // SAFETY: `Pool::run` keeps the task alive until `running` is zero.
                self.work(unsafe { &*job.task }, index, job.phase);
            }
            if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.finished.notify();
            }
        }
    }

    /// Runs the task as worker `index`, turning a panic into `stopped`.
    fn work(&self, task: &Task<'_>, index: usize, phase: u32) {
        let worker = Worker { shared: Some(self), index, phase: Cell::new(phase) };
        INSIDE.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| task(&worker)));
        INSIDE.set(false);
        if let Err(panic) = result {
            if !panic.is::<Stopped>() {
                locked(&self.panic).get_or_insert(panic);
            }
            self.stopped.store(true, Ordering::Release);
            self.phases.notify();
        }
    }

    /// Ends the current phase and opens `phase`. Only the worker that completed the count may call it.
    fn open(&self, phase: u32) {
        self.done.store(0, Ordering::Relaxed);
        self.claim.store(word(phase, 0), Ordering::Release);
        self.phases.notify();
    }

    fn wait_for_end_of(&self, phase: u32) {
        let over = || phase_of(self.claim.load(Ordering::Acquire)) != phase;
        self.phases.wait(|| over() || self.stopped.load(Ordering::Acquire));
        if !over() {
            // Not a new panic: it unwinds this worker's stack silently up to `work`.
            resume_unwind(Box::new(Stopped));
        }
    }
}

/// Payload that unwinds the workers that waited for one that panicked.
struct Stopped;

fn word(phase: u32, item: u32) -> u64 {
    u64::from(phase) << 32 | u64::from(item)
}

fn phase_of(word: u64) -> u32 {
    (word >> 32) as u32
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
