//! `vocab.json` and `merges.txt`: byte-level BPE in the files that GPT-2 came with. How text is cut into words they do not
//! say; the class of the tokenizer does.

use std::borrow::Cow;
use std::path::Path;

use handmill_runtime::format::read_json_object;

use super::added::{self, MAX_IDS, SideFiles, Tokens};
use super::bpe::Bpe;
use super::byte_level;
use super::decode::{Decoding, LeadingSpace};
use super::ends;
use super::error::{Result, TextError};
use super::file;
use super::parts::{Encoder, Parts};
use super::pipeline::{Pipeline, TextRules};
use super::pre_tokenizers::PreSplit;
use super::special::SpecialSplit;
use super::vocab::{TokenKind, Vocab};

/// The names of the two files.
pub(crate) const VOCAB: &str = "vocab.json";
pub(crate) const MERGES: &str = "merges.txt";

/// Reads the two files of `folder` and adds what the files beside them say.
pub(crate) fn load(folder: &Path, files: &mut SideFiles) -> Result<Parts> {
    let mut tokens = read_vocab(&folder.join(VOCAB))?;
    let path = folder.join(MERGES);
    let merges = file::read(&path)?;
    let merges =
        std::str::from_utf8(&merges).map_err(|e| TextError::broken(path.display().to_string(), e.to_string()))?;
    let special = added::apply(files, &mut tokens);
    let mut vocab = Vocab::with_capacity(tokens.len());
    for (text, kind) in &tokens {
        let pushed = vocab.push(*kind, |out| match kind {
            TokenKind::Normal => byte_level::push_bytes(text, out),
            _ => out.extend_from_slice(text.as_bytes()),
        });
        if !pushed {
            return Err(TextError::broken(folder.join(VOCAB).display().to_string(), "more than 4 GiB of tokens"));
        }
    }
    let header = |(i, line): &(usize, &str)| line.is_empty() || (*i == 0 && line.starts_with("#version"));
    let lines = || merges.lines().enumerate().filter(|line| !header(line));
    if let Some((i, line)) = lines().find(|(_, line)| line.split_whitespace().count() != 2) {
        let reason = format!("line {} is `{line}`, which is no pair of pieces; fetch the file again", i + 1);
        return Err(TextError::broken(path.display().to_string(), reason));
    }
    let merges: Vec<&str> = lines().map(|line| line.1).collect();
    let (pre, kind) = PreSplit::named(pre_tokenizer(&files.class, &files.model_type))?;
    let rules = TextRules { nfc: kind.nfc, add_space: files.add_prefix_space == Some(true) };
    let model = Bpe::new(&vocab, merges.into_iter(), false);
    let pipeline = Pipeline::byte_level(SpecialSplit::new(&special)?, rules, pre, model);
    Ok(Parts {
        encoder: Encoder::Pipeline(Box::new(pipeline)),
        vocab,
        decoding: Decoding { byte_level: true, leading_space: LeadingSpace::Kept },
        prefix: Vec::new(),
        suffix: Vec::new(),
        bos: None,
        eos: None,
        ends: Vec::new(),
        warnings: Vec::new(),
    })
}

fn read_vocab(path: &Path) -> Result<Tokens<'static>> {
    let broken = |reason: String| TextError::broken(path.display().to_string(), reason);
    let table = read_json_object(path)?.unwrap_or_default();
    let mut tokens: Vec<Option<(Cow<'static, str>, TokenKind)>> = vec![None; table.len()];
    for (text, id) in table {
        let at = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < MAX_IDS);
        let at = at.ok_or_else(|| broken(format!("the id of `{text}` is {id}")))?;
        if at >= tokens.len() {
            tokens.resize(at + 1, None);
        }
        if let Some((other, _)) = &tokens[at] {
            return Err(broken(format!("`{other}` and `{text}` both have the id {at}")));
        }
        // No file needs to name the one special token of GPT-2 and its kin.
        let kind = if ends::is_unmistakable(&text) { TokenKind::Control } else { TokenKind::Normal };
        tokens[at] = Some((text.into(), kind));
    }
    if tokens.is_empty() {
        return Err(broken("it has no tokens".to_owned()));
    }
    Ok(tokens.into_iter().map(|token| token.unwrap_or((Cow::Borrowed(""), TokenKind::Unused))).collect())
}

/// GGUF's name of what the tokenizer's class does, or else of what the architecture's tokenizers do.
fn pre_tokenizer(class: &str, model_type: &str) -> &'static str {
    match class {
        "Qwen2Tokenizer" if model_type.starts_with("qwen3_5") => "qwen35",
        "Qwen2Tokenizer" => "qwen2",
        "Qwen3_5Tokenizer" => "qwen35",
        "CohereTokenizer" => "command-r",
        "CodeGenTokenizer" => "gpt-2",
        // GPT-2's class is also that of tokenizers that cut digits one by one.
        _ if model_type.starts_with("starcoder") || model_type.starts_with("granite") => "starcoder",
        _ if model_type == "gpt_bigcode" => "starcoder",
        "GPT2Tokenizer" | "RobertaTokenizer" | "BartTokenizer" => "gpt-2",
        _ if model_type.starts_with("qwen3_5") => "qwen35",
        _ if model_type.starts_with("qwen") => "qwen2",
        _ if model_type.starts_with("olmo2") || model_type.starts_with("olmo3") || model_type == "phi3" => "dbrx",
        _ => "gpt-2",
    }
}
