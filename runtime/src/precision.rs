//! How exactly products are computed.

/// Which roundings a backend may add to those of f32. It is apart from [`KvType`](crate::step::KvType), which says how
/// cached keys and values lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// Linears may round their inputs, to int8 on the CPU, to int8 or f16 on a GPU: the fastest kernels.
    #[default]
    Fast,
    /// Linears keep their inputs in f32 for weights of all formats, so that only sums round. Slower where weights are in
    /// blocks.
    Exact,
}
