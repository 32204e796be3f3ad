//! Kernels that work row by row, on every instruction set against f64: the cases of `cases::row_tables`.

use super::op_kernels;
use crate::{
    cases::{relative_error, route::route_differs, row_tables::row_cases, rows::RowCase},
    cpu::arch::Isa,
};

/// What is wrong with a result, if anything.
fn differs(case: &RowCase, out: &[f32], expected: &[f64]) -> Option<String> {
    let limit = match case.kind() {
        "route" => return route_differs(out, expected, 1e-5),
        // Copies.
        "columns" | "join" | "copy" => 0.0,
        "sparsify" => {
            // Against the largest element: all may be zero.
            let peak = expected.iter().fold(1e-3, |m: f64, x| m.max(*x));
            let worst = out.iter().zip(expected).fold(0.0, |m: f64, (a, b)| m.max((f64::from(*a) - b).abs()));
            let nan = out.iter().any(|x| x.is_nan());
            return (nan || worst >= 1e-5 * peak).then(|| format!("{worst:e} of {peak:e}"));
        }
        "norm" | "act" | "gated_act" | "streams" | "hyper" => 1e-6,
        _ => 3e-7,
    };
    let error = relative_error(out, expected);
    // Not the other way round: of NaN neither is true.
    let ok = error <= limit;
    (!ok).then(|| format!("{error:e}"))
}

#[test]
fn rows_match_f64() {
    for case in row_cases() {
        for row in 0..if case.kind() == "route" { 20 } else { 2 } {
            let mut ready = case.cpu_row(row);
            let [a, b] = &ready.inputs;
            let expected = case.reference(a, b, ready.at);
            for isa in Isa::available() {
                ready.out.fill(f32::NAN);
                case.run(op_kernels(isa), &mut ready);
                if let Some(why) = differs(&case, &ready.out, &expected) {
                    panic!("{} on {}, row {row}: {why}", case.name(), isa.name());
                }
            }
        }
    }
}

/// Benches refuse two of one name.
#[test]
fn timed_cases_have_names_of_their_own() {
    let mut names: Vec<String> = row_cases().iter().filter(|case| case.speed).map(RowCase::name).collect();
    let n = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), n);
}
