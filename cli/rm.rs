//! `handmill rm`: removes models from the cache.

use crate::{
    args::Output,
    error::CliError,
    fetch::{self, Cache},
    out,
    terminal::{harmless_line, human_bytes},
};
use serde_json::{Value, json};
use std::path::Path;

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names as `handmill list` shows them; hf:owner/name is all that is there of a repository
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// How results are shown
    #[command(flatten)]
    pub output: Output,
}

/// Runs the subcommand. Nothing is removed where one of the names is wrong.
pub fn run(args: &Args) -> Result<(), CliError> {
    let cache = Cache::from_env()?;
    let mut all: Vec<fetch::Stored> = Vec::new();
    for name in &args.models {
        let found = fetch::named(&cache, name);
        if found.is_empty() {
            return Err(CliError::failed(not_here(&cache, name)));
        }
        for model in found {
            if !all.iter().any(|other| (&other.path, other.whole) == (&model.path, model.whole)) {
                all.push(model);
            }
        }
    }
    let freed = fetch::remove(&cache, &all)?;
    if args.output.json {
        let removed: Vec<Value> = all
            .iter()
            .zip(&freed)
            .map(|(model, bytes)| json!({ "name": model.name, "path": model.path, "bytes": bytes }))
            .collect();
        return out::json(&json!({ "removed": removed, "bytes": freed.iter().sum::<u64>() }));
    }
    let line = |(model, bytes): (&fetch::Stored, &u64)| {
        let what = if model.whole { "" } else { ", what had arrived" };
        format!("removed {}{what}: {}, {}\n", harmless_line(&model.name), human_bytes(*bytes), model.path.display())
    };
    out::text(&all.iter().zip(&freed).map(line).collect::<String>())
}

fn not_here(cache: &Cache, name: &str) -> String {
    let advice = "`handmill list` shows what is";
    if Path::new(name).exists() {
        return format!(
            "{name} does not lie in the cache, {}, and only models there are removed; {advice}",
            cache.dir().display()
        );
    }
    format!("{name} is not in the cache; {advice}")
}
