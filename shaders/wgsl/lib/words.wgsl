// Reads from `weights`, which the importing kernel declares as var<storage, read> weights: array<u32>.
//
// Byte offsets count from the start of the binding. Blocks of 18, 22, 34 or 210 bytes start at any even byte, so their
// words may straddle two words of the binding; nothing here reads a word that has no byte of what was asked for.

fn byte_at(byte: u32) -> u32 {
    return (weights[byte >> 2u] >> ((byte & 3u) << 3u)) & 255u;
}

// The two bytes at an even offset.
fn half_bits_at(byte: u32) -> u32 {
    return (weights[byte >> 2u] >> ((byte & 2u) << 3u)) & 0xffffu;
}

fn half_at(byte: u32) -> f32 {
    return unpack2x16float(half_bits_at(byte)).x;
}

// The four bytes that begin two bytes into `a`.
fn straddle(a: u32, b: u32) -> u32 {
    return (a >> 16u) | (b << 16u);
}
