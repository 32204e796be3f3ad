// Decoding of IQ4_NL and IQ4_XS: sixteen signed values by four-bit indices.

// The values, four bytes a word, the first one lowest.
const IQ4 = array<u32, 4>(${IQ4_VALUES});

// Bytes of a where the mask's are not set, else of b: one operation on most GPUs.
fn iq4_choose(a: u32, b: u32, mask: u32) -> u32 {
    return (a & ~mask) | (b & mask);
}

// Bit `bit` of each byte in all of the byte's bits. A product with 255 would take a quarter of the rate.
fn iq4_mask(q: u32, bit: u32) -> u32 {
    let b = (q >> bit) & 0x01010101u;
    return (b << 8u) - b;
}

// Two neighbouring values, chosen by the lowest bit of the index: `word` has them as its bytes 0 and 1.
fn iq4_pair(word: u32, mask: u32) -> u32 {
    return iq4_choose((word & 255u) * 0x01010101u, ((word >> 8u) & 255u) * 0x01010101u, mask);
}

// The values of the indices in the low four bits of each byte, as signed bytes. A table in memory would be looked up once
// for each byte; here each of the index's bits halves the sixteen values for four bytes at once.
fn iq4_quants(q: u32) -> u32 {
    let m0 = iq4_mask(q, 0u);
    let m1 = iq4_mask(q, 1u);
    let m2 = iq4_mask(q, 2u);
    let m3 = iq4_mask(q, 3u);
    let a = iq4_choose(iq4_pair(IQ4[0], m0), iq4_pair(IQ4[0] >> 16u, m0), m1);
    let b = iq4_choose(iq4_pair(IQ4[1], m0), iq4_pair(IQ4[1] >> 16u, m0), m1);
    let c = iq4_choose(iq4_pair(IQ4[2], m0), iq4_pair(IQ4[2] >> 16u, m0), m1);
    let d = iq4_choose(iq4_pair(IQ4[3], m0), iq4_pair(IQ4[3] >> 16u, m0), m1);
    return iq4_choose(iq4_choose(a, b, m2), iq4_choose(c, d, m2), m3);
}

// The value of one index.
fn iq4_value(i: u32) -> f32 {
    return f32(bitcast<i32>(iq4_quants(i) << 24u) >> 24u);
}
