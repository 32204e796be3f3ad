// The rows of the current step, and the places of values.
//
// batch: array<u32>, binding 1 of every kernel
//   0 tokens   1 outputs   2 sequences
//   3 positions_at   u32 position of each token row in its sequence
//   4 sequence_of_row_at   u32 sequence of each token row
//   5 outputs_at   u32 token row of each output row
//   6 sequences_at   records of `sequence_stride` words:
//        first row, rows, cached tokens (this step's included), 0,
//        then for each group of caches: pages_at (page numbers, oldest first), first_page (pages dropped before it)
//   7 sequence_stride
//   8 rows_at   u32 for each rope: where in `ropes` the angles of the token rows begin
//   9 tables_at   for each rope a u32 for each sequence: where in `ropes` the angles of its positions begin that keys turn
//        by when they are read; nothing where no keys do
//        A row of either is of rotary_dims/2 cosines, then as many sines.
//  10 parts_at   u32 for each kind of attention: where the lists of the parts begin that it divides rows' keys into (see
//        lib/split.wgsl), where it takes row by row
//  11 chosen_at   where in `tokens` the tokens that this step chooses begin (see lib/tokens.wgsl)
//  12 states_at   two words for each sequence: the slots of the states that the step reads (0xffffffff: zeroes) and writes
//  13 longest   cached tokens of the longest sequence
//  14 choices_at   records of the tokens that this step chooses (see lib/choice.wgsl)

@group(0) @binding(1) var<storage, read> batch: array<u32>;

// A value's place: base, offset, stride, 1 for a row per output. Row r starts at base + offset * rows + r * stride.
alias Place = vec4<u32>;

fn at(place: Place, row: u32) -> u32 {
    return place.x + place.y * batch[place.w] + row * place.z;
}

// As `at`, for a dispatch whose rows are outputs: a value with a row per token is read at the output's token.
fn at_output(place: Place, row: u32) -> u32 {
    if place.w == 0u {
        return at(place, batch[batch[5] + row]);
    }
    return at(place, row);
}
