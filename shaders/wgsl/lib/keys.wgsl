// The keys that a query row attends to, by number from `first` to `end`.
//
// A number is a position, but for LISTED:
//   BLOCKS     first the keys within the window, then those of a second cache (binding 7, pages of 16): of all blocks of
//              `every` tokens that are complete
//   SELECTED   of blocks, or of positions where there are none, only those whose numbers lie in a row of values
//              (`chosen`): ascending, then -1 where there are fewer

#import attention
#if BLOCKS
#import kv4 NAME=blocks AT=7
const BLOCK_PAGE = 16u;
#endif

struct Keys {
    record: u32,
    first: u32,
    end: u32,
    angles: KeyAngles,
#if LISTED
    // Numbers below are those of the window, which begins at the position `lowest`.
    window: u32,
    lowest: u32,
    // First element of the list.
    list: u32,
#endif
}

// Where a key and its value begin. One that is not `there` has a place all the same, where other things lie.
struct Located {
    key: u32,
    value: u32,
    there: bool,
}

fn keys_of_row(row: u32, sequence: u32, position: u32) -> Keys {
    let record = sequence_record(sequence);
    let angles = key_angles(sequence);
#if LISTED
    var lowest = 0u;
    var window = 0u;
    var seen = position + 1u;
    var list = 0u;
#if BLOCKS
    lowest = first_key(position);
    window = position + 1u - lowest;
    seen /= params.every;
#endif
#if SELECTED
    seen = min(seen, params.selected);
    list = at(params.chosen, row);
#endif
    return Keys(record, 0u, window + seen, angles, window, lowest, list);
#else
    return Keys(record, first_key(position), position + 1u, angles);
#endif
}

fn locate(keys: Keys, number: u32, kv_head: u32) -> Located {
    var position = number;
    var there = true;
#if LISTED
    position += keys.lowest;
    if number >= keys.window {
        position = number - keys.window;
#if SELECTED
        let chosen = arena[keys.list + position];
        there = chosen >= 0.0;
        // The first is always there, so that what is read instead is a number.
        position = u32(max(chosen, 0.0));
#endif
#if BLOCKS
        let pages = keys.record + 4u + 2u * params.block_group;
        let page = batch[batch[pages] + position / BLOCK_PAGE - batch[pages + 1u]];
        let slot = (page * params.kv.n_kv_heads + kv_head) * BLOCK_PAGE + position % BLOCK_PAGE;
        return Located(slot * row_size(params.kv.head_dim), slot * row_size(params.kv.head_dim), there);
#endif
    }
#endif
    let start = page_start(params.kv, keys.record, position);
    let key = keys_of(params.kv, start, kv_head) + position % PAGE * row_size(params.kv.head_dim);
    let value = values_of(params.kv, start, kv_head) + position % PAGE * row_size(value_row(params.kv));
    return Located(key, value, there);
}

// Four elements of the key that begins at `key`.
fn load_key(keys: Keys, number: u32, key: u32, i: u32) -> vec4<f32> {
#if BLOCKS
    if number >= keys.window {
        return blocks4(key, i, params.kv.head_dim);
    }
#endif
    return key4(key, i, keys.angles, number);
}

#if KEY_BLOCKS
// The scale of the block of 32 elements from `i` on, and four of its bytes.
fn key_scale(keys: Keys, number: u32, key: u32, i: u32) -> f32 {
#if BLOCKS
    if number >= keys.window {
        return blocks_scale(key, i, params.kv.head_dim);
    }
#endif
    return kv_scale(key, i, params.kv.head_dim);
}

fn key_bytes(keys: Keys, number: u32, key: u32, i: u32) -> vec4<f32> {
#if BLOCKS
    if number >= keys.window {
        return blocks_bytes(key, i);
    }
#endif
    return kv_bytes(key, i);
}
#endif

fn load_value(keys: Keys, number: u32, value: u32, i: u32) -> vec4<f32> {
#if BLOCKS
    if number >= keys.window {
        return blocks4(value, i, params.kv.head_dim);
    }
#endif
    return kv4(value, i, value_row(params.kv));
}
