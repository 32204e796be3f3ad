//! What a graph knows of its layers and its head.

use super::{Device, GraphBuilder, Plan};
use crate::format::Tensor;

#[test]
fn nodes_and_stages_know_their_layer() {
    let mut b = GraphBuilder::new();
    let matrix = b.weight("matrix", Tensor::from_f32(vec![16, 16], &[1.0; 256]).unwrap());
    let x = b.embed("embed", matrix, 1.0).unwrap();
    let x = b.layer(0, |b| b.scoped("inner", |b| b.linear("y", x, matrix, None))).unwrap();
    let x = b.layer(4, |b| b.linear("y", x, matrix, None)).unwrap();
    let x = b.linear("last", x, matrix, None).unwrap();
    let graph = b.finish(x);
    let nodes: Vec<_> = graph.nodes().iter().map(|n| (n.name.as_str(), n.layer)).collect();
    assert_eq!(nodes, [("embed", None), ("layer.0.inner.y", Some(0)), ("layer.4.y", Some(4)), ("last", None)]);
    assert_eq!(graph.n_layers(), 5);
    let plan = Plan::new(graph, |_, _, _| Ok(Device::Cpu)).unwrap();
    let stages: Vec<_> = plan.stages.iter().map(|s| s.layer).collect();
    assert_eq!(stages, [Some(0), Some(4), None]);
}

#[test]
fn only_a_head_is_a_head() {
    let matrix = |rows: usize| Tensor::from_f32(vec![rows, 16], &vec![1.0; rows * 16]).unwrap();
    for with_head in [true, false] {
        let mut b = GraphBuilder::new();
        let [table, head, last] =
            [("table", 40), ("head", 48), ("last", 16)].map(|(n, rows)| b.weight(n, matrix(rows)));
        let x = b.embed("embed", table, 1.0).unwrap();
        let mut y = b.linear("last", x, last, None).unwrap();
        if with_head {
            y = b.head("scores", y, head, None).unwrap();
            // A linear behind the head, as a projection of scores, is none.
            b.linear("more", x, last, None).unwrap();
        }
        let graph = b.finish(y);
        assert_eq!(graph.head(), with_head.then_some(head));
        assert_eq!(graph.n_layers(), 0);
    }
}
