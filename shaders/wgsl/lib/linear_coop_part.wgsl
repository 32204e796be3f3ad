#import ${FORMAT}
// Template of linear_coop: sums of part N, whose format is FORMAT.

fn sums_${N}(index: u32, sub: u32, first_row: u32, first_token: u32, sums: ptr<function, Sums>) {
    let groups_of_k = params.groups;
    for (var i = 0u; i < 8u; i++) {
        (*sums)[i] = no_product();
    }
    for (var g = 0u; g < groups_of_k; g++) {
        workgroupBarrier();
        for (var i = index; i < ROWS + TOKENS; i += WG) {
            if i < ROWS {
                let row = min(first_row + i, params.parts[${N}].rows - 1u);
                let row_byte = weights_of(${N}u) + row * params.parts[${N}].row_bytes;
#if KIND == float
#if SCALES
                let scale = scale_of(${N}u, row, 32u * g);
#else
                let scale = 1.0;
#endif
                for (var j = 0u; j < 8u; j++) {
                    w_tile[i * STRIDE + j] = staged(scale * ${FORMAT}_4(row_byte, 32u * g + 4u * j));
                }
#else
                let group = ${FORMAT}_group(row_byte, g);
                for (var j = 0u; j < 8u; j++) {
                    let scale = select(group.scale.zw, group.scale.xy, j < 4u);
                    let q = ${KIND}_to_f32(group.q[j]);
                    w_tile[i * STRIDE + j] = staged(scale.x * q + vec4<f32>(scale.y));
                }
#endif
            } else {
                let token = min(first_token + i - ROWS, row_count() - 1u);
                let x_at = source(params.input, token) + 32u * g;
                for (var j = 0u; j < 8u; j++) {
                    x_tile[(i - ROWS) * STRIDE + j] = staged_input(load4(x_at + 4u * j));
                }
            }
        }
        workgroupBarrier();
        add_products(32u * sub, sums);
    }
}
