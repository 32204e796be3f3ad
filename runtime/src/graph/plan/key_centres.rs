//! What keys have in common at all positions.

use super::{AttentionStage, Device, HeadOp, Plan, StageKind};
use crate::graph::{AttentionOp, CacheId, RopeLayout, RopeSpec, ValueId, WeightId};

/// Positions over which a pair of elements must turn by less than a radian to be taken for constant. At later positions
/// such a pair may be twice as large as it was, which costs precision and nothing else.
const STILL: f32 = 4096.0;

impl Plan {
    /// By cache of attention on `device`, `[n_kv_heads * head_dim]` that may be taken from all of its keys; empty where no
    /// such vector is known. `vectors` are those of [`Plan::decode_vectors`].
    ///
    /// A softmax stays the same where all scores of a query change by as much. The biases of keys (in Qwen2.5 a hundred
    /// times as large as what varies) lie in pairs that hardly turn: these elements of a bias are part of every key.
    pub(crate) fn key_centres(&self, device: Device, vectors: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let centre = |cache| {
            let (bias, rope, head_dim) = self.constant_part(device, cache)?;
            let mut centre = vectors[bias.0 as usize].clone();
            if let Some(rope) = rope {
                centre.chunks_exact_mut(head_dim).for_each(|head| keep_still(head, rope));
            }
            Some(centre)
        };
        (0..self.graph.caches().len()).map(|i| centre(CacheId(i as u32)).unwrap_or_default()).collect()
    }

    /// The bias of a cache's keys, their rotation and their length, where nothing but softmaxes sees the scores.
    fn constant_part(&self, device: Device, cache: CacheId) -> Option<(WeightId, Option<&RopeSpec>, usize)> {
        let stages = || self.stages.iter().filter(move |stage| stage.device == device).map(|stage| &stage.kind);
        let readers = || {
            stages().filter_map(|kind| match kind {
                StageKind::Attention(a) if a.op.cache == cache => Some(a),
                _ => None,
            })
        };
        let free =
            |op: &AttentionOp| op.softcap.is_none() && op.sinks.is_none() && op.rotate_on_read.is_none() && !op.v_in_k;
        let writer: &AttentionStage = readers().find(|a| !a.op.shared)?;
        let rope = match writer.head_ops[1][..] {
            [] => None,
            [HeadOp::Rope(rope)] => Some(&self.graph.ropes()[rope.0 as usize]),
            _ => return None,
        };
        let bias_of = |value: ValueId| {
            stages().find_map(|kind| match kind {
                StageKind::Linear(linear) => linear.parts.iter().find(|part| part.output == value)?.bias,
                _ => None,
            })
        };
        let bias = bias_of(writer.inputs[1])?;
        readers().all(|a| free(&a.op)).then_some((bias, rope, writer.op.head_dim))
    }
}

/// Leaves of a head what its rotation leaves as it is, as large as rotated keys are.
fn keep_still(head: &mut [f32], rope: &RopeSpec) {
    let turned = &mut head[rope.first_dim..][..rope.rotary_dims];
    for (j, freq) in rope.inv_freq(0).iter().enumerate() {
        let pair = match rope.layout {
            RopeLayout::Half => [j, j + rope.rotary_dims / 2],
            RopeLayout::Interleaved => [2 * j, 2 * j + 1],
        };
        let factor = if freq.abs() * STILL < 1.0 { rope.attention_factor } else { 0.0 };
        pair.into_iter().for_each(|at| turned[at] *= factor);
    }
}
