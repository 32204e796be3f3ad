//! Places of values in the arena, by liveness.

use std::collections::HashMap;

use super::{Plan, Slot};
use crate::graph::op::{Rows, ValueId};

impl Plan {
    /// First-fit layout of all values that cross stages, by the range of stages in which each is alive. A stage's
    /// outputs never overlap its inputs, because workers read and write both between two barriers. The same holds for
    /// sums that the stage's kernel can make of its outputs.
    pub(super) fn lay_out(&mut self) {
        let mut first = HashMap::new();
        let mut last = HashMap::new();
        for (i, stage) in self.stages.iter().enumerate() {
            let (reads, writes) = stage.kind.reads_and_writes();
            for v in writes {
                first.entry(v).or_insert(i);
                last.insert(v, i);
            }
            for v in reads {
                last.insert(v, i);
            }
        }
        for (i, sum) in self.residual_sums().into_iter().enumerate() {
            first.extend(sum.map(|s| (s.sum, i)));
        }
        last.extend([Some(self.output), self.hidden].into_iter().flatten().map(|result| (result, usize::MAX)));
        let mut order: Vec<(ValueId, usize)> = first.into_iter().collect();
        order.sort_by_key(|(v, i)| (*i, *v));
        let mut placed: Vec<(Slot, usize, usize)> = Vec::new(); // slot, first stage, last stage
        for (v, from) in order {
            let value = self.graph.value(v);
            let to = last[&v];
            let stride = value.width.next_multiple_of(16);
            let mut busy: Vec<(usize, usize)> = placed
                .iter()
                .filter(|(s, f, t)| s.rows == value.rows && *f <= to && from <= *t)
                .map(|(s, ..)| (s.offset, s.offset + s.stride))
                .collect();
            busy.sort_unstable();
            let offset = busy.into_iter().fold(0, |at, (b, e)| if at + stride <= b { at } else { at.max(e) });
            let slot = Slot { rows: value.rows, offset, stride, width: value.width };
            let size = match value.rows {
                Rows::Token => &mut self.token_elements,
                Rows::Output => &mut self.output_elements,
            };
            *size = (*size).max(offset + stride);
            placed.push((slot, from, to));
            self.slots[v.0 as usize] = Some(slot);
        }
    }
}
