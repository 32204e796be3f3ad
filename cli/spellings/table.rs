//! The options of llama.cpp's tools (`common/arg.cpp` there) and of Ollama's command, and what they are here.

/// An option of another program.
pub struct Spelling {
    pub names: &'static [&'static str],
    pub value: Takes,
    pub meaning: Meaning,
}

/// Whether an option has a value there.
#[derive(Clone, Copy, PartialEq)]
pub enum Takes {
    Nothing,
    /// In the next word, or behind `=` where the option has two dashes.
    Value,
    /// The next word, where it is one of these.
    OneOf(&'static [&'static str]),
}

/// The meaning of an option here.
pub enum Meaning {
    /// An option here, and what becomes of its value; none drops the option, because that is the default.
    Is(&'static str, fn(&str) -> Option<String>),
    /// The model.
    Model,
    /// The model, in a repository of the hub.
    Hub,
    /// A file in the repository of [`Meaning::Hub`].
    HubFile,
    /// No effect, and why.
    Ignored(&'static str),
    /// Another answer than the one asked for would come out, so it is refused; why, and what to do.
    Refused(&'static str),
}

use Meaning::{Hub, HubFile, Ignored, Is, Model, Refused};
use Takes::{Nothing, OneOf, Value};

const fn spelled(names: &'static [&'static str], value: Takes, meaning: Meaning) -> Spelling {
    Spelling { names, value, meaning }
}

const SWITCH: Takes = OneOf(&["on", "off", "auto", "1", "0"]);
const STEPS: &str = "prompts are run in parts of a size that fits the model";
const MAPPED: &str = "files are always mapped; --huge-pages copy has the weights in memory of their own";
const TEMPLATE: &str = "a model with a chat template converses by it";
const SAMPLERS: &str = "there is no such sampler here; see the options under Sampling";
const ONE_GPU: &str = "one GPU runs the layers; --device says which, --gpu-layers how many";
const ROPE: &str = "positions are scaled as the model's file says";
const PREFIXES: &str = "prompts begin with whatever the cache has of earlier ones";
const DRAFT: &str = "there is no speculative decoding here";

/// All of them. Values that mean the same here are left out of it: they need no spelling.
pub const TABLE: &[Spelling] = &[
    spelled(&["-m", "--model"], Value, Model),
    spelled(&["-hf", "-hfr", "--hf-repo"], Value, Hub),
    spelled(&["-hff", "--hf-file"], Value, HubFile),
    spelled(&["-mu", "--model-url"], Value, Refused("fetch the file and give its path, or give hf:owner/name:file")),
    spelled(&["-hft", "--hf-token"], Value, Refused("set the variable HF_TOKEN, which other users cannot see")),
    spelled(&["-c", "--ctx-size"], Value, Is("--ctx", context)),
    spelled(&["-n", "--predict", "--n-predict"], Value, Is("--max-tokens", tokens)),
    spelled(&["-t", "--threads"], Value, Is("--threads", above_zero)),
    spelled(&["-ngl", "--gpu-layers", "--n-gpu-layers"], Value, Is("--gpu-layers", layers)),
    spelled(&["-dev"], Value, Is("--device", same)),
    spelled(&["-cmoe", "--cpu-moe"], Nothing, Is("--experts-on-cpu", same)),
    spelled(&["-ncmoe", "--n-cpu-moe"], Value, Refused("--experts-on-cpu leaves the experts of all layers to the CPU")),
    spelled(&["-s", "--seed"], Value, Is("--seed", drawn_below_zero)),
    spelled(&["--temperature"], Value, Is("--temp", same)),
    spelled(&["--top-k"], Value, Is("--top-k", all_below_zero)),
    spelled(&["--repeat-last-n"], Value, Is("--repeat-last-n", last_n)),
    spelled(&["-l", "--logit-bias"], Value, Is("--logit-bias", bias)),
    spelled(&["-r", "--reverse-prompt"], Value, Is("--stop", same)),
    spelled(&["-sys", "--system-prompt"], Value, Is("--system", same)),
    spelled(&["-no-cnv", "--no-conversation"], Nothing, Is("--raw", same)),
    spelled(&["--chat-template-file"], Value, Is("--template", same)),
    spelled(&["-sp", "--special"], Nothing, Ignored("special tokens of an answer are not shown")),
    spelled(&["-ctk", "--cache-type-k", "-ctv", "--cache-type-v"], Value, Is("--kv-type", same)),
    spelled(&["-a"], Value, Is("--alias", same)),
    spelled(&["-np"], Value, Is("--parallel", same)),
    spelled(&["--embedding"], Nothing, Is("--embeddings", same)),
    spelled(&["--log-disable"], Nothing, Is("--quiet", same)),
    spelled(&["-lv", "--verbosity", "--log-verbosity"], Value, Ignored("--quiet says less, --verbose more")),
    spelled(&["-cnv", "--conversation", "-ins", "--instruct"], Nothing, Ignored(TEMPLATE)),
    spelled(&["-i", "--interactive", "-if", "--interactive-first"], Nothing, Ignored("handmill chat is for that")),
    spelled(&["-st", "--single-turn"], Nothing, Ignored("run answers once")),
    spelled(&["--jinja"], Nothing, Ignored(TEMPLATE)),
    spelled(&["-e", "--escape"], Nothing, Ignored("texts are taken as they are; the shell has $'…\\n…'")),
    spelled(&["--no-escape"], Nothing, Ignored("texts are taken as they are")),
    spelled(&["--no-mmap"], Nothing, Ignored(MAPPED)),
    spelled(&["--mmap"], Nothing, Ignored("files are always mapped")),
    spelled(&["--mlock"], Nothing, Ignored("the system keeps what is read often")),
    spelled(&["-fa", "--flash-attn"], SWITCH, Ignored("attention never writes its scores to memory")),
    spelled(&["-b", "--batch-size", "-ub", "--ubatch-size"], Value, Ignored(STEPS)),
    spelled(&["-tb", "--threads-batch"], Value, Ignored("prompts take as many threads as answers; see --threads")),
    spelled(&["--no-warmup", "--warmup"], Nothing, Ignored("there is no warm-up")),
    spelled(&["--no-display-prompt"], Nothing, Ignored("the prompt is never shown")),
    spelled(&["-co", "--color"], SWITCH, Ignored("a terminal decides that")),
    spelled(&["--simple-io", "--no-perf", "--perf", "--nowordwrap"], Nothing, Ignored("it is so")),
    spelled(&["--no-context-shift", "--context-shift"], Nothing, Ignored("an answer ends where the context is full")),
    spelled(&["--keep"], Value, Ignored("an answer ends where the context is full")),
    spelled(&["--keepalive"], Value, Ignored("the process ends with the answer, and the next one maps the file again")),
    spelled(&["--insecure"], Nothing, Ignored("every byte is checked")),
    spelled(&["-cb", "--cont-batching"], Nothing, Ignored("requests always share steps")),
    spelled(&["--cache-reuse", "--slot-prompt-similarity", "-sps"], Value, Ignored(PREFIXES)),
    spelled(&["--threads-http"], Value, Ignored("few threads wait for all connections")),
    spelled(&["--no-webui", "--no-ui"], Nothing, Ignored("there is no page yet")),
    spelled(&["--metrics"], Nothing, Refused("there are no metrics yet")),
    spelled(&["--api-key-file"], Value, Refused("set the variable HANDMILL_API_KEY, which other users cannot see")),
    spelled(&["--ssl-key-file", "--ssl-cert-file"], Value, Refused("a proxy in front can speak TLS")),
    spelled(&["-nkvo", "--no-kv-offload"], Nothing, Refused("keys and values lie where their layer runs")),
    spelled(&["-sysf", "--system-prompt-file"], Value, Refused("give the text with --system")),
    spelled(&["--chat-template"], Value, Refused("the model's own template is used")),
    spelled(&["-sm", "--split-mode", "-ts", "--tensor-split", "-mg", "--main-gpu"], Value, Refused(ONE_GPU)),
    spelled(&["--rope-scaling", "--rope-scale", "--rope-freq-base", "--rope-freq-scale"], Value, Refused(ROPE)),
    spelled(&["-gan", "--grp-attn-n", "-gaw", "--grp-attn-w", "--yarn-orig-ctx"], Value, Refused(ROPE)),
    spelled(&["--samplers", "--sampler-seq", "--typical", "--dynatemp-range"], Value, Refused(SAMPLERS)),
    spelled(&["--mirostat", "--mirostat-lr", "--mirostat-ent", "--top-nsigma"], Value, Refused(SAMPLERS)),
    spelled(&["--xtc-probability", "--xtc-threshold", "--dry-multiplier"], Value, Refused(SAMPLERS)),
    spelled(
        &["--grammar", "--grammar-file", "-j", "--json-schema"],
        Value,
        Refused("answers cannot be bound to a form"),
    ),
    spelled(&["--format"], Value, Refused("answers cannot be bound to a form")),
    spelled(
        &["--lora", "--lora-scaled", "--control-vector"],
        Value,
        Refused("adapters are not read; merge them first"),
    ),
    spelled(&["--mmproj", "-mm", "--image", "--audio"], Value, Refused("models read text only")),
    spelled(&["-md", "--model-draft", "--draft-max", "--draft"], Value, Refused(DRAFT)),
    spelled(&["--override-kv", "-ot", "--override-tensor"], Value, Refused("a model runs as its file says")),
    spelled(&["--prompt-cache"], Value, Refused("prompts are not kept between runs")),
];

fn same(value: &str) -> Option<String> {
    Some(value.to_owned())
}

/// `-c 0`: the model's own context.
fn context(value: &str) -> Option<String> {
    Some(if value == "0" { "model" } else { value }.to_owned())
}

/// `-n -1` (no limit) and `-n -2` (until the context is full).
fn tokens(value: &str) -> Option<String> {
    Some(if matches!(value, "-1" | "-2") { "all" } else { value }.to_owned())
}

/// `-t -1`: the default.
fn above_zero(value: &str) -> Option<String> {
    (!value.starts_with('-')).then(|| value.to_owned())
}

/// `-ngl -1`, `all` and `auto`: as many as fit, the default.
fn layers(value: &str) -> Option<String> {
    (!matches!(value, "-1" | "-2" | "all" | "auto")).then(|| value.to_owned())
}

/// `--seed -1`: drawn, the default.
fn drawn_below_zero(value: &str) -> Option<String> {
    (value != "-1" && value != "4294967295").then(|| value.to_owned())
}

/// `--top-k -1`: all.
fn all_below_zero(value: &str) -> Option<String> {
    Some(if value == "-1" { "0" } else { value }.to_owned())
}

/// `--repeat-last-n -1`: all.
fn last_n(value: &str) -> Option<String> {
    Some(if value == "-1" { "all" } else { value }.to_owned())
}

/// `15043+1`, `15043-0.5` and `15043-inf` instead of `15043=+1`; `15043=false` forbids.
fn bias(value: &str) -> Option<String> {
    if let Some(id) = value.strip_suffix("=false") {
        return Some(format!("{id}=-inf"));
    }
    let sign = value.find(['+', '-']).filter(|at| *at > 0 && !value.contains('='));
    Some(sign.map_or_else(|| value.to_owned(), |at| format!("{}={}", &value[..at], &value[at..])))
}
