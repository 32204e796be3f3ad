// States of sequences of one layer: array<f32>, binding 4. Slot `s` begins at element s * elements.

#import batch

@group(0) @binding(4) var<storage, read_write> states: array<f32>;

const NO_STATE = 0xffffffffu;

// One sequence's part of a step: its rows, and the slots of the state before (NO_STATE: zeroes) and behind it, which may
// be the same.
struct StateRows {
    first_row: u32,
    rows: u32,
    before: u32,
    behind: u32,
}

fn state_rows(sequence: u32) -> StateRows {
    let record = batch[6] + sequence * batch[7];
    let at = batch[12] + 2u * sequence;
    return StateRows(batch[record], batch[record + 1u], batch[at], batch[at + 1u]);
}
