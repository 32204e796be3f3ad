//! Tokens that end an answer, by their names in published vocabularies.

use super::vocab::{TokenKind, Vocab};

/// Names of tokens that end an answer, in addition to the file's keys. `▁` stands for a space as in the vocabularies.
const ENDS: &[&str] = &[
    // ChatML and its kin, Llama 3 and 4, GPT-2 and its kin
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|eom|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end_of_turn|>",
    "<|eos|>",
    // Gemma
    "<end_of_turn>",
    "<turn|>",
    "<|tool_response>",
    "<eos>",
    // Llama 2, Mistral
    "</s>",
    // Phi, gpt-oss, Solar Open
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    // DeepSeek; the same written in ASCII bars
    "<｜end▁of▁sentence｜>",
    "<|end▁of▁sentence|>",
    "<|end_of_sentence|>",
    "<|EOT|>",
    // Code Llama and its kin, Kimi K2
    "<EOT>",
    "_<EOT>",
    "▁<EOT>",
    "[EOT]",
    "[EOS]",
    "<EOS>",
    // Command R
    "<|END_OF_TURN_TOKEN|>",
    "<EOS_TOKEN>",
    // EXAONE, HyperCLOVA, Megrez, Ling, Apertus, GigaChat, dots, PLaMo, InternLM
    "[|endofturn|]",
    "<|endofturn|>",
    "<|stop|>",
    "<|turn_end|>",
    "<|role_end|>",
    "<|assistant_end|>",
    "<|message_sep|>",
    "<|endofresponse|>",
    "<|plamo:eos|>",
    "<eoa>",
    // SmolVLM, MiniMax, Seed
    "<end_of_utterance>",
    "[e~[",
    "<seed:eos>",
    "<[end▁of▁sentence]>",
    // Fill in the middle: padding, the next repository and the next file follow the text that was asked for
    "<|fim_pad|>",
    "<fim_pad>",
    "<fim-pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<fim_repo>",
    "<fim-repo>",
    "<|repo_name|>",
    "<repo_name>",
    "<reponame>",
    "<|reponame|>",
    "<REPO>",
    "<|file_sep|>",
    "<file_sep>",
    "<file-sep>",
    "<|file_separator|>",
    "<|fim_sep|>",
    "<filename>",
    "<|filename|>",
];

/// The name in [`ENDS`] that equals `text`; a space counts as `▁`.
fn known(text: &[u8]) -> Option<&'static str> {
    // The first byte rules out almost all tokens.
    if !matches!(text.first(), Some(b'<' | b'[' | b'_' | b' ' | 0xE2)) || text.len() > 40 {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?.replace(' ', "▁");
    ENDS.iter().find(|name| **name == text).copied()
}

/// Whether a token of this name can only be a marker, so that it counts as one even in a file that calls it plain text.
/// Tags such as `</s>` do not count: a model may write them as text.
pub(crate) fn is_unmistakable(text: &str) -> bool {
    let shape = text.starts_with("<|") || text.starts_with("<｜") || text.ends_with("|>");
    (shape || matches!(text, "<end_of_turn>" | "<end_of_utterance>" | "▁<EOT>")) && known(text.as_bytes()).is_some()
}

/// The ids of the vocabulary that are known to end an answer.
pub(crate) fn end_of_turn_markers(vocab: &Vocab) -> Vec<u32> {
    let mut found: Vec<(u32, &str)> = Vec::new();
    let mut goes_on_after_end = false;
    let mut calls = false;
    for (id, kind) in vocab.kinds() {
        let bytes = vocab.bytes(id);
        goes_on_after_end |= bytes == b"<|channel|>";
        calls |= matches!(bytes, b"<|call|>" | b"<|calls|>");
        let Some(name) = known(bytes) else { continue };
        let counts = match kind {
            TokenKind::Control => true,
            // In some files `</s>` is user-defined: text that only looks like an end.
            TokenKind::UserDefined => name != "</s>",
            TokenKind::Normal => is_unmistakable(name),
            TokenKind::Unknown | TokenKind::Unused | TokenKind::Byte => false,
        };
        if counts {
            found.push((id, name));
        }
    }
    // In the harmony format, and in Solar Open's, <|end|> closes a message in the middle of an answer.
    let has = |name: &str| found.iter().any(|(_, text)| *text == name);
    let several_messages = (has("<|return|>") && (goes_on_after_end || calls)) || (has("<|flush|>") && calls);
    found.into_iter().filter(|(_, text)| !several_messages || *text != "<|end|>").map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn markers(tokens: &[(&str, TokenKind)]) -> Vec<u32> {
        let mut vocab = Vocab::default();
        for (text, kind) in tokens {
            assert!(vocab.push(*kind, |b| b.extend_from_slice(text.as_bytes())));
        }
        end_of_turn_markers(&vocab)
    }

    #[test]
    fn end_of_turn_by_family() {
        use TokenKind::{Control, Normal, UserDefined};
        assert_eq!(markers(&[("<|im_end|>", Control), ("<|im_start|>", Control), ("</s>", UserDefined)]), [0]);
        assert_eq!(markers(&[("<|end|>", Control), ("<|endoftext|>", Control)]), [0, 1], "phi-3");
        let harmony = [("<|end|>", Control), ("<|return|>", Control), ("<|call|>", Control), ("<|channel|>", Control)];
        assert_eq!(markers(&harmony), [1, 2], "gpt-oss goes on after <|end|>");
        assert_eq!(markers(&[("<|end|>", Control), ("<|flush|>", Control), ("<|calls|>", Control)]), [1, 2]);
        assert_eq!(markers(&[("</s>", Normal), ("<end_of_turn>", UserDefined)]), [1]);
        assert_eq!(markers(&[(" <EOT>", Control), (" <PRE>", Control)]), [0], "code llama");
    }

    #[test]
    fn an_infill_ends_where_padding_or_another_file_starts() {
        use TokenKind::{Control, UserDefined};
        let qwen =
            ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"];
        assert_eq!(markers(&qwen.map(|name| (name, UserDefined))), [3, 4, 5]);
        let granite = ["<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<filename>", "<reponame>"];
        assert_eq!(markers(&granite.map(|name| (name, Control))), [3, 4, 5]);
    }

    #[test]
    fn every_name_ends_an_answer_as_a_control_token_and_stands_once() {
        for (i, name) in ENDS.iter().enumerate() {
            assert_eq!(markers(&[("x", TokenKind::Normal), (name, TokenKind::Control)]), [1], "{name}");
            assert!(!ENDS[..i].contains(name), "{name} stands twice");
        }
    }

    #[test]
    fn a_marker_that_a_file_calls_plain_text_still_ends_the_answer() {
        use TokenKind::Normal;
        let tokens = [("<|im_end|>", Normal), ("<|eot_id|>", Normal), ("<turn|>", Normal), ("[PAD]", Normal)];
        assert_eq!(markers(&tokens), [0, 1, 2]);
        assert_eq!(markers(&[("<eos>", Normal), ("</s>", Normal), ("<filename>", Normal)]), [0u32; 0]);
    }
}
