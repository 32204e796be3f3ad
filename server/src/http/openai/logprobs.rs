//! Log-probabilities in the two shapes of OpenAI's API. A number is the same wherever it stands, so that clients may compare.

use serde_json::{Map, Value, json};

use crate::{http::App, scheduler::Scored};

impl App {
    /// The text of a token by itself; bytes that are no character read as U+FFFD.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(&self.tokenizer.token_bytes(id).unwrap_or_default()).into_owned()
    }
}

/// A token with its log-probability.
pub(crate) fn of_token(app: &App, id: u32, log_probability: Option<f32>) -> Value {
    json!({
        "token": app.token_text(id),
        "logprob": log_probability,
        "bytes": app.tokenizer.token_bytes(id).unwrap_or_default(),
    })
}

/// An element of a chat's `logprobs.content`.
pub(super) fn of_chat(app: &App, scored: &Scored) -> Value {
    let one = |id, log_probability| of_token(app, id, log_probability);
    let mut element = one(scored.id, scored.log_probability);
    element["top_logprobs"] = scored.likeliest.iter().map(|&(id, p)| one(id, Some(p))).collect();
    element
}

/// A completion's `logprobs` so far.
#[derive(Debug, Default)]
pub(super) struct OfCompletion {
    tokens: Vec<Value>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<Value>,
    offset: usize,
}

impl OfCompletion {
    /// Adds the first token of a prompt, which nothing predicts.
    pub fn first(&mut self, app: &App, id: u32) {
        self.add(app.token_text(id), Value::Null, Value::Null);
    }

    pub fn push(&mut self, app: &App, scored: &Scored) {
        let mut top = Map::new();
        let own = scored.log_probability.map(|p| (scored.id, p));
        for (id, p) in scored.likeliest.iter().copied().chain(own) {
            // Of tokens that read the same the likeliest counts: clients look for the largest number.
            let text = app.token_text(id);
            if !top.contains_key(&text) {
                top.insert(text, json!(p));
            }
        }
        self.add(app.token_text(scored.id), json!(scored.log_probability), top.into());
    }

    fn add(&mut self, text: String, logprob: Value, top: Value) {
        self.text_offset.push(self.offset.into());
        self.offset += text.chars().count();
        self.tokens.push(text.into());
        self.token_logprobs.push(logprob);
        self.top_logprobs.push(top);
    }

    /// Takes what was added since the last time.
    pub fn take(&mut self) -> Value {
        let Self { tokens, token_logprobs, top_logprobs, text_offset, offset } = std::mem::take(self);
        self.offset = offset;
        json!({
            "tokens": tokens,
            "token_logprobs": token_logprobs,
            "top_logprobs": top_logprobs,
            "text_offset": text_offset,
        })
    }
}
