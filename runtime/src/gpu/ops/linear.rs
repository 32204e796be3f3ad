//! y = x · Wᵀ: the choice of kernel, and its workgroups.
//!
//! Bindings: 0 parameters, 1 batch, 2 arena, 3 vectors, 4 weights. All parts of a call lie in one weights binding. The
//! arena's and the weights' sizes are rounded up to whole vectors of 16 bytes and whole words.

use handmill_shaders::Defines;

use super::{
    Dim, Dispatch, Place,
    params::{NONE, activation},
};
use crate::gpu::{Access, Caps, GpuError, Kernel};
use crate::graph::{Act, Rows};
use crate::quant::DType;

/// Parts that a call may have.
pub const MAX_PARTS: usize = 4;

/// One weight of a call, or some rows of it.
#[derive(Clone, Debug)]
pub struct LinearPart {
    /// Its format.
    pub dtype: DType,
    /// Rows of the weight: elements of the output.
    pub rows: u32,
    /// Place of the output.
    pub out: Place,
    /// Element of the output's row that belongs to the first of `rows`.
    pub out_first: u32,
    /// First element of the bias in `vectors`.
    pub bias: Option<u32>,
    /// First byte in the weights binding.
    pub weight_byte: u64,
    /// Bytes from one row to the next.
    pub row_bytes: u64,
    /// Factors on its elements, where they are kept apart.
    pub scales: Option<PartScales>,
}

/// f32 scales of a part among the vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartScales {
    /// The first one's element in `vectors`.
    pub at: u32,
    /// Rows of the first block before the part's first row.
    pub first_row: u32,
    /// Rows, and elements of a row, that share a scale.
    pub block: [u32; 2],
    /// For experts: elements from one expert's first scale to the next one's.
    pub each: u32,
}

/// One matrix for each head of the input; the call's part is the first head's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadCall {
    /// Heads.
    pub heads: u32,
    /// Bytes from one matrix to the next.
    pub bytes: u64,
    /// Whether the weight has a row per input.
    pub transposed: bool,
}

/// An RMS norm that makes a call's input. Kernels for few rows may apply it themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputNorm {
    /// The input of the norm, which runs over whole rows.
    pub input: Place,
    /// First element of the scale in `vectors`.
    pub scale: u32,
    /// Added to the scale.
    pub offset: f32,
    /// Added to the mean square.
    pub eps: f32,
}

/// Weights with one input, in one dispatch.
#[derive(Clone, Debug)]
pub struct LinearCall {
    /// The input.
    pub input: Place,
    /// Elements of its rows.
    pub k: u32,
    /// The weights, up to [`MAX_PARTS`].
    pub parts: Vec<LinearPart>,
    /// The rows of the input. With outputs, an input with a row per token is read at the outputs' tokens.
    pub rows: Rows,
    /// Added to part 0's output (element `out_first + i` to row i of the weight). It may be the output's own place.
    pub residual: Option<Place>,
    /// For two parts of equally many rows: only `act(part 0) · part 1` is written, to part 0's place.
    pub gated: Option<Act>,
    /// The norm that makes the input, if one does.
    pub norm: Option<InputNorm>,
    /// A matrix for each head: `k` and the part's rows are a head's, and heads are adjacent.
    pub heads: Option<HeadCall>,
}

/// The dispatch for up to `max_rows` rows of one role or of both. All that are for rows of one role give a row the same bits.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The most rows that it is for; `u32::MAX` in the last variant of a role.
    pub max_rows: u32,
    /// Whether it is for rows that the model chose, and never for a prompt's.
    pub generated: bool,
    /// Whether it applies the call's norm itself, and reads the norm's input.
    pub folded: bool,
    /// The dispatch.
    pub dispatch: Dispatch,
}

/// Bytes of a norm's scale that all workgroups together may read: a device's cache delivers them in less time than a
/// dispatch takes.
const FOLDED_READS: u64 = 8 << 20;

/// Whether the kernels for few rows apply the call's norm themselves.
pub fn folds(caps: &Caps, call: &LinearCall) -> bool {
    folded(caps, call).is_some()
}

/// The call on the norm's input, where the kernels for few rows apply the norm themselves. This saves a dispatch, but every
/// workgroup reads the norm's scale beside its input, so it pays only for few workgroups. A row has the same norm alone and
/// among others, so one row decides.
fn folded(caps: &Caps, call: &LinearCall) -> Option<LinearCall> {
    let norm = call.norm?;
    let raw = LinearCall { input: norm.input, ..call.clone() };
    let few = || {
        let groups = words(call, VEC_WG / team(call) * vec_rows(1)).1;
        u64::from(groups) * u64::from(call.k) * 4 <= FOLDED_READS
    };
    let fits = call.heads.is_none() && call.k.is_multiple_of(32) && norm.scale.is_multiple_of(4) && aligned(&raw);
    (fits && (caps.software || few())).then_some(raw)
}

/// The kernels for `call`: those for generated rows first, of either role those for few rows first.
///
/// # Errors
/// A call that does not fit the kernels: too many parts, a binding over 4 GiB, places at which blocks cannot begin.
pub fn dispatches(caps: &Caps, call: &LinearCall) -> Result<Vec<Variant>, GpuError> {
    check(call)?;
    let folded = folded(caps, call);
    let plain = LinearCall { norm: None, ..call.clone() };
    let (few, call) = (folded.as_ref().unwrap_or(&plain), &plain);
    let variant = |max_rows: u32, generated: bool, dispatch: Dispatch| Variant {
        max_rows,
        generated,
        folded: dispatch.kernel.defines.get("NORM").is_some(),
        dispatch,
    };
    let both = |max_rows, dispatch| variant(max_rows, false, dispatch);
    let generated = |max_rows, dispatch| variant(max_rows, true, dispatch);
    if call.heads.is_some_and(|h| h.transposed) {
        return Ok(vec![both(1, transposed(caps, call, 1)), both(u32::MAX, transposed(caps, call, 8))]);
    }
    if caps.software {
        return Ok(vec![both(1, lanes(caps, few, 1)), both(u32::MAX, lanes(caps, few, 8))]);
    }
    let mut all = vec![generated(1, mat_vec(caps, few, 1)), generated(u32::MAX, mat_vec(caps, few, 4))];
    match cooperative_subgroup(caps, call) {
        Some(sub) => all.push(both(u32::MAX, cooperative(caps, call, sub))),
        // Outputs are few rows, or so many that another kernel is not worth its compilation.
        None if call.rows == Rows::Output => all.push(both(u32::MAX, mat_mat(caps, call, 64))),
        None => all.extend([(32, 32), (u32::MAX, 64)].map(|(most, tile)| both(most, mat_mat(caps, call, tile)))),
    }
    Ok(all)
}

pub(super) fn check(call: &LinearCall) -> Result<(), GpuError> {
    let fail = |why: String| {
        let name = call.parts.iter().map(|p| format!("{} [{}, {}]", p.dtype, p.rows, call.k)).collect::<Vec<_>>();
        Err(GpuError::Unsupported { op: "linear", name: name.join(", "), why })
    };
    if call.parts.is_empty() || call.parts.len() > MAX_PARTS || call.k == 0 {
        return fail(format!("{} parts of {} elements", call.parts.len(), call.k));
    }
    if call.gated.is_some() && (call.parts.len() != 2 || call.parts[0].rows != call.parts[1].rows) {
        return fail("gate and up differ in their rows".to_owned());
    }
    if call.heads.is_some() && (call.parts.len() != 1 || call.residual.is_some() || call.gated.is_some()) {
        return fail("heads of several parts".to_owned());
    }
    let blocks: Vec<[u32; 2]> = call.parts.iter().filter_map(|p| p.scales.map(|s| s.block)).collect();
    let whole = |b: &[u32; 2]| b[0] > 0 && b[1] > 0 && (b[1].is_multiple_of(32) || b[1] >= call.k);
    if blocks.iter().any(|b| *b != blocks[0] || !whole(b)) {
        return fail(format!("scales of blocks {blocks:?}"));
    }
    let turned = call.heads.is_some_and(|h| h.transposed);
    for p in &call.parts {
        let row_len = if turned { p.rows } else { call.k };
        let align = p.dtype.format().alignment as u64;
        let row = p.dtype.row_bytes(row_len as usize).map(|b| b as u64);
        if p.rows == 0 || row.is_none_or(|row| row > p.row_bytes) {
            return fail(format!("rows of {} bytes", p.row_bytes));
        }
        if p.weight_byte % align != 0 || p.row_bytes % align != 0 {
            return fail(format!("weights at byte {} in rows of {}", p.weight_byte, p.row_bytes));
        }
        let rows = if turned { call.k } else { p.rows };
        let last = call.heads.map_or(0, |h| h.bytes.saturating_mul(u64::from(h.heads.saturating_sub(1))));
        if call.heads.is_some_and(|h| h.bytes % align != 0) {
            return fail("matrices that begin within a block".to_owned());
        }
        if p.row_bytes
            .checked_mul(rows.into())
            .and_then(|b| b.checked_add(last))
            .is_none_or(|b| b + p.weight_byte > 1 << 32)
        {
            return fail("a binding of more than 4 GiB".to_owned());
        }
    }
    Ok(())
}

/// Defines of all kernels.
fn defines(call: &LinearCall) -> Defines {
    defines_for(call, aligned(call))
}

/// Whether all values lie at multiples of four elements.
pub(super) fn aligned(call: &LinearCall) -> bool {
    let p = call.input;
    // Heads follow one another without padding.
    let head = call.heads.as_ref().map_or(0, |_| call.k);
    [p.base, p.offset, p.stride, head].iter().all(|v| v.is_multiple_of(4))
}

/// As [`defines`]; with `wide` the input may be read four elements at a time.
pub(super) fn defines_for(call: &LinearCall, wide: bool) -> Defines {
    let mut d = Defines::new()
        .with("PARTS", if call.gated.is_some() { 1 } else { call.parts.len() })
        .flag("OUTPUTS", call.rows == Rows::Output)
        .flag("VEC", wide)
        .flag("TAIL", !call.k.is_multiple_of(32))
        .flag("HEADS", call.heads.is_some())
        .flag("TRANSPOSED", call.heads.is_some_and(|h| h.transposed))
        .flag("NORM", call.norm.is_some());
    if let Some(s) = call.parts.iter().find_map(|p| p.scales) {
        d = d.flag("SCALES", true).with("SCALE_ROWS", s.block[0]).with("SCALE_COLS", s.block[1]);
    }
    for (i, p) in call.parts.iter().enumerate() {
        d = with_format(d, &i.to_string(), p.dtype);
    }
    match call.gated {
        Some(act) => activation(d.flag("GATED", true), act),
        None => d,
    }
}

/// Adds the format as FORMAT and the reading of its groups as KIND: floats, or bytes with or without a sign. `part` is
/// appended to these names. The format's table is added, too.
pub(super) fn with_format(defines: Defines, part: &str, dtype: DType) -> Defines {
    let format = dtype.format();
    let kind = match format.quants {
        None => "float",
        Some(quants) if quants.signed => "signed",
        Some(_) => "bytes",
    };
    let defines = defines.with(&format!("FORMAT{part}"), format.name).with(&format!("KIND{part}"), kind);
    let Some((name, words)) = format.table else { return defines };
    defines.with(name, words.iter().map(|w| format!("{w:#010x}u")).collect::<Vec<_>>().join(", "))
}

/// The parameters of a call whose workgroups compute `rows_each` rows of a weight each; and the number of workgroups.
pub(super) fn words(call: &LinearCall, rows_each: u32) -> (Vec<u32>, u32) {
    let none = Place { base: NONE, offset: 0, stride: 0, rows: call.rows };
    let mut words = Vec::with_capacity(16 + 12 * MAX_PARTS);
    words.extend(call.input.words());
    words.extend(call.residual.unwrap_or(none).words());
    let of_head = call.heads.map_or(0, |_| call.parts[0].rows.div_ceil(rows_each));
    let each = call.parts[0].scales.map_or(0, |s| s.each);
    words.extend([call.k, call.k / 32, of_head, call.heads.map_or(each, |h| h.bytes as u32)]);
    words.extend(
        call.norm.map_or([0; 4], |n| [n.scale, n.offset.to_bits(), n.eps.to_bits(), (1.0 / call.k as f32).to_bits()]),
    );
    let mut groups = 0u32;
    for p in &call.parts {
        words.extend(p.out.words());
        words.extend([p.weight_byte as u32, p.row_bytes as u32, p.rows, groups]);
        let (scale, scale_row) = p.scales.map_or((u32::MAX, 0), |s| (s.at, s.first_row));
        words.extend([p.out_first, p.bias.unwrap_or(u32::MAX), scale, scale_row]);
        if call.gated.is_none() || groups == 0 {
            groups += p.rows.div_ceil(rows_each) * call.heads.map_or(1, |h| h.heads);
        }
    }
    words.resize(16 + 12 * MAX_PARTS, 0);
    if call.gated.is_some() {
        words[16 + 12 + 7] = 0;
    }
    (words, groups)
}

/// A dispatch whose workgroups compute `rows_each` rows of a weight for `tokens_each` rows of the input.
fn dispatch(
    caps: &Caps,
    call: &LinearCall,
    name: &'static str,
    defines: Defines,
    rows_each: u32,
    tokens_each: u32,
) -> Dispatch {
    let (words, groups) = words(call, rows_each);
    let x = groups.min(caps.max_workgroups);
    Dispatch {
        kernel: Kernel {
            name,
            defines,
            constants: Vec::new(),
            bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite, Access::Read, Access::Read],
        },
        params: bytemuck::cast_slice(&words).to_vec(),
        grid: [Dim::Fixed(x), Dim::RowsOver(tokens_each), Dim::Fixed(groups.div_ceil(x))],
        rows: call.rows,
    }
}

/// Invocations of a workgroup of `linear_vec`.
const VEC_WG: u32 = 128;

/// Rows of a weight that a team of `linear_vec` computes for `tokens` rows of the input.
fn vec_rows(tokens: u32) -> u32 {
    if tokens == 1 { 4 } else { 2 }
}

fn mat_vec(caps: &Caps, call: &LinearCall, tokens: u32) -> Dispatch {
    let rows = vec_rows(tokens);
    let team = team(call);
    let sub = caps.subgroups.map_or(1, |(min, _)| min.min(team));
    let defines = defines(call)
        .with("WG", VEC_WG)
        .with("TEAM", team)
        .with("SUB", sub)
        .with("ROWS", rows)
        .with("TOKENS", tokens)
        .flag("SUBGROUPS", sub > 1)
        .flag("PARTIALS", team > sub);
    let defines = rounding(caps, call, defines);
    let mut dispatch = dispatch(caps, call, "linear_vec", defines, VEC_WG / team * rows, tokens);
    // Workgroups that read the same weights run together.
    dispatch.grid.swap(0, 1);
    dispatch
}

/// Adds the rounding of inputs of weights in blocks for few rows: to bytes where hardware multiplies them, else to
/// halves where there are such, else none.
pub(super) fn rounding(caps: &Caps, call: &LinearCall, defines: Defines) -> Defines {
    let blocks = call.parts.iter().any(|p| !p.dtype.is_float());
    let (bytes, halves) = (blocks && caps.int8_dot, blocks && caps.f16 && !caps.int8_dot);
    defines.flag("INT8", bytes).flag("F16", halves).flag("ROUNDED", bytes || halves)
}

/// Invocations that share rows: as many as possible without more idle ones in the last round than necessary.
pub(super) fn team(call: &LinearCall) -> u32 {
    let float = call.parts.iter().any(|p| p.dtype.is_float());
    let pieces = if float { call.k.div_ceil(4) } else { call.k / 32 };
    let busy = |team: u32| f64::from(pieces) / f64::from(pieces.next_multiple_of(team));
    let teams = [8, 16, 32, 64, 128];
    let best = teams.iter().map(|&t| busy(t)).fold(0.0, f64::max);
    teams.into_iter().rev().find(|&t| busy(t) >= 0.9 * best).unwrap_or(8)
}

/// Two rows of W an invocation: with fewer, x is loaded more often; with more, the rows of keys and values give too few
/// workgroups.
fn lanes(caps: &Caps, call: &LinearCall, tokens: u32) -> Dispatch {
    const WG: u32 = 32;
    const ROWS: u32 = 2;
    let lanes = match caps.subgroups {
        Some((8.., _)) => 8,
        Some((4.., _)) => 4,
        _ => 1,
    };
    let defines = defines(call)
        .with("WG", WG)
        .with("ROWS", ROWS)
        .with("TOKENS", tokens)
        .with("LANES", lanes)
        .flag("SUBGROUPS", lanes > 1);
    dispatch(caps, call, "linear_lanes", defines, WG * ROWS, tokens)
}

/// The size of subgroups, where the cooperative kernel can run: it needs a single size, room for its tiles, and whole
/// groups.
fn cooperative_subgroup(caps: &Caps, call: &LinearCall) -> Option<u32> {
    let (min, max) = caps.subgroups?;
    let fits = caps.max_workgroup_memory >= 19 << 10 && 4 * max <= caps.max_invocations;
    (caps.cooperative
        && call.heads.is_none()
        && caps.f16
        && min == max
        && max <= 256
        && fits
        && call.k.is_multiple_of(32))
    .then_some(max)
}

fn cooperative(caps: &Caps, call: &LinearCall, sub: u32) -> Dispatch {
    let defines = defines(call).with("SUB", sub).flag("SUBGROUPS", true).flag("F16", true).flag("COOPERATIVE", true);
    dispatch(caps, call, "linear_coop", defines, 128, 64)
}

/// One invocation an element of the output.
fn transposed(caps: &Caps, call: &LinearCall, tokens: u32) -> Dispatch {
    const WG: u32 = 64;
    dispatch(caps, call, "linear_transposed", defines(call).with("WG", WG).with("TOKENS", tokens), WG, tokens)
}

/// Tiles are staged as f16 where the device has it and no weight has more precision or range.
fn mat_mat(caps: &Caps, call: &LinearCall, tokens: u32) -> Dispatch {
    let wide = call.parts.iter().any(|p| p.scales.is_some() || p.dtype.format().beyond_f16);
    let defines = defines(call).flag("F16", caps.f16 && !wide).with("TOKENS", tokens);
    dispatch(caps, call, "linear_mat", defines, 64, tokens)
}

#[cfg(test)]
mod tests;
