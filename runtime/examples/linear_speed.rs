//! How fast the linear kernels are on this machine, beside what its memory gives.
//!
//! ```text
//! cargo run --release -p handmill-runtime --example linear_speed -- [mat_vec|cached|batch|mat_mat] [isa|all] [format ...]
//! ```
//!
//! `mat_vec` streams a matrix far larger than the caches (default 512 MiB; HANDMILL_MIB) and prints GB/s on one thread and
//! on all, next to a plain read of the same bytes. `cached` does the same from L2. `mat_mat` prints
//! GFLOP/s for shapes of small models, `batch` for few tokens up to many, from L2.

use handmill_runtime::cpu::arch::{Isa, Simd, prefetch};
use handmill_runtime::cpu::ops::linear::{LinearKernels, WeightRows, linear_kernels};
use handmill_runtime::quant::DType;
use handmill_runtime::simd_dispatch;
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

/// GB/s of `kernel` and of a plain read, both on `n_threads`: pieces of 4 MiB in turn, from parts of `w` that are out of
/// the caches. The rate is that of the fastest tenth of the pieces, for on a shared machine the others were interrupted.
fn rates(w: &[u8], n_threads: usize, kernel: impl Fn(&[u8]) + Sync) -> (f64, f64) {
    const PIECE: usize = 4 << 20;
    let read = read_all(Isa::detect());
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
                            std::hint::black_box(read(bytemuck::cast_slice(&pair[PIECE..])));
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

simd_dispatch!(fn read_all(words: &[f32]) -> f32 = read_all_impl);

/// Reads everything once, as fast as this core can.
#[inline(always)]
fn read_all_impl<S: Simd>(s: S, words: &[f32]) -> f32 {
    let mut peaks = [s.zero(); 4];
    for i in (0..words.len() / (4 * S::LANES)).map(|i| i * 4 * S::LANES) {
        prefetch(bytemuck::cast_slice(&words[(i + 2048).min(words.len() - 4 * S::LANES)..][..4 * S::LANES]));
        for (j, peak) in peaks.iter_mut().enumerate() {
            // SAFETY: four vectors are left.
            *peak = s.max(*peak, unsafe { s.load(words.as_ptr().add(i + j * S::LANES)) });
        }
    }
    s.reduce_max(s.max(s.max(peaks[0], peaks[1]), s.max(peaks[2], peaks[3])))
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
                        unsafe {
                            kernels.mat_vec(
                                WeightRows::new(dtype, n_rows, k, chunk),
                                &acts,
                                1,
                                out.as_mut_ptr(),
                                n_rows,
                            )
                        };
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

/// GB/s where the matrix is in L2: what the instructions cost once memory does not.
fn mat_vec_cached(isas: &[Isa], dtypes: &[DType]) {
    let w = weights(512 << 10);
    for &dtype in dtypes {
        let k = 576usize.next_multiple_of(dtype.block_len());
        let n_rows = w.len() / dtype.row_bytes(k).expect("whole blocks");
        for &isa in isas {
            let kernels = linear_kernels(isa);
            for n_tokens in [1, LinearKernels::MAT_VEC_TOKENS] {
                let acts = activations(kernels, dtype, k, n_tokens);
                let mut out = vec![0f32; n_rows * n_tokens];
                let mut times = vec![];
                for _ in 0..1000 {
                    let start = Instant::now();
                    // SAFETY: `out` has room for all rows of all tokens.
                    unsafe {
                        kernels.mat_vec(
                            WeightRows::new(dtype, n_rows, k, &w),
                            &acts,
                            n_tokens,
                            out.as_mut_ptr(),
                            n_rows,
                        )
                    };
                    times.push(start.elapsed().as_secs_f64());
                }
                times.sort_by(f64::total_cmp);
                let rate = w.len() as f64 / 1e9 / times[times.len() / 10];
                println!("{:10} {dtype:5} k {k:5}, {n_tokens} tokens: {rate:6.2} GB/s from L2", isa.name());
            }
        }
    }
}

/// Shapes of small models: rows, elements of a row, tokens.
const PROMPTS: &[(usize, usize, usize)] = &[(1536, 576, 64), (576, 1536, 256), (4864, 896, 512)];

/// From one token to many.
fn batches() -> Vec<(usize, usize, usize)> {
    [1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 64, 256].map(|tokens| (768, 1024, tokens)).to_vec()
}

/// GFLOP/s by the kernel that each number of tokens calls for.
fn products(isas: &[Isa], dtypes: &[DType], shapes: &[(usize, usize, usize)]) {
    let w = weights(64 << 20);
    for &(n_rows, k, n_tokens) in shapes {
        for &dtype in dtypes {
            let k = k.next_multiple_of(dtype.block_len());
            let row_bytes = dtype.row_bytes(k).expect("whole blocks");
            for &isa in isas {
                let kernels = linear_kernels(isa);
                let acts = activations(kernels, dtype, k, n_tokens);
                let step = kernels.panel_rows(dtype, k);
                let mut out = vec![0f32; n_rows * n_tokens];
                let mut panel = vec![0; kernels.panel_bytes(dtype, k)];
                // Panel by panel: the time of a panel is that of the fastest tenth.
                let mut times = vec![];
                for _ in 0..200_000_000_000 / (n_rows * k * (n_tokens + 16) * 40) {
                    for row in (0..n_rows).step_by(step) {
                        let n = step.min(n_rows - row);
                        let w = WeightRows::new(dtype, n, k, &w[row * row_bytes..]);
                        let start = Instant::now();
                        // SAFETY: `out` has room for all rows of all tokens.
                        unsafe {
                            let out = out.as_mut_ptr().add(row);
                            if n_tokens <= LinearKernels::MAT_VEC_TOKENS {
                                kernels.mat_vec(w, &acts, n_tokens, out, n_rows);
                            } else {
                                kernels.mat_mat(w, &acts, n_tokens, out, n_rows, &mut panel);
                            }
                        }
                        times.push(start.elapsed().as_secs_f64() / n as f64);
                    }
                }
                times.sort_by(f64::total_cmp);
                let seconds = times[times.len() / 10] * n_rows as f64;
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
        "cached" => mat_vec_cached(&isas, &dtypes),
        "batch" => products(&isas, &dtypes, &batches()),
        "mat_mat" => products(&isas, &dtypes, PROMPTS),
        _ => mat_vec(&isas, &dtypes),
    }
}
