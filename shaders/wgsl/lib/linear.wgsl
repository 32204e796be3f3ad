// Parameters, values and the end of a row, for the kernels of the linear op.
//
//   PARTS   weights with an input in common: workgroups first_group .. of the x (and z) direction are a part's
//   GATED   both parts are computed by the same workgroup, and act(part 0) * part 1 (the activation is ACT, see
//           lib/act.wgsl) is written to part 0's place. PARTS is 1 then, as far as the search for a workgroup's part goes.
//   OUTPUTS   rows are outputs, else tokens
//   HEADS   the weight is a matrix for each head of the input: part 0 describes the first one's, and `k` and `rows` are a
//   head's. Heads of the output lie one behind the other
//   TRANSPOSED   rows of the weight belong to inputs, elements of them to outputs
//   SCALES   parts may have f32 scales among the vectors: one for SCALE_ROWS rows by SCALE_COLS elements
//   EXPERTS   weights are those of the experts that a route names (lib/experts.wgsl): how many there are
//   VEC   the input's place is made of multiples of four elements: it is read four at a time
//   NORM   for kernels that take TOKENS rows of x at a time, whose k 32 divides: x is what an RMS norm makes of the rows that
//   are read. The kernel multiplies by the norm's scale what it reads and adds up squares on the way; sums are divided by
//   their root at the end. So a norm costs no dispatch of its own
#import batch
#if EXPERTS
#import experts
#endif

struct Part {
    out: Place,
    weight_byte: u32,
    row_bytes: u32,
    // Rows of the weight: elements of the output.
    rows: u32,
    first_group: u32,
    // Where in the output's row the part begins.
    out_first: u32,
    // First element of the bias in `vectors`, or NONE.
    bias: u32,
    // First scale in `vectors`, or NONE, and rows of its block before the first.
    scale: u32,
    scale_row: u32,
}

struct Params {
    input: Place,
    // Added to part 0's output, unless its base is NONE: no kernel of its own, which would be many to compile.
    residual: Place,
    // Elements of a row of the input.
    k: u32,
    // Whole groups of 32 in it.
    groups: u32,
    // HEADS: workgroups of a head, and bytes from one matrix to the next. EXPERTS: from one's scales to the next one's.
    groups_per_head: u32,
    head_bytes: u32,
    // NORM: first element of the scale in `vectors` (a multiple of four), what is added to the scale, eps, 1 / k.
    norm_scale: u32,
    norm_offset: f32,
    norm_eps: f32,
    norm_share: f32,
    parts: array<Part, 4>,
#if EXPERTS
    experts: Experts,
#endif
}

const NONE = 0xffffffffu;

@group(0) @binding(0) var<uniform> params: Params;
#if VEC
@group(0) @binding(2) var<storage, read_write> arena: array<vec4<f32>>;
#else
@group(0) @binding(2) var<storage, read_write> arena: array<f32>;
#endif
#if NORM
@group(0) @binding(3) var<storage, read> vectors: array<vec4<f32>>;

fn vector(i: u32) -> f32 {
    return vectors[i >> 2u][i & 3u];
}
#else
@group(0) @binding(3) var<storage, read> vectors: array<f32>;

fn vector(i: u32) -> f32 {
    return vectors[i];
}
#endif
@group(0) @binding(4) var<storage, read> weights: array<u32>;

#if VEC
fn load1(i: u32) -> f32 {
    return arena[i >> 2u][i & 3u];
}

// Elements i .. i + 3; VEC: i is a multiple of four.
fn load4(i: u32) -> vec4<f32> {
    return arena[i >> 2u];
}

fn store1(i: u32, v: f32) {
    arena[i >> 2u][i & 3u] = v;
}
#else
fn load1(i: u32) -> f32 {
    return arena[i];
}

fn load4(i: u32) -> vec4<f32> {
    return vec4<f32>(arena[i], arena[i + 1u], arena[i + 2u], arena[i + 3u]);
}

fn store1(i: u32, v: f32) {
    arena[i] = v;
}
#endif

#if NORM
// By row of the block: squares of the elements that this invocation has read.
var<private> squares: array<f32, TOKENS>;
#endif

// Elements i .. i + 3 of x in row t of the block, which begins at `row`.
fn input4(t: u32, row: u32, i: u32) -> vec4<f32> {
    let x = load4(row + i);
#if NORM
    squares[t] += dot(x, x);
    return x * (vectors[(params.norm_scale + i) >> 2u] + params.norm_offset);
#else
    return x;
#endif
}

fn row_count() -> u32 {
#if OUTPUTS
    return batch[1];
#else
    return batch[0];
#endif
}

fn source(place: Place, row: u32) -> u32 {
#if OUTPUTS
    return at_output(place, row);
#else
    return at(place, row);
#endif
}

#if HEADS
var<private> head: u32;

// The workgroup among those of its head, which is kept in mind.
fn own_group(group: u32) -> u32 {
    head = group / params.groups_per_head;
    return group % params.groups_per_head;
}

#else
fn own_group(group: u32) -> u32 {
    return group;
}
#endif

#if SCALES
// The factor on element `i` of row `row` of a part.
fn scale_of(p: u32, row: u32, i: u32) -> f32 {
    if params.parts[p].scale == NONE {
        return 1.0;
    }
#if TRANSPOSED
    let len = params.parts[p].rows;
#else
    let len = params.k;
#endif
    var scaled_row = row + params.parts[p].scale_row;
#if HEADS
    scaled_row += head * (params.head_bytes / params.parts[p].row_bytes);
#endif
    let columns = (len + ${SCALE_COLS}u - 1u) / ${SCALE_COLS}u;
    var first = params.parts[p].scale;
#if EXPERTS
    first += expert * params.head_bytes;
#endif
    return vector(first + scaled_row / ${SCALE_ROWS}u * columns + i / ${SCALE_COLS}u);
}
#endif

// The first byte of part n's weights.
fn weights_of(n: u32) -> u32 {
#if EXPERTS
    return expert_byte;
#else
#if HEADS
    return params.parts[n].weight_byte + head * params.head_bytes;
#else
    return params.parts[n].weight_byte;
#endif
#endif
}

#if !EXPERTS
// Rows of x, and where one begins; rows beyond are the last one.
fn x_rows() -> u32 {
    return row_count();
}

fn x_row(row: u32) -> u32 {
#if HEADS
    return source(params.input, min(row, row_count() - 1u)) + head * params.k;
#else
    return source(params.input, min(row, row_count() - 1u));
#endif
}
#endif

fn part_of(group: u32) -> u32 {
    var p = 0u;
#if PARTS != 1
    for (var i = 1u; i < ${PARTS}u; i++) {
        if group >= params.parts[i].first_group {
            p = i;
        }
    }
#endif
    return p;
}

// Where a part's results go. Found once: every read of a parameter costs as much as one of data on some adapters.
struct Target {
    // Element of the part's first row for row 0 of the input, and the step to the next row.
    out: u32,
    out_stride: u32,
    bias: u32,
    rows: u32,
    // As `out`; rows of outputs are found one by one.
    residual: u32,
    residual_stride: u32,
}

fn target_of(p: u32) -> Target {
    let out = params.parts[p].out;
    let first = params.parts[p].out_first;
#if HEADS
    let begin = at(out, 0u) + first + head * params.parts[p].rows;
#else
    let begin = at(out, 0u) + first;
#endif
    var t = Target(begin, out.z, params.parts[p].bias, params.parts[p].rows, NONE, 0u);
    if p == 0u && params.residual.x != NONE {
#if OUTPUTS
        t.residual = first;
#else
        t.residual = at(params.residual, 0u) + first;
        t.residual_stride = params.residual.z;
#endif
    }
    return t;
}

// The sum of a weight's row over one input row, with its bias.
fn biased(t: Target, row: u32, sum: f32) -> f32 {
    if t.bias == NONE {
        return sum;
    }
    return sum + vector(t.bias + row);
}

// Writes element `row` of a part (its bias is in `y`) for the input row `token`.
fn finish(t: Target, row: u32, token: u32, y: f32) {
    var sum = y;
    if t.residual != NONE {
#if OUTPUTS
        sum += load1(source(params.residual, token) + t.residual + row);
#else
        sum += load1(t.residual + token * t.residual_stride + row);
#endif
    }
    store1(t.out + token * t.out_stride + row, sum);
}

#if GATED
#import act T=f32
#endif

fn sum4(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}
