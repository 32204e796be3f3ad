//! WGSL compute kernels and the composer that assembles them. The kernels arrive with the GPU backend.
