//! Exactly once, in order, whatever the number of threads; panics, late workers and nested runs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Pool;
use crate::cpu::buffer::Buffer;

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
        let (left, right) = (Buffer::new(4000, "a").unwrap(), Buffer::new(4000, "b").unwrap());
        Pool::new(threads).unwrap().run(&|worker| {
            for phase in 0..100 {
                let (from, to) = if phase % 2 == 0 { (&left, &right) } else { (&right, &left) };
                worker.for_each(1000usize.div_ceil(37), |item| {
                    let start = item * 37;
                    // SAFETY: `from` is only read in this phase, and the items' parts of `to` are disjoint.
                    let (x, y) =
                        unsafe { (from.slice::<f32>(0, 1000), to.slice_mut::<f32>(start, 37.min(1000 - start))) };
                    for (i, y) in (start..).zip(y) {
                        *y = 1.0 + 0.5 * x[i] + 0.3 * x[(i * 7 + 1) % 1000] + i as f32 * 1e-3;
                    }
                });
            }
        });
        // SAFETY: the run is over.
        unsafe { left.slice::<f32>(0, 1000) }.to_vec()
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
