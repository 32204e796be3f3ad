//! `handmill inspect`: the contents of a model's files, also of architectures that cannot be run.

use crate::{
    args::Output,
    dequantize,
    error::{CliError, one_line},
    fetch, input, licences, out,
    terminal::{harmless_line, human_bytes},
};
use handmill_models::{Error, Model, licence::Licence};
use handmill_runtime::format::{Checkpoint, Kind, TensorInfo, gguf::Value as GgufValue};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias
    #[arg(default_value = fetch::DEFAULT)]
    model: OsString,
    /// List all tensors (--json always does)
    #[arg(long)]
    tensors: bool,
    /// List all metadata
    #[arg(long)]
    metadata: bool,
    /// Write the graph instead: for Graphviz, or as JSON
    #[arg(long, value_name = "FORMAT")]
    graph: Option<GraphFormat>,
    /// Write this tensor instead, as float32, to --out
    #[arg(long, value_name = "TENSOR", requires = "out", conflicts_with = "graph")]
    dequantize: Option<String>,
    /// The file that --dequantize writes, or - for standard output: a NumPy array
    #[arg(long, value_name = "FILE.npy", requires = "dequantize", allow_hyphen_values = true, value_parser = input::path())]
    out: Option<PathBuf>,
    /// How results are shown
    #[command(flatten)]
    pub output: Output,
}

/// Values of `--graph`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum GraphFormat {
    Dot,
    Json,
}

/// Tensors that are shown by default.
const SHOWN: usize = 12;

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    let path = fetch::locate(&args.model)?;
    let checkpoint = Checkpoint::open(&path).map_err(|e| CliError::because("could not open the model", e))?;
    if let (Some(tensor), Some(path)) = (&args.dequantize, &args.out) {
        return dequantize::run(args.output.json, &checkpoint, tensor, path);
    }
    let summary = Summary::of(&checkpoint);
    // Opened a second time as a model; where it is none that can be run, the file's contents are shown all the same.
    let model = Model::open(&path);
    if let Some(format) = args.graph {
        let model = model.map_err(|e| CliError::because("there is no graph to show", e))?;
        return match format {
            GraphFormat::Dot => out::text(&model.graph().to_dot()),
            GraphFormat::Json => out::json(&model.graph().to_json()),
        };
    }
    if args.output.json {
        out::json(&summary.json(&path, &checkpoint, &model))
    } else {
        out::text(&summary.text(&path, &checkpoint, &model, args))
    }
}

/// Contents of the files, for any architecture.
struct Summary {
    kind: &'static str,
    architecture: Option<String>,
    name: Option<String>,
    context: Option<u64>,
    tokenizer: Option<String>,
    licence: Licence,
    parameters: u64,
    /// Format name → tensors and bytes.
    formats: BTreeMap<String, (usize, u64)>,
}

impl Summary {
    fn of(checkpoint: &Checkpoint) -> Self {
        let licence = licences::of(checkpoint);
        let mut summary = match checkpoint.kind() {
            Kind::Gguf(gguf) => {
                let text = |key: &str| match gguf.get(key) {
                    Some(GgufValue::Str(text)) if !text.is_empty() => Some(text.to_owned()),
                    _ => None,
                };
                let architecture = text("general.architecture");
                let number = |key: &str| u64::try_from(gguf.get(key)?.as_i128()?).ok();
                let context = architecture.as_ref().and_then(|arch| number(&format!("{arch}.context_length")));
                let tokenizer = text("tokenizer.ggml.model").map(|model| match text("tokenizer.ggml.pre") {
                    Some(pre) => format!("{model} ({pre})"),
                    None => model,
                });
                let name = text("general.name");
                Self {
                    kind: "gguf",
                    architecture,
                    name,
                    context,
                    tokenizer,
                    licence,
                    parameters: 0,
                    formats: BTreeMap::new(),
                }
            }
            Kind::HuggingFace(folder) => {
                // Multimodal wrappers keep the text model's values in an object of their own.
                let value = |key: &str| match &folder.config[key] {
                    Value::Null => folder.config["text_config"][key].clone(),
                    value => value.clone(),
                };
                let tokenizer = ["tokenizer.json", "tokenizer.model"].iter().find(|file| folder.file(file).is_some());
                Self {
                    kind: "safetensors",
                    architecture: value("model_type").as_str().map(str::to_owned),
                    name: folder.config["_name_or_path"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
                    context: value("max_position_embeddings").as_u64(),
                    tokenizer: tokenizer.map(|&file| file.to_owned()),
                    licence,
                    parameters: 0,
                    formats: BTreeMap::new(),
                }
            }
        };
        for tensor in checkpoint.tensors() {
            summary.parameters += elements(&tensor);
            let (count, bytes) = summary.formats.entry(tensor.dtype_name.to_owned()).or_default();
            *count += 1;
            *bytes += tensor.bytes as u64;
        }
        summary
    }

    /// Formats by their share, the largest first.
    fn shares(&self) -> Vec<(&str, usize, u64, f64)> {
        let all: u64 = self.formats.values().map(|(_, bytes)| bytes).sum();
        let share = |bytes: u64| if all == 0 { 0.0 } else { bytes as f64 / all as f64 };
        let mut rows: Vec<_> =
            self.formats.iter().map(|(name, &(count, bytes))| (name.as_str(), count, bytes, share(bytes))).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.2));
        rows
    }

    fn json(&self, path: &Path, checkpoint: &Checkpoint, model: &Result<Model, Error>) -> Value {
        let formats: Vec<Value> = self
            .shares()
            .into_iter()
            .map(|(name, tensors, bytes, share)| json!({ "type": name, "tensors": tensors, "bytes": bytes, "share": share }))
            .collect();
        let tensors: Vec<Value> = checkpoint
            .tensors()
            .map(|t| json!({ "name": t.name, "type": t.dtype_name, "shape": t.shape, "bytes": t.bytes }))
            .collect();
        let mut value = json!({
            "path": path,
            "format": self.kind,
            "architecture": self.architecture,
            "name": self.name,
            "parameters": self.parameters,
            "file_size": checkpoint.file_size(),
            "formats": formats,
            "context_length": self.context,
            "tokenizer": self.tokenizer,
            "licence": licences::json(&self.licence),
            "supported": model.is_ok(),
            "tensors": tensors,
        });
        match model {
            Ok(model) => {
                let info = model.info();
                value["layers"] = info.n_layers.into();
                value["width"] = info.width.into();
                value["vocab_size"] = info.vocab_size.into();
                value["bytes_per_token"] = info.bytes_per_token.into();
            }
            Err(error) => value["why_not"] = one_line(error).into(),
        }
        value
    }

    fn text(&self, path: &Path, checkpoint: &Checkpoint, model: &Result<Model, Error>, args: &Args) -> String {
        let unknown = || "not stated".to_owned();
        let mut lines = Vec::new();
        // Text of a file cannot begin a line of its own.
        let mut line = |name: &str, value: String| lines.push(format!("{name:<13} {}", harmless_line(&value)));
        line("file", format!("{} ({}, {})", path.display(), self.kind, human_bytes(checkpoint.file_size())));
        if let Some(name) = &self.name {
            line("name", name.clone());
        }
        line("architecture", self.architecture.clone().unwrap_or_else(unknown));
        match model {
            Ok(model) => {
                let i = model.info();
                line("runs", "yes".to_owned());
                line("shape", format!("{} layers of width {}, {} tokens", i.n_layers, i.width, i.vocab_size));
                line("a token reads", human_bytes(i.bytes_per_token));
            }
            Err(error) => line("runs", format!("no: {}", one_line(error))),
        }
        line("parameters", human_count(self.parameters));
        line("context", self.context.map_or_else(unknown, |n| format!("{n} tokens")));
        line("tokenizer", self.tokenizer.clone().unwrap_or_else(|| "none".to_owned()));
        line("licence", self.licence.to_string());
        for (name, count, bytes, share) in self.shares() {
            line("format", format!("{name:<6} {:5.1} %  {:>7}  {count} tensors", share * 100.0, human_bytes(bytes)));
        }
        if args.metadata {
            metadata(checkpoint, &mut line);
        }
        let all = checkpoint.tensors().len();
        let shown = if args.tensors { all } else { SHOWN.min(all) };
        for t in checkpoint.tensors().take(shown) {
            line("tensor", format!("{} {} {:?}", t.name, t.dtype_name, t.shape));
        }
        if shown < all {
            line("tensor", format!("… and {} more (--tensors)", all - shown));
        }
        lines.join("\n") + "\n"
    }
}

fn metadata(checkpoint: &Checkpoint, line: &mut impl FnMut(&str, String)) {
    match checkpoint.kind() {
        Kind::Gguf(gguf) => {
            for (key, value) in gguf.metadata() {
                let shown = match value {
                    GgufValue::Str(text) if text.len() <= 80 => format!("{text:?}"),
                    other => other.describe(),
                };
                line("metadata", format!("{key} = {shown}"));
            }
        }
        Kind::HuggingFace(folder) => {
            for (key, value) in folder.config.as_object().into_iter().flatten() {
                line("metadata", format!("{key} = {value}"));
            }
        }
    }
}

fn elements(tensor: &TensorInfo) -> u64 {
    tensor.shape.iter().fold(1u64, |n, &d| n.saturating_mul(d as u64))
}

/// `134.5 M`, `1.24 B`.
fn human_count(n: u64) -> String {
    match n {
        0..1_000_000 => n.to_string(),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}
