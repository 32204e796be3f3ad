//! Routes and experts: every path to a kernel of theirs.

use super::variants::{linear_call, place};
use crate::{
    format::Tensor,
    gpu::{
        Caps, Kernel,
        ops::{
            experts::{self, ExpertCall},
            rows::{self, Places},
        },
    },
    graph::{
        GraphBuilder, GroupScore, RouteGroups, RouteOp, RouteScore, RouteWeight, RowInstr, RowOp, RowProgram, Rows,
        Src, ValueId, WeightId,
    },
    quant::DType,
};

/// As those of `variants`, for experts.
pub(super) fn all(caps: &Caps, found: &mut dyn FnMut(&Caps, &Kernel)) {
    for (program, skew) in programs() {
        let width = program.instrs[0].width;
        let places = Places {
            place: &|_| place(width, skew, program.rows),
            vector: &|id| 4 * id.0 + skew,
            table: &|_| Ok(Vec::new()),
        };
        // Of the table of experts by token only the size counts: ten tokens with five experts, or more with fewer.
        let mut g = GraphBuilder::new();
        g.weight("table", Tensor::from_f32(vec![50], &[0.0; 50]).unwrap());
        let graph = g.finish(ValueId(0));
        for made in rows::lower(caps, &graph, &program, None, &places).unwrap() {
            found(caps, &made.dispatch.kernel);
        }
    }
    for call in calls() {
        let made = experts::dispatches(caps, &call).unwrap();
        found(caps, &made.few.kernel);
        if let Some(many) = &made.many {
            found(caps, &many.kernel);
        }
    }
    for (n, rows) in [(4, Rows::Token), (128, Rows::Token), (512, Rows::Output)] {
        found(caps, &experts::sort(caps, place(8, 0, rows), 4, n, rows).unwrap().kernel);
    }
}

/// Routes of every kind, and sums.
fn programs() -> Vec<(RowProgram, u32)> {
    let id = Some(WeightId(0));
    let mut routes = Vec::new();
    for (n, k) in [(4, 2), (61, 5), (256, 8)] {
        let plain = RouteOp::softmax(n, k);
        for score in [
            RouteScore::Softmax,
            RouteScore::Sigmoid,
            RouteScore::SqrtSoftplus,
            RouteScore::Raw,
            RouteScore::SparseMixer { jitter: 0.01 },
        ] {
            for weight in [RouteWeight::Score, RouteWeight::Softmax, RouteWeight::Sigmoid] {
                routes.push(RouteOp { score, weight, renormalise: Some(1e-20), bias: id, ..plain.clone() });
            }
            routes.push(RouteOp { score, table: id, expert_scale: id, ..plain.clone() });
        }
        for score in [GroupScore::Best, GroupScore::BestTwo] {
            let groups = Some(RouteGroups { n: if n == 61 { 61 } else { 4 }, keep: 4, score });
            routes.push(RouteOp { groups, ..RouteOp::softmax(n, k.min(4)) });
        }
    }
    let src = Src::Value(ValueId(0));
    let mut ops: Vec<(RowOp, usize)> =
        routes.into_iter().map(|r| (RowOp::Route { src, route: r.clone() }, 2 * r.k)).collect();
    for weighted in [false, true] {
        let route = Src::Value(ValueId(1));
        ops.extend([(RowOp::ExpertSum { src, route, k: 4, weighted }, 35)]);
        ops.extend([(RowOp::ExpertSum { src, route, k: 8, weighted }, 2048)]);
    }
    let mut programs = Vec::new();
    for (op, width) in ops {
        for rows in [Rows::Token, Rows::Output] {
            let instrs = vec![RowInstr { op: op.clone(), width, store: Some(ValueId(2)) }];
            programs.push((RowProgram { rows, instrs }, u32::from(width % 2 == 1)));
        }
    }
    programs
}

fn calls() -> Vec<ExpertCall> {
    let mut calls = Vec::new();
    for dtype in DType::ALL {
        for k in [35, 64, 96, 768, 2304] {
            if !(k as usize).is_multiple_of(dtype.block_len()) {
                continue;
            }
            for (n, skew, rows) in [(4, 0, Rows::Token), (128, 1, Rows::Output)] {
                let linear = linear_call(&[(dtype, 576)], k, skew, |c| {
                    c.rows = rows;
                    c.parts[0].bias = Some(0);
                });
                let call = ExpertCall {
                    linear,
                    route: place(8, skew, rows),
                    slots: 4,
                    per_slot: n == 4,
                    out: 576,
                    scaled: true,
                    input_major: false,
                    bytes: vec![Some(0); n],
                };
                if dtype.is_float() {
                    calls.push(ExpertCall { input_major: true, ..call.clone() });
                }
                calls.push(call);
            }
        }
    }
    calls
}
