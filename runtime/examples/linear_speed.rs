//! How fast the linear kernels are on this machine, beside what its memory gives.
//!
//! ```text
//! cargo run --release -p handmill-runtime --example linear_speed -- [mat_vec|mat_mat] [isa|all] [format ...]
//! ```
//!
//! `mat_vec` streams a matrix far larger than the caches (default 512 MiB; HANDMILL_MIB) and prints GB/s on one thread and
//! on all, next to a plain read of the same bytes. `mat_mat` prints GFLOP/s for shapes of small models.

use handmill_runtime::cpu::arch::Isa;
use handmill_runtime::cpu::ops::linear::{LinearKernels, linear_kernels};
use handmill_runtime::quant::DType;
use std::time::Instant;

/// Fills with bytes that are no denormal or infinite scales anywhere: 0x2X2X is a half of about 0.01.
fn weights(n: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        0x20 | (state >> 24) as u8 & 0x8f
    };
    let pattern: Vec<u8> = (0..1 << 16).map(|_| byte()).collect();
    pattern.iter().copied().cycle().take(n).collect()
}

/// Runs `work(thread)` on `n` threads together and returns the seconds of the slowest: the best of `rounds`.
fn best_of(rounds: usize, n_threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    let round = || {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..n_threads)
                .map(|t| {
                    let work = &work;
                    scope.spawn(move || {
                        let start = Instant::now();
                        work(t);
                        start.elapsed().as_secs_f64()
                    })
                })
                .collect();
            workers.into_iter().map(|w| w.join().expect("worker")).fold(0.0, f64::max)
        })
    };
    (0..rounds).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// GB/s of `kernel` and of a plain read, both on `n_threads`: pieces of 4 MiB in turn, from parts of `w` that are out of
/// the caches. The rate is that of the fastest tenth of the pieces, for on a shared machine the others were interrupted.
fn rates(w: &[u8], n_threads: usize, kernel: impl Fn(&[u8]) + Sync) -> (f64, f64) {
    const PIECE: usize = 4 << 20;
    let part = w.len() / n_threads;
    let all: Vec<(f64, f64)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..n_threads)
            .map(|t| {
                let (kernel, w) = (&kernel, &w[t * part..(t + 1) * part]);
                scope.spawn(move || {
                    let (mut kernels, mut reads) = (vec![], vec![]);
                    for _ in 0..3 {
                        for pair in w.chunks_exact(2 * PIECE) {
                            let start = Instant::now();
                            kernel(&pair[..PIECE]);
                            kernels.push(start.elapsed().as_secs_f64());
                            let start = Instant::now();
                            std::hint::black_box(plain_read(&pair[PIECE..]));
                            reads.push(start.elapsed().as_secs_f64());
                        }
                    }
                    let decile = |mut v: Vec<f64>| {
                        v.sort_by(f64::total_cmp);
                        PIECE as f64 / 1e9 / v[v.len() / 10]
                    };
                    (decile(kernels), decile(reads))
                })
            })
            .collect();
        workers.into_iter().map(|w| w.join().expect("worker")).collect()
    });
    all.iter().fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d))
}

fn plain_read(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 16];
    for chunk in bytes.chunks_exact(128) {
        for (sum, word) in sums.iter_mut().zip(chunk.chunks_exact(8)) {
            *sum = sum.wrapping_add(u64::from_le_bytes(word.try_into().expect("8 bytes")));
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}

fn activations(kernels: &LinearKernels, dtype: DType, k: usize, n_tokens: usize) -> Vec<u8> {
    let form = kernels.act_form(dtype, n_tokens);
    let stride = kernels.act_row_bytes(form, k);
    let mut acts = vec![0; stride * n_tokens];
    for (t, out) in acts.chunks_exact_mut(stride).enumerate() {
        let x: Vec<f32> = (0..k).map(|i| ((i * 31 + t * 17) % 61) as f32 / 30.0 - 1.0).collect();
        kernels.quantize_row(form, &x, out);
    }
    acts
}

fn mat_vec(isas: &[Isa], dtypes: &[DType]) {
    let mib: usize = std::env::var("HANDMILL_MIB").ok().and_then(|v| v.parse().ok()).unwrap_or(512);
    let w = weights(mib << 20);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    for k in [576usize, 1536] {
        for &dtype in dtypes {
            let k = k.next_multiple_of(dtype.block_len());
            let row_bytes = dtype.row_bytes(k).expect("whole blocks");
            for &isa in isas {
                let kernels = linear_kernels(isa);
                let acts = activations(kernels, dtype, k, 1);
                for n_threads in [1, cores] {
                    let (kernel, read) = rates(&w, n_threads, |chunk| {
                        let n_rows = chunk.len() / row_bytes;
                        let mut out = vec![0f32; n_rows];
                        // SAFETY: `out` has room for all rows.
                        unsafe { kernels.mat_vec(dtype, chunk, n_rows, k, &acts, 1, out.as_mut_ptr(), n_rows) };
                        std::hint::black_box(&out);
                    });
                    println!(
                        "{:10} {dtype:5} k {k:5}, {n_threads} threads: {kernel:6.2} GB/s, {:3.0} % of a read's {read:.2}",
                        isa.name(),
                        100.0 * kernel / read,
                    );
                }
            }
        }
    }
}

fn mat_mat(isas: &[Isa], dtypes: &[DType]) {
    let w = weights(64 << 20);
    for (n_rows, k, n_tokens) in [(1536usize, 576usize, 64usize), (576, 1536, 256), (4864, 896, 512)] {
        for &dtype in dtypes {
            let k = k.next_multiple_of(dtype.block_len());
            let row_bytes = dtype.row_bytes(k).expect("whole blocks");
            for &isa in isas {
                let kernels = linear_kernels(isa);
                let acts = activations(kernels, dtype, k, n_tokens);
                let step = kernels.panel_rows(dtype, k);
                let mut out = vec![0f32; n_rows * n_tokens];
                let pointer = out.as_mut_ptr() as usize;
                let seconds = best_of(5, 1, |_| {
                    let mut panel = vec![0; kernels.panel_bytes(dtype, k)];
                    for row in (0..n_rows).step_by(step) {
                        let n = step.min(n_rows - row);
                        // SAFETY: `out` has room for all rows of all tokens, and one thread writes it.
                        unsafe {
                            let out = (pointer as *mut f32).add(row);
                            let w = &w[row * row_bytes..];
                            kernels.mat_mat(dtype, w, n, k, &acts, n_tokens, out, n_rows, &mut panel);
                        }
                    }
                });
                let gflop = 2.0 * (n_rows * k * n_tokens) as f64 / 1e9;
                println!(
                    "{:10} {dtype:5} {n_rows:5} x {k:5} x {n_tokens:4}: {:7.1} GFLOP/s",
                    isa.name(),
                    gflop / seconds
                );
            }
        }
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_else(|| "mat_vec".into());
    let isas = match args.next().as_deref() {
        None => vec![Isa::detect()],
        Some("all") => Isa::available(),
        Some(name) => vec![Isa::parse(name).expect("an instruction set of this CPU")],
    };
    let names: Vec<String> = args.collect();
    let chosen = |d: &DType| names.is_empty() || names.iter().any(|n| n == d.name());
    let dtypes: Vec<DType> = DType::ALL.into_iter().filter(chosen).collect();
    match what.as_str() {
        "mat_mat" => mat_mat(&isas, &dtypes),
        _ => mat_vec(&isas, &dtypes),
    }
}
