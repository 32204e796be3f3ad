//! Steps with states on every device against f64: new sequences, ones that go on in place, and ones that go on from a
//! state that others share, in one batch.

use super::{
    Place, recurrent,
    step_tests::{Sequence, TestStep, error},
};
use crate::{
    cpu::ops::testing::random,
    gpu::{Gpu, testing},
    graph::{GatedDeltaOp, Rows, ShortConvOp, StateId, WeightId},
};

/// Rows of each sequence, and the slots that it reads and writes.
const SEQUENCES: [(usize, u32, u32); 4] = [(3, u32::MAX, 1), (7, 4, 4), (1, 0, 2), (0, 5, 5)];
const SLOTS: usize = 6;

fn step() -> TestStep {
    let sequence = |&(rows, ..): &(usize, u32, u32)| Sequence { rows, cached: rows + 5, dropped_pages: 0 };
    let sequences: Vec<Sequence> = SEQUENCES.iter().map(sequence).collect();
    let mut step = TestStep::new(&sequences, &[], &[], 1);
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

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
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
        for (width, taps) in [(5, 2), (37, 4), (130, 16)] {
            let step = step();
            let (mut arena, places) = arena(&step, &[width, width], &[2.0]);
            let before = arena.clone();
            let vectors = random(9, 3 + width * taps);
            let size = (taps - 1) * width;
            let states = random(7, SLOTS * size);
            let op = ShortConvOp { state: StateId(0), weight: WeightId(0), taps };
            let d = recurrent::short_conv(gpu.caps(), &op, width, 3, [places[0], places[1]]);
            let after = run(gpu, &step, &d, &mut arena, &vectors, &states);
            let (n, mut row) = (step.tokens(), 0);
            for (rows, from, to) in SEQUENCES {
                // All inputs of the sequence that matter, the state's first.
                let mut inputs = match from {
                    u32::MAX => vec![0.0; size],
                    slot => wide(&states[slot as usize * size..][..size]),
                };
                for r in row..row + rows {
                    inputs.extend(wide(&before[first(&places[0], n, r)..][..width]));
                    let t = inputs.len() / width - taps;
                    let sum = |c: usize| -> f64 {
                        let tap = |j: usize| f64::from(vectors[3 + c * taps + j]) * inputs[(t + j) * width + c];
                        (0..taps).map(tap).sum()
                    };
                    let expected: Vec<f64> = (0..width).map(sum).map(|s| s / (1.0 + (-s).exp())).collect();
                    let out = arena[first(&places[1], n, r)..][..width].iter().copied();
                    let e = error(out, &expected);
                    assert!(e < 1e-5, "{}: {width} channels, {taps} taps, row {r}: {e:e}", gpu.name());
                }
                let left = &inputs[inputs.len() - size..];
                if rows > 0 {
                    let e = error(after[to as usize * size..][..size].iter().copied(), left);
                    assert!(e < 1e-6, "{}: the state behind {rows} rows: {e:e}", gpu.name());
                }
                row += rows;
            }
            // Slots that nobody writes.
            for slot in [0, 3, 5] {
                assert_eq!(after[slot * size..][..size], states[slot * size..][..size], "{}", gpu.name());
            }
        }
    }
}

#[test]
fn gated_deltas_match_f64() {
    for gpu in testing::gpus() {
        for (hk, hv, k_dim, v_dim, tiled, decay_log) in [
            (1, 1, 3, 5, false, true),
            (2, 4, 16, 16, true, true),
            (2, 6, 65, 40, false, false),
            (1, 2, 128, 33, true, true),
        ] {
            let step = step();
            let op = GatedDeltaOp {
                state: StateId(0),
                n_k_heads: hk,
                n_v_heads: hv,
                k_dim,
                v_dim,
                decay: WeightId(0),
                decay_log,
                dt_bias: WeightId(1),
                tiled,
            };
            let widths = [2 * hk * k_dim + hv * v_dim, hv, hv, hv * v_dim];
            let (mut arena, p) = arena(&step, &widths, &[1.5, 3.0, 3.0]);
            let before = arena.clone();
            let mut vectors = random(9, 2 * hv + 1);
            if !decay_log {
                vectors[1..=hv].iter_mut().for_each(|d| *d = -d.abs() - 0.1);
            }
            let size = hv * k_dim * v_dim;
            let states = random(7, SLOTS * size);
            let places = [p[0], p[1], p[2], p[3]];
            let d = recurrent::gated_delta(gpu.caps(), "delta", &op, [1, 1 + hv as u32], places).unwrap();
            let after = run(gpu, &step, &d, &mut arena, &vectors, &states);
            let (n, mut row) = (step.tokens(), 0);
            for (rows, from, to) in SEQUENCES {
                let mut state = match from {
                    u32::MAX => vec![0.0; size],
                    slot => wide(&states[slot as usize * size..][..size]),
                };
                for r in row..row + rows {
                    let value = |i: usize, at: usize, len: usize| wide(&before[first(&p[i], n, r) + at..][..len]);
                    let mut expected = Vec::new();
                    for h in 0..hv {
                        let unit = |x: Vec<f64>| -> Vec<f64> {
                            let norm = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
                            x.iter().map(|x| x / norm).collect()
                        };
                        let key = op.key_head(h) * k_dim;
                        let (q, k) = (unit(value(0, key, k_dim)), unit(value(0, hk * k_dim + key, k_dim)));
                        let v = value(0, 2 * hk * k_dim + h * v_dim, v_dim);
                        let beta = 1.0 / (1.0 + (-value(1, h, 1)[0]).exp());
                        let decay = f64::from(vectors[1 + h]);
                        let decay = if decay_log { -decay.exp() } else { decay };
                        let softplus = (value(2, h, 1)[0] + f64::from(vectors[1 + hv + h])).exp().ln_1p();
                        let keep = (decay * softplus).exp();
                        let s = &mut state[h * k_dim * v_dim..][..k_dim * v_dim];
                        s.iter_mut().for_each(|s| *s *= keep);
                        for c in 0..v_dim {
                            let seen: f64 = (0..k_dim).map(|i| s[i * v_dim + c] * k[i]).sum();
                            (0..k_dim).for_each(|i| s[i * v_dim + c] += k[i] * beta * (v[c] - seen));
                            let dot: f64 = (0..k_dim).map(|i| s[i * v_dim + c] * q[i]).sum();
                            expected.push(dot / (k_dim as f64).sqrt());
                        }
                    }
                    let out = arena[first(&p[3], n, r)..][..hv * v_dim].iter().copied();
                    let e = error(out, &expected);
                    assert!(e < 2e-5, "{}: {hv} heads of {k_dim} by {v_dim}, row {r}: {e:e}", gpu.name());
                }
                if rows > 0 {
                    let e = error(after[to as usize * size..][..size].iter().copied(), &state);
                    assert!(e < 2e-5, "{}: the state behind {rows} rows: {e:e}", gpu.name());
                }
                row += rows;
            }
            for slot in [0, 3, 5] {
                assert_eq!(after[slot * size..][..size], states[slot * size..][..size], "{}", gpu.name());
            }
        }
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
