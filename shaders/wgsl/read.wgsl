// Reads a buffer and stores almost nothing: it shows what the device's memory can deliver.
//
// words: array<vec4<u32>>. Each invocation strides through the buffer by the whole grid, so that neighbours read
// neighbouring 16 bytes. WORKGROUP is 256, the most that every adapter allows, and the host dispatches 4096 of them: a
// million loads to choose from hide any latency. Bytes: the buffer once. Flops: none, but an addition of integers for
// every 4 bytes, far below what any device can do meanwhile. The sum is stored so that the loads are kept.

@group(0) @binding(0) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;

override WORKGROUP: u32 = 256u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let stride = groups.x * WORKGROUP;
    var sum = vec4<u32>(0u);
    for (var i = id.x; i < arrayLength(&words); i += stride) {
        sum += words[i];
    }
    let all = sum.x + sum.y + sum.z + sum.w;
    // Never true of zeros, but the compiler cannot know.
    if all == 0xffffffffu {
        sums[0] = all;
    }
}
