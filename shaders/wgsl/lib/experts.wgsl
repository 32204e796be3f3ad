// Linears by the experts of a route: which expert an invocation's rows belong to, and where its inputs and results lie.
//
//   route   a row of `slots` experts' numbers and as many weights, f32 in the arena
//   EXPERTS   experts in all     SORTED   a workgroup's rows are pairs of row and slot that chose one expert, out of
//             `pairs` (see expert_sort.wgsl); else they are one slot of one row
//
// Experts lie anywhere in the weights binding: `bytes` says where. Those of other bindings have NONE.

struct Experts {
    route: Place,
    slots: u32,
    // Elements between the inputs of a row's slots: 0 where they share one.
    input_stride: u32,
    // Elements that an expert makes in all.
    out: u32,
    // Whether sums are multiplied by the route's weights.
    scaled: u32,
    bytes: array<vec4<u32>, (${EXPERTS}u + 3u) / 4u>,
}

#if SORTED
@group(0) @binding(5) var<storage, read> pairs: array<u32>;
#endif

var<private> expert: u32;
var<private> expert_byte: u32;
// SORTED: the expert's first pair and how many it has; else its row and slot.
var<private> expert_first: u32;
var<private> expert_count: u32;

fn byte_of(e: u32) -> u32 {
    return params.experts.bytes[e >> 2u][e & 3u];
}

#if SORTED
// Goes on with expert `e`; false where it has no pair `first`, or is in another binding. The same for a whole workgroup.
fn choose_expert(e: u32, first: u32) -> bool {
    let begin = pairs[e];
    let count = pairs[e + 1u] - begin;
    let byte = byte_of(e);
    expert = e;
    expert_byte = byte;
    expert_first = begin;
    expert_count = count;
    return first < count && byte != NONE;
}

fn pair_of(row: u32) -> vec2<u32> {
    let p = pairs[EXPERTS + 1u + expert_first + row];
    return vec2<u32>(p / params.experts.slots, p % params.experts.slots);
}

fn x_rows() -> u32 {
    return expert_count;
}

fn x_row(row: u32) -> u32 {
    let p = pair_of(min(row, expert_count - 1u));
    return source(params.input, p.x) + p.y * params.experts.input_stride;
}
#else
// Goes on with the expert in slot `slot` of row `row`; false where it is in another binding.
fn choose_expert(row: u32, slot: u32) -> bool {
    expert = min(u32(load1(source(params.experts.route, row) + slot)), EXPERTS - 1u);
    expert_byte = byte_of(expert);
    expert_first = row;
    expert_count = slot;
    return expert_byte != NONE;
}

fn pair_of(row: u32) -> vec2<u32> {
    return vec2<u32>(expert_first, expert_count);
}

fn x_rows() -> u32 {
    return 1u;
}

fn x_row(row: u32) -> u32 {
    return source(params.input, expert_first) + expert_count * params.experts.input_stride;
}
#endif

const EXPERTS = ${EXPERTS}u;

// Writes element `row` of the expert's output for its input `x`.
fn finish_expert(row: u32, x: u32, sum: f32) {
    let p = pair_of(x);
    var y = sum;
    if params.experts.scaled != 0u {
        y *= load1(source(params.experts.route, p.x) + params.experts.slots + p.y);
    }
    let at_row = params.parts[0].out_first + row;
    if params.parts[0].bias != NONE {
        y += vector(params.parts[0].bias + expert * params.experts.out + at_row);
    }
    store1(at(params.parts[0].out, p.x) + p.y * params.experts.out + at_row, y);
}
