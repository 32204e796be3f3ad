//! `handmill list`: the models in the cache.

use crate::{
    args::Output,
    error::CliError,
    fetch::{self, Cache, Stored},
    licences, out,
    terminal::{harmless_line, human_bytes},
};
use handmill_models::licence::Licence;
use handmill_runtime::format::Checkpoint;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How results are shown
    #[command(flatten)]
    pub output: Output,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    let cache = Cache::from_env()?;
    let all: Vec<(Stored, Licence)> = fetch::stored(&cache).into_iter().map(with_licence).collect();
    let total: u64 = all.iter().map(|(model, _)| model.bytes()).sum();
    if args.output.json {
        let models: Vec<Value> = all.iter().map(|(model, licence)| in_json(model, licence)).collect();
        return out::json(&json!({ "cache": cache.dir(), "models": models, "bytes": total }));
    }
    if all.is_empty() {
        return out::text(&format!("no models in {}\n", cache.dir().display()));
    }
    let now = SystemTime::now();
    let rows: Vec<[String; 4]> = all.iter().map(|(model, licence)| row(model, licence, now)).collect();
    let width = |i: usize, title: &str| rows.iter().map(|row| row[i].chars().count()).chain([title.len()]).max();
    let (name, size, used) = (width(0, "NAME"), width(1, "SIZE"), width(2, "LAST USED"));
    let (name, size, used) = (name.unwrap_or(0), size.unwrap_or(0), used.unwrap_or(0));
    let mut text = format!("{:name$}  {:size$}  {:used$}  LICENCE\n", "NAME", "SIZE", "LAST USED");
    for [model, bytes, last, licence] in &rows {
        text += &format!("{model:name$}  {bytes:>size$}  {last:used$}  {licence}\n");
    }
    out::text(&format!("{text}{} in {}\n", human_bytes(total), cache.dir().display()))
}

/// With the licence that was stated at the fetch, or else that its files state.
fn with_licence(model: Stored) -> (Stored, Licence) {
    let stated = model.licence.clone();
    let of_files = || Checkpoint::open(&model.path).ok().map(|opened| licences::of(&opened));
    let licence = stated.or_else(of_files).unwrap_or_default();
    (model, licence)
}

fn in_json(model: &Stored, licence: &Licence) -> Value {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
    json!({
        "name": model.name,
        "path": model.path,
        "whole": model.whole,
        "bytes": model.bytes(),
        "licence": licences::json(licence),
        // Seconds since 1970.
        "last_used": model.last_used.and_then(seconds),
    })
}

fn row(model: &Stored, licence: &Licence, now: SystemTime) -> [String; 4] {
    let last = match model.last_used {
        Some(time) => ago(now.duration_since(time).unwrap_or_default()),
        None if model.whole => "never".to_owned(),
        None => "not whole".to_owned(),
    };
    let name = licence.name.clone().unwrap_or_else(|| "not stated".to_owned());
    let mark = if licence.restricts.is_some() { " (restricted)" } else { "" };
    [
        harmless_line(&model.name).into_owned(),
        human_bytes(model.bytes()),
        last,
        format!("{}{mark}", harmless_line(&name)),
    ]
}

/// `3 days ago`.
fn ago(since: Duration) -> String {
    let seconds = since.as_secs();
    let (n, unit) = match seconds {
        0..60 => return "just now".to_owned(),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{n} {unit}{} ago", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_words() {
        for (seconds, text) in [
            (0, "just now"),
            (59, "just now"),
            (60, "1 minute ago"),
            (7_200, "2 hours ago"),
            (86_400 * 40, "40 days ago"),
        ] {
            assert_eq!(ago(Duration::from_secs(seconds)), text);
        }
    }
}
