// Elements into the pages that are bound as ${AT}.
//
// Halves end at 65504. Larger values become infinite and NaN stays NaN, so that attention makes no finite results of
// them: the error can then advise 32 bits. A driver's conversion may give anything instead. Scales of blocks likewise.
//
// With KV_Q8_0 the kernel has a function `cached(i)`: element i of what it stores.

@group(0) @binding(${AT}) var<storage, read_write> kv: array<u32>;

#if KV_F16
#import half_bits
#endif
#if KV_Q8_0
#import half_bits

// The scale of the block of `n` elements factor · cached(first ..), as the bits of a half: NaN where one is not finite.
fn block_scale(first: u32, n: u32, factor: f32) -> u32 {
    var greatest = 0u;
    for (var i = 0u; i < n; i++) {
        greatest = max(greatest, bitcast<u32>(factor * cached(first + i)) & 0x7fffffffu);
    }
    if greatest >= 0x7f800000u {
        return 0x7e00u;
    }
    return half_bits(vec2(bitcast<f32>(greatest) / 127.0, 0.0));
}

// Word `w` of the row at `row` of the `dim` elements factor · cached(first ..): four bytes, or two scales behind them.
fn store_word(row: u32, w: u32, dim: u32, first: u32, factor: f32) {
    let of_scales = w >= dim / 4u;
    var block = w / 8u;
    var blocks = 1u;
    if of_scales {
        block = 2u * (w - dim / 4u);
        blocks = min(2u, dim / 32u - block);
    }
    var scales = 0u;
    // A row has 32 elements or more. Constant lengths would be written out, which takes llvmpipe half a minute to compile.
    for (var b = 0u; b < blocks; b++) {
        scales |= block_scale(first + 32u * (block + b), min(dim, 32u), factor) << (16u * b);
    }
    if of_scales {
        kv[row + w] = scales;
        return;
    }
    let i = first + 4u * w;
    let scale = unpack2x16float(scales).x;
    let inverse = select(0.0, factor / scale, scale > 0.0);
    let x = vec4(cached(i), cached(i + 1u), cached(i + 2u), cached(i + 3u)) * inverse;
    let bytes = bitcast<vec4<u32>>(vec4<i32>(round(clamp(x, vec4(-127.0), vec4(127.0))))) & vec4<u32>(255u);
    kv[row + w] = bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}
#else
// Two elements; `at` is even.
fn store(at: u32, a: f32, b: f32) {
#if KV_F16
    kv[at / 2u] = half_bits(vec2(a, b));
#else
    kv[at] = bitcast<u32>(a);
    kv[at + 1u] = bitcast<u32>(b);
#endif
}
#endif
