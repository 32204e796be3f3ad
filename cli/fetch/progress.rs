//! How far a fetch is: a bar on a terminal, a few plain lines elsewhere. Always on standard error.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};

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

/// Writes a line to standard error; a closed standard error is no reason to stop.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Progress over a known number of bytes.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    total: u64,
    done: u64,
}

impl Progress {
    /// Starts showing `verb what`, for example "fetching SmolLM2".
    pub fn new(verb: &str, what: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = "{msg} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(format!("{verb} {what}"));
            bar
        });
        if bar.is_none() {
            note(&format!("{verb} {what} ({})", human_bytes(total)));
        }
        Self { bar, what: what.to_owned(), total, done: 0 }
    }

    /// `bytes` are done in all.
    pub fn set(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        } else {
            let quarter = |done: u64| (4 * done).checked_div(self.total).unwrap_or(0);
            if quarter(bytes) > quarter(self.done) && bytes < self.total {
                note(&format!("  {} of {} of {}", human_bytes(bytes), human_bytes(self.total), self.what));
            }
        }
        self.done = bytes;
    }

    /// Bytes done so far.
    pub fn done(&self) -> u64 {
        self.done
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
