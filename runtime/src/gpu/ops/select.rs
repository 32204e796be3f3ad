//! Kernels that write and read caches beside attention's heads: rows into pages, the choice of keys, blocks of tokens
//! pooled into one row.

use handmill_shaders::Defines;

use super::{
    Dim, Dispatch, Place,
    params::{Params, cached, workgroup},
};
use crate::{
    gpu::{Access, Caps, GpuError, Kernel},
    graph::{CacheSpec, PoolOp, Rows, SelectOp},
    step::KvType,
};

/// Loop turns that an invocation may make: llvmpipe silently ends its loops at 65535.
const TURNS: usize = 60_000;

/// Index heads whose queries lie in workgroup memory together.
const HEADS: usize = 16;

/// A cache whose rows kernels write, and its place.
#[derive(Clone, Copy, Debug)]
pub struct CachedRows {
    /// Geometry of the cache.
    pub spec: CacheSpec,
    /// Its group in the batch's sequence records.
    pub group: u32,
    /// How keys and values are stored.
    pub kv: KvType,
}

/// The dispatches of a choice of keys, in order. `scores` and `keys` bind the scores (u32) as 4, `scores` the cache's pages
/// as 5; `write` binds them as 4.
#[derive(Clone, Debug)]
pub struct SelectDispatches {
    /// This step's keys into their pages.
    pub write: Dispatch,
    /// Scores of all keys.
    pub scores: Dispatch,
    /// The best keys.
    pub keys: Dispatch,
}

impl CachedRows {
    fn defines(&self) -> Defines {
        let spec = &self.spec;
        cached(Defines::new(), self.kv).flag("V_IN_K", spec.v_in_k).flag("OF_BLOCKS", spec.every > 1)
    }

    fn params(&self, params: Params) -> Params {
        let spec = &self.spec;
        params.u(&[self.group]).u(&[spec.n_kv_heads, spec.head_dim, spec.v_dim].map(|n| n as u32))
    }

    /// Writes rows of keys and of values (or keys twice, where the cache has no values of their own) into the pages,
    /// which it binds as 4.
    pub fn write(&self, caps: &Caps, rows: [Place; 2]) -> Dispatch {
        let spec = &self.spec;
        let longest = spec.head_dim.max(spec.stored_v_dim());
        // Two elements, or a word of a row of blocks.
        let pieces =
            spec.n_kv_heads * if self.kv == KvType::Q8_0 { self.kv.row_bytes(longest) / 4 } else { longest / 2 };
        let invocations = workgroup(caps, pieces, 64);
        let params = self.params(Params::default().place(&rows[0]).place(&rows[1])).u(&[spec.every as u32]);
        let parts = if spec.stored_v_dim() > 0 { 2 } else { 1 };
        let grid = [Dim::Fixed((pieces as u32).div_ceil(invocations)), Dim::RowsOver(1), Dim::Fixed(parts)];
        let defines = self.defines().with("WG", invocations);
        dispatch("cache_rows", defines, params, grid, &[Access::ReadWrite])
    }
}

/// Words of scores that a step of `rows` rows needs, whose longest sequence has `longest` tokens.
pub fn scores_len(rows: usize, longest: usize, every: usize) -> usize {
    rows * (longest / every).next_multiple_of(64)
}

/// The dispatches of a choice of keys, from index queries, index keys and the heads' weights at `inputs`.
///
/// # Errors
/// A head size that is not a multiple of four, or that is too long.
pub fn choice(
    caps: &Caps,
    name: &str,
    op: &SelectOp,
    cache: &CachedRows,
    inputs: [Place; 3],
    output: Place,
) -> Result<SelectDispatches, GpuError> {
    let dim = op.head_dim;
    let why = format!("{} index heads of {dim} elements", op.n_heads);
    let fail = Err(GpuError::Unsupported { op: "select_keys", name: name.to_owned(), why });
    if !dim.is_multiple_of(4) || (caps.software && op.n_heads * (dim / 4 + 4) * 2 > TURNS) {
        return fail;
    }
    let room = caps.max_workgroup_memory as usize / (4 * dim);
    let heads = HEADS.min(op.n_heads).min(room);
    if heads == 0 {
        return fail;
    }
    let [q, keys, weights] = inputs;
    let (k, every) = (op.k as u32, cache.spec.every as u32);
    let invocations = workgroup(caps, 256, if caps.software { 64 } else { 256 });
    let params = cache.params(Params::default().place(&q).place(&weights)).u(&[op.n_heads as u32, k, every]);
    let defines =
        cache.defines().with("WG", invocations).with("D4", dim / 4).with("HEADS", heads).flag("SOLO", caps.software);
    let grid = [Dim::Entries { every, over: invocations }, Dim::RowsOver(1), Dim::Fixed(1)];
    let scores = dispatch("select_scores", defines, params, grid, &[Access::ReadWrite, Access::Read]);
    // As many as possible, because a row has one workgroup. On a CPU's lanes, work that is common to all costs each of
    // them, so fewer.
    let invocations = workgroup(caps, 1024, if caps.software { 256 } else { 1024 });
    let defines = Defines::new().with("WG", invocations).with("SPAN", invocations.min(32));
    let params = Params::default().place(&output).u(&[k, every]);
    let grid = [Dim::RowsOver(1), Dim::Fixed(1), Dim::Fixed(1)];
    Ok(SelectDispatches {
        write: cache.write(caps, [keys, keys]),
        scores,
        keys: dispatch("select_keys", defines, params, grid, &[Access::Read]),
    })
}

/// Rows and gates at `inputs` into their pages, then a row for each block that becomes complete. Both bind the pages as 4.
/// `bias` is the first element of the bias in the vectors.
///
/// # Errors
/// A row length that is not a multiple of four, or blocks that are too long.
pub fn pool(
    caps: &Caps,
    name: &str,
    op: &PoolOp,
    cache: &CachedRows,
    bias: u32,
    (inputs, output): ([Place; 2], Place),
) -> Result<[Dispatch; 2], GpuError> {
    if !op.width.is_multiple_of(4) || (caps.software && op.reach() > TURNS) {
        let why = format!("blocks of {} rows of {} elements", op.block, op.width);
        return Err(GpuError::Unsupported { op: "pool", name: name.to_owned(), why });
    }
    let fours = op.width / 4;
    let invocations = workgroup(caps, fours, 64);
    let params = cache.params(Params::default().place(&output));
    let params = params.u(&[op.block as u32, op.width as u32, bias, u32::from(op.overlap)]);
    let grid = [Dim::Fixed((fours as u32).div_ceil(invocations)), Dim::RowsOver(1), Dim::Fixed(1)];
    let pool = dispatch("pool", cache.defines().with("WG", invocations), params, grid, &[Access::Read]);
    Ok([cache.write(caps, inputs), pool])
}

fn dispatch(name: &'static str, defines: Defines, params: Params, grid: [Dim; 3], more: &[Access]) -> Dispatch {
    let mut bindings = vec![Access::Uniform, Access::Read, Access::ReadWrite, Access::Read];
    bindings.extend(more);
    let kernel = Kernel { name, defines, constants: Vec::new(), bindings };
    Dispatch { kernel, params: params.finish(), grid, rows: Rows::Token }
}
