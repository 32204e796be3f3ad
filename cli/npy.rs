//! NumPy's `.npy` files, version 1.0: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::{self, Write};

/// Writes the header of a C-ordered little-endian f32 array of `rows` × `columns`; the values are to follow.
pub fn write_header(out: &mut impl Write, rows: usize, columns: usize) -> io::Result<()> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // Magic, version and length take 10 bytes; all together is to be a multiple of 64, with a line end as the last.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header += &" ".repeat(padded - header.len() - 1);
    header.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    // Shorter than 128 for any shape.
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())
}

/// Writes values.
pub fn write_values(out: &mut impl Write, values: &[f32]) -> io::Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    out.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_aligned_and_says_its_length() {
        for (rows, columns) in [(1, 1), (40, 49152), (usize::MAX, usize::MAX)] {
            let mut file = Vec::new();
            write_header(&mut file, rows, columns).unwrap();
            assert_eq!(file.len() % 64, 0);
            assert_eq!(usize::from(u16::from_le_bytes([file[8], file[9]])), file.len() - 10);
            assert_eq!(file.last(), Some(&b'\n'));
            let text = String::from_utf8_lossy(&file[10..]).into_owned();
            assert!(text.contains(&format!("'shape': ({rows}, {columns}), }}")), "{text}");
        }
    }
}
