//! Names of models as Ollama's library has them, and what they are here.

use super::aliases;

/// What a name of Ollama's stands for here.
#[derive(Debug, PartialEq, Eq)]
pub enum Here {
    /// The same model, by the name that it has here.
    Alias(&'static str),
    /// A message that says what to give instead.
    Other(String),
}

/// The model that a name of Ollama's stands for; none where the text does not look like one.
pub fn find(name: &str) -> Option<Here> {
    let name = name.strip_suffix(":latest").unwrap_or(name);
    if let Some((_, alias)) = SAME.iter().find(|(theirs, _)| *theirs == name) {
        return Some(Here::Alias(alias));
    }
    if let Some((_, repo)) = PUBLISHED.iter().find(|(theirs, _)| theirs.contains(&name)) {
        return Some(Here::Other(format!("{name} is a name of Ollama's; its publisher has it as hf:{repo}")));
    }
    looks_so(name).then(|| {
        Here::Other(format!(
            "{name} looks like a name of Ollama's, whose models are not fetched here: give hf:owner/name[:file], or one of {}",
            aliases::names()
        ))
    })
}

/// `name:tag`. A drive of Windows has one letter before the colon.
fn looks_so(text: &str) -> bool {
    let plain = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    text.split_once(':').is_some_and(|(name, tag)| name.len() > 1 && !tag.is_empty() && plain(name) && plain(tag))
}

/// The same weights, in another quantisation at most.
const SAME: &[(&str, &str)] = &[("smollm2:135m", "smollm2"), ("qwen2.5-coder:0.5b", "qwen05")];

/// Names of one model, and its publisher's repository. `gemma3` itself is the pretrained model here.
const PUBLISHED: &[(&[&str], &str)] = &[
    (&["llama3.2:1b"], "meta-llama/Llama-3.2-1B-Instruct"),
    (&["llama3.2", "llama3.2:3b"], "meta-llama/Llama-3.2-3B-Instruct"),
    (&["llama3.1", "llama3.1:8b"], "meta-llama/Llama-3.1-8B-Instruct"),
    (&["gemma3:270m"], "google/gemma-3-270m-it"),
    (&["gemma3:1b"], "google/gemma-3-1b-it"),
    (&["gemma3:4b"], "google/gemma-3-4b-it"),
    (&["gemma2:2b"], "google/gemma-2-2b-it"),
    (&["qwen2.5:0.5b"], "Qwen/Qwen2.5-0.5B-Instruct"),
    (&["qwen2.5:1.5b"], "Qwen/Qwen2.5-1.5B-Instruct"),
    (&["qwen2.5:3b"], "Qwen/Qwen2.5-3B-Instruct"),
    (&["qwen2.5", "qwen2.5:7b"], "Qwen/Qwen2.5-7B-Instruct"),
    (&["qwen2.5-coder:1.5b"], "Qwen/Qwen2.5-Coder-1.5B-Instruct"),
    (&["qwen2.5-coder", "qwen2.5-coder:7b"], "Qwen/Qwen2.5-Coder-7B-Instruct"),
    (&["qwen3:0.6b"], "Qwen/Qwen3-0.6B"),
    (&["qwen3:1.7b"], "Qwen/Qwen3-1.7B"),
    (&["qwen3:4b"], "Qwen/Qwen3-4B-Thinking-2507"),
    (&["qwen3", "qwen3:8b"], "Qwen/Qwen3-8B"),
    (&["mistral", "mistral:7b"], "mistralai/Mistral-7B-Instruct-v0.3"),
    (&["phi3", "phi3:mini"], "microsoft/Phi-3-mini-128k-instruct"),
    (&["phi4-mini", "phi4-mini:3.8b"], "microsoft/Phi-4-mini-instruct"),
    (&["deepseek-r1:1.5b"], "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"),
    (&["gpt-oss", "gpt-oss:20b"], "openai/gpt-oss-20b"),
    (&["smollm2:360m"], "HuggingFaceTB/SmolLM2-360M-Instruct"),
    (&["smollm2:1.7b"], "HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    (&["olmo2", "olmo2:7b"], "allenai/OLMo-2-1124-7B-Instruct"),
    (&["granite3.3:2b"], "ibm-granite/granite-3.3-2b-instruct"),
    (&["tinyllama", "tinyllama:1.1b"], "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ollama_are_ours_or_say_what_is() {
        assert_eq!(find("smollm2:135m"), Some(Here::Alias("smollm2")));
        assert_eq!(find("qwen2.5-coder:0.5b"), Some(Here::Alias("qwen05")));
        for (name, text) in [
            ("llama3.2:1b", "hf:meta-llama/Llama-3.2-1B-Instruct"),
            ("llama3.2", "hf:meta-llama/Llama-3.2-3B-Instruct"),
            ("mistral:latest", "hf:mistralai/Mistral-7B-Instruct-v0.3"),
            ("gemma3:270m", "hf:google/gemma-3-270m-it"),
            ("command-r:35b", "one of smollm2, gemma3, qwen05"),
        ] {
            assert!(matches!(find(name), Some(Here::Other(message)) if message.contains(text)), "{name}");
        }
        for other in ["x", "model.gguf", "C:model.gguf", "a/b:c", "hf:a/b", "dir\\x:y", ":x", "x:"] {
            assert_eq!(find(other), None, "{other}");
        }
    }

    #[test]
    fn aliases_and_repositories_can_be_given() {
        assert!(SAME.iter().all(|(_, alias)| aliases::find(alias).is_some()));
        assert!(PUBLISHED.iter().all(|(_, repo)| super::super::hub::HubName::parse(repo).is_ok()));
    }
}
