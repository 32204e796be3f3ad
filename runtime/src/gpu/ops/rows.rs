//! Row programs as dispatches: as few as the instructions allow.

use std::ops::Range;

use handmill_shaders::Defines;

use super::{
    Dim, Dispatch, Place,
    linear::with_format,
    params::{NONE, Params, activation, by_fours, reduction, workgroup},
};
use crate::{
    gpu::{Access, Caps, GpuError, Kernel},
    graph::{
        Act, Graph, GroupScore, HyperOp, NormKind, NormOp, PositionScale, RopeId, RopeLayout, RouteOp, RouteScore,
        RouteWeight, RowOp, RowProgram, Rows, Src, StreamOp, WeightId,
    },
};

/// A dispatch with its further bindings.
#[derive(Clone, Debug)]
pub struct RowDispatch {
    /// The dispatch.
    pub dispatch: Dispatch,
    /// The bindings behind binding 3.
    pub extra: Extra,
}

/// Bindings of a row dispatch beside values and vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Nothing.
    None,
    /// Binding 4: the `rope` buffer.
    Rope,
    /// Binding 4: `tokens`, an id a token row.
    Tokens,
    /// Binding 4: rows of the table; binding 5: `tokens`, an id a token row.
    Table {
        /// The table.
        weight: WeightId,
        /// The rows that are bound.
        rows: Range<u32>,
    },
}

/// Rows of a table that one binding shows, and the byte in the binding where the first of them begins.
pub type TableWindow = (Range<u32>, u64);

/// Places of values and vectors.
pub struct Places<'a> {
    /// The place of a value or temp. A temp's is its store's, or scratch that no other value of the program overlaps.
    pub place: &'a dyn Fn(Src) -> Place,
    /// The first element of a small vector in `vectors`.
    pub vector: &'a dyn Fn(WeightId) -> u32,
    /// Windows that together show a whole table.
    pub table: &'a dyn Fn(WeightId) -> Result<Vec<TableWindow>, GpuError>,
}

/// The dispatches of `program`, in order. `result` is the source that the stage's linear reads, if any: its temp is
/// written, too. Temps that nothing reads from memory have no dispatch of their own, and their places are never asked
/// for.
///
/// # Errors
/// A table row that no binding can hold.
pub fn lower(
    caps: &Caps,
    graph: &Graph,
    program: &RowProgram,
    result: Option<Src>,
    places: &Places<'_>,
) -> Result<Vec<RowDispatch>, GpuError> {
    let lowering = Lowering { caps, graph, program, result, places };
    let mut out = Vec::new();
    let mut i = 0;
    while i < program.instrs.len() {
        i = lowering.gather(i, &mut out)?;
    }
    Ok(out)
}

struct Lowering<'a> {
    caps: &'a Caps,
    graph: &'a Graph,
    program: &'a RowProgram,
    result: Option<Src>,
    places: &'a Places<'a>,
}

/// The source of a row, and its factor.
#[derive(Clone, Copy)]
struct Operand {
    src: Src,
    factor: f32,
}

/// The elementwise kernel's work on a row.
#[derive(Clone, Copy)]
enum Form {
    /// Its factor.
    Scale,
    /// Adds another row.
    Add(Operand),
    /// Multiplies by another row, which is narrower by this factor.
    Mul(Src, usize),
    /// Bounds it.
    Softcap(f32),
    /// Multiplies by a factor that depends on the position.
    Position(PositionScale),
}

/// A norm kernel's work.
struct NormParts<'a> {
    a: Operand,
    pre: Option<&'a NormOp>,
    b: Option<Operand>,
    /// The instruction whose result is the input of the last norm, where that is kept.
    keep: Option<usize>,
    /// The last norm, and its instruction.
    post: Option<(&'a NormOp, usize)>,
    width: usize,
}

impl Lowering<'_> {
    /// Makes one dispatch (for a table, perhaps several) of the instructions from `i` on; returns the next instruction.
    fn gather(&self, i: usize, out: &mut Vec<RowDispatch>) -> Result<usize, GpuError> {
        let instr = &self.program.instrs[i];
        if self.folds(i) {
            return Ok(i + 1);
        }
        let next = |at: usize| self.program.instrs.get(at).map(|instr| &instr.op);
        let reads = |src: &Src, at: usize| *src == Src::Temp(at as u16);
        let width = instr.width;
        match &instr.op {
            RowOp::Norm { src, norm } => {
                // The norm, an add that is its only reader, and a norm of the sum.
                if norm.group == width
                    && self.private(i)
                    && let Some(RowOp::Add { a, b }) = next(i + 1)
                    && (reads(a, i) != reads(b, i))
                {
                    let other = if reads(a, i) { *b } else { *a };
                    let a = Operand { src: self.operand(*src).src, factor: 1.0 };
                    let (parts, end) = self.sum(i + 1, a, Some(norm), self.operand(other));
                    out.push(self.norm(&parts));
                    return Ok(end);
                }
                let a = Operand { src: self.operand(*src).src, factor: 1.0 };
                let parts = NormParts { a, pre: None, b: None, keep: None, post: Some((norm, i)), width };
                out.push(self.norm(&parts));
            }
            RowOp::Add { a, b } => {
                let (a, b) = (self.operand(*a), self.operand(*b));
                let (parts, end) = self.sum(i, a, None, b);
                if parts.post.is_some() {
                    out.push(self.norm(&parts));
                    return Ok(end);
                }
                out.push(self.elementwise(i, a, Form::Add(b)));
            }
            RowOp::Scale { src, factor } => {
                let a = self.operand(*src);
                out.push(self.elementwise(i, Operand { factor: a.factor * factor, ..a }, Form::Scale));
            }
            RowOp::Copy { src } => out.push(self.elementwise(i, self.operand(*src), Form::Scale)),
            RowOp::Softcap { src, cap } => out.push(self.elementwise(i, self.operand(*src), Form::Softcap(*cap))),
            RowOp::PositionScale { src, scale } => {
                out.push(self.elementwise(i, self.operand(*src), Form::Position(*scale)));
            }
            RowOp::Mul { a, b, group } => {
                out.push(self.elementwise(i, self.operand(*a), Form::Mul(self.operand(*b).src, *group)));
            }
            RowOp::GatedAct { act, gate, up } => out.push(self.gated(i, *act, *gate, Some(*up))),
            RowOp::Act { act, src } => out.push(self.gated(i, *act, *src, None)),
            RowOp::Columns { src, period, offset, len } => {
                out.push(self.columns(i, [*src, *src], [*len, 0], [*period, *offset]));
            }
            RowOp::Join { a, b, lens } => out.push(self.columns(i, [*a, *b], *lens, [lens[0], 0])),
            RowOp::Rope { src, rope, head_dim } => out.push(self.rope(i, *src, *rope, *head_dim)),
            RowOp::Embed { table, scale, or_first } => self.embed(i, *table, (*scale, *or_first), out)?,
            RowOp::Streams { a, b, op, widths } => out.push(self.streams(i, [*a, *b], *op, *widths)),
            RowOp::Hyper { src, op } => out.push(self.hyper(i, *src, op)),
            RowOp::Sparsify { src, deviations } => {
                let defines = Defines::new().flag("SPARSIFY", true);
                out.push(self.statistics(i, [*src, *src], instr.width, *deviations, defines));
            }
            RowOp::Route { src, route } => out.push(self.route(i, *src, route)?),
            RowOp::ExpertSum { src, route, k, weighted } => {
                out.push(self.expert_sum(i, [*src, *route], *k, *weighted));
            }
        }
        Ok(i + 1)
    }

    /// The add at `at`, with the norm of its result where that follows at once.
    fn sum<'p>(&'p self, at: usize, a: Operand, pre: Option<&'p NormOp>, b: Operand) -> (NormParts<'p>, usize) {
        let width = self.program.instrs[at].width;
        let mut parts = NormParts { a, pre, b: Some(b), keep: Some(at), post: None, width };
        if let Some(RowOp::Norm { src, norm }) = self.program.instrs.get(at + 1).map(|i| &i.op)
            && *src == Src::Temp(at as u16)
            && norm.group == width
        {
            parts.post = Some((norm, at + 1));
            parts.keep = (!self.private(at)).then_some(at);
            return (parts, at + 2);
        }
        (parts, at + 1)
    }

    /// Number of reads of a temp, the linear's included.
    fn uses(&self, t: usize) -> usize {
        let temp = Src::Temp(t as u16);
        let reads = self.program.instrs.iter().flat_map(|i| i.op.srcs()).flatten().filter(|s| *s == temp).count();
        reads + usize::from(self.result == Some(temp))
    }

    /// Whether only one instruction of the program reads the temp.
    fn private(&self, t: usize) -> bool {
        self.program.instrs[t].store.is_none() && self.uses(t) == 1 && self.result != Some(Src::Temp(t as u16))
    }

    /// Whether the instruction disappears into its readers.
    fn folds(&self, t: usize) -> bool {
        let instr = &self.program.instrs[t];
        if instr.store.is_some() || self.result == Some(Src::Temp(t as u16)) {
            return false;
        }
        match instr.op {
            RowOp::Copy { .. } => true,
            RowOp::Scale { .. } => self
                .program
                .instrs
                .iter()
                .filter(|i| i.op.srcs().contains(&Some(Src::Temp(t as u16))))
                .all(|i| matches!(i.op, RowOp::Add { .. } | RowOp::Scale { .. })),
            // Nothing reads it, so it is not computed.
            _ => self.uses(t) == 0,
        }
    }

    /// The row that a source reads from memory in the end, through the instructions that fold.
    fn operand(&self, src: Src) -> Operand {
        match src {
            Src::Temp(t) if self.folds(t as usize) => match self.program.instrs[t as usize].op {
                RowOp::Copy { src } => self.operand(src),
                RowOp::Scale { src, factor } => {
                    let inner = self.operand(src);
                    Operand { factor: inner.factor * factor, ..inner }
                }
                _ => Operand { src, factor: 1.0 },
            },
            _ => Operand { src, factor: 1.0 },
        }
    }

    fn place(&self, src: Src) -> Place {
        (self.places.place)(src)
    }

    fn target(&self, instr: usize) -> Place {
        self.place(Src::Temp(instr as u16))
    }

    fn vector(&self, id: Option<WeightId>) -> u32 {
        id.map_or(NONE, self.places.vector)
    }

    fn defines(&self, defines: Defines) -> Defines {
        defines.flag("OUTPUTS", self.program.rows == Rows::Output)
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
        let kernel = Kernel { name, defines: self.defines(defines), constants: Vec::new(), bindings };
        Dispatch { kernel, params: params.finish(), grid, rows: self.program.rows }
    }

    fn norm(&self, n: &NormParts<'_>) -> RowDispatch {
        let last = n.post.map(|(norm, _)| norm).or(n.pre);
        let group = last.map_or(n.width, |norm| norm.group);
        let a = self.place(n.a.src);
        let b = n.b.map(|b| (self.place(b.src), b.factor));
        let kept = n.keep.map(|i| self.target(i));
        let result = n.post.map(|(_, i)| self.target(i));
        let norms = [n.pre, n.post.map(|(norm, _)| norm)];
        let vectors: Vec<u32> =
            norms.iter().flatten().flat_map(|m| [self.vector(m.weight), self.vector(m.bias)]).collect();
        let used: Vec<&Place> =
            [Some(&a), b.as_ref().map(|b| &b.0), kept.as_ref(), result.as_ref()].into_iter().flatten().collect();
        let wide = by_fours(group, &used, &vectors);
        let step = if wide { 4 } else { 1 };
        let part = |v: u32| if v == NONE { NONE } else { v / step };
        let most = if self.caps.software { 32 } else { 1024 };
        let invocations = workgroup(self.caps, group / step as usize, most);
        let defines = reduction(self.caps, invocations)
            .flag("PRE", n.pre.is_some())
            .flag("ADD", b.is_some())
            .flag("STORE", kept.is_some())
            .flag("POST", n.post.is_some())
            .flag("LAYER", norms.iter().flatten().any(|m| m.kind == NormKind::Layer))
            .flag("VEC", wide);
        let mut params = Params::default()
            .place(&a)
            .place(&b.map_or(a, |b| b.0))
            .place(&kept.unwrap_or(a))
            .place(&result.unwrap_or(a))
            .u(&[group as u32 / step])
            .f(&[n.a.factor, b.map_or(0.0, |b| b.1)])
            .u(&[0]);
        for norm in norms {
            params = match norm {
                None => params.u(&[NONE, NONE, 0, 0]).f(&[0.0, 0.0, 0.0, 0.0]),
                Some(m) => params
                    .u(&[part(self.vector(m.weight)), part(self.vector(m.bias))])
                    .u(&[norm_code(m.kind), 0])
                    .f(&[m.weight_offset, m.eps, 1.0 / m.group as f32, 0.0]),
            };
        }
        let grid = [Dim::RowsOver(1), Dim::Fixed((n.width / group) as u32), Dim::Fixed(1)];
        RowDispatch { dispatch: self.dispatch("norm", defines, params, grid, &[]), extra: Extra::None }
    }

    fn elementwise(&self, i: usize, a: Operand, form: Form) -> RowDispatch {
        let (pa, result) = (self.place(a.src), self.target(i));
        let (other, group) = match form {
            Form::Add(b) => (Some(b.src), 1),
            Form::Mul(b, group) => (Some(b), group),
            _ => (None, 1),
        };
        let pb = other.map_or(pa, |b| self.place(b));
        let (wide, elements, defines, grid) = self.flat(i, &[&pa, &pb, &result], if group == 1 { &[] } else { &[1] });
        let (flag, factors, rest) = match form {
            Form::Scale => (None, [a.factor, 0.0], [0, 0]),
            Form::Add(b) => (Some("ADD"), [a.factor, b.factor], [0, 0]),
            Form::Mul(..) => (Some("MUL"), [a.factor, 0.0], [0, 0]),
            Form::Softcap(cap) => (Some("SOFTCAP"), [cap, 0.0], [0, 0]),
            Form::Position(p) => {
                let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX / 2);
                (Some("POSITION"), [p.beta, 0.0], [word(p.length), word(p.offset)])
            }
        };
        let defines = flag.into_iter().fold(defines, |d, flag| d.flag(flag, true)).flag("VEC", wide);
        let params = Params::default().place(&pa).place(&pb).place(&result).u(&[elements]);
        let params = params.f(&factors).u(&[group as u32]).u(&rest);
        RowDispatch { dispatch: self.dispatch("elementwise", defines, params, grid, &[]), extra: Extra::None }
    }

    /// `act(gate) * up`, or `act(gate)`.
    fn gated(&self, i: usize, act: Act, gate: Src, up: Option<Src>) -> RowDispatch {
        let [gate, other] = [gate, up.unwrap_or(gate)].map(|s| self.place(self.operand(s).src));
        let result = self.target(i);
        let (wide, elements, defines, grid) = self.flat(i, &[&gate, &other, &result], &[]);
        let params = Params::default().place(&gate).place(&other).place(&result).u(&[elements]);
        let defines = activation(defines, act).flag("UNARY", up.is_none()).flag("VEC", wide);
        RowDispatch { dispatch: self.dispatch("gated_act", defines, params, grid, &[]), extra: Extra::None }
    }

    /// Groups of `lens[0]` elements from the periods of one row, then of `lens[1]` (possibly 0) of another.
    fn columns(&self, i: usize, srcs: [Src; 2], lens: [usize; 2], [period, offset]: [usize; 2]) -> RowDispatch {
        let [a, b] = srcs.map(|s| self.place(self.operand(s).src));
        let result = self.target(i);
        let lengths = [lens[0], lens[1], period, offset].map(|n| n as u32);
        let (wide, elements, defines, grid) = self.flat(i, &[&a, &b, &result], &lengths);
        let by = if wide { 4 } else { 1 };
        let [first, second, period, offset] = lengths.map(|n| n / by);
        let params = Params::default().place(&a).place(&b).place(&result);
        let params = params.u(&[elements, first + second, first, period, offset, second]);
        let defines = defines.flag("JOIN", lens[1] > 0).flag("VEC", wide);
        RowDispatch { dispatch: self.dispatch("columns", defines, params, grid, &[]), extra: Extra::None }
    }

    /// For kernels with one invocation an element or four; `lengths` must be multiples of four for the latter. Returns
    /// whether it is by fours, the units of a row, the defines, and the grid.
    fn flat(&self, i: usize, places: &[&Place], lengths: &[u32]) -> (bool, u32, Defines, [Dim; 3]) {
        let width = self.program.instrs[i].width;
        let wide = by_fours(width, places, lengths);
        let elements = (if wide { width / 4 } else { width }) as u32;
        let invocations = workgroup(self.caps, elements as usize, 64);
        let grid = [Dim::Fixed(elements.div_ceil(invocations)), Dim::RowsOver(1), Dim::Fixed(1)];
        (wide, elements, Defines::new().with("WG", invocations), grid)
    }

    fn route(&self, i: usize, src: Src, route: &RouteOp) -> Result<RowDispatch, GpuError> {
        // Scores, with and without bias, lie in workgroup memory beside some smaller data.
        let most = (self.caps.max_workgroup_memory as usize / 4).saturating_sub(1024) / 2;
        if route.n_experts > most {
            let why = format!("{} experts; the kernel has room for {most}", route.n_experts);
            return Err(GpuError::Unsupported { op: "route", name: String::new(), why });
        }
        let wg = workgroup(self.caps, route.n_experts, 64);
        let (score, jitter) = match route.score {
            RouteScore::Softmax => ("softmax", 0.0),
            RouteScore::Sigmoid => ("sigmoid", 0.0),
            RouteScore::SqrtSoftplus => ("sqrt_softplus", 0.0),
            RouteScore::Raw => ("raw", 0.0),
            RouteScore::SparseMixer { jitter } => ("sparse", jitter),
        };
        let weight = match route.weight {
            RouteWeight::Score => "score",
            RouteWeight::Softmax => "softmax",
            RouteWeight::Sigmoid => "sigmoid",
        };
        let mut defines = reduction(self.caps, wg)
            .with("EXPERTS", route.n_experts)
            .with("CHOSEN", route.k)
            .with("SCORE", score)
            .with("WEIGHT", weight)
            .flag("RENORMALISE", route.renormalise.is_some())
            .flag("TABLE", route.table.is_some());
        if let Some(table) = route.table {
            defines = defines.with("TOKENS", self.graph.weight(table).shape().iter().product::<usize>() / route.k);
        }
        let mut keep = 0;
        if let Some(groups) = route.groups {
            defines = defines.with("GROUPS", groups.n).flag("BEST_TWO", groups.score == GroupScore::BestTwo);
            keep = groups.keep as u32;
        }
        let vectors = [route.bias, route.expert_scale, route.table].map(|v| self.vector(v));
        let params = Params::default().place(&self.place(self.operand(src).src)).place(&self.target(i)).u(&vectors);
        let params = params.u(&[keep]).f(&[route.scale, route.renormalise.unwrap_or(0.0), jitter]);
        let (extra, more) = match route.table {
            Some(_) => (Extra::Tokens, &[Access::Read][..]),
            None => (Extra::None, &[][..]),
        };
        let grid = [Dim::Fixed(1), Dim::RowsOver(1), Dim::Fixed(1)];
        Ok(RowDispatch { dispatch: self.dispatch("route", defines, params, grid, more), extra })
    }

    fn expert_sum(&self, i: usize, [src, route]: [Src; 2], slots: usize, weighted: bool) -> RowDispatch {
        let [y, route] = [src, route].map(|s| self.place(self.operand(s).src));
        let width = self.program.instrs[i].width;
        let invocations = workgroup(self.caps, width, 64);
        let grid = [Dim::Fixed((width as u32).div_ceil(invocations)), Dim::RowsOver(1), Dim::Fixed(1)];
        let defines = Defines::new().with("WG", invocations).flag("WEIGHTED", weighted);
        let params = Params::default().place(&y).place(&route).place(&self.target(i)).u(&[width as u32, slots as u32]);
        RowDispatch { dispatch: self.dispatch("expert_sum", defines, params, grid, &[]), extra: Extra::None }
    }

    fn streams(&self, i: usize, [a, b]: [Src; 2], op: StreamOp, widths: [usize; 2]) -> RowDispatch {
        let (inputs, offset) = match op {
            StreamOp::MatchRms { floor } => return self.statistics(i, [a, b], widths[1], floor, Defines::new()),
            StreamOp::Mix { inputs, offset } => (inputs, offset),
            StreamOp::Add => (1, 0.0),
        };
        let stream = if matches!(op, StreamOp::Add) { widths[1] } else { widths[0] / inputs };
        let width = self.program.instrs[i].width;
        let invocations = workgroup(self.caps, width, 64);
        let defines = Defines::new().with("WG", invocations).flag("MIX", matches!(op, StreamOp::Mix { .. }));
        let [a, b] = [a, b].map(|s| self.place(self.operand(s).src));
        let params = Params::default().place(&a).place(&b).place(&self.target(i));
        let params = params.u(&[stream as u32, width as u32, inputs as u32]).f(&[offset]);
        let grid = [Dim::Fixed((width as u32).div_ceil(invocations)), Dim::RowsOver(1), Dim::Fixed(1)];
        RowDispatch { dispatch: self.dispatch("streams", defines, params, grid, &[]), extra: Extra::None }
    }

    fn hyper(&self, i: usize, src: Src, op: &HyperOp) -> RowDispatch {
        let mix = self.program.instrs[i].width > op.streams;
        let invocations = workgroup(self.caps, 32, 32);
        let defines = Defines::new().with("WG", invocations).with("N", op.streams).flag("MIX", mix);
        let params = Params::default().place(&self.place(self.operand(src).src)).place(&self.target(i));
        let vectors = [op.scale, op.base].map(|w| self.vector(Some(w)));
        let params = params.u(&vectors).u(&[op.iterations as u32]).f(&[op.eps]);
        let grid = [Dim::RowsOver(invocations), Dim::Fixed(1), Dim::Fixed(1)];
        RowDispatch { dispatch: self.dispatch("hyper", defines, params, grid, &[]), extra: Extra::None }
    }

    /// For kernels that need the statistics of each `stream` elements of a row.
    fn statistics(&self, i: usize, [a, b]: [Src; 2], stream: usize, factor: f32, defines: Defines) -> RowDispatch {
        let width = self.program.instrs[i].width;
        let most = if self.caps.software { 32 } else { 256 };
        let invocations = workgroup(self.caps, stream, most);
        let mut defines = defines.with("WG", invocations);
        if self.caps.subgroups.is_some() && !self.caps.software {
            defines = defines.flag("SUBGROUPS", true);
        }
        let [a, b] = [a, b].map(|s| self.place(self.operand(s).src));
        let params = Params::default().place(&a).place(&b).place(&self.target(i)).u(&[stream as u32]).f(&[factor]);
        let grid = [Dim::RowsOver(1), Dim::Fixed((width / stream) as u32), Dim::Fixed(1)];
        RowDispatch { dispatch: self.dispatch("statistics", defines, params, grid, &[]), extra: Extra::None }
    }

    fn rope(&self, i: usize, src: Src, rope: RopeId, head_dim: usize) -> RowDispatch {
        let spec = &self.graph.ropes()[rope.0 as usize];
        let width = self.program.instrs[i].width;
        let pairs = width / head_dim * head_dim.div_ceil(2);
        let invocations = workgroup(self.caps, pairs, 64);
        let defines =
            Defines::new().with("WG", invocations).flag("INTERLEAVED", spec.layout == RopeLayout::Interleaved);
        let params = Params::default().place(&self.place(self.operand(src).src)).place(&self.target(i));
        let params =
            params.u(&[rope.0, (spec.rotary_dims / 2) as u32, head_dim as u32, width as u32, spec.first_dim as u32]);
        let grid = [Dim::Fixed((pairs as u32).div_ceil(invocations)), Dim::RowsOver(1), Dim::Fixed(1)];
        RowDispatch { dispatch: self.dispatch("rope", defines, params, grid, &[Access::Read]), extra: Extra::Rope }
    }

    fn embed(
        &self,
        i: usize,
        table: WeightId,
        (scale, or_first): (f32, bool),
        out: &mut Vec<RowDispatch>,
    ) -> Result<(), GpuError> {
        let tensor = self.graph.weight(table);
        let row_bytes = tensor.row_bytes();
        let width = self.program.instrs[i].width;
        let invocations = workgroup(self.caps, width, 64);
        for (rows, byte) in (self.places.table)(table)? {
            let defines = with_format(Defines::new().with("WG", invocations), "", tensor.dtype());
            let params = Params::default()
                .place(&self.target(i))
                .u(&[width as u32, row_bytes as u32, rows.start, rows.end, byte as u32])
                .f(&[scale])
                .u(&[if or_first { tensor.rows() as u32 } else { NONE }]);
            let grid = [Dim::Fixed((width as u32).div_ceil(invocations)), Dim::RowsOver(1), Dim::Fixed(1)];
            let dispatch = self.dispatch("embed", defines, params, grid, &[Access::Read, Access::Read]);
            out.push(RowDispatch { dispatch, extra: Extra::Table { weight: table, rows } });
        }
        Ok(())
    }
}

/// The code of a norm in `norm.wgsl`.
fn norm_code(kind: NormKind) -> u32 {
    match kind {
        NormKind::Rms => 0,
        NormKind::Layer => 1,
        NormKind::None => 2,
    }
}
