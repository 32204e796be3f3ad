//! Prints the machine's read bandwidth and FMA peak: `cargo run --release -p handmill-runtime --example walls [THREADS]`.

use handmill_runtime::{
    cpu::arch::Isa,
    profile::{ReadBandwidth, measure_fma_peak},
};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = std::env::args().nth(1).map_or(Ok(2), |n| n.parse())?;
    for isa in Isa::available() {
        let bandwidth = ReadBandwidth::new(threads, isa)?.sample();
        let peak = measure_fma_peak(threads, isa, Duration::from_millis(300));
        println!(
            "{:10} {threads} threads: reads {:.1} GB/s, FMA {:.0} GFLOP/s",
            isa.name(),
            bandwidth / 1e9,
            peak / 1e9
        );
    }
    Ok(())
}
