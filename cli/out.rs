//! Standard output: results only, and never a panic when its reader goes away.

use crate::{error::CliError, terminal};
use std::io::{self, IsTerminal, Write};

/// Turns an error of writing to standard output into the way the command ends.
pub fn write_error(error: io::Error) -> CliError {
    if is_closed_pipe(&error, cfg!(windows)) {
        return CliError::ClosedPipe;
    }
    CliError::because("could not write to standard output", error)
}

/// Whether the reader of a pipe went away. The standard library takes two of Windows's numbers for it,
/// `ERROR_BROKEN_PIPE` and `ERROR_NO_DATA`, but not the third, which a pipe with a name gives.
fn is_closed_pipe(error: &io::Error, windows: bool) -> bool {
    const ERROR_PIPE_NOT_CONNECTED: i32 = 233;
    error.kind() == io::ErrorKind::BrokenPipe || (windows && error.raw_os_error() == Some(ERROR_PIPE_NOT_CONNECTED))
}

/// Writes lines of this program, with text from files made harmless for a terminal, and flushes.
pub fn text(text: &str) -> Result<(), CliError> {
    bytes(terminal::harmless(text).as_bytes())
}

/// Writes text that a model or its tokenizer made and flushes, so that a reader sees each piece at once. Files and
/// pipes get it byte for byte; on a terminal its control characters are escaped.
pub fn answer(text: &str) -> Result<(), CliError> {
    if io::stdout().is_terminal() {
        // A line end of two characters is harmless.
        return bytes(terminal::harmless(&text.replace("\r\n", "\n")).as_bytes());
    }
    bytes(text.as_bytes())
}

/// Writes a JSON value and a line end.
pub fn json(value: &serde_json::Value) -> Result<(), CliError> {
    bytes(json_line(value).as_bytes())
}

/// Writes bytes as they are and flushes.
pub fn bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(write_error)
}

/// JSON in which control characters of terminals are escaped, too: the serialiser escapes only the first 32 characters.
fn json_line(value: &serde_json::Value) -> String {
    let mut line = String::new();
    for c in value.to_string().chars() {
        // They occur only in strings, and all of them have four digits.
        if terminal::is_obeyed(c) { line += &format!("\\u{:04x}", u32::from(c)) } else { line.push(c) }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_reader_that_went_away_is_no_failure_on_any_system() {
        let number = io::Error::from_raw_os_error;
        assert!(is_closed_pipe(&io::ErrorKind::BrokenPipe.into(), false));
        assert!(is_closed_pipe(&number(233), true) && !is_closed_pipe(&number(233), false));
        assert!(!is_closed_pipe(&number(5), true));
        #[cfg(windows)]
        assert!(is_closed_pipe(&number(109), true) && is_closed_pipe(&number(232), true));
    }

    #[test]
    fn json_has_no_control_characters_and_the_same_text() {
        let value = json!({ "na\u{9b}me": "a\u{1b}[31m\u{7f}\u{85}\u{202e}\r\n\t日本語 \"\\" });
        let line = json_line(&value);
        assert!(!line.trim_end_matches('\n').chars().any(crate::terminal::is_obeyed), "{line:?}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }
}
