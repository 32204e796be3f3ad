//! Ops that are several kernels: a graph of one on a backend with one thread. Besides the op a step looks rows up in a
//! table and copies the results.

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use handmill_runtime::Backend;
use handmill_runtime::cases::{
    experts::{ExpertsCase, experts as experts_cases},
    head_linear::{HeadLinearCase, head_linears},
};
use handmill_runtime::cpu::{CpuBackend, CpuOptions};
use handmill_runtime::format::Bytes;
use handmill_runtime::graph::Plan;
use handmill_runtime::step::{Outputs, SequenceKv, SequenceStep};

use super::isa;

/// Tokens of a step.
const STEPS: [usize; 2] = [1, 64];

fn time(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, plan: &Plan, tokens: &[u32]) {
    let n = tokens.len();
    let isa = isa();
    let options = CpuOptions { isa, threads: 1, max_cached_tokens: n, max_step_tokens: n, ..CpuOptions::default() };
    let mut backend = CpuBackend::new(plan.clone(), &options).expect("a plan that tests run");
    group.bench_function(format!("{name}, {n} tokens"), |b| {
        b.iter(|| {
            let mut kv = SequenceKv::default();
            let step = SequenceStep::new(&mut kv, tokens, Outputs::All);
            backend.forward(&mut [step]).map(|rows| rows.len()).expect("a step that tests run")
        });
    });
}

/// Flops of the experts of all rows.
pub fn experts(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("experts, {}", isa().name()));
    for case in experts_cases().into_iter().filter(|case| case.speed) {
        let model = case.model(&mut |all| all.into_iter().map(Bytes::heap).collect()).expect("a case of the table");
        for n in STEPS {
            group.throughput(Throughput::Elements((4 * n * case.k * case.width * case.inner) as u64));
            time(&mut group, &case.name(), &model.plan, &ExpertsCase::tokens(n));
        }
    }
    group.finish();
}

/// Flops of all heads and rows.
pub fn head_linear(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("head_linear, {}", isa().name()));
    for case in head_linears().into_iter().filter(|case| case.speed) {
        let model = case.model().expect("a case of the table");
        for n in STEPS {
            group.throughput(Throughput::Elements((2 * n * case.op.heads * case.op.input * case.op.output) as u64));
            time(&mut group, &case.name(), &model.plan, &HeadLinearCase::tokens(n));
        }
    }
    group.finish();
}
