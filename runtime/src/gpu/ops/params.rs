//! Contents of uniform buffers, word by word, and the defines that kernels share.

use handmill_shaders::Defines;

use super::{super::Caps, Place};
use crate::{graph::Act, step::KvType};

/// Stands for the start of a vector that does not exist: `NONE` in the shaders.
pub(super) const NONE: u32 = u32::MAX;

/// Builds a uniform buffer in the order of the shader's struct.
#[derive(Default)]
pub(super) struct Params(Vec<u8>);

impl Params {
    pub fn u(mut self, words: &[u32]) -> Self {
        words.iter().for_each(|w| self.0.extend(w.to_le_bytes()));
        self
    }

    pub fn f(self, words: &[f32]) -> Self {
        words.iter().fold(self, |p, w| p.u(&[w.to_bits()]))
    }

    pub fn place(self, place: &Place) -> Self {
        self.u(&place.words())
    }

    /// Padded as WGSL pads structs in uniform buffers.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(16), 0);
        self.0
    }
}

/// The invocations that suit `work` items: a power of two from 32 up to `most` and what the device allows.
pub(super) fn workgroup(caps: &Caps, work: usize, most: u32) -> u32 {
    let fits = most.min(caps.max_invocations).max(1);
    let wanted = u32::try_from(work).unwrap_or(u32::MAX / 4).min(fits).next_power_of_two().max(32);
    // The limit itself may be no power of two.
    wanted.min((fits + 1).next_power_of_two() / 2)
}

/// For kernels that import `lib/reduce.wgsl`.
pub(super) fn reduction(caps: &Caps, invocations: u32) -> Defines {
    Defines::new().with("WG", invocations).flag("SUBGROUPS", caps.subgroups.is_some() && !caps.software)
}

/// For kernels that import `lib/kv.wgsl`.
pub(super) fn cached(defines: Defines, kv: KvType) -> Defines {
    defines.flag("KV_F16", kv == KvType::F16).flag("KV_Q8_0", kv == KvType::Q8_0)
}

/// For kernels that import `lib/act.wgsl`.
pub(super) fn activation(defines: Defines, act: Act) -> Defines {
    let defines = defines.with("ACT", act.name());
    match act {
        Act::SwigluOss { alpha, limit } => {
            defines.with("ACT_ALPHA", format!("{alpha:?}")).with("ACT_LIMIT", format!("{limit:?}"))
        }
        Act::SiluClamped { limit } => defines.with("ACT_LIMIT", format!("{limit:?}")),
        _ => defines,
    }
}

/// Whether rows of `width` at `places` and vectors at `vectors` may be read four elements at a time.
pub(super) fn by_fours(width: usize, places: &[&Place], vectors: &[u32]) -> bool {
    let fits = |n: u32| n.is_multiple_of(4);
    width.is_multiple_of(4)
        && places.iter().all(|p| fits(p.base) && fits(p.offset) && fits(p.stride))
        && vectors.iter().all(|v| *v == NONE || fits(*v))
}
