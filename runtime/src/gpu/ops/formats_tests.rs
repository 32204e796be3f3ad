//! The formats' WGSL against the scalar decode, on rows that begin at any place the format allows.

use handmill_shaders::Defines;

use super::linear::with_format;
use crate::gpu::{Access, Kernel, testing};
use crate::quant::DType;

#[test]
fn every_format_unpacks_as_the_scalar_decode_says() {
    let mut random = testing::Random::new(0x5eed_f0a7);
    for dtype in DType::ALL {
        for (elements, lead) in [(256, 0), (768, 2), (512, 4), (96, 6), (7usize, 2usize)] {
            if elements % dtype.block_len() != 0 || !lead.is_multiple_of(dtype.format().alignment) {
                continue;
            }
            let mut bytes = vec![0xa5; lead];
            bytes.extend(testing::random_weights(&mut random, dtype, elements));
            let mut expected = vec![0f32; elements];
            dtype.decode_row(&bytes[lead..], &mut expected).unwrap();
            let kernel = Kernel {
                name: "unpack",
                defines: with_format(Defines::new(), "", dtype),
                constants: Vec::new(),
                bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite],
            };
            let params = [lead as u32, elements as u32, 0, 0];
            let poison = vec![f32::NAN; 2 * elements];
            for gpu in testing::gpus() {
                let data: [&[u8]; 3] = [bytemuck::bytes_of(&params), &bytes, bytemuck::cast_slice(&poison)];
                let out = gpu.dispatch_once(&kernel, &data, [(elements as u32).div_ceil(64), 1, 1]).unwrap();
                let out: Vec<f32> = bytemuck::pod_collect_to_vec(&out[0]);
                for (i, got) in out.iter().enumerate() {
                    let want = expected[i % elements];
                    // Scale and offset of a group are applied in another order: one rounding of each.
                    let slack = if i < elements { 0.0 } else { 4e-6 } * peak(&expected);
                    assert!((got - want).abs() <= slack, "{dtype} {elements} at {lead}: {i}: {got} for {want}");
                }
            }
        }
    }
}

fn peak(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |m, v| m.max(v.abs()))
}
