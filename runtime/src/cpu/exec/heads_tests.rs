//! Head linears against f64: every instruction set, few and many rows, one and several threads, matrices either way.

use super::experts_tests::run;
use crate::{
    Precision,
    cases::head_linear::{HeadLinearCase, head_linears},
    cpu::arch::Isa,
};

#[test]
fn heads_go_through_their_matrices() {
    for case in head_linears().into_iter().filter(|case| !case.speed) {
        let model = case.model().unwrap();
        for isa in Isa::available() {
            for n in [1, 2, 4, 5, 40] {
                let tokens = HeadLinearCase::tokens(n);
                for (precision, tolerance) in [(Precision::Fast, case.rounded_tolerance()), (Precision::Exact, 1e-5)] {
                    let threads = 1 + n % 3;
                    let out = run(&model.plan, isa, threads, precision, &tokens);
                    model.compare(&out, &tokens, tolerance, &format!("{isa:?}, {threads} threads, {precision:?}"));
                }
            }
        }
    }
}
