// y = x Wᵀ for many rows of x on matrix units: prompts.
//
//   x   rows of k f32 in the arena    W   rows of blocks as in the file (lib/<format>.wgsl)    y   f32 in the arena
//   FORMAT0 .. 3, KIND0 .. 3   formats of the parts, and how their groups are read: float, bytes or signed
//   SUB   the size of all subgroups     k is a multiple of 32     EMULATED   see lib/matrix16.wgsl
//
// Products of 16 x 16 matrices of f16, added up in f32: sums in f16 overflow on real models. Elements beyond the range of
// f16 become its ends.
//
// A workgroup of four subgroups computes 128 rows of W times 64 rows of x. In each round its invocations unpack a group
// of 32 weights each and copy 32 elements of x each into workgroup memory as f16: (128 + 64) rows of 32, padded to 40 so
// that the rows of a matrix begin in different banks, 15 KiB. Then each subgroup multiplies 64 x 32 products in two
// steps of 16 elements: 6 matrices are read for 8 multiplications. At the end sums go through 1 KiB of workgroup memory
// a subgroup, from where they are written with bias and residual.
//
// Bytes: W once for every 64 rows of x, x once for every 128 rows of W. Flops: 2 a weight and token.
// x and z count workgroups of all parts, y blocks of 64 rows of x.
#import linear
#import staged

const ROWS = 128u;
const TOKENS = 64u;
const SUB = ${SUB}u;
const WG = 4u * SUB;
// vec4 from one row of a tile to the next.
const STRIDE = 10u;

// [16 tokens][16 rows]: four by two.
alias Sums = array<Product, 8>;

var<workgroup> w_tile: array<Staged, ROWS * STRIDE>;
var<workgroup> x_tile: array<Staged, TOKENS * STRIDE>;
#import matrix16

fn add_products(first_row: u32, sums: ptr<function, Sums>) {
    for (var step = 0u; step < 2u; step++) {
        let k = 4u * step;
        let w0 = load_right(first_row * STRIDE + k);
        let w1 = load_right((first_row + 16u) * STRIDE + k);
        for (var t = 0u; t < 4u; t++) {
            let x = load_left(16u * t * STRIDE + k);
            (*sums)[2u * t] = multiply_add(x, w0, (*sums)[2u * t]);
            (*sums)[2u * t + 1u] = multiply_add(x, w1, (*sums)[2u * t + 1u]);
        }
    }
}

#import linear_parts PART=linear_coop_part

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) sub: u32,
    @builtin(subgroup_invocation_id) lane: u32,
#if EMULATED
    @builtin(subgroup_size) sub_size: u32,
#endif
) {
#if EMULATED
    own_lane = lane;
    own_elements = 256u / sub_size;
#endif
    let group = id.x + id.z * count.x;
    let first_token = id.y * TOKENS;
    let p = part_of(group);
    let first_row = (group - params.parts[p].first_group) * ROWS;
    var sums: Sums;
#import linear_sums ARGS=index,sub,first_row,first_token,&sums
#if GATED
    var ups: Sums;
    sums_1(index, sub, first_row, first_token, &ups);
#endif
#if GATED
    let gate_target = target_of(0u);
    let up_target = target_of(1u);
    let rows = gate_target.rows;
#else
    let result = target_of(p);
    let rows = result.rows;
#endif
    let tokens = row_count();
    for (var m = 0u; m < 8u; m++) {
        workgroupBarrier();
        store_product(sums[m], 256u * sub);
        workgroupBarrier();
#if GATED
        var gates: array<f32, 256u / SUB>;
        for (var i = 0u; i < 256u / SUB; i++) {
            gates[i] = out_tile[256u * sub + i * SUB + lane];
        }
        workgroupBarrier();
        store_product(ups[m], 256u * sub);
        workgroupBarrier();
#endif
        for (var i = 0u; i < 256u / SUB; i++) {
            let e = i * SUB + lane;
            let y = out_tile[256u * sub + e];
            let token = first_token + 16u * (m / 2u) + e / 16u;
            let row = first_row + 32u * sub + 16u * (m % 2u) + e % 16u;
            if row < rows && token < tokens {
#if GATED
                finish(gate_target, row, token, gate(biased(gate_target, row, gates[i]), biased(up_target, row, y)));
#else
                finish(result, row, token, biased(result, row, y));
#endif
            }
        }
    }
}
