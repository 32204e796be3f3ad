//! MXFP4 of the Open Compute Project (2023): 32 elements of 4 bits, x = 2^(e − 127) · v, with v one of sixteen floats.
//!
//! ```text
//! GGUF: 17 bytes                                   safetensors (gpt-oss): 16 bytes, and e in a tensor of its own
//! byte  0  1                              17       byte  0                              16
//!       e  byte j: element j low,                        byte j: element 2j low,
//!          element j + 16 high                           element 2j + 1 high
//! nibble = seem: s sign, ee exponent, m fraction: 0, ½, 1, 1½, 2, 3, 4, 6
//! ```

use super::{ActForm, Block, Encode, Format, Quants, Scale};

/// Twice the sixteen values.
pub const MXFP4_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The declaration of the layout in GGUF files.
pub(super) const MXFP4: Format = Format {
    name: "mxfp4",
    block_len: 32,
    block_bytes: 17,
    alignment: 1,
    // Bits of the doubled values once they are centred.
    quants: Some(Quants { bits: 5, signed: false, zero: 16, group: 32, minima: false }),
    acts: ActForm::Q8Groups,
    beyond_f16: true,
    apart: false,
    table: None,
    decode: Format::decoder::<BlockMXFP4, 32>(),
    // Elements between 6 and 8 times the scale become 6 times the scale.
    encode: Format::encoder::<BlockMXFP4, 32>(0.13),
    smaller: None,
    scales: &[Scale::Exponent { at: 0, least: 117 }],
};

/// The declaration of the layout in safetensors.
pub(super) const MXFP4_SPLIT: Format = Format {
    name: "mxfp4_split",
    block_len: 32,
    block_bytes: 16,
    alignment: 1,
    quants: Some(Quants { bits: 5, signed: false, zero: 16, group: 32, minima: false }),
    acts: ActForm::Q8Pairs,
    beyond_f16: true,
    apart: true,
    table: None,
    decode: Format::decoder::<BlockMXFP4Split, 32>(),
    encode: None,
    smaller: None,
    scales: &[],
};

/// A block in a GGUF file.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockMXFP4 {
    /// Exponent of the scale.
    pub e: u8,
    /// Nibbles: element j in the low half of byte j, element j + 16 in its high half.
    pub qs: [u8; 16],
}

/// A block whose scale lies in another tensor: element 2j in the low half of byte j, element 2j + 1 in its high half.
/// [`Block::decode`] gives the elements for a scale of 1.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockMXFP4Split {
    /// Nibbles.
    pub qs: [u8; 16],
}

/// 2^(e − 127); NaN for 255.
pub fn e8m0_to_f32(e: u8) -> f32 {
    match e {
        0 => f32::from_bits(0x0040_0000),
        255 => f32::NAN,
        e => f32::from_bits(u32::from(e) << 23),
    }
}

/// Twice the value of a nibble.
fn doubled(nibble: u8) -> f32 {
    f32::from(MXFP4_DOUBLED[usize::from(nibble & 15)])
}

/// The nibble of the value nearest to x; larger numbers become the largest value.
fn nearest(x: f32) -> u8 {
    let mut best = 0;
    for i in 1..8 {
        if (doubled(i) / 2.0 - x.abs()).abs() < (doubled(best) / 2.0 - x.abs()).abs() {
            best = i;
        }
    }
    best | u8::from(x.is_sign_negative()) << 3
}

/// The exponent that puts the largest element into 4 .. 8, as the format's paper does.
fn exponent(x: &[f32; 32]) -> u8 {
    let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let floor = (largest.to_bits() >> 23) as i32 - 127;
    (floor - 2 + 127).clamp(0, 254) as u8
}

impl Block<32> for BlockMXFP4 {
    fn decode(&self) -> [f32; 32] {
        // Halving the results is exact, subnormals included; halving the scale first would lose the smallest scale.
        let d = e8m0_to_f32(self.e);
        std::array::from_fn(|i| {
            let nibble = if i < 16 { self.qs[i] } else { self.qs[i - 16] >> 4 };
            doubled(nibble) / 2.0 * d
        })
    }
}

impl Encode<32> for BlockMXFP4 {
    fn encode(x: &[f32; 32]) -> Self {
        let e = exponent(x);
        let d = e8m0_to_f32(e);
        Self { e, qs: std::array::from_fn(|i| nearest(x[i] / d) | nearest(x[i + 16] / d) << 4) }
    }
}

impl Block<32> for BlockMXFP4Split {
    fn decode(&self) -> [f32; 32] {
        std::array::from_fn(|i| doubled(self.qs[i / 2] >> (4 * (i % 2))) / 2.0)
    }
}

impl BlockMXFP4Split {
    /// The same elements as a block of a GGUF file.
    pub fn with_scale(&self, e: u8) -> BlockMXFP4 {
        let nibble = |i: usize| self.qs[i / 2] >> (4 * (i % 2)) & 15;
        BlockMXFP4 { e, qs: std::array::from_fn(|i| nibble(i) | nibble(i + 16) << 4) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_hold_the_same_numbers() {
        let qs: [u8; 16] = std::array::from_fn(|i| (i as u8).wrapping_mul(0x35) ^ 0x1c);
        for e in [0, 1, 2, 100, 127, 128, 254] {
            let split = BlockMXFP4Split { qs };
            let d = e8m0_to_f32(e);
            assert_eq!(split.with_scale(e).decode(), split.decode().map(|x| x * d), "{e}");
        }
        assert_eq!(e8m0_to_f32(127), 1.0);
        assert_eq!(e8m0_to_f32(0), 2f32.powi(-126) / 2.0);
        assert!(e8m0_to_f32(255).is_nan());
    }

    #[test]
    fn values_are_those_of_the_format() {
        let values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        for (i, v) in values.into_iter().enumerate() {
            assert_eq!([doubled(i as u8), doubled(i as u8 + 8)], [2.0 * v, -2.0 * v]);
            let mut x = [0.0; 32];
            (x[0], x[20], x[31]) = (6.0, v, -v);
            let decoded = BlockMXFP4::encode(&x).decode();
            assert_eq!([decoded[0], decoded[20], decoded[31]], [6.0, v, -v]);
        }
    }
}
