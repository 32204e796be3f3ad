// Matrices of 16 x 16 that a subgroup multiplies together: Product += Left Right, f16 in, f32 sums.
//
// Left is read from x_tile, [row][element of k]; Right from w_tile, [column][element of k]; both have STRIDE vec4<f16>
// from row to row. EMULATED computes the same with plain arithmetic, so that adapters without matrix units can show
// that all else in a kernel is right.

var<workgroup> out_tile: array<f32, 4u * 256u>;

#if EMULATED
// Matrices are known by their places, products by their numbers. A lane has elements lane, lane + SUB, .. of a product.
alias Left = u32;
alias Right = u32;
alias Product = u32;

const ELEMENTS = 256u / SUB;

var<private> own: array<f32, 16u * ELEMENTS>;
var<private> own_products: u32;
var<private> own_lane: u32;
// ELEMENTS, but not a constant: unrolled, the loops over them would take minutes to compile.
var<private> own_elements: u32;

fn no_product() -> Product {
    let p = own_products;
    own_products += 1u;
    for (var i = 0u; i < own_elements; i++) {
        own[p * ELEMENTS + i] = 0.0;
    }
    return p;
}

fn load_left(at: u32) -> Left {
    return at;
}

fn load_right(at: u32) -> Right {
    return at;
}

fn multiply_add(x: Left, w: Right, p: Product) -> Product {
    for (var i = 0u; i < own_elements; i++) {
        let e = i * SUB + own_lane;
        var sum = own[p * ELEMENTS + i];
        for (var j = 0u; j < 4u; j++) {
            let a = vec4<f32>(x_tile[x + e / 16u * STRIDE + j]);
            sum += dot(a, vec4<f32>(w_tile[w + e % 16u * STRIDE + j]));
        }
        own[p * ELEMENTS + i] = sum;
    }
    return p;
}

fn store_product(p: Product, at: u32) {
    for (var i = 0u; i < own_elements; i++) {
        out_tile[at + i * SUB + own_lane] = own[p * ELEMENTS + i];
    }
}
#else
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Product = coop_mat16x16<f32, C>;

fn no_product() -> Product {
    return Product();
}

fn load_left(at: u32) -> Left {
    return coopLoadT<Left>(&x_tile[at], STRIDE);
}

fn load_right(at: u32) -> Right {
    return coopLoad<Right>(&w_tile[at], STRIDE);
}

fn multiply_add(x: Left, w: Right, sum: Product) -> Product {
    return coopMultiplyAdd(x, w, sum);
}

fn store_product(p: Product, at: u32) {
    coopStoreT(p, &out_tile[at], 16u);
}
#endif
