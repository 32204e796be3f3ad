//! Cases of linears with a matrix for each head: a graph of one over embeddings, which runs whole on a backend.

use super::{random, scaled, wide};
use crate::{
    format::{Bytes, Tensor},
    graph::{Device, GraphBuilder, GraphError, HeadLinearOp, Op, Plan, WeightId},
    quant::DType,
};

/// A block-diagonal linear.
#[derive(Clone, Copy, Debug)]
pub struct HeadLinearCase {
    /// The matrices' format.
    pub dtype: DType,
    /// The op.
    pub op: HeadLinearOp,
    /// Whether benches time it.
    pub speed: bool,
}

/// All of them.
pub fn head_linears() -> Vec<HeadLinearCase> {
    let case = |dtype, heads, [period, first]: [usize; 2], [input, output]: [usize; 2], transposed| {
        let op = HeadLinearOp { weight: WeightId(0), heads, period, first, input, output, transposed };
        HeadLinearCase { dtype, op, speed: false }
    };
    let mut cases = vec![
        case(DType::F32, 1, [7, 0], [5, 7], false),
        case(DType::F32, 3, [20, 9], [45, 11], false),
        case(DType::BF16, 4, [33, 0], [64, 33], false),
        case(DType::Q8_0, 5, [48, 16], [96, 32], false),
        case(DType::Q4_0, 2, [40, 0], [64, 40], false),
        case(DType::Q6_K, 2, [8, 0], [256, 8], false),
        // As checkpoints of floats have k_b.
        case(DType::F32, 3, [13, 0], [13, 21], true),
        case(DType::F16, 2, [40, 8], [32, 70], true),
        case(DType::BF16, 4, [64, 32], [16, 100], true),
    ];
    // DeepSeek's latents of 512, an eighth of its 128 heads.
    for (dtype, transposed) in [(DType::Q8_0, false), (DType::BF16, true)] {
        cases.push(HeadLinearCase { speed: true, ..case(dtype, 16, [128, 0], [512, 128], false) });
        if transposed {
            cases.push(HeadLinearCase { speed: true, ..case(dtype, 16, [128, 0], [128, 512], true) });
        }
    }
    cases
}

/// The graph of a case.
#[derive(Clone, Debug)]
pub struct HeadLinearModel {
    /// The graph as a plan for the CPU.
    pub plan: Plan,
    case: HeadLinearCase,
    table: Vec<f32>,
    matrices: Tensor,
}

impl HeadLinearCase {
    /// Token ids.
    pub const VOCABULARY: usize = 11;

    /// Format, heads and sizes.
    pub fn name(&self) -> String {
        let HeadLinearOp { heads, input, output, transposed, .. } = self.op;
        let how = if transposed { ", transposed" } else { "" };
        format!("{} {heads} heads of {input} to {output}{how}", self.dtype.name())
    }

    /// The error that activations rounded to bytes may have.
    pub fn rounded_tolerance(&self) -> f64 {
        match self.dtype {
            DType::F32 | DType::F16 | DType::BF16 => 1e-5,
            _ => 2e-2,
        }
    }

    /// Tokens of a step.
    pub fn tokens(n: usize) -> Vec<u32> {
        (0..n).map(|i| (i * 7 % Self::VOCABULARY) as u32).collect()
    }

    /// The graph.
    ///
    /// # Errors
    /// None for the cases of the table.
    ///
    /// # Panics
    /// If the format has no encoder.
    pub fn model(&self) -> Result<HeadLinearModel, GraphError> {
        let mut op = self.op;
        let (width, rows) = (op.heads * op.input, op.heads * op.period);
        let table = random(1, Self::VOCABULARY * width);
        let mut bytes = Vec::new();
        for r in 0..rows {
            let row = scaled(1000 + r as u64, op.row_len(), 0.3);
            self.dtype.encode_row(&row, &mut bytes).expect("the table's formats have encoders");
        }
        let matrices = Tensor::new(self.dtype, vec![rows, op.row_len()], Bytes::heap(bytes)).expect("whole rows");
        let mut b = GraphBuilder::new();
        let embeddings = Tensor::from_f32(vec![Self::VOCABULARY, width], &table).expect("a row an id");
        let table_id = b.weight("table", embeddings);
        op.weight = b.weight("matrices", matrices.clone());
        let x = b.embed("x", table_id, 1.0)?;
        let y = b.head_linear("heads", x, op)?;
        let y = b.op("select", Op::SelectOutputs, &[y])?;
        let plan = Plan::new(b.finish(y), |_, _, _| Ok(Device::Cpu))?;
        Ok(HeadLinearModel { plan, case: *self, table, matrices })
    }
}

impl HeadLinearModel {
    /// The row of one token, in f64.
    pub fn reference(&self, token: u32) -> Vec<f64> {
        let op = &self.case.op;
        let x = wide(&self.table[token as usize * op.heads * op.input..][..op.heads * op.input]);
        let mut row = vec![0.0; op.row_len()];
        let mut out = vec![0.0; op.heads * op.output];
        for (h, (x, out)) in x.chunks(op.input).zip(out.chunks_mut(op.output)).enumerate() {
            for r in 0..op.rows() {
                self.matrices.decode_row(op.first_row(h) + r, &mut row);
                if op.transposed {
                    out.iter_mut().zip(&row).for_each(|(out, w)| *out += f64::from(*w) * x[r]);
                } else {
                    out[r] = row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum();
                }
            }
        }
        out
    }

    /// Asserts that each row of `out` is within `tolerance` of the reference, by norm.
    ///
    /// # Panics
    /// If one is not, naming the case and `device`.
    pub fn compare(&self, out: &[f32], tokens: &[u32], tolerance: f64, device: &str) {
        let width = self.case.op.heads * self.case.op.output;
        assert_eq!(out.len(), tokens.len() * width);
        for (row, token) in out.chunks_exact(width).zip(tokens) {
            let relative = super::relative_error(row, &self.reference(*token));
            let (case, n) = (&self.case, tokens.len());
            assert!(relative <= tolerance, "{case:?} on {device}, {n} rows: {relative:.1e}");
        }
    }
}
