// A block of tokens pooled into one row (DeepSeek V4's compressors): the mean of the tokens' rows, channel by channel
// weighted by a softmax of their gates, out[c] = Σ_t softmax_t(gate[t][c] + bias[t % block][c]) · x[t][c].
//
// The rows and gates of tokens lie in the pages of a cache, as keys and values. Where blocks overlap rows have two halves
// of `width` channels: a block has the second halves of its own tokens, and the first ones of the block's before, if there is
// one. A token that completes no block gets a row of zeroes.
//
// An invocation four channels, in one pass with a running maximum; x counts blocks of a row, y rows. Bytes: rows and gates
// of a block's tokens once; a few flops and an exponential an element.

#import arena
#import kv
#import kv4 NAME=kv AT=4

struct Params {
    result: Place,
    kv: KvLayout,
    block: u32,
    width: u32,
    // First element in `vectors`.
    bias: u32,
    overlap: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

const LOG2_E = 1.442695;
// Start of a maximum: below any gate, and finite, so that differences are no NaN.
const LOWEST = -1e30;

@compute @workgroup_size(${WG})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = 4u * id.x;
    if c >= params.width {
        return;
    }
    let row = id.y;
    let position = batch[batch[3] + row];
    let channels = params.kv.head_dim;
    var sum = vec4(0.0);
    var total = vec4(1.0);
    if (position + 1u) % params.block == 0u {
        let record = sequence_record(batch[batch[4] + row]);
        let own = position + 1u - params.block;
        var token = own;
        if params.overlap != 0u && own > 0u {
            token = own - params.block;
        }
        var top = vec4(LOWEST);
        total = vec4(0.0);
        for (; token <= position; token++) {
            let channel = c + select(0u, channels - params.width, token >= own);
            let start = page_start(params.kv, record, token);
            let slot = token % PAGE * row_size(channels);
            let bias = params.bias + token % params.block * channels + channel;
            var gate = kv4(values_of(params.kv, start, 0u) + slot, channel, channels);
            gate += vec4(vectors[bias], vectors[bias + 1u], vectors[bias + 2u], vectors[bias + 3u]);
            gate *= LOG2_E;
            let highest = max(top, gate);
            let factor = exp2(top - highest);
            let p = exp2(gate - highest);
            top = highest;
            total = total * factor + p;
            sum = sum * factor + p * kv4(keys_of(params.kv, start, 0u) + slot, channel, channels);
        }
    }
    let y = sum / total;
    let to = at(params.result, row) + c;
    arena[to] = y.x;
    arena[to + 1u] = y.y;
    arena[to + 2u] = y.z;
    arena[to + 3u] = y.w;
}
