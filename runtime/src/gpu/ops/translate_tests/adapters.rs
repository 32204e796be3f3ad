//! Pretended adapters.

use crate::gpu::Caps;

/// Adapters that differ in all that kernels are chosen by.
pub(super) fn all() -> Vec<Caps> {
    let mut all = vec![apple()];
    for software in [false, true] {
        for f16 in [true, false] {
            for subgroups in [None, Some((4, 4)), Some((8, 8)), Some((32, 32)), Some((64, 64)), Some((8, 32))] {
                for cooperative in [false, true] {
                    for (max_invocations, max_workgroup_memory) in
                        [(256, 16384), (256, 32768), (1024, 16384), (1024, 32768)]
                    {
                        all.push(Caps {
                            f16,
                            subgroups,
                            cooperative,
                            // Nothing depends on both.
                            int8_dot: !software && cooperative,
                            timestamps: false,
                            pipeline_cache: false,
                            host_import: false,
                            host_import_alignment: 4096,
                            max_binding: 1 << 27,
                            max_buffer: 1 << 31,
                            submit_flops: 1 << 36,
                            max_staging: 1 << 26,
                            max_memory: None,
                            max_invocations,
                            max_storage_buffers: 8,
                            max_workgroup_memory,
                            max_workgroups: 65535,
                            storage_alignment: 256,
                            uniform_alignment: 256,
                            software,
                            unified_memory: software,
                        });
                    }
                }
            }
        }
    }
    all
}

/// An M1 as wgpu's Metal backend describes it. Its cooperative matrices are 8×8, which we have no kernels for, and its
/// subgroups have 32 invocations, but wgpu says the same of all of Apple's.
fn apple() -> Caps {
    Caps {
        f16: true,
        subgroups: Some((4, 64)),
        cooperative: false,
        int8_dot: false,
        timestamps: false,
        pipeline_cache: false,
        host_import: false,
        host_import_alignment: 4096,
        max_binding: 4 << 30,
        max_buffer: 4 << 30,
        submit_flops: 100_000_000_000,
        max_staging: 64 << 20,
        max_memory: None,
        max_invocations: 1024,
        max_storage_buffers: 29,
        max_workgroup_memory: 32768,
        max_workgroups: 65535,
        storage_alignment: 32,
        uniform_alignment: 256,
        software: false,
        unified_memory: true,
    }
}
