//! Linears by the experts of a route: the choice of kernel, and its workgroups. Routes are read on the device.
//!
//! Bindings: 0 parameters, 1 batch, 2 arena, 3 vectors, 4 weights, and for many rows 5 pairs, which [`sort`] makes.

use handmill_shaders::Defines;

use super::{
    Dim, Dispatch, Place,
    linear::{self, LinearCall},
    params::{NONE, Params},
};
use crate::{
    gpu::{Access, Caps, GpuError, Kernel},
    graph::Rows,
};

/// Experts' weights in one binding.
#[derive(Clone, Debug)]
pub struct ExpertCall {
    /// Input, and the one part, whose rows are those of each expert. The part's `weight_byte` is unused, and its output
    /// is the first slot's.
    pub linear: LinearCall,
    /// The route.
    pub route: Place,
    /// Experts that the route names.
    pub slots: u32,
    /// Whether each of them has an input of its own.
    pub per_slot: bool,
    /// Elements that an expert makes in all.
    pub out: u32,
    /// Whether results are multiplied by the route's weights.
    pub scaled: bool,
    /// Whether weights have a row per input.
    pub input_major: bool,
    /// By expert: the first byte of its first row in the binding; none for experts of other bindings.
    pub bytes: Vec<Option<u32>>,
}

/// The dispatch for rows that the model chose, and another for a prompt's where that is different.
#[derive(Clone, Debug)]
pub struct ExpertDispatches {
    /// Each row by itself.
    pub few: Dispatch,
    /// For prompts: it reads the pairs that [`sort`] has made.
    pub many: Option<Dispatch>,
}

/// The kernels for `call`.
///
/// # Errors
/// A call that does not fit the kernels.
pub fn dispatches(caps: &Caps, call: &ExpertCall) -> Result<ExpertDispatches, GpuError> {
    let n = call.bytes.len();
    let fail = |why: String| {
        let name = call.linear.parts.first().map_or_else(String::new, |p| format!("{n} experts of {} rows", p.rows));
        Err(GpuError::Unsupported { op: "expert_linear", name, why })
    };
    let [part] = &call.linear.parts[..] else { return fail("one weight at a time".to_owned()) };
    if let Err(why) = check_experts(caps, n) {
        return fail(why);
    }
    if call.slots > caps.max_workgroups {
        return fail(format!("{} experts a row", call.slots));
    }
    let access = vec![Access::Uniform, Access::Read, Access::ReadWrite, Access::Read, Access::Read];
    let dispatch = |name: &'static str, defines: Defines, rows_each: u32, [y, z]: [Dim; 2], pairs: bool| {
        let (mut words, groups) = linear::words(&call.linear, rows_each);
        words.extend(call.route.words());
        let stride = if call.per_slot { call.linear.k } else { 0 };
        words.extend([call.slots, stride, call.out, u32::from(call.scaled)]);
        words.extend(call.bytes.iter().map(|b| b.unwrap_or(NONE)));
        words.resize(words.len().next_multiple_of(4), NONE);
        let mut bindings = access.clone();
        bindings.extend(pairs.then_some(Access::Read));
        let defines = defines.with("EXPERTS", n).flag("SORTED", pairs);
        Dispatch {
            kernel: Kernel { name, defines, constants: Vec::new(), bindings },
            params: bytemuck::cast_slice(&words).to_vec(),
            grid: [Dim::Fixed(groups), y, z],
            rows: call.linear.rows,
        }
    };
    // A row's inputs follow one another without a gap.
    let wide = linear::aligned(&call.linear) && (!call.per_slot || call.linear.k.is_multiple_of(4));
    let own = linear::defines_for(&call.linear, wide);
    let by_row = [Dim::RowsOver(1), Dim::Fixed(call.slots)];
    if call.input_major {
        if !part.dtype.is_float() {
            return fail(format!("{} with a row per input", part.dtype));
        }
        return Ok(ExpertDispatches { few: dispatch("expert_columns", own, 64, by_row, false), many: None });
    }
    linear::check(&call.linear)?;
    const WG: u32 = 128;
    const ROWS: u32 = 4;
    let team = linear::team(&call.linear);
    let sub = caps.subgroups.map_or(1, |(min, _)| min.min(team));
    let defines = own
        .clone()
        .with("WG", WG)
        .with("TEAM", team)
        .with("SUB", sub)
        .with("ROWS", ROWS)
        .with("TOKENS", 1)
        .flag("SUBGROUPS", sub > 1)
        .flag("PARTIALS", team > sub);
    let defines = linear::rounding(caps, &call.linear, defines);
    let few = dispatch("expert_vec", defines, WG / team * ROWS, by_row, false);
    let by_expert = [Dim::RowsOver(64), Dim::Fixed(n as u32)];
    let many = (!caps.software).then(|| dispatch("expert_mat", own.with("TOKENS", 64), 64, by_expert, true));
    Ok(ExpertDispatches { few, many })
}

/// Experts that the kernels have room for.
fn check_experts(caps: &Caps, n: usize) -> Result<(), String> {
    // Parameters are 16 KiB at most, and the counters lie in workgroup memory.
    let most = (caps.max_workgroup_memory as usize / 8).min(2048);
    if n == 0 || n > most { Err(format!("{n} experts; the kernels have room for {most}")) } else { Ok(()) }
}

/// Sorts the pairs of row and slot by expert, in binding 4.
///
/// # Errors
/// More experts than the kernel has room for.
pub fn sort(caps: &Caps, route: Place, slots: u32, n_experts: usize, rows: Rows) -> Result<Dispatch, GpuError> {
    let name = format!("{n_experts} experts");
    check_experts(caps, n_experts).map_err(|why| GpuError::Unsupported { op: "route", name, why })?;
    let wg = caps.max_invocations.clamp(1, 256);
    let defines = Defines::new().with("WG", wg).with("EXPERTS", n_experts).flag("OUTPUTS", rows == Rows::Output);
    let bindings = vec![Access::Uniform, Access::Read, Access::ReadWrite, Access::Read, Access::ReadWrite];
    Ok(Dispatch {
        kernel: Kernel { name: "expert_sort", defines, constants: Vec::new(), bindings },
        params: Params::default().place(&route).u(&[slots]).finish(),
        grid: [Dim::Fixed(1), Dim::Fixed(1), Dim::Fixed(1)],
        rows,
    })
}

/// Words that [`sort`] writes for `rows` rows.
pub fn pair_words(slots: usize, n_experts: usize, rows: usize) -> usize {
    n_experts + 1 + rows * slots
}
