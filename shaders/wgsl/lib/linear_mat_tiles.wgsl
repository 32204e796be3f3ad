// Tiles of W and x in workgroup memory, and their products, for kernels that multiply many rows of x. See
// linear_mat.wgsl.
#import staged

// Rows of W and of x in a tile.
const TILE = 64u;
const TOKENS = ${TOKENS}u;
// Those of an invocation.
const R = 8u;
const T = TOKENS / 16u;

alias Sums = array<f32, R * T>;

// [element / 4][row], [element / 4][token]
var<workgroup> w_tile: array<Staged, 8u * TILE>;
var<workgroup> x_tile: array<Staged, 8u * TOKENS>;

fn add_products(index: u32, sums: ptr<function, Sums>) {
    for (var j = 0u; j < 8u; j++) {
        var w: array<vec4<f32>, R>;
        for (var r = 0u; r < R; r++) {
            w[r] = vec4<f32>(w_tile[j * TILE + r * (TILE / R) + index % (TILE / R)]);
        }
        for (var t = 0u; t < T; t++) {
            let x = vec4<f32>(x_tile[j * TOKENS + t * (TOKENS / T) + index / (TILE / R)]);
            for (var r = 0u; r < R; r++) {
                (*sums)[r * T + t] += dot(w[r], x);
            }
        }
    }
}
