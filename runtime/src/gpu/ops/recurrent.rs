//! Stages with a per-sequence state as dispatches: short convolutions, the gated delta rule, and the preparation of
//! states that kernels change in place. All of them bind the layer's states as 4.

use handmill_shaders::Defines;

use super::{
    Dim, Dispatch, Place,
    params::{Params, workgroup},
};
use crate::{
    gpu::{Access, Caps, GpuError, Kernel},
    graph::{GatedDeltaOp, Rows, ShortConvOp},
};

/// Rows of a state's column that an invocation keeps.
const ROWS: usize = 32;

fn dispatch(name: &'static str, defines: Defines, params: Params, grid: [Dim; 3]) -> Dispatch {
    let bindings = vec![Access::Uniform, Access::Read, Access::ReadWrite, Access::Read, Access::ReadWrite];
    let kernel = Kernel { name, defines, constants: Vec::new(), bindings };
    Dispatch { kernel, params: params.finish(), grid, rows: Rows::Token }
}

/// Copies or zeroes states of `elements` elements where a step reads another slot than it writes.
pub fn begin(caps: &Caps, elements: usize) -> Dispatch {
    let invocations = workgroup(caps, elements, 256);
    let groups = (elements as u32).div_ceil(invocations).max(1);
    let grid = [Dim::Fixed(groups.min(65535)), Dim::Fixed(groups.div_ceil(65535)), Dim::Sequences];
    let params = Params::default().u(&[elements as u32]);
    dispatch("state_begin", Defines::new().with("WG", invocations), params, grid)
}

/// A convolution of rows of `width` at `input`; the taps of its first channel begin at `weight` in the vectors.
pub fn short_conv(caps: &Caps, op: &ShortConvOp, width: usize, weight: u32, [input, output]: [Place; 2]) -> Dispatch {
    let invocations = workgroup(caps, width, 64);
    let grid = [Dim::Fixed((width as u32).div_ceil(invocations)), Dim::Fixed(1), Dim::Sequences];
    let params = Params::default().place(&input).place(&output).u(&[width as u32, weight]);
    dispatch("short_conv", Defines::new().with("WG", invocations).with("TAPS", op.taps), params, grid)
}

/// A gated delta rule over q‖k‖v, b and a, with results at the last place; `vectors` has the starts of `decay` and
/// `dt_bias`.
///
/// # Errors
/// Keys too long for an invocation's memory.
pub fn gated_delta(
    caps: &Caps,
    name: &str,
    op: &GatedDeltaOp,
    [decay, dt_bias]: [u32; 2],
    places: [Place; 4],
) -> Result<Dispatch, GpuError> {
    // Lanes of a CPU hold whole columns: they have enough memory, and barriers cost them much.
    let parts = if caps.software { 1 } else { op.k_dim.div_ceil(ROWS).next_power_of_two() };
    let columns = if caps.software { 8 } else { (caps.max_invocations as usize / parts).min(32) };
    if parts > 16 || op.k_dim > 1024 || columns == 0 {
        let why = format!("keys of {} elements are too long", op.k_dim);
        return Err(GpuError::Unsupported { op: "gated_delta", name: name.to_owned(), why });
    }
    let columns = columns.min(op.v_dim.next_power_of_two());
    let defines =
        Defines::new().with("K_DIM", op.k_dim).with("PARTS", parts).with("COLS", columns).with("WG", parts * columns);
    let params = places.iter().fold(Params::default(), Params::place);
    let params = params.u(&[decay, dt_bias, op.n_k_heads as u32, op.n_v_heads as u32, op.v_dim as u32]);
    let params = params.u(&[u32::from(op.decay_log), u32::from(op.tiled)]).f(&[GatedDeltaOp::EPS]);
    let grid = [Dim::Fixed(op.v_dim.div_ceil(columns) as u32), Dim::Fixed(op.n_v_heads as u32), Dim::Sequences];
    Ok(dispatch("gated_delta", defines, params, grid))
}
