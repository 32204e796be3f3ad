//! NumPy's `.npy` files, version 1.0: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use crate::{error::CliError, out, out_file::OutFile, terminal};
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    path::Path,
};

/// An array that is being written to the place that `--out` names.
pub struct Array<'a> {
    path: &'a Path,
    shape: &'a [usize],
    file: OutFile,
}

impl<'a> Array<'a> {
    /// Begins a C-ordered little-endian f32 array of that shape.
    pub fn create(path: &'a Path, shape: &'a [usize]) -> Result<Self, CliError> {
        let file = OutFile::create(path).map_err(|e| could_not_write(path, e))?;
        let mut array = Self { path, shape, file };
        write_header(&mut array.file, shape).map_err(|e| array.write_error(e))?;
        Ok(array)
    }

    /// Writes values, the last dimension fastest.
    pub fn write(&mut self, values: &[f32]) -> Result<(), CliError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.file.write_all(&bytes).map_err(|e| self.write_error(e))
    }

    /// Gives the file its name and describes it: `of` for people, `more` among the fields of JSON.
    pub fn finish(self, json: bool, of: &str, more: Value) -> Result<(), CliError> {
        let Self { path, shape, file } = self;
        let to_stdout = file.is_stdout();
        file.finish().map_err(|e| if to_stdout { out::write_error(e) } else { could_not_write(path, e) })?;
        let about = format!("{}: {shape:?} float32{of}", path.display());
        if to_stdout {
            // The array is complete, so a failure of standard output is no error.
            terminal::note(&about);
            return Ok(());
        }
        if !json {
            return out::text(&(about + "\n"));
        }
        let mut fields = json!({ "out": path, "shape": shape });
        if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
            fields.extend(more);
        }
        out::json(&fields)
    }

    fn write_error(&self, error: io::Error) -> CliError {
        if self.file.is_stdout() { out::write_error(error) } else { could_not_write(self.path, error) }
    }
}

fn could_not_write(path: &Path, error: io::Error) -> CliError {
    CliError::because(format!("could not write {}", path.display()), error)
}

/// Writes the header; the values are to follow.
fn write_header(out: &mut impl Write, shape: &[usize]) -> io::Result<()> {
    // A tuple of one has a comma behind it.
    let comma = if shape.len() == 1 { "," } else { "" };
    let shape = shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ") + comma;
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    // Magic, version and length take 10 bytes; all together is to be a multiple of 64, with a line end as the last.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header += &" ".repeat(padded - header.len() - 1);
    header.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    // No shape of ours has more than a handful of dimensions.
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_aligned_and_says_its_length() {
        for (shape, tuple) in [
            (&[][..], "()"),
            (&[7], "(7,)"),
            (&[40, 49152], "(40, 49152)"),
            (&[usize::MAX; 4], &format!("({0}, {0}, {0}, {0})", usize::MAX)),
        ] {
            let mut file = Vec::new();
            write_header(&mut file, shape).unwrap();
            assert_eq!(file.len() % 64, 0);
            assert_eq!(usize::from(u16::from_le_bytes([file[8], file[9]])), file.len() - 10);
            assert_eq!(file.last(), Some(&b'\n'));
            let text = String::from_utf8_lossy(&file[10..]).into_owned();
            assert!(text.contains(&format!("'shape': {tuple}, }}")), "{text}");
        }
    }
}
