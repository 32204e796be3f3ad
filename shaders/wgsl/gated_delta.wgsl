// The gated delta rule (Yang et al. 2024) for one head of one sequence, with q, k of its key head normalised:
//   β = sigmoid(b);  keep = exp(decay · softplus(a + dt_bias))
//   S ← keep · S;  S ← S + k ⊗ β (v − Sᵀk);  out = Sᵀq,  S is [K_DIM][v_dim]
//
// Columns of a state are independent. A workgroup takes COLS of them through all tokens of the step; each column is cut
// into PARTS invocations, which keep their rows of it in private memory. x counts blocks of columns, y value heads, z
// sequences. One pass over a part makes both products and the squares of q and k, with the state before the token (out
// = keep · Sᵀq + (k · q) δ). So a token costs one exchange and, because two areas of workgroup memory take turns, one
// barrier; with PARTS == 1 none. The sums are multiplied by the norms of q and k.
//
// Bytes: 8 an element of the state and step, 4 · (2 · K_DIM · blocks + 2 · v_dim) a head and token; flops: 7 · K_DIM · v_dim
// a head and token.

#import arena
#import state
#import act T=f32 ACT=silu

struct Params {
    // q‖k‖v, b, a, and where the results go.
    qkv: Place,
    b: Place,
    a: Place,
    result: Place,
    // First elements in `vectors`.
    decay: u32,
    dt_bias: u32,
    n_k_heads: u32,
    n_v_heads: u32,
    v_dim: u32,
    // 1: the file has -exp's argument; 1: value head h belongs to key head h % n_k_heads.
    decay_log: u32,
    tiled: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

const K_DIM = ${K_DIM}u;
const COLS = ${COLS}u;
const PARTS = ${PARTS}u;
const ROWS = (K_DIM + PARTS - 1u) / PARTS;
const WG = COLS * PARTS;

#if PARTS != 1
// Sᵀk and Sᵀq by column and k², q², k · q, of every part; two areas.
var<workgroup> column_sums: array<vec2<f32>, 2u * WG>;
var<workgroup> key_sums: array<vec3<f32>, 2u * PARTS>;
#endif

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let s = state_rows(wg.z);
    let own = lane % COLS;
    let part = lane / COLS;
    let head = wg.y;
    let first = part * ROWS;
    let column = wg.x * COLS + own;
    // Invocations beyond the last column compute it again and store nothing.
    let c = min(column, params.v_dim - 1u);
    let stores = column < params.v_dim;
    let key_head = select(head / (params.n_v_heads / params.n_k_heads), head % params.n_k_heads, params.tiled == 1u);
    let q_at = key_head * K_DIM + first;
    let k_at = (params.n_k_heads + key_head) * K_DIM + first;
    let v_at = 2u * params.n_k_heads * K_DIM + head * params.v_dim + c;
    let state_at = (head * K_DIM + first) * params.v_dim + c;
    let size = params.n_v_heads * K_DIM * params.v_dim;
    // Rows of this part.
    let rows = min(ROWS, K_DIM - min(first, K_DIM));

    var state: array<f32, ROWS>;
    for (var i = 0u; i < ROWS; i++) {
        state[i] = 0.0;
        if i < rows && s.before != NO_STATE && s.rows > 0u {
            state[i] = states[s.before * size + state_at + i * params.v_dim];
        }
    }
    var decay = vectors[params.decay + head];
    if params.decay_log == 1u {
        decay = -exp(decay);
    }
    let dt_bias = vectors[params.dt_bias + head];
    let q_scale = 1.0 / sqrt(f32(K_DIM));

    for (var t = 0u; t < s.rows; t++) {
        let row = s.first_row + t;
        let qkv = at(params.qkv, row);
        var columns = vec2(0.0);
        var keys = vec3(0.0);
        for (var i = 0u; i < ROWS; i++) {
            if i < rows {
                let k = arena[qkv + k_at + i];
                let q = arena[qkv + q_at + i];
                columns += state[i] * vec2(k, q);
                keys += vec3(k * k, q * q, k * q);
            }
        }
#if PARTS != 1
        let area = t % 2u;
        column_sums[area * WG + lane] = columns;
        if own == 0u {
            key_sums[area * PARTS + part] = keys;
        }
        workgroupBarrier();
        columns = vec2(0.0);
        keys = vec3(0.0);
        for (var p = 0u; p < PARTS; p++) {
            columns += column_sums[area * WG + p * COLS + own];
            keys += key_sums[area * PARTS + p];
        }
#endif
        let k_norm = inverseSqrt(keys.x + params.eps);
        let q_norm = inverseSqrt(keys.y + params.eps) * q_scale;
        let a = arena[at(params.a, row) + head] + dt_bias;
        // ln(1 + eᵃ); where e⁻ᵃ is too small for 1 + e⁻ᵃ to show, it is the logarithm's first term.
        let small = exp(-min(abs(a), 80.0));
        let softplus = max(a, 0.0) + select(log(1.0 + small), small - 0.5 * small * small, small < 1e-3);
        let keep = exp(max(decay * softplus, -80.0));
        let v = arena[qkv + v_at];
        let delta = logistic(arena[at(params.b, row) + head]) * (v - keep * k_norm * columns.x);
        for (var i = 0u; i < ROWS; i++) {
            if i < rows {
                state[i] = keep * state[i] + arena[qkv + k_at + i] * (k_norm * delta);
            }
        }
        if part == 0u && stores {
            let result = keep * q_norm * columns.y + keys.z * k_norm * q_norm * delta;
            arena[at(params.result, row) + head * params.v_dim + c] = result;
        }
    }
    if stores && s.rows > 0u {
        for (var i = 0u; i < ROWS; i++) {
            if i < rows {
                states[s.behind * size + state_at + i * params.v_dim] = state[i];
            }
        }
    }
}
