//! What the pool's phases cost: `cargo bench -p handmill-runtime --bench pool [threads]`.
//!
//! Prints the time of a barrier, of phases of empty items, and the rate of a load shaped like decoding (phases of 32
//! items of about a microsecond). Run it once on a quiet machine and once beside
//! `taskset -c 0 sh -c 'while :; do :; done'` to see what a busy neighbour takes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use handmill_runtime::cpu::pool::{Pool, Worker};

fn main() -> std::io::Result<()> {
    // Cargo passes flags such as --bench; the first number is the thread count.
    let threads = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or_else(Pool::default_threads);
    let pool = Pool::new(threads)?;
    println!("{threads} threads");
    report("run", 1, &pool, &|_| ());
    report("barrier", 1000, &pool, &|worker| (0..1000).for_each(|_| worker.barrier()));
    for items in [1, 2, 8, 64] {
        report(&format!("for_each of {items} empty items"), 1000, &pool, &|worker| {
            (0..1000).for_each(|_| {
                worker.for_each(items, |i| {
                    black_box(i);
                })
            });
        });
    }
    for (items, turns) in [(32, 250), (4, 2000)] {
        report(&format!("200 phases of {items} items of {turns} turns"), 1, &pool, &|worker| {
            (0..200).for_each(|_| {
                worker.for_each(items, |i| {
                    black_box(spend(i, turns));
                })
            });
        });
    }
    Ok(())
}

/// Some ten cycles a turn.
fn spend(item: usize, turns: usize) -> usize {
    (0..turns).fold(item, |x, i| black_box(x.wrapping_mul(31).wrapping_add(i)))
}

/// Repeats the run for a second and prints mean and median of its time, divided by `per_run`.
fn report(what: &str, per_run: u32, pool: &Pool, task: &(dyn Fn(&Worker<'_>) + Sync)) {
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < Duration::from_secs(1) {
        let before = Instant::now();
        pool.run(task);
        times.push(before.elapsed());
    }
    times.sort();
    let mean = times.iter().sum::<Duration>() / times.len() as u32 / per_run;
    println!("{what:<44} mean {mean:>10.2?}  median {:>10.2?}", times[times.len() / 2] / per_run);
}
