//! Steps with states on every device against f64: new sequences, ones that go on in place, and ones that go on from a
//! state that others share, in one batch.

use super::{
    Place, recurrent,
    step_tests::{Sequence, TestStep, error},
};
use crate::{
    cases::{
        random,
        recurrent::{GatedDeltaCase, gated_deltas, short_convs},
        wide,
    },
    gpu::{Gpu, testing},
    graph::Rows,
};

/// Rows of each sequence, and the slots that it reads and writes.
const SEQUENCES: [(usize, u32, u32); 4] = [(3, u32::MAX, 1), (7, 4, 4), (1, 0, 2), (0, 5, 5)];
const SLOTS: usize = 6;

fn step() -> TestStep {
    let sequence = |&(rows, ..): &(usize, u32, u32)| Sequence { rows, cached: rows + 5, dropped_pages: 0 };
    let sequences: Vec<Sequence> = SEQUENCES.iter().map(sequence).collect();
    let mut step = TestStep::new(&sequences, &[], &[]);
    step.batch[12] = step.batch.len() as u32;
    step.batch.extend(SEQUENCES.iter().flat_map(|s| [s.1, s.2]));
    step
}

/// Values of these widths, filled with numbers up to their `scales` but for the last, which is poisoned.
fn arena(step: &TestStep, widths: &[usize], scales: &[f32]) -> (Vec<f32>, Vec<Place>) {
    let mut offset = 2;
    let mut places = Vec::new();
    for width in widths {
        places.push(Place { base: 4, offset, stride: *width as u32 + 3, rows: Rows::Token });
        offset += *width as u32 + 3;
    }
    let n = step.tokens();
    let mut arena = vec![f32::NAN; 4 + offset as usize * n];
    for (i, place) in places.iter().enumerate().take(widths.len() - 1) {
        for row in 0..n {
            let at = first(place, n, row);
            let x = random((i * 100 + row) as u64, widths[i]);
            arena[at..at + widths[i]].iter_mut().zip(x).for_each(|(to, x)| *to = x * scales[i]);
        }
    }
    (arena, places)
}

fn first(place: &Place, n: usize, row: usize) -> usize {
    place.base as usize + place.offset as usize * n + row * place.stride as usize
}

/// Runs a dispatch whose states begin as `states`; returns those behind it.
fn run(
    gpu: &Gpu,
    step: &TestStep,
    d: &super::Dispatch,
    arena: &mut [f32],
    vectors: &[f32],
    states: &[f32],
) -> Vec<f32> {
    let mut bytes = bytemuck::cast_slice(states).to_vec();
    step.run(gpu, d, arena, vectors, &mut [&mut bytes]);
    bytemuck::pod_collect_to_vec(&bytes)
}

#[test]
fn convolutions_match_f64() {
    for gpu in testing::gpus() {
        for case in short_convs() {
            let (step, width, size) = (step(), case.width, case.state_len());
            let (mut arena, places) = arena(&step, &[width, width], &[2.0]);
            let before = arena.clone();
            let vectors = [vec![f32::NAN; 3], case.weight()].concat();
            let states = random(7, SLOTS * size);
            let d = recurrent::short_conv(gpu.caps(), &case.op(), width, 3, [places[0], places[1]]);
            let after = run(gpu, &step, &d, &mut arena, &vectors, &states);
            let (n, mut row) = (step.tokens(), 0);
            let what = |row: usize| format!("{}: {}, row {row}", gpu.name(), case.name());
            for (rows, from, to) in SEQUENCES {
                let past = state(&states, from, size);
                let x: Vec<f64> =
                    (row..row + rows).flat_map(|r| wide(&before[first(&places[0], n, r)..][..width])).collect();
                let (expected, left) = case.reference(&past, &x);
                for (r, expected) in (row..row + rows).zip(expected.chunks(width)) {
                    let e = error(arena[first(&places[1], n, r)..][..width].iter().copied(), expected);
                    assert!(e < 1e-5, "{}: {e:e}", what(r));
                }
                if rows > 0 {
                    let e = error(after[to as usize * size..][..size].iter().copied(), &left);
                    assert!(e < 1e-6, "the state behind {}: {e:e}", what(row + rows));
                }
                row += rows;
            }
            check_unwritten(&states, &after, size, &what(row));
        }
    }
}

#[test]
fn gated_deltas_match_f64() {
    for gpu in testing::gpus() {
        for case in gated_deltas() {
            let (step, size, [qkv, heads, out]) = (step(), case.state_len(), case.widths());
            let (mut arena, p) = arena(&step, &[qkv, heads, heads, out], &GatedDeltaCase::SIZES);
            let before = arena.clone();
            let [decay, dt_bias] = case.vectors();
            let vectors = [vec![f32::NAN], decay, dt_bias].concat();
            let states = random(7, SLOTS * size);
            let places = [p[0], p[1], p[2], p[3]];
            let d = recurrent::gated_delta(gpu.caps(), "delta", &case.op, [1, 1 + heads as u32], places).unwrap();
            let after = run(gpu, &step, &d, &mut arena, &vectors, &states);
            let (n, mut row) = (step.tokens(), 0);
            let what = |row: usize| format!("{}: {}, row {row}", gpu.name(), case.name());
            for (rows, from, to) in SEQUENCES {
                let mut state = state(&states, from, size);
                for r in row..row + rows {
                    let value = |i: usize, len: usize| wide(&before[first(&p[i], n, r)..][..len]);
                    let expected = case.reference(&mut state, &value(0, qkv), &value(1, heads), &value(2, heads));
                    let e = error(arena[first(&p[3], n, r)..][..out].iter().copied(), &expected);
                    assert!(e < 2e-5, "{}: {e:e}", what(r));
                }
                if rows > 0 {
                    let e = error(after[to as usize * size..][..size].iter().copied(), &state);
                    assert!(e < 2e-5, "the state behind {}: {e:e}", what(row + rows));
                }
                row += rows;
            }
            check_unwritten(&states, &after, size, &what(row));
        }
    }
}

/// What a sequence starts from.
fn state(states: &[f32], slot: u32, size: usize) -> Vec<f64> {
    match slot {
        u32::MAX => vec![0.0; size],
        slot => wide(&states[slot as usize * size..][..size]),
    }
}

/// Slots that nobody writes are as they were.
fn check_unwritten(before: &[f32], after: &[f32], size: usize, what: &str) {
    for slot in [0, 3, 5] {
        assert_eq!(after[slot * size..][..size], before[slot * size..][..size], "{what}");
    }
}

#[test]
fn states_that_are_worked_on_in_place_are_made_ready() {
    for gpu in testing::gpus() {
        for elements in [3, 1000] {
            let step = step();
            let mut arena = vec![f32::NAN; 8];
            let states = random(7, SLOTS * elements);
            let after = run(gpu, &step, &recurrent::begin(gpu.caps(), elements), &mut arena, &[], &states);
            let mut expected = states.clone();
            expected[elements..2 * elements].fill(0.0);
            expected.copy_within(0..elements, 2 * elements);
            assert_eq!(after, expected, "{}", gpu.name());
        }
    }
}
