//! A small model that seems to reason and to call tools: its template has marks for both, one of its tokens ends reasoning, and
//! what it says is chance.

use std::{fs, ops::Deref};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::cli_support::{copy, serving::Serving};

/// A server of it.
pub struct Thinker {
    server: Serving,
    _folder: TempDir,
}

/// Reasoning is open at the start of an answer, unless the conversation asks for none.
const TEMPLATE: &str = "{{ bos_token }}{{ reasoning_effort or '' }}{% if tools %}{{ tools | tojson }}{% endif %}\
    {% for m in messages %}<{{ m.role }}>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}\
    {% for c in m.tool_calls or [] %}<tool_call>{\"name\": \"{{ c.function.name }}\", \"arguments\": \
    {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}{% endfor %}\
    {% if add_generation_prompt %}<assistant>{% if enable_thinking is not defined or enable_thinking %}<think>\
    {% endif %}{% endif %}";

impl Thinker {
    pub fn start() -> Self {
        let folder = copy("llama3");
        fs::write(folder.path().join("chat_template.jinja"), TEMPLATE).unwrap();
        let path = folder.path().join("tokenizer.json");
        let tokenizer = fs::read_to_string(&path).unwrap().replace("<pad>", "</think>");
        fs::write(path, tokenizer).unwrap();
        let model = folder.path().to_str().unwrap();
        let server = Serving::start(&[model, "--alias", "small", "--ctx", "1024"]);
        Self { server, _folder: folder }
    }

    pub fn stop(self) {
        self.server.stop();
    }
}

impl Deref for Thinker {
    type Target = Serving;

    fn deref(&self) -> &Serving {
        &self.server
    }
}

/// Makes the end of reasoning likely, and that of the answer impossible.
pub fn bias() -> Value {
    json!({ "0": 3, "2": -100 })
}
