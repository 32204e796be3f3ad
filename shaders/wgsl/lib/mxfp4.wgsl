#import words
#import group
// MXFP4: 32 elements in 17 bytes, x = 2^(e - 127) v, with v one of 0, 1/2, 1, 3/2, 2, 3, 4, 6 and their negatives.
//
//   byte  0  1                             17
//         e  qs: 16 bytes
//   byte k of qs:  hhhh llll   elements k (l) and k + 16 (h), four bits each: seem, s for the sign
//
// Blocks begin at any byte: five words from the one that has e always hold the whole block.

// Half of 2^(e - 127): quants are twice the values.
fn mxfp4_scale(e: u32) -> f32 {
    return 0.5 * bitcast<f32>(max(e << 23u, 0x00400000u));
}

// 16 plus twice the values of the low four bits of each byte.
fn mxfp4_quants(q: u32) -> u32 {
    let b0 = q & 0x01010101u;
    let b1 = (q >> 1u) & 0x01010101u;
    let b2 = (q >> 2u) & 0x01010101u;
    // 0 .. 7 become 0, 1, 2, 3, 4, 6, 8, 12.
    let v = (q & 0x07070707u) + (b0 & b2) + ((b1 & b2) << 1u) + ((b0 & b1 & b2) << 1u);
    let negative = ((q >> 3u) & 0x01010101u) * 255u;
    return 0x10101010u + v - ((v & negative) << 1u);
}

fn mxfp4_at(row_byte: u32, i: u32) -> f32 {
    let block = row_byte + (i >> 5u) * 17u;
    let q = byte_at(block + 1u + (i & 15u)) >> ((i & 16u) >> 2u);
    return mxfp4_scale(byte_at(block)) * (f32(mxfp4_quants(q & 15u) & 255u) - 16.0);
}

fn mxfp4_group(row_byte: u32, g: u32) -> Group {
    let block = row_byte + g * 17u;
    let w = block >> 2u;
    let a = weights[w];
    let b = vec4<u32>(weights[w + 1u], weights[w + 2u], weights[w + 3u], weights[w + 4u]);
    let byte = (block & 3u) << 3u;
    let d = mxfp4_scale((a >> byte) & 255u);
    // The quants begin a byte later: with a word where e is the last byte of one.
    let whole = byte == 24u;
    let right = vec4<u32>((byte + 8u) & 31u);
    let left = vec4<u32>((24u - byte) & 31u);
    let before = vec4<u32>(a, b.x, b.y, b.z);
    let q = select((before >> right) | (b << left), b, whole);
    let low = q & vec4<u32>(0x0f0f0f0fu);
    let high = (q >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    return Group(
        array<u32, 8>(
            mxfp4_quants(low.x),
            mxfp4_quants(low.y),
            mxfp4_quants(low.z),
            mxfp4_quants(low.w),
            mxfp4_quants(high.x),
            mxfp4_quants(high.y),
            mxfp4_quants(high.z),
            mxfp4_quants(high.w),
        ),
        vec4<f32>(d, -16.0 * d, d, -16.0 * d),
    );
}
