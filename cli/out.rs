//! Standard output: results only, and never a panic when its reader goes away.

use crate::error::CliError;
use std::io::{self, Write};

/// Turns an error of writing to standard output into the way the command ends.
pub fn write_error(error: io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::ClosedPipe,
        _ => CliError::because("could not write to standard output", error),
    }
}

/// Writes `text` as it is and flushes, so that a reader sees each piece at once.
pub fn text(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(write_error)
}

/// Writes a JSON value and a line end.
pub fn json(value: &serde_json::Value) -> Result<(), CliError> {
    text(&format!("{value}\n"))
}
