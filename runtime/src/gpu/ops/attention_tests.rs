//! Heads and attention on every device against f64.

use super::{
    attention::{fits_one_part, splits},
    attention_case_tests::{BASE, Case, case},
};
use crate::{
    gpu::testing,
    graph::{AttentionOp, CacheId, HeadOp, NormKind, NormOp, PositionScale, RopeId, RopeLayout, WeightId},
    step::KvType,
};

fn norm(weight: Option<u32>, group: usize) -> HeadOp {
    let (weight, weight_offset) = (weight.map(WeightId), if weight.is_some() { 1.0 } else { 0.0 });
    HeadOp::Norm(NormOp { kind: NormKind::Rms, weight, weight_offset, bias: None, eps: 1e-3, group })
}

const ROPE: HeadOp = HeadOp::Rope(RopeId(1));

#[test]
fn heads_match_f64() {
    let base = || case(BASE, &[(1, 70), (3, 3), (2, 65)]);
    base().check_heads("plain");
    Case { head_ops: [vec![ROPE], vec![ROPE], vec![]], kv: KvType::F32, ..base() }.check_heads("rotated");
    let op = AttentionOp { n_heads: 9, n_kv_heads: 3, head_dim: 64, v_dim: 64, ..BASE };
    let normed = |i| vec![norm(Some(i), 64), ROPE];
    let head_ops = [normed(4), normed(100), vec![norm(None, 64)]];
    let (layout, rotary) = (RopeLayout::Interleaved, 64);
    Case { op, head_ops, layout, rotary, ..base() }.check_heads("normalised");
    let op = AttentionOp { n_heads: 2, n_kv_heads: 2, head_dim: 80, v_dim: 20, ..BASE };
    let late = || vec![ROPE, norm(Some(3), 80)];
    Case { op: op.clone(), head_ops: [late(), late(), vec![]], rotary: 32, ..base() }.check_heads("normalised late");
    let scale = |offset| HeadOp::PositionScale(PositionScale { beta: 0.5, length: 9, offset });
    let head_ops = [vec![ROPE, scale(0)], vec![scale(1)], vec![]];
    Case { op, head_ops, rotary: 20, first_dim: 60, ..base() }.check_heads("last dimensions, scaled by position");
}

#[test]
fn shapes_match_f64() {
    let sequences = [(1, 70), (11, 75), (1, 1)];
    for (n_heads, n_kv_heads, head_dim, v_dim, kv) in [
        (6, 2, 16, 16, KvType::F32),
        (9, 3, 64, 64, KvType::F16),
        (4, 4, 80, 96, KvType::F16),
        (8, 1, 128, 128, KvType::F16),
        (9, 1, 4, 8, KvType::F16),
    ] {
        let op = AttentionOp { n_heads, n_kv_heads, head_dim, v_dim, ..BASE };
        let what = format!("{n_heads}/{n_kv_heads} of {head_dim}/{v_dim} {kv:?}");
        Case { kv, everywhere: n_heads == 9, ..case(op, &sequences) }.check(&what);
    }
}

#[test]
fn values_in_keys_match_f64() {
    // DeepSeek's latents, and small ones with a group that no tile divides.
    for (n_heads, n_kv_heads, head_dim, v_dim, kv) in
        [(5, 1, 576, 512, KvType::F16), (11, 1, 48, 32, KvType::F32), (4, 2, 16, 16, KvType::F16)]
    {
        let op = AttentionOp { n_heads, n_kv_heads, head_dim, v_dim, scale: 0.05, v_in_k: true, ..BASE };
        let what = format!("latents of {head_dim}/{v_dim} {kv:?}");
        Case { kv, ..case(op.clone(), &[(1, 70), (11, 75), (1, 1)]) }.check(&what);
        Case { kv, ..case(op, &[(1, 70), (3, 3)]) }.check_heads(&what);
    }
}

#[test]
fn long_heads_match_f64() {
    for (n_heads, n_kv_heads, head_dim, v_dim) in [(4, 1, 256, 256), (3, 1, 512, 512)] {
        let op = AttentionOp { n_heads, n_kv_heads, head_dim, v_dim, scale: 0.05, ..BASE };
        case(op, &[(2, 66), (1, 3)]).check(&format!("heads of {head_dim}"));
    }
}

#[test]
fn many_keys_of_long_heads_match_f64() {
    // More turns of loops than llvmpipe makes, were they not written out.
    let op = AttentionOp { n_heads: 2, n_kv_heads: 1, head_dim: 256, v_dim: 256, scale: 0.05, ..BASE };
    case(op, &[(9, 1030), (1, 1500)]).check("1500 keys of 256");
}

#[test]
fn masks_match_f64() {
    let sequences = [(3, 331), (1, 130), (40, 200)];
    for (window, chunk) in [(Some(9), None), (Some(70), None), (None, Some(100)), (Some(1), Some(64))] {
        let op = AttentionOp { window, chunk, ..BASE };
        case(op, &sequences).check(&format!("{window:?} {chunk:?}"));
    }
}

#[test]
fn softcap_sinks_and_rotation_on_read_match_f64() {
    let sequences = [(1, 300), (5, 67)];
    let op = AttentionOp { softcap: Some(5.0), sinks: Some(WeightId(7)), ..BASE };
    case(op, &sequences).check("softcap and sinks");
    let op = AttentionOp { rotate_on_read: Some(RopeId(1)), sinks: Some(WeightId(3)), ..BASE };
    for (layout, kv) in [(RopeLayout::Half, KvType::F16), (RopeLayout::Interleaved, KvType::F32)] {
        Case { layout, kv, rotary: 12, ..case(op.clone(), &sequences) }.check(&format!("{layout:?} on read"));
    }
    // Scores far beyond exp's range.
    let op = AttentionOp { scale: 10.0, window: Some(100), ..BASE };
    case(op, &sequences).check("huge");
}

#[test]
fn chosen_keys_match_f64() {
    // DeepSeek V3.2's, and small ones; as many as are seen, and fewer.
    for (n_heads, n_kv_heads, head_dim, v_dim, v_in_k, kv) in
        [(5, 1, 576, 512, true, KvType::F16), (11, 1, 48, 32, true, KvType::F32), (6, 2, 16, 24, false, KvType::F16)]
    {
        for k in [9, 70, 100] {
            let op =
                AttentionOp { n_heads, n_kv_heads, head_dim, v_dim, v_in_k, scale: 0.1, selected: Some(k), ..BASE };
            let what = format!("{k} chosen of {head_dim}/{v_dim} {kv:?}");
            Case { kv, everywhere: k == 9, ..case(op, &[(1, 70), (11, 75), (1, 1)]) }.check(&what);
        }
    }
    let op = AttentionOp { selected: Some(300), v_in_k: true, ..BASE };
    case(op, &[(3, 900), (1, 400)]).check("300 chosen of 900");
}

#[test]
fn keys_of_blocks_match_f64() {
    let sequences = [(1, 300), (9, 75), (2, 3), (1, 1)];
    let base = AttentionOp { v_in_k: true, window: Some(20), blocks: Some(CacheId(1)), ..BASE };
    for (selected, every, kv) in [(None, 7, KvType::F16), (Some(10), 4, KvType::F16), (Some(40), 3, KvType::F32)] {
        for (n_heads, n_kv_heads, head_dim) in [(6, 2, 16), (11, 1, 48)] {
            let sinks = Some(WeightId(7));
            let op = AttentionOp { n_heads, n_kv_heads, head_dim, v_dim: head_dim, selected, sinks, ..base.clone() };
            let what = format!("{selected:?} blocks of {every} {kv:?}, heads of {head_dim}");
            Case { kv, every, everywhere: n_heads == 6, ..case(op, &sequences) }.check(&what);
        }
    }
    // DeepSeek V4's.
    let op = AttentionOp { n_heads: 9, n_kv_heads: 1, head_dim: 512, v_dim: 512, scale: 0.05, ..base };
    let op = AttentionOp { window: Some(128), ..op };
    Case { every: 128, ..case(op.clone(), &[(1, 700), (3, 130)]) }.check("blocks of 128");
    let op = AttentionOp { selected: Some(64), softcap: Some(9.0), ..op };
    case(op, &[(1, 700), (3, 130)]).check("64 blocks of 4");
}

#[test]
fn splits_follow_length_and_room() {
    let Some(gpu) = testing::gpus().first() else { return };
    let mut caps = gpu.caps().clone();
    caps.software = false;
    let op = AttentionOp { n_heads: 9, n_kv_heads: 3, head_dim: 64, v_dim: 64, ..BASE };
    assert_eq!(splits(&caps, &op, 1, 100, 1), 1);
    assert_eq!(splits(&caps, &op, 1, 1000, 1), 4);
    assert_eq!(splits(&caps, &op, 1, 100_000, 1), 170);
    assert_eq!(splits(&caps, &op, 1, 100_000, 1000), 1);
    assert_eq!(splits(&caps, &AttentionOp { window: Some(512), ..op.clone() }, 1, 100_000, 1), 2);
    let listed = AttentionOp { window: Some(512), blocks: Some(CacheId(1)), ..op.clone() };
    assert_eq!(splits(&caps, &listed, 128, 100_000, 1), 6);
    assert_eq!(splits(&caps, &AttentionOp { selected: Some(200), ..listed }, 4, 100_000, 1), 3);
    assert_eq!(splits(&caps, &AttentionOp { selected: Some(2048), ..op.clone() }, 1, 100_000, 1), 8);
    // On a software device, so many that no invocation has more keys than it may.
    caps.software = true;
    assert!(fits_one_part(&caps, &op, 1, 4096));
    for head_dim in [64, 80, 256, 1024] {
        let op = AttentionOp { head_dim, v_dim: head_dim, ..op.clone() };
        assert!(!fits_one_part(&caps, &op, 1, 100_000));
        for rows in [1, 1000] {
            let parts = splits(&caps, &op, 1, 100_000, rows) as usize;
            assert!(fits_one_part(&caps, &op, 1, 100_000usize.div_ceil(parts).next_multiple_of(64)), "{head_dim}");
        }
        assert!(fits_one_part(&caps, &AttentionOp { window: Some(100), ..op }, 1, 100_000));
    }
}
