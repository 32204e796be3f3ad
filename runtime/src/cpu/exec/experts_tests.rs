//! Experts steps against f64: every instruction set, few and many rows, one and several threads, all formats. Weights of
//! experts that no row chooses lie on pages that cannot be read.

use super::{CpuBackend, CpuOptions};
use crate::Backend;
use crate::{
    Precision,
    cases::{
        experts::{ExpertsCase, experts},
        mapped_experts::MappedExperts,
    },
    cpu::arch::Isa,
    graph::Plan,
    quant::DType,
    step::{Outputs, SequenceKv, SequenceStep},
};

/// All rows of a step of `tokens`.
pub(super) fn run(plan: &Plan, isa: Isa, threads: usize, precision: Precision, tokens: &[u32]) -> Vec<f32> {
    let options = CpuOptions {
        isa,
        threads,
        precision,
        max_cached_tokens: 256,
        max_step_tokens: tokens.len(),
        ..CpuOptions::default()
    };
    let mut backend = CpuBackend::new(plan.clone(), &options).unwrap();
    let mut kv = SequenceKv::default();
    let step = SequenceStep::new(&mut kv, tokens, Outputs::All);
    backend.forward(&mut [step]).unwrap().to_vec()
}

impl MappedExperts {
    /// Every row within `tolerance` of the reference; rounding to bytes where precision is not exact.
    fn check(&self, isa: Isa, threads: usize, precision: Precision, n: usize, tolerance: f64) {
        let tokens = ExpertsCase::tokens(n);
        let out = run(&self.model.plan, isa, threads, precision, &tokens);
        self.model.compare(&out, &tokens, tolerance, &format!("{isa:?}, {threads} threads, {precision:?}"));
    }
}

#[test]
fn rows_go_through_their_experts() {
    for case in experts().into_iter().filter(|case| !case.speed) {
        let model = MappedExperts::new(case);
        for isa in Isa::available() {
            for n in [1, 2, 4, 5, 40] {
                model.check(isa, 1 + n % 3, Precision::Fast, n, model.case.rounded_tolerance());
                model.check(isa, 1 + n % 3, Precision::Exact, n, 1e-5);
            }
        }
    }
}

/// One answer on any number of threads.
#[test]
fn threads_do_not_show() {
    let model = MappedExperts::new(ExpertsCase { never_from: 5, ..ExpertsCase::new(DType::Q8_0, 8, 2, 64, 96) });
    for n in [1, 3, 17] {
        let tokens: Vec<u32> = (0..n).map(|i| i % ExpertsCase::VOCABULARY as u32).collect();
        let run = |threads| run(&model.model.plan, Isa::detect(), threads, Precision::Fast, &tokens);
        let one = run(1);
        for threads in [2, 3, 5] {
            assert_eq!(run(threads), one, "{threads} threads, {n} rows");
        }
    }
}

/// Experts that no row chooses are not read, not even asked for ahead: their pages would end the process.
#[cfg(unix)]
#[test]
fn experts_that_are_not_chosen_are_never_read() {
    let model = MappedExperts::new(ExpertsCase { never_from: 2, ..ExpertsCase::new(DType::F16, 12, 2, 80, 48) });
    for n in [1, 4, 33] {
        model.check(Isa::detect(), 2, Precision::Fast, n, 2e-3);
    }
}
