//! The thread pool: one [`Pool::run`] covers a whole step of a model, hundreds of [`Worker::for_each`] phases long.
//!
//! # How a phase works
//!
//! Every worker walks through the same phases in the same order. One atomic word holds the number of the current phase
//! and the next unclaimed item. A worker claims items with a compare-and-swap until none are left, then adds what it
//! finished to `done`; whoever completes the count opens the next phase by writing the word anew. So a phase costs a
//! worker one atomic operation an item and one more, and it ends when all *items* are done, not when all workers have
//! come: a worker that the operating system has put aside between two phases holds nobody up, and when it returns it
//! finds the word further on and skips what is over. That is what keeps the pool usable beside a busy process.
//!
//! Waiting means spinning for at most [`SPIN_LIMIT`], then sleeping on a condition variable. Nothing is allocated after
//! [`Pool::new`].

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a waiting thread spins before it sleeps. A wake-up costs about as much, so this at most doubles a wait.
const SPIN_LIMIT: Duration = Duration::from_micros(20);

thread_local! {
    /// Set while this thread runs a pool's closure, so that a nested run does not wait for itself.
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
    /// The operating system's error where a thread cannot be started; those already started are ended.
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

    /// The number of physical cores that this process may use: affinity and quota as the operating system reports them,
    /// without the second threads of a core where Linux's `/sys` tells which those are.
    pub fn default_threads() -> usize {
        let allowed = std::thread::available_parallelism().map_or(1, |n| n.get());
        physical_cores().map_or(allowed, |cores| cores.clamp(1, allowed))
    }

    /// Threads that take part in a run, the caller included.
    pub fn threads(&self) -> usize {
        self.shared.count
    }

    /// Runs `f` once on every thread, as worker 0 on the caller's, and returns when all have returned.
    ///
    /// A run inside a run is carried out by the calling thread alone.
    ///
    /// # Panics
    /// If `f` panics on any thread, the others are stopped at their next phase and the first panic is raised again here.
    /// The pool can be used again.
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
            // A worker catches the panics of tasks, so there is nothing to learn from the result.
            let _ = handle.join();
        }
    }
}

/// One thread's part in a run.
///
/// All workers must make the same sequence of [`Worker::for_each`] and [`Worker::barrier`] calls with the same counts.
pub struct Worker<'p> {
    /// `None`: alone, no coordination needed.
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
    /// Data that another phase writes may be touched only inside of items: a worker that got none may leave a phase
    /// long after the others and run its code *between* phases while they are several phases further.
    pub fn for_each(&self, n: usize, mut f: impl FnMut(usize)) {
        let Some(shared) = self.shared else { return (0..n).for_each(f) };
        let mut base = 0;
        while base < n {
            let part = (n - base).min(u32::MAX as usize) as u32;
            self.phase(shared, part, |item| f(base + item as usize));
            base += part as usize;
        }
    }

    /// [`Worker::for_each`] over `0..n` in ranges of `grain` items (the last may be shorter).
    pub fn for_each_range(&self, n: usize, grain: usize, mut f: impl FnMut(Range<usize>)) {
        let grain = grain.max(1);
        self.for_each(n.div_ceil(grain), |i| f(i * grain..((i + 1) * grain).min(n)));
    }

    /// Calls `f` on one worker, whichever comes first; the others wait for it.
    pub fn single(&self, mut f: impl FnMut()) {
        self.for_each(1, |_| f());
    }

    /// Waits until every worker has come here. A `for_each` orders data without it; this is for work that is bound to
    /// a worker rather than to an item.
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
        // Whoever adds the last finished items has seen all the others' additions, and so all their writes.
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
    /// The phase that was open when the run began: all workers start counting from it.
    phase: u32,
}

/// Own cache lines (two, because of the adjacent-line prefetcher) for a word that others hammer on.
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
    /// Counts runs; a change tells idle workers to look at `job`.
    epoch: Line<AtomicU32>,
    /// Workers, the caller aside, that have not yet left the current run.
    running: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    shutdown: AtomicBool,
    /// A task panicked: whoever waits for a phase gives up.
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

    /// Ends the current phase and opens `phase`. Only whoever completed the count may call it.
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

/// What unwinds the workers that waited for one that panicked.
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

/// A place to wait for a condition over atomics: spin first, then sleep. Waking is one load where nobody sleeps.
#[derive(Default)]
struct Gate {
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Gate {
    fn wait(&self, ready: impl Fn() -> bool) {
        if spin_until(&ready) {
            return;
        }
        let mut guard = locked(&self.lock);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        // Pairs with the fence in `notify`: either it sees this sleeper, or `ready` sees what it announces.
        fence(Ordering::SeqCst);
        while !ready() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// To be called after the store that makes waiters' conditions true.
    fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) != 0 {
            // Holding the lock for a moment rules out a sleeper between its last look and its sleep.
            drop(locked(&self.lock));
            self.wake.notify_all();
        }
    }
}

fn spin_until(ready: impl Fn() -> bool) -> bool {
    // Most waits are far below a microsecond, so the clock is not read at first.
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

/// Cores with at least one allowed thread, by Linux's topology files; `None` where they cannot be read.
fn physical_cores() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cores = Vec::new();
    for cpu in cpu_list(allowed)? {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let first = cpu_list(&std::fs::read_to_string(path).ok()?)?.into_iter().min()?;
        if !cores.contains(&first) {
            cores.push(first);
        }
    }
    Some(cores.len())
}

/// The CPUs of a list such as `0-3,8`.
fn cpu_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?);
    }
    Some(cpus)
}

/// A mutable slice that the workers of a run write in parts.
///
/// ```
/// use handmill_runtime::cpu::pool::{Pool, SharedMut};
/// let mut squares = vec![0usize; 100];
/// let out = SharedMut::new(&mut squares);
/// Pool::new(2)?.run(&|worker| {
///     worker.for_each_range(100, 16, |range| {
///         // SAFETY: ranges of different items do not overlap, and nothing else reads `squares` in this phase.
///         let part = unsafe { out.slice_mut(range.clone()) };
///         part.iter_mut().zip(range).for_each(|(square, i)| *square = i * i);
///     });
/// });
/// assert_eq!(squares[99], 99 * 99);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a `&mut [T]` whose parts go to different threads, which `T: Send` allows; that the parts do not
// overlap is what callers of `slice_mut` and `slice` promise.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// Takes the slice for as long as the workers share it.
    pub fn new(slice: &'a mut [T]) -> Self {
        SharedMut { start: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    /// Elements in the whole slice.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the slice has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part `range`, to write.
    ///
    /// # Safety
    /// While the returned slice lives, no other slice of an overlapping range may be in use, on any thread.
    ///
    /// # Panics
    /// If the range is not inside the slice.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice_mut(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} is outside of {} elements", self.len);
        // SAFETY: inside the slice that `new` took; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// The part `range`, to read.
    ///
    /// # Safety
    /// While the returned slice lives, no part that overlaps it may be written.
    ///
    /// # Panics
    /// If the range is not inside the slice.
    pub unsafe fn slice(&self, range: Range<usize>) -> &[T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} is outside of {} elements", self.len);
        // SAFETY: inside the slice that `new` took; not written by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every item of every phase exactly once, and each phase sees the whole of the one before.
    #[test]
    fn phases_run_each_item_once_and_in_order() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads).unwrap();
            let counts: Vec<AtomicU32> = (0..67).map(|_| AtomicU32::new(0)).collect();
            for round in 0..20 {
                pool.run(&|worker| {
                    for phase in 0..50 {
                        let n = [67, 1, 0, 5, 64][phase % 5];
                        worker.for_each(n, |i| {
                            counts[i].fetch_add(1, Ordering::Relaxed);
                        });
                        if phase % 5 == 4 {
                            let expected = (round * 10 + phase as u32 / 5 + 1) * 3;
                            // Inside of items, as outside a worker may be late.
                            worker.single(|| assert_eq!(counts[1].load(Ordering::Relaxed), expected));
                        }
                    }
                });
            }
            let total: u32 = counts.iter().map(|c| c.load(Ordering::Relaxed)).sum();
            assert_eq!(total, 20 * 10 * (67 + 1 + 5 + 64), "{threads} threads");
        }
    }

    /// A chain of dependent phases gives the same floats whatever the number of threads.
    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let compute = |threads| {
            let (mut a, mut b) = (vec![1.0f32; 1000], vec![0.0f32; 1000]);
            let (left, right) = (SharedMut::new(&mut a), SharedMut::new(&mut b));
            Pool::new(threads).unwrap().run(&|worker| {
                for phase in 0..100 {
                    let (from, to) = if phase % 2 == 0 { (&left, &right) } else { (&right, &left) };
                    worker.for_each_range(1000, 37, |range| {
                        // SAFETY: `from` is only read in this phase, and the ranges of `to` are disjoint.
                        let (x, y) = unsafe { (from.slice(0..1000), to.slice_mut(range.clone())) };
                        for (y, i) in y.iter_mut().zip(range) {
                            *y = 0.5 * x[i] + 0.3 * x[(i * 7 + 1) % 1000] + i as f32 * 1e-3;
                        }
                    });
                }
            });
            a
        };
        let alone = compute(1);
        for threads in [2, 3, 5] {
            assert_eq!(alone, compute(threads), "{threads} threads");
        }
    }

    /// Worker 1 enters the phases only when worker 0 has left them all, which a pool of plain barriers would not survive.
    #[test]
    fn a_late_worker_holds_nobody_up() {
        let pool = Pool::new(2).unwrap();
        let (over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        pool.run(&|worker| {
            while worker.index() == 1 && !over.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            for _ in 0..100 {
                worker.for_each(7, |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            }
            over.store(true, Ordering::Release);
        });
        assert_eq!(count.into_inner(), 700);
    }

    #[test]
    fn a_barrier_waits_for_every_worker() {
        let pool = Pool::new(4).unwrap();
        let arrived = AtomicUsize::new(0);
        pool.run(&|worker| {
            for round in 1..=200 {
                arrived.fetch_add(1, Ordering::Relaxed);
                worker.barrier();
                assert_eq!(arrived.load(Ordering::Relaxed), round * worker.count());
                worker.barrier();
            }
        });
    }

    #[test]
    fn every_worker_runs_once_with_its_own_index() {
        let pool = Pool::new(5).unwrap();
        for _ in 0..100 {
            let seen: Vec<AtomicU32> = (0..5).map(|_| AtomicU32::new(0)).collect();
            pool.run(&|worker| {
                seen[worker.index()].fetch_add(1, Ordering::Relaxed);
            });
            assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn many_more_threads_than_cores_still_make_progress() {
        let pool = Pool::new(16).unwrap();
        let start = Instant::now();
        let sum = AtomicUsize::new(0);
        pool.run(&|worker| {
            for _ in 0..2000 {
                worker.for_each(20, |i| {
                    sum.fetch_add(i, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(sum.into_inner(), 2000 * 190);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }

    #[test]
    fn a_panic_in_any_worker_comes_back_and_leaves_the_pool_usable() {
        let pool = Pool::new(3).unwrap();
        for round in 0..20 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|worker| {
                    worker.for_each(10, |_| ());
                    worker.for_each(50, |i| {
                        if i == 7 + round {
                            resume_unwind(Box::new("item failed"));
                        }
                    });
                    worker.for_each(10, |_| ());
                });
            }));
            assert_eq!(result.unwrap_err().downcast_ref::<&str>(), Some(&"item failed"));
            let count = AtomicUsize::new(0);
            pool.run(&|worker| {
                worker.for_each(100, |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
                worker.barrier();
            });
            assert_eq!(count.into_inner(), 100);
        }
    }

    #[test]
    fn runs_from_several_threads_take_turns_and_nested_runs_work_alone() {
        let pool = Pool::new(2).unwrap();
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.run(&|worker| {
                            worker.for_each(3, |_| {
                                pool.run(&|inner| {
                                    inner.for_each(2, |_| {
                                        count.fetch_add(1, Ordering::Relaxed);
                                    });
                                });
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 3 * 50 * 3 * 2);
    }

    #[test]
    fn dropping_joins_sleeping_threads() {
        for threads in 1..6 {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            if threads % 2 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            drop(pool);
        }
        assert!(Pool::default_threads() >= 1);
    }

    #[test]
    fn cpu_lists_are_read_as_linux_writes_them() {
        assert_eq!(cpu_list("\t0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpu_list("5"), Some(vec![5]));
        assert_eq!(cpu_list(""), None);
    }
}
