//! Choices of keys and pooled blocks.

use super::variants::place;
use crate::{
    gpu::{
        Caps, Kernel,
        ops::select::{self, CachedRows},
    },
    graph::{CacheId, CacheSpec, PoolOp, Rows, SelectOp, WeightId},
    step::KvType,
};

/// Hands the kernels for one adapter to `found`.
pub(super) fn all(caps: &Caps, found: &mut dyn FnMut(&Caps, &Kernel)) {
    let token = |n: usize| place(n, 0, Rows::Token);
    for kv in [KvType::F16, KvType::F32, KvType::Q8_0] {
        for (n_heads, head_dim) in [(64, 128usize), (10, 16), (3, 300)] {
            if kv == KvType::Q8_0 && !head_dim.is_multiple_of(32) {
                continue;
            }
            for every in [1, 4] {
                let spec = CacheSpec { every, ..CacheSpec::new(1, head_dim, 0) };
                let op = SelectOp { cache: CacheId(0), n_heads, head_dim, k: 2048 };
                let inputs = [n_heads * head_dim, head_dim, n_heads].map(token);
                let cache = CachedRows { spec, group: 0, kv };
                let made = select::choice(caps, "select", &op, &cache, inputs, token(2048)).unwrap();
                [made.write, made.scores, made.keys].iter().for_each(|d| found(caps, &d.kernel));
            }
        }
        for (block, width, overlap) in [(4, 512, true), (128, 512, false), (4, 16, true)] {
            let op = PoolOp { cache: CacheId(0), block, width, overlap, bias: WeightId(0) };
            let cache = CachedRows { spec: op.cache_spec(), group: 0, kv };
            let places = ([0, 1].map(|_| token(op.channels())), token(width));
            let made = select::pool(caps, "pool", &op, &cache, 0, places).unwrap();
            made.iter().for_each(|d| found(caps, &d.kernel));
        }
    }
}
