// The teams of invocations that compute rows of W, and their sums, for kernels that multiply few rows of x. See
// linear_vec.wgsl for the defines.

const ROWS = ${ROWS}u;
const TOKENS = ${TOKENS}u;
const SUMS = ROWS * TOKENS;
const WG = ${WG}u;
const TEAM = ${TEAM}u;
const SUB = ${SUB}u;

alias Sums = array<f32, SUMS>;

#if PARTIALS
// A team's partial sums of each output lie together.
var<workgroup> partial: array<f32, WG / SUB * SUMS>;
#endif

#if ROUNDED
// 32 elements of x, and the largest of their magnitudes; no finite number where the first element is none, for a norm before
// has then made all of them so. (A norm in here multiplies the sums by what is no number itself.)
struct Piece {
    x: array<vec4<f32>, 8>,
    top: f32,
}

fn piece_at(t: u32, row: u32, i: u32) -> Piece {
    var out: Piece;
    var peak = vec4<f32>(0.0);
    for (var j = 0u; j < 8u; j++) {
        out.x[j] = input4(t, row, i + 4u * j);
        peak = max(peak, abs(out.x[j]));
    }
    out.top = max(max(peak.x, peak.y), max(peak.z, peak.w));
#if !NORM
    out.top = bitcast<f32>(bitcast<u32>(out.top) | odd(bitcast<u32>(out.x[0].x)));
#endif
    return out;
}

#if !NORM
// The exponent of a float that is infinite or no number, from its bits; 0 for others.
fn odd(bits: u32) -> u32 {
    return select(0u, 0x7f800000u, (bits & 0x7f800000u) == 0x7f800000u);
}

// Makes sums infinite or no numbers where an element of x is: a maximum passes over what is no number, and bytes do not
// hold it. Rows of one workgroup are enough, for the norm behind the residual stream spreads it to all.
fn look_for_odd(lane: u32, first_token: u32, sums: ptr<function, Sums>) {
    for (var t = 0u; t < TOKENS; t++) {
        let x_at = x_row(first_token + t);
        var largest = vec4<u32>(0u);
        for (var i = 4u * lane; i < 32u * params.groups; i += 4u * TEAM) {
            largest = max(largest, bitcast<vec4<u32>>(input4(t, x_at, i)) & vec4<u32>(0x7f800000u));
        }
        let exponent = odd(max(max(largest.x, largest.y), max(largest.z, largest.w)));
        for (var r = 0u; r < ROWS; r++) {
            (*sums)[r * TOKENS + t] = bitcast<f32>(bitcast<u32>((*sums)[r * TOKENS + t]) | exponent);
        }
    }
}
#endif
#endif

#if INT8
// 32 elements of x: scale times bytes. The sums are those of the first and of the last 16 bytes.
struct Bytes {
    q: array<u32, 8>,
    scale: f32,
    sums: vec2<i32>,
}

fn bytes_of(t: u32, row: u32, i: u32) -> Bytes {
    let piece = piece_at(t, row, i);
    let inverse = select(0.0, 127.0 / piece.top, piece.top > 1e-30);
    var out: Bytes;
    out.scale = piece.top / 127.0;
    out.sums = vec2<i32>(0);
    for (var j = 0u; j < 8u; j++) {
        // Beside 1.5 * 2^23 a float has no room for fractions: the sum's low byte is the rounded number.
        let b = bitcast<vec4<u32>>(fma(piece.x[j], vec4<f32>(inverse), vec4<f32>(12582912.0))) & vec4<u32>(255u);
        out.q[j] = b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
        out.sums[j / 4u] += dot4I8Packed(out.q[j], 0x01010101u);
    }
    return out;
}
#endif

#if F16
// 32 elements of x: scale times halves of at most 1, so that no product with a byte leaves the range of halves. The sums
// are those of the first and of the last 16.
struct Halves {
    x: array<vec4<f16>, 8>,
    scale: f32,
    sums: vec2<f32>,
}

fn halves_of(t: u32, row: u32, i: u32) -> Halves {
    let piece = piece_at(t, row, i);
    let inverse = select(0.0, 1.0 / piece.top, piece.top > 1e-30);
    var out: Halves;
    out.scale = piece.top;
    out.sums = vec2<f32>(0.0);
    for (var j = 0u; j < 8u; j++) {
        out.x[j] = vec4<f16>(piece.x[j] * inverse);
        out.sums[j / 4u] += sum4(vec4<f32>(out.x[j]));
    }
    return out;
}
#endif

// Adds up the sums of a team's invocations. Its first SUMS invocations (all of them several times over, where SUMS is
// more than TEAM) find the totals in `totals`.
fn add_up(index: u32, sums: ptr<function, Sums>) {
#if SUBGROUPS
    for (var i = 0u; i < SUMS; i++) {
        var v = (*sums)[i];
        for (var d = 1u; d < SUB; d <<= 1u) {
            v += subgroupShuffleXor(v, d);
        }
        (*sums)[i] = v;
    }
#endif
#if PARTIALS
    workgroupBarrier();
    if index % SUB == 0u {
        for (var i = 0u; i < SUMS; i++) {
            partial[index / SUB * SUMS + i] = (*sums)[i];
        }
    }
    workgroupBarrier();
    let first = index / TEAM * (TEAM / SUB) * SUMS;
    for (var i = index % TEAM; i < SUMS; i += TEAM) {
        var v = 0.0;
        for (var j = 0u; j < TEAM / SUB; j++) {
            v += partial[first + j * SUMS + i];
        }
        (*sums)[i] = v;
    }
#endif
}

#if NORM
// Makes `squares` those of whole rows, which a team's invocations have read together.
fn add_up_squares(index: u32) {
#if SUBGROUPS
    for (var t = 0u; t < TOKENS; t++) {
        for (var d = 1u; d < SUB; d <<= 1u) {
            squares[t] += subgroupShuffleXor(squares[t], d);
        }
    }
#endif
#if PARTIALS
    workgroupBarrier();
    if index % SUB == 0u {
        for (var t = 0u; t < TOKENS; t++) {
            partial[index / SUB * TOKENS + t] = squares[t];
        }
    }
    workgroupBarrier();
    let first = index / TEAM * (TEAM / SUB) * TOKENS;
    for (var t = 0u; t < TOKENS; t++) {
        squares[t] = 0.0;
        for (var j = 0u; j < TEAM / SUB; j++) {
            squares[t] += partial[first + j * TOKENS + t];
        }
    }
#endif
}
#endif
