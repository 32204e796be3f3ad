// Long rows of keys in parts, and their partial results.
//
// partials, binding 6: [row][head][part] of v_dim + 4 floats: maximum, sum, two unused, v_dim weighted values.
// A part without keys has the sum 0.

// Parts of this step for layers of this kind.
fn parts() -> u32 {
    return batch[batch[10] + params.parts];
}

// The keys of a part, of those from `first` to `end`: all parts but the last are a multiple of 64 keys.
fn part_of(first: u32, end: u32, part: u32) -> vec2<u32> {
    let n = parts();
    let size = ((end - first + n - 1u) / n + 63u) / 64u * 64u;
    let begin = min(first + part * size, end);
    return vec2(begin, min(begin + size, end));
}

fn partial_at(row: u32, head: u32, part: u32) -> u32 {
    return ((row * params.kv.n_kv_heads * params.group + head) * parts() + part) * (params.kv.v_dim + 4u);
}
