//! Progress of a fetch: a bar on a terminal, a few plain lines elsewhere. Always on standard error.

use crate::terminal::{Level, harmless_line, human_bytes, note, says};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

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
        let bar = (std::io::stderr().is_terminal() && says(Level::Notes)).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = "{msg} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(format!("{verb} {}", harmless_line(what)));
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
