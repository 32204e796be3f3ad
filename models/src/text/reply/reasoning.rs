//! Reasoning blocks: an opening and a closing marker, of which a prompt may hold the first or both.

use super::markers::{Action, Marker, Place};

/// How a template marks reasoning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reasoning {
    pub name: &'static str,
    /// A template's source contains all of these.
    pub seen_in: &'static [&'static str],
    pub open: &'static str,
    pub close: &'static str,
    /// Whether `open` is one control token, which no answer contains by chance.
    pub control: bool,
    /// Markers around the answer after the reasoning.
    pub wrap: &'static [Marker],
}

/// All ways. The first that a template's source shows is its own: narrower ones come before wider ones.
pub(super) const ALL: &[Reasoning] = &[
    // Solar Open: every message has a heading, see `solar`.
    Reasoning::tokens("solar-think", "<|think|>", "<|end|>").seen_in(&["<|think|>", "<|content|>"]),
    // Ministral and Magistral.
    Reasoning::tokens("mistral-think", "[THINK]", "[/THINK]").seen_in(&["[THINK]"]),
    // Command R7B and A.
    Reasoning::tokens("cohere-thinking", "<|START_THINKING|>", "<|END_THINKING|>")
        .wrapped(&[drop("<|START_RESPONSE|>", Place::Text), drop("<|END_RESPONSE|>", Place::Text)]),
    // Gemma 4.
    Reasoning::tokens("gemma-channel", "<|channel>thought", "<channel|>").seen_in(&["<|channel>thought"]),
    // Apertus: deliberation.
    Reasoning::tokens("apertus-inner", "<|inner_prefix|>", "<|inner_suffix|>"),
    // Apriel: the prompt may end with the opening line, and the answer has a heading.
    Reasoning::words("apriel-steps", "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]")
        .wrapped(&[drop("[END FINAL RESPONSE]", Place::Text)])
        .seen_in(&["[BEGIN FINAL RESPONSE]"]),
    Reasoning::words("seed-think", "<seed:think>", "</seed:think>"),
    // MiniMax M3.
    Reasoning::words("mm-think", "<mm:think>", "</mm:think>"),
    // Granite 3.3 also wraps its answer.
    Reasoning::words("think-response", "<think>", "</think>")
        .wrapped(&[drop("<response>", Place::Start), drop("</response>", Place::Text)])
        .seen_in(&["<think>", "<response></response>"]),
    // Qwen3, DeepSeek, GLM, MiniMax M2, SmolLM3, Kimi K2 Thinking and most others. Some templates show the closing tag
    // only: they cut the reasoning of earlier turns away.
    Reasoning::words("think", "<think>", "</think>").seen_in(&["think>"]),
];

const fn drop(text: &'static str, place: Place) -> Marker {
    Marker::new(text, place, Action::Drop)
}

impl Reasoning {
    /// Reasoning between control tokens, which count everywhere.
    const fn tokens(name: &'static str, open: &'static str, close: &'static str) -> Self {
        Self { control: true, ..Self::words(name, open, close) }
    }

    /// Reasoning between markers that an answer may also speak of: they count where an answer has not begun.
    const fn words(name: &'static str, open: &'static str, close: &'static str) -> Self {
        Self { name, seen_in: &[], open, close, control: false, wrap: &[] }
    }

    const fn wrapped(self, wrap: &'static [Marker]) -> Self {
        Self { wrap, ..self }
    }

    const fn seen_in(self, seen_in: &'static [&'static str]) -> Self {
        Self { seen_in, ..self }
    }

    /// Whether a template's source shows these markers.
    pub fn is_in(&self, source: &str) -> bool {
        match self.seen_in {
            [] => source.contains(self.open),
            texts => texts.iter().all(|text| source.contains(text)),
        }
    }
}

impl Reasoning {
    pub fn markers(&self) -> Vec<Marker> {
        let place = if self.control { Place::Text } else { Place::Start };
        let mut markers = vec![
            Marker::new(self.open, place, Action::BeginReasoning),
            Marker::new(self.close, Place::Reasoning, Action::EndReasoning),
            // A block that the prompt opened and the parser was not told of, or that the model left out: no reasoning.
            Marker::new(self.close, place, Action::Drop),
        ];
        markers.extend(self.wrap);
        markers
    }

    /// Whether the end of `prompt` leaves a block open.
    pub fn is_open_after(&self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.open)
    }

    /// Whether `prompt` ends with a block that is closed.
    pub fn is_closed_after(&self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.close)
    }
}
