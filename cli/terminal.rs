//! Lines for people on standard error, and text made harmless for terminals. Of the command it uses the calls of the system
//! alone.

use std::{
    borrow::Cow,
    env,
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicU8, Ordering},
};

use crate::system;

/// How much standard error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Errors alone, and what an option asked to be shown there.
    Errors,
    /// Also progress, warnings, reasoning, and decisions that people may not expect.
    Notes,
    /// Also all other decisions, and times.
    Details,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Notes as u8);

/// Sets how much standard error says from now on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether standard error says so much.
pub fn says(level: Level) -> bool {
    LEVEL.load(Ordering::Relaxed) >= level as u8
}

/// Whether a terminal acts on `c` instead of showing it: control characters of either set (ESC and CSI among them), and
/// characters that reorder or break lines.
pub fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with escapes like `\u{1b}` in place of such characters, except ends of lines and tabs.
pub fn harmless(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_obeyed(c) && !matches!(c, '\n' | '\t'))
}

/// The same in one line: ends of lines and tabs become `\n` and `\t`, so that a name cannot pretend to be a line.
pub fn harmless_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

fn escaped(text: &str, which: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&which) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if which(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.into()
}

/// Writes text to standard error as it comes, harmless for a terminal and dimmed where that is one with colours, unless
/// `--quiet` is given.
pub fn dimmed(text: &str) {
    if !says(Level::Notes) {
        return;
    }
    let mut stderr = io::stderr().lock();
    let plain = harmless(text);
    let _ = if has_colours() { write!(stderr, "\x1b[2m{plain}\x1b[22m") } else { write!(stderr, "{plain}") };
    let _ = stderr.flush();
}

/// Whether standard error is a terminal that shows colours, and nobody asked for none.
/// Source: <https://no-color.org>.
fn has_colours() -> bool {
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let wanted = !set("NO_COLOR") && env::var_os("TERM").is_none_or(|term| term != "dumb");
    wanted && io::stderr().is_terminal() && system::obeys_escapes()
}

/// Writes one or more lines to standard error, harmless for a terminal, unless `--quiet` is given.
pub fn note(lines: &str) {
    if says(Level::Notes) {
        always(lines);
    }
}

/// Writes a line that only `--verbose` shows.
pub fn detail(line: impl FnOnce() -> String) {
    if says(Level::Details) {
        always(&line());
    }
}

/// Writes an error, or what an option asked for, whatever the level. A closed standard error is ignored.
pub fn always(lines: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", harmless(lines));
}

/// Sizes as people read them: 10³ steps, `93 MB`, `1.3 GB`.
pub fn human_bytes(bytes: u64) -> String {
    let b = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.0} kB", b / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", b / 1e6),
        _ => format!("{:.1} GB", b / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_terminals_obey_is_shown_instead() {
        for (text, lines, line) in [
            ("plain – naïve 日本語 👩‍💻\n\tx", "plain – naïve 日本語 👩‍💻\n\tx", "plain – naïve 日本語 👩‍💻\\n\\tx"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("a\rb\u{7f}\0", "a\\rb\\u{7f}\\u{0}", "a\\rb\\u{7f}\\u{0}"),
            // One character that many terminals take for ESC [.
            ("\u{9b}31m", "\\u{9b}31m", "\\u{9b}31m"),
            (
                "gp\u{202e}fdp\u{2066}x\u{2028}",
                "gp\\u{202e}fdp\\u{2066}x\\u{2028}",
                "gp\\u{202e}fdp\\u{2066}x\\u{2028}",
            ),
        ] {
            assert_eq!((harmless(text), harmless_line(text)), (lines.into(), line.into()), "{text:?}");
        }
    }
}
