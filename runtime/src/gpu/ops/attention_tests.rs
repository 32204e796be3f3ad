//! Heads and attention on every device against f64: the cases of `cases::attention`.

use super::{
    attention::{fits_prompt, parts_of_row},
    attention_case_tests::Case,
};
use crate::{
    cases::attention::{self, AttentionCase, BASE, Devices},
    gpu::testing,
    graph::{AttentionOp, CacheId, HeadOp, NormKind, NormOp, PositionScale, RopeId, RopeLayout, WeightId},
    step::{KvType, Role},
};

fn norm(weight: Option<u32>, group: usize) -> HeadOp {
    let (weight, weight_offset) = (weight.map(WeightId), if weight.is_some() { 1.0 } else { 0.0 });
    HeadOp::Norm(NormOp { kind: NormKind::Rms, weight, weight_offset, bias: None, eps: 1e-3, group })
}

const ROPE: HeadOp = HeadOp::Rope(RopeId(1));

/// What becomes of the heads of some rows before attention.
fn heads(
    op: AttentionOp,
    kv: KvType,
    rotary: (RopeLayout, usize),
    first_dim: usize,
    head_ops: [Vec<HeadOp>; 3],
) -> Case {
    let case = AttentionCase { kv, rotary, ..AttentionCase::new(op, &[(1, 70), (3, 3), (2, 65)]) };
    Case { case, first_dim, head_ops }
}

#[test]
fn heads_match_f64() {
    let half = |n| (RopeLayout::Half, n);
    heads(BASE, KvType::F16, half(8), 0, Default::default()).check_heads("plain");
    heads(BASE, KvType::F32, half(8), 0, [vec![ROPE], vec![ROPE], vec![]]).check_heads("rotated");
    let op = AttentionOp { n_heads: 9, n_kv_heads: 3, head_dim: 64, v_dim: 64, ..BASE };
    let normed = |i| vec![norm(Some(i), 64), ROPE];
    let head_ops = [normed(4), normed(100), vec![norm(None, 64)]];
    heads(op, KvType::F16, (RopeLayout::Interleaved, 64), 0, head_ops).check_heads("normalised");
    let op = AttentionOp { n_heads: 2, n_kv_heads: 2, head_dim: 80, v_dim: 20, ..BASE };
    let late = || vec![ROPE, norm(Some(3), 80)];
    heads(op.clone(), KvType::F16, half(32), 0, [late(), late(), vec![]]).check_heads("normalised late");
    let scale = |offset| HeadOp::PositionScale(PositionScale { beta: 0.5, length: 9, offset });
    let head_ops = [vec![ROPE, scale(0)], vec![scale(1)], vec![]];
    heads(op, KvType::F16, half(20), 60, head_ops).check_heads("last dimensions, scaled by position");
    let stored = |case: &AttentionCase| case.devices != Devices::None && case.kv != KvType::Q8_0;
    for case in attention::latents().into_iter().filter(stored) {
        heads(case.op.clone(), case.kv, case.rotary, 0, Default::default()).check_heads(&case.name());
    }
}

fn check(cases: Vec<AttentionCase>) {
    // No kernel reads or writes pages in blocks.
    for case in cases.into_iter().filter(|case| case.kv != KvType::Q8_0) {
        Case { case, first_dim: 0, head_ops: Default::default() }.check();
    }
}

#[test]
fn shapes_match_f64() {
    check(attention::shapes());
}

#[test]
fn values_in_keys_match_f64() {
    check(attention::latents());
}

#[test]
fn many_keys_match_f64() {
    check(attention::long());
}

#[test]
fn masks_match_f64() {
    check(attention::masks());
}

#[test]
fn bounded_sunk_turned_and_huge_scores_match_f64() {
    check(attention::scores());
}

#[test]
fn chosen_keys_match_f64() {
    check(attention::chosen());
}

#[test]
fn keys_of_blocks_match_f64() {
    check(attention::blocks());
}

#[test]
fn parts_follow_role_and_position() {
    let Some(gpu) = testing::gpus().first() else { return };
    let mut caps = gpu.caps().clone();
    caps.software = false;
    let op = AttentionOp { n_heads: 9, n_kv_heads: 3, head_dim: 64, v_dim: 64, ..BASE };
    let generated = |op: &AttentionOp, every, position| parts_of_row(&caps, op, every, position, Role::Generated);
    assert_eq!([0, 255, 256, 999, 99_999].map(|p| generated(&op, 1, p)), [1, 1, 2, 4, 170]);
    assert_eq!(generated(&AttentionOp { window: Some(512), ..op.clone() }, 1, 99_999), 2);
    assert_eq!([1599, 1600].map(|p| generated(&AttentionOp { chunk: Some(800), ..op.clone() }, 1, p)), [4, 1]);
    let listed = AttentionOp { window: Some(512), blocks: Some(CacheId(1)), ..op.clone() };
    assert_eq!(generated(&listed, 128, 99_999), 6);
    assert_eq!(generated(&AttentionOp { selected: Some(200), ..listed.clone() }, 4, 99_999), 3);
    assert_eq!(generated(&AttentionOp { selected: Some(2048), ..op.clone() }, 1, 99_999), 8);
    assert_eq!(parts_of_row(&caps, &listed, 4, 99_999, Role::Prompt), 1);
    assert!(fits_prompt(&caps, &op, 100_000) && !fits_prompt(&caps, &listed, 1));
    let selected = AttentionOp { selected: Some(2048), ..op.clone() };
    assert!(fits_prompt(&caps, &selected, 2048) && !fits_prompt(&caps, &selected, 2049));
    // On a software device, so many that no invocation has more keys than it may.
    caps.software = true;
    assert!(fits_prompt(&caps, &op, 4096));
    for head_dim in [64, 80, 256, 1024] {
        let op = AttentionOp { head_dim, v_dim: head_dim, ..op.clone() };
        assert!(!fits_prompt(&caps, &op, 100_000));
        for role in [Role::Prompt, Role::Generated] {
            let parts = parts_of_row(&caps, &op, 1, 99_999, role) as usize;
            assert!(fits_prompt(&caps, &op, 100_000usize.div_ceil(parts).next_multiple_of(64)), "{head_dim}");
        }
        assert!(fits_prompt(&caps, &AttentionOp { window: Some(100), ..op }, 100_000));
    }
}
