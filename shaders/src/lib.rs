//! Hand-written WGSL compute kernels, and the composer that puts them together.
//!
//! A kernel is one file in `wgsl/`; what kernels share lies in `wgsl/lib/`. [`compose`] turns a kernel and a set of
//! defines into one plain WGSL module that any WGSL tool reads. It knows lines that begin with `#`:
//!
//! ```text
//! #import NAME            the file lib/NAME.wgsl, the first time that it is asked for
//! #import NAME A=1 B=2    the same with these defines besides, every time: a template
//! #if A   #if !A          lines for when A is (not) defined; also A == VALUE and A != VALUE
//! #else   #endif
//! ```
//!
//! and `${A}`, in any line, for the value of the define A. Sizes that a pipeline can set are `override` constants
//! instead.

use std::{collections::BTreeMap, fmt::Write};

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// Names and values that a kernel is specialised by. A name without a value has the value "".
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Defines(BTreeMap<String, String>);

impl Defines {
    /// No defines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `name` with `value`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.0.insert(name.to_owned(), value.to_string());
        self
    }

    /// Adds `name` where `on`.
    #[must_use]
    pub fn flag(self, name: &str, on: bool) -> Self {
        if on { self.with(name, "") } else { self }
    }

    /// Takes `name` away.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Why a kernel could not be composed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ComposeError {
    /// There is no such file.
    #[error("no shader file `{0}`")]
    NoFile(String),
    /// A line that the composer cannot read.
    #[error("{file}.wgsl:{line}: {what}")]
    Line {
        /// File without its ending.
        file: String,
        /// Line, from 1.
        line: usize,
        /// The fault.
        what: String,
    },
}

/// Names of all kernels: the files of `wgsl/` without their ending.
pub fn kernels() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name).filter(|name| !name.starts_with("lib/"))
}

/// The WGSL module of `kernel` with `defines`. The define `F16` puts `enable f16;` in front; `BROWSER` with
/// `SUBGROUPS` puts `enable subgroups;` there, which browsers demand and naga does not know.
///
/// # Errors
/// A kernel or import that does not exist, a bad directive, a define that has no value.
pub fn compose(kernel: &str, defines: &Defines) -> Result<String, ComposeError> {
    let mut out = String::new();
    if defines.get("F16").is_some() {
        out.push_str("enable f16;\n");
    }
    if defines.get("BROWSER").is_some() && defines.get("SUBGROUPS").is_some() {
        out.push_str("enable subgroups;\n");
    }
    if defines.get("COOPERATIVE").is_some() {
        out.push_str("enable wgpu_cooperative_matrix;\n");
    }
    let mut imported = Vec::new();
    expand(kernel, defines, &mut imported, &mut out)?;
    Ok(out)
}

fn expand(file: &str, defines: &Defines, imported: &mut Vec<String>, out: &mut String) -> Result<(), ComposeError> {
    let (_, text) = FILES.iter().find(|(n, _)| *n == file).ok_or_else(|| ComposeError::NoFile(file.to_owned()))?;
    // For each #if that we are in: whether its lines count.
    let mut active: Vec<bool> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let fail = |what: String| ComposeError::Line { file: file.to_owned(), line: i + 1, what };
        let on = active.iter().all(|a| *a);
        let Some(directive) = line.trim_start().strip_prefix('#') else {
            if on {
                substitute(line, defines, out).map_err(fail)?;
            }
            continue;
        };
        match directive.split_once(' ').map_or((directive.trim(), ""), |(d, rest)| (d, rest.trim())) {
            ("if", condition) => active.push(holds(condition, defines)),
            ("else", "") => match active.last_mut() {
                Some(last) => *last = !*last,
                None => return Err(fail("#else without #if".to_owned())),
            },
            ("endif", "") if active.pop().is_some() => {}
            ("import", _) if !on => {}
            ("import", what) => {
                let mut line = String::new();
                substitute(what, defines, &mut line).map_err(&fail)?;
                let mut words = line.split_whitespace();
                let path = format!("lib/{}", words.next().unwrap_or_default());
                let mut inner = defines.clone();
                for word in words {
                    let (name, value) =
                        word.split_once('=').ok_or_else(|| fail(format!("`{word}` is no NAME=VALUE")))?;
                    inner = inner.with(name, value);
                }
                if inner != *defines {
                    expand(&path, &inner, imported, out)?;
                } else if !imported.contains(&path) {
                    imported.push(path.clone());
                    expand(&path, defines, imported, out)?;
                }
            }
            _ => return Err(fail(format!("unexpected `{}`", line.trim()))),
        }
    }
    match active.len() {
        0 => Ok(()),
        n => {
            Err(ComposeError::Line { file: file.to_owned(), line: text.lines().count(), what: format!("{n} #if open") })
        }
    }
}

/// `A`, `!A`, `A == VALUE`, `A != VALUE`.
fn holds(condition: &str, defines: &Defines) -> bool {
    let value = |name: &str| defines.get(name.trim());
    if let Some((name, wanted)) = condition.split_once("==") {
        value(name) == Some(wanted.trim())
    } else if let Some((name, wanted)) = condition.split_once("!=") {
        value(name) != Some(wanted.trim())
    } else if let Some(name) = condition.strip_prefix('!') {
        value(name).is_none()
    } else {
        value(condition).is_some()
    }
}

fn substitute(line: &str, defines: &Defines, out: &mut String) -> Result<(), String> {
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after.split_once('}').ok_or("`${` without `}`")?;
        let value = defines.get(name).ok_or_else(|| format!("`{name}` is not defined"))?;
        let _ = write!(out, "{before}{value}"); // writing to a string cannot fail
        rest = tail;
    }
    out.push_str(rest);
    out.push('\n');
    Ok(())
}

#[cfg(test)]
mod tests;
