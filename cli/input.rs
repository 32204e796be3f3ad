//! Text and token ids from arguments, files and standard input.

use crate::{error::CliError, interrupt};
use clap::builder::{PathBufValueParser, TypedValueParser};
use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Reads the name of a file from the command line. It may begin with one dash; a word with two is an option, and the
/// name is missing.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        let option = path.as_os_str().as_encoded_bytes().starts_with(b"--");
        if option {
            Err(format!("that looks like an option; a file of that name is ./{}", path.display()))
        } else {
            Ok(path)
        }
    })
}

/// The whole of a text file.
pub fn text_file(path: &Path) -> Result<String, CliError> {
    let bytes = if path == Path::new("-") {
        return stdin();
    } else {
        fs::read(path).map_err(|e| CliError::because(format!("could not read {}", path.display()), e))?
    };
    utf8(bytes, &path.display().to_string())
}

/// All of standard input.
pub fn stdin() -> Result<String, CliError> {
    let (send, received) = mpsc::sync_channel(1);
    // A thread of its own: a read that waits for typing cannot be ended, and Ctrl-C must work meanwhile.
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes);
        // It fails only where nobody waits for the text any more.
        let _ = send.send(read);
    });
    loop {
        match received.recv_timeout(Duration::from_millis(20)) {
            Ok(read) => {
                let bytes = read.map_err(|e| CliError::because("could not read standard input", e))?;
                return utf8(bytes, "standard input");
            }
            Err(_) if interrupt::asked() => return Err(CliError::Interrupted),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(e) => return Err(CliError::because("could not read standard input", e)),
        }
    }
}

/// The text of an argument, a file, or else of standard input. Where that is a terminal, the error is `missing`, which
/// names the arguments to give.
pub fn text(argument: Option<&str>, file: Option<&Path>, missing: &str) -> Result<String, CliError> {
    match (argument, file) {
        (Some("@-"), None) => stdin(),
        (Some(text), None) => Ok(text.to_owned()),
        (None, Some(path)) => text_file(path),
        (Some(_), Some(_)) => Err(CliError::Usage("give the text or --file, not both".to_owned())),
        (None, None) if io::stdin().is_terminal() => Err(CliError::Usage(missing.to_owned())),
        (None, None) => stdin(),
    }
}

fn utf8(bytes: Vec<u8>, what: &str) -> Result<String, CliError> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        let why = "is not UTF-8 text but UTF-16, as the `>` of Windows PowerShell writes it; save it as UTF-8";
        return Err(CliError::failed(format!("{what} {why}")));
    }
    String::from_utf8(bytes).map_err(|e| CliError::because(format!("{what} is not UTF-8 text"), e.utf8_error()))
}

/// Token ids separated by commas or white space; square brackets around a list are allowed, as JSON writes it.
pub fn ids(text: &str) -> Result<Vec<u32>, CliError> {
    text.split(|c: char| c.is_whitespace() || ",[]".contains(c))
        .filter(|piece| !piece.is_empty())
        .map(|piece| {
            let wrong = || CliError::Usage(format!("{piece:?} is not a token id; write ids like 1,2,3"));
            piece.parse().map_err(|_| wrong())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_another_encoding_is_named() {
        let failure = |bytes: &[u8]| utf8(bytes.to_vec(), "x.txt").unwrap_err().to_string();
        assert!(failure(b"\xff\xfea\0").starts_with("x.txt is not UTF-8 text but UTF-16"));
        assert_eq!(failure(b"caf\xe9"), "x.txt is not UTF-8 text");
    }

    #[test]
    fn ids_are_read_in_all_their_spellings() {
        for text in ["1,2,3", "1 2 3", "[1, 2, 3]", " 1,\n2 ,3\n"] {
            assert_eq!(ids(text).unwrap(), [1, 2, 3], "{text:?}");
        }
        assert!(ids("").unwrap().is_empty());
        for text in ["x", "-1", "1;2", "4294967296", "1.5"] {
            assert!(matches!(ids(text), Err(CliError::Usage(_))), "{text:?}");
        }
    }
}
