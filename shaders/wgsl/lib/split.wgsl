// Rows of keys in parts, and their partial results.
//
// The parts of all rows are numbered one after the other. Where the lists of a kind of attention begin, there are: the first
// part of each row, the number of all parts, the row of each part. How many a row has follows from its position alone.
//
// partials, binding 6: [part][head] of v_dim + 4 floats: maximum, sum, two unused, v_dim weighted values.
// A part without keys has the sum 0. Rows of a single part have no partial result: their part is the result.

fn part_lists() -> u32 {
    return batch[batch[10] + params.parts];
}

fn row_of(part: u32) -> u32 {
    return batch[part_lists() + batch[0] + 1u + part];
}

// The first part of a row, and how many it has.
fn parts_of(row: u32) -> vec2<u32> {
    let first = batch[part_lists() + row];
    return vec2(first, batch[part_lists() + row + 1u] - first);
}

// The keys of part `i` of `n`, of those from `first` to `end`: all parts but the last are a multiple of 64 keys.
fn keys_of_part(first: u32, end: u32, i: u32, n: u32) -> vec2<u32> {
    let size = ((end - first + n - 1u) / n + 63u) / 64u * 64u;
    let begin = min(first + i * size, end);
    return vec2(begin, min(begin + size, end));
}

fn partial_at(part: u32, head: u32) -> u32 {
    return (part * params.kv.n_kv_heads * params.group + head) * (params.kv.v_dim + 4u);
}
