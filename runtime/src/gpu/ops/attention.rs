//! Attention stages as dispatches: heads into place, then attention by the kernel that suits the step.

use handmill_shaders::Defines;

use super::{
    Dim, Dispatch, Place,
    params::{NONE, Params, reduction, workgroup},
    select::CachedRows,
};
use crate::{
    gpu::{Access, Caps, GpuError, Kernel},
    graph::{
        AttentionOp, AttentionStage, CacheSpec, Graph, HeadOp, NormKind, PositionScale, RopeId, RopeLayout, Rows,
        WeightId,
    },
    step::{KvType, Role},
};

/// Least keys of a part: joining shorter parts costs more than they save.
const PART_KEYS: u32 = 256;

/// Places of the values and vectors of an attention stage.
pub struct AttentionPlaces<'a> {
    /// q, k, v.
    pub inputs: [Place; 3],
    /// The result.
    pub output: Place,
    /// The group of caches in the batch's sequence records.
    pub cache_group: u32,
    /// The number of the kind of attention, by which the batch lists the parts of rows' keys.
    pub kind: u32,
    /// The keys of blocks, where there are any.
    pub blocks: Option<BlockPlaces>,
    /// The chosen keys; none where rows attend to all keys.
    pub chosen: Option<Place>,
    /// Element type of keys and values.
    pub kv: KvType,
    /// The first element of a small vector in `vectors`.
    pub vector: &'a dyn Fn(WeightId) -> u32,
}

/// The source of blocks' keys, and their cache.
#[derive(Clone, Copy, Debug)]
pub struct BlockPlaces {
    /// A row a token; the rows of tokens that complete a block are cached.
    pub keys: Place,
    /// The group of caches in the batch's sequence records.
    pub group: u32,
    /// Tokens of a block.
    pub every: usize,
}

/// The dispatches of an attention stage. All of them but `blocks` bind `ropes` (f32) as 4 and the layer's pages, which
/// `heads` writes, as 5; `rows` and `merge` bind `partials` (f32) as 6. Where there are blocks, `rows` binds their pages as
/// 7, and `blocks` writes them, as 4.
///
/// Run `heads` and `blocks`, then `rows`, and `merge` where a row has several parts, or `prompt`. Both are right for any
/// step: `rows` takes a row at a time, `prompt` tiles of a sequence's rows.
#[derive(Clone, Debug)]
pub struct AttentionDispatches {
    /// Norms and rotations of q, k and v; k and v into their pages.
    pub heads: Dispatch,
    /// The keys of blocks into their pages.
    pub blocks: Option<Dispatch>,
    /// For rows one by one: [`Dim::Parts`] of them, into `partials` where a row has several.
    pub rows: Dispatch,
    /// Joins the parts of rows that have several.
    pub merge: Dispatch,
    /// For many rows a sequence, where rows attend to all that they see: none where there are blocks. Where keys are
    /// chosen, it serves only sequences that are no longer than the number of chosen keys.
    pub prompt: Option<Dispatch>,
}

impl AttentionDispatches {
    /// Floats of `partials` that so many parts of rows need: at most a few times what the parts' keys take, since a part has
    /// 128 keys or more unless it is the only one.
    pub fn partials_len(op: &AttentionOp, parts: u32) -> usize {
        parts as usize * op.n_heads * (op.v_dim + 4)
    }
}

/// The keys that the row at `position` attends to; `every` are the tokens of a block.
fn keys_of_row(op: &AttentionOp, every: usize, position: usize) -> usize {
    let seen = position + 1;
    let chosen = |all: usize| op.selected.map_or(all, |k| k.min(all));
    let window = op.window.map_or(seen, |w| w.min(seen));
    let own = op.chunk.map_or(window, |c| window.min(position % c + 1));
    match op.blocks {
        Some(_) => own + chosen(seen / every),
        // Those that are chosen may lie anywhere.
        None if op.selected.is_some() => chosen(seen),
        None => own,
    }
}

/// Parts into which the keys of the row at `position` are divided, where rows are taken one by one; `every` are the tokens of
/// a block. A row that the model chose gets enough workgroups to fill a device by itself, and no part that is too short;
/// prompts have rows enough. So the order of a row's sums follows from its role and position, not from what is beside it.
pub(crate) fn parts_of_row(caps: &Caps, op: &AttentionOp, every: usize, position: usize, role: Role) -> u32 {
    let keys = keys_of_row(op, every, position) as u32;
    let wanted = match role {
        Role::Prompt => 1,
        Role::Generated => {
            // Some hundreds of workgroups fill any device; a software device needs as many as a CPU has cores.
            let enough = if caps.software { 8 } else { 512 };
            keys.div_ceil(PART_KEYS).min(enough / decode_tiles(caps, op).1)
        }
    };
    let least = if caps.software { keys.div_ceil(solo_keys(op) as u32) } else { 1 };
    wanted.max(least).max(1)
}

/// The dispatches of `step`.
///
/// # Errors
/// A head size that is not a multiple of four, or an order of norms and rotations that no kernel has.
pub fn dispatches(
    caps: &Caps,
    graph: &Graph,
    name: &str,
    step: &AttentionStage,
    places: &AttentionPlaces<'_>,
) -> Result<AttentionDispatches, GpuError> {
    let op = &step.op;
    let fail = |why: String| GpuError::Unsupported { op: "attention", name: name.to_owned(), why };
    if !op.head_dim.is_multiple_of(4) || !op.v_dim.is_multiple_of(4) || op.head_dim == 0 || op.v_dim == 0 {
        return Err(fail(format!("heads of {} and {} elements are not multiples of four", op.head_dim, op.v_dim)));
    }
    if op.head_dim > 1024 || op.v_dim > 1024 {
        return Err(fail(format!("heads of {} and {} elements are too long", op.head_dim, op.v_dim)));
    }
    if !caps.software && op.v_dim / 4 > decode_workgroup(caps) as usize {
        return Err(fail(format!("values of {} elements are too long for workgroups of this adapter", op.v_dim)));
    }
    let lowering = Lowering { caps, graph, step, places };
    Ok(AttentionDispatches {
        heads: lowering.heads().map_err(fail)?,
        blocks: lowering.blocks(),
        rows: lowering.rows(),
        merge: lowering.merge(),
        prompt: op.blocks.is_none().then(|| lowering.prompt()),
    })
}

/// Query heads of a decode workgroup's tile, and tiles of a row.
fn decode_tiles(caps: &Caps, op: &AttentionOp) -> (usize, u32) {
    let group = op.n_heads / op.n_kv_heads;
    if caps.software {
        return (SOLO, op.n_heads.div_ceil(SOLO) as u32);
    }
    // Where all queries share one cached head, each tile reads its keys again, so more workgroup memory pays.
    let room = if op.v_in_k { 2304 } else { 1024 };
    let wg = decode_workgroup(caps) as usize;
    let mut heads = group.min(8).min(room / op.head_dim).max(1).min(wg / 16);
    // Queries, probabilities, two words an invocation and three a head; see the kernel.
    let bytes = |heads: usize| 4 * (heads * op.head_dim + heads.max(4) * wg + 2 * wg + 3 * heads);
    while heads > 1 && bytes(heads) > caps.max_workgroup_memory as usize {
        heads -= 1;
    }
    (heads, (op.n_kv_heads * group.div_ceil(heads)) as u32)
}

fn decode_workgroup(caps: &Caps) -> u32 {
    workgroup(caps, 256, 256)
}

/// Invocations of a workgroup whose lanes are those of a CPU.
const SOLO: usize = 8;

/// Loop turns that an invocation of `attention_solo` may make: llvmpipe silently ends its loops at 65535.
const SOLO_TURNS: usize = 60_000;

/// The most fours of a key or value that `attention_solo` takes in one turn of a loop.
fn solo_step(fours: usize) -> usize {
    [8, 4, 2].into_iter().find(|n| fours.is_multiple_of(*n)).unwrap_or(1)
}

/// Keys that one invocation of `attention_solo` may visit.
fn solo_keys(op: &AttentionOp) -> usize {
    // A loop counts one turn more than its body runs. Eight keys share a block, whose sums are scaled once.
    let turns = |fours: usize| fours / solo_step(fours) + 1;
    let of_block = 8 * (turns(op.head_dim / 4) + turns(op.v_dim / 4) + 3) + turns(op.v_dim / 4) + 3;
    // Parts are multiples of 64 keys.
    (8 * SOLO_TURNS / of_block / 64 * 64).max(64)
}

/// Whether `prompt` serves a prompt whose longest sequence has so many tokens, this step's included.
pub fn fits_prompt(caps: &Caps, op: &AttentionOp, longest: usize) -> bool {
    // The windows of a tile's rows end one after the other.
    let keys = [op.window, op.chunk].into_iter().flatten().map(|n| n + SOLO).fold(longest, usize::min);
    op.blocks.is_none()
        // Up to that many tokens all visible keys are chosen, so the choice makes no difference.
        && op.selected.is_none_or(|most| longest <= most)
        && (!caps.software || keys <= solo_keys(op))
}

struct Lowering<'a> {
    caps: &'a Caps,
    graph: &'a Graph,
    step: &'a AttentionStage,
    places: &'a AttentionPlaces<'a>,
}

/// One of q, k, v in the parameters of `heads`.
struct Part {
    norms: [Option<(u32, f32, f32)>; 2],
    rope: Option<RopeId>,
    scale: Option<PositionScale>,
}

impl Lowering<'_> {
    fn heads(&self) -> Result<Dispatch, String> {
        let op = &self.step.op;
        let mut params = Params::default();
        for place in &self.places.inputs {
            params = params.place(place);
        }
        let mut params = self.cache(params);
        let mut layout = None;
        for ops in &self.step.head_ops {
            let part = self.part(ops)?;
            let norm = |i: usize| part.norms[i].unwrap_or((NONE, 0.0, 0.0));
            let (mut half, mut first) = (0, 0);
            if let Some(rope) = part.rope {
                let spec = &self.graph.ropes()[rope.0 as usize];
                (half, first) = ((spec.rotary_dims / 2) as u32, spec.first_dim as u32);
                if layout.is_some_and(|l| l != spec.layout) {
                    return Err("queries and keys rotate pairs of different layouts".to_owned());
                }
                layout = Some(spec.layout);
            }
            params = params
                .u(&[u32::from(part.norms[0].is_some()), u32::from(part.norms[1].is_some()), norm(0).0, norm(1).0])
                .f(&[norm(0).1, norm(1).1, norm(0).2, norm(1).2])
                .u(&[part.rope.map_or(NONE, |r| r.0), half, first]);
            let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX / 2);
            params = match part.scale {
                None => params.u(&[0, 0]).f(&[0.0]),
                Some(scale) => params.u(&[word(scale.length), word(scale.offset)]).f(&[scale.beta]),
            };
            params = params.u(&[0, 0]);
        }
        let q_heads = if self.step.head_ops[0].is_empty() { 0 } else { op.n_heads };
        let kv_heads = if op.shared { 0 } else { op.n_kv_heads };
        params = params.u(&[q_heads as u32, kv_heads as u32]);
        let cached = if op.v_in_k { 1 } else { 2 };
        let heads = (q_heads + cached * kv_heads) as u32;
        let longest = op.head_dim.max(op.v_dim);
        let invocations = if self.caps.software { SOLO as u32 } else { workgroup(self.caps, longest / 2, 256) };
        let defines = reduction(self.caps, invocations)
            .with("DIM", longest)
            .flag("SOLO", self.caps.software)
            .flag("INTERLEAVED", layout == Some(RopeLayout::Interleaved));
        let y = if self.caps.software { heads.div_ceil(invocations) } else { heads };
        let grid = [Dim::RowsOver(1), Dim::Fixed(y), Dim::Fixed(1)];
        Ok(self.dispatch("heads", defines, params, grid, &[Access::Read, Access::ReadWrite]))
    }

    /// At most a norm, a rotation, another norm and a factor by position.
    fn part(&self, ops: &[HeadOp]) -> Result<Part, String> {
        let mut part = Part { norms: [None, None], rope: None, scale: None };
        for op in ops {
            if part.scale.is_some() {
                return Err("its heads are scaled by position before something else".to_owned());
            }
            match op {
                HeadOp::PositionScale(scale) => part.scale = Some(*scale),
                HeadOp::Norm(n) => {
                    let slot = &mut part.norms[usize::from(part.rope.is_some())];
                    if slot.is_some() || n.kind != NormKind::Rms || n.bias.is_some() {
                        return Err("its heads are normalised in a way that no kernel has".to_owned());
                    }
                    *slot = Some((n.weight.map_or(NONE, self.places.vector), n.weight_offset, n.eps));
                }
                HeadOp::Rope(rope) if part.rope.is_none() => part.rope = Some(*rope),
                HeadOp::Rope(_) => return Err("its heads are rotated twice".to_owned()),
            }
        }
        Ok(part)
    }

    fn cache(&self, params: Params) -> Params {
        let op = &self.step.op;
        params.u(&[self.places.cache_group, op.n_kv_heads as u32, op.head_dim as u32, op.v_dim as u32])
    }

    fn params(&self) -> Params {
        let op = &self.step.op;
        let (scale, cap) = match op.softcap {
            Some(cap) => (op.scale / cap, cap * std::f32::consts::LOG2_E),
            None => (op.scale * std::f32::consts::LOG2_E, 0.0),
        };
        let word = |n: usize| u32::try_from(n).unwrap_or(NONE);
        let limit = |n: Option<usize>| n.map_or(NONE, word);
        let blocks = self.places.blocks;
        let place = Place { base: 0, offset: 0, stride: 0, rows: Rows::Token };
        let (rope, half) = op
            .rotate_on_read
            .map_or((NONE, 0), |rope| (rope.0, (self.graph.ropes()[rope.0 as usize].rotary_dims / 2) as u32));
        self.cache(Params::default().place(&self.places.inputs[0]).place(&self.places.output))
            .u(&[(op.n_heads / op.n_kv_heads) as u32, op.sinks.map_or(NONE, self.places.vector)])
            .u(&[limit(op.window), limit(op.chunk)])
            .f(&[scale, cap])
            .u(&[rope, half, self.places.kind])
            .u(&[blocks.map_or(0, |b| b.group), blocks.map_or(1, |b| word(b.every))])
            .u(&[op.selected.map_or(0, word)])
            .place(&self.places.chosen.unwrap_or(place))
    }

    fn defines(&self, invocations: usize) -> Defines {
        let op = &self.step.op;
        let layout = op.rotate_on_read.map(|rope| self.graph.ropes()[rope.0 as usize].layout);
        Defines::new()
            .with("WG", invocations)
            .with("D4", op.head_dim / 4)
            .with("V4", op.v_dim / 4)
            .flag("ROTATE", layout.is_some())
            .flag("INTERLEAVED", layout == Some(RopeLayout::Interleaved))
    }

    fn solo_defines(&self) -> Defines {
        let [d, v] = [self.step.op.head_dim, self.step.op.v_dim].map(|dim| solo_step(dim / 4));
        let mut defines = self.defines(SOLO).with("D_STEP", d).with("V_STEP", v);
        for n in [2, 4, 8] {
            defines = defines.flag(&format!("D_BY_{n}"), d >= n).flag(&format!("V_BY_{n}"), v >= n);
        }
        defines
    }

    fn rows(&self) -> Dispatch {
        let op = &self.step.op;
        let (heads, tiles) = decode_tiles(self.caps, op);
        let grid = [Dim::Parts(self.places.kind), Dim::Fixed(tiles), Dim::Fixed(1)];
        let mut more = vec![Access::Read, Access::Read, Access::ReadWrite];
        more.extend(op.blocks.map(|_| Access::Read));
        let (name, defines) = if self.caps.software {
            ("attention_solo", self.solo_defines())
        } else {
            ("attention_decode", self.defines(decode_workgroup(self.caps) as usize).with("HEADS", heads))
        };
        let defines = defines
            .flag("LISTED", op.blocks.is_some() || op.selected.is_some())
            .flag("BLOCKS", op.blocks.is_some())
            .flag("SELECTED", op.selected.is_some());
        self.dispatch(name, defines, self.params(), grid, &more)
    }

    fn blocks(&self) -> Option<Dispatch> {
        let (op, blocks) = (&self.step.op, self.places.blocks?);
        let cache = CachedRows {
            spec: CacheSpec {
                every: blocks.every,
                v_in_k: true,
                ..CacheSpec::new(op.n_kv_heads, op.head_dim, op.v_dim)
            },
            group: blocks.group,
            kv: self.places.kv,
        };
        Some(cache.write(self.caps, [blocks.keys, blocks.keys]))
    }

    fn merge(&self) -> Dispatch {
        let op = &self.step.op;
        let invocations = if self.caps.software { SOLO as u32 } else { workgroup(self.caps, op.v_dim, 256) };
        let grid = [Dim::RowsOver(1), Dim::Fixed(op.n_heads as u32), Dim::Fixed(1)];
        let more = [Access::Read, Access::Read, Access::Read];
        self.dispatch("attention_merge", self.defines(invocations as usize), self.params(), grid, &more)
    }

    fn prompt(&self) -> Dispatch {
        let op = &self.step.op;
        let more = [Access::Read, Access::Read];
        // The tiled kernel needs 16 x 16 invocations, and memory for its smallest tile.
        if self.caps.software || self.caps.max_invocations < 256 || self.caps.max_workgroup_memory < 16384 {
            let defines = self.solo_defines().flag("PROMPT", true);
            let grid = [Dim::RowsOver(SOLO as u32), Dim::Fixed(op.n_heads as u32), Dim::Sequences];
            return self.dispatch("attention_solo", defines, self.params(), grid, &more);
        }
        let keys = if self.caps.max_workgroup_memory >= 32768 { 4 } else { 2 };
        let rows = match op.v_dim {
            0..=128 if keys == 4 => 4,
            0..=256 => 2,
            _ => 1,
        };
        let group = op.n_heads / op.n_kv_heads;
        let heads = group.min(16 * rows);
        let defines = self
            .defines(256)
            .with("D", op.head_dim)
            .with("V", op.v_dim)
            .with("HEADS", heads)
            .with("RPT", rows)
            .with("KPT", keys);
        let tiles = op.n_kv_heads * group.div_ceil(heads);
        let grid = [Dim::RowsOver((16 * rows / heads) as u32), Dim::Fixed(tiles as u32), Dim::Sequences];
        self.dispatch("attention_prompt", defines, self.params(), grid, &more)
    }

    fn dispatch(
        &self,
        name: &'static str,
        defines: Defines,
        params: Params,
        grid: [Dim; 3],
        more: &[Access],
    ) -> Dispatch {
        let mut bindings = vec![Access::Uniform, Access::Read, Access::ReadWrite, Access::Read];
        bindings.extend(more);
        let defines = defines.flag("KV_F16", self.places.kv == KvType::F16).flag("V_IN_K", self.step.op.v_in_k);
        let kernel = Kernel { name, defines, constants: Vec::new(), bindings };
        Dispatch { kernel, params: params.finish(), grid, rows: Rows::Token }
    }
}
