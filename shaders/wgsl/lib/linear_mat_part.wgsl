#import ${FORMAT}
// Template of linear_mat: sums of part N, whose format is FORMAT.

fn sums_${N}(index: u32, first_row: u32, first_token: u32, sums: ptr<function, Sums>) {
    let groups_of_k = params.groups;
    let k = params.k;
    let lane = index % TILE;
    let row = min(first_row + lane, params.parts[${N}].rows - 1u);
    let row_byte = weights_of(${N}u) + row * params.parts[${N}].row_bytes;
    let x_at = x_row(first_token + lane);
    let copies = index >= TILE && lane < TOKENS;
    for (var i = 0u; i < R * T; i++) {
        (*sums)[i] = 0.0;
    }
    for (var g = 0u; g < groups_of_k; g++) {
        workgroupBarrier();
        if index < TILE {
#if KIND == float
#if SCALES
            let scale = scale_of(${N}u, row, 32u * g);
#else
            let scale = 1.0;
#endif
            for (var j = 0u; j < 8u; j++) {
                w_tile[j * TILE + lane] = staged(scale * ${FORMAT}_4(row_byte, 32u * g + 4u * j));
            }
#else
            let group = ${FORMAT}_group(row_byte, g);
            for (var j = 0u; j < 8u; j++) {
                let scale = select(group.scale.zw, group.scale.xy, j < 4u);
                let q = ${KIND}_to_f32(group.q[j]);
                w_tile[j * TILE + lane] = staged(scale.x * q + vec4<f32>(scale.y));
            }
#endif
        } else if copies {
            for (var j = 0u; j < 8u; j++) {
                x_tile[j * TOKENS + lane] = staged_input(load4(x_at + 32u * g + 4u * j));
            }
        }
        workgroupBarrier();
        add_products(index, sums);
    }
#if TAIL
    // The last elements, one by one, and zeros up to 32.
    workgroupBarrier();
    for (var j = 0u; j < 8u; j++) {
        var v = vec4<f32>(0.0);
        for (var c = 0u; c < 4u; c++) {
            let i = 32u * groups_of_k + 4u * j + c;
            if i < k {
                if index < TILE {
                    v[c] = ${FORMAT}_at(row_byte, i);
#if SCALES
                    v[c] *= scale_of(${N}u, row, i);
#endif
                } else {
                    v[c] = load1(x_at + i);
                }
            }
        }
        if index < TILE {
            w_tile[j * TILE + lane] = staged(v);
        } else if copies {
            x_tile[j * TOKENS + lane] = staged_input(v);
        }
    }
    workgroupBarrier();
    add_products(index, sums);
#endif
}
