//! Which syntax a template uses, by what its source contains.

use super::call::NewGrammar;
use super::markers::{Marker, Place};
use super::reasoning::Reasoning;
use super::{
    deepseek, functionary, gemma, glm, harmony, invoke, kimi, llama, marked_json, minicpm, minimax, mistral, muse,
    pythonic, reasoning, solar, xml_function,
};

/// How a model writes reasoning and tool calls.
#[derive(Clone, Debug, Default)]
pub struct ReplySyntax {
    reasoning: Option<Reasoning>,
    calls: Option<Calls>,
}

/// How a template writes tool calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calls {
    pub name: &'static str,
    /// Texts of which a template's source contains one at least.
    pub seen_in: &'static [&'static str],
    pub markers: &'static [Marker],
    /// Markers that count beside the others where there are tools.
    pub bare: &'static [Marker],
    /// What the end of a prompt opens, and the grammar that then reads the reply's start.
    pub opened_by: Option<(&'static str, NewGrammar)>,
    /// Where markers at a reply's start could be plain text too: a text of the prompt without which they are.
    pub only_with: Option<&'static str>,
}

impl Calls {
    pub const fn new(name: &'static str, seen_in: &'static [&'static str], markers: &'static [Marker]) -> Self {
        Self { name, seen_in, markers, bare: &[], opened_by: None, only_with: None }
    }
}

/// All syntaxes of calls. The first that a template's source shows is its own: narrower ones come before wider ones.
const CALLS: &[Calls] = &[
    harmony::CALLS,
    muse::CALLS,
    solar::CALLS,
    minimax::CALLS,
    invoke::MINIMAX,
    invoke::DSML,
    kimi::CALLS,
    deepseek::CALLS,
    glm::CALLS,
    xml_function::SEED,
    xml_function::CALLS,
    minicpm::CALLS,
    gemma::CALLS,
    pythonic::CALLS,
    mistral::ARGS,
    mistral::LIST,
    marked_json::COMMAND_R7B,
    marked_json::COMMAND_R,
    marked_json::APERTUS,
    marked_json::APRIEL,
    marked_json::PHI,
    marked_json::GRANITE,
    marked_json::GIGACHAT,
    marked_json::FUNCTOOLS,
    marked_json::HERMES,
    functionary::CALLS,
    llama::CALLS,
];

impl ReplySyntax {
    /// The syntax of a chat template, found by what `source`, its Jinja text, contains. A source without any known
    /// marker gives replies that are text from end to end.
    pub fn of_template(source: &str) -> Self {
        let seen = |texts: &[&str]| texts.iter().any(|text| source.contains(text));
        let calls = CALLS.iter().find(|calls| seen(calls.seen_in)).copied();
        let reasoning = reasoning::ALL.iter().find(|r| r.is_in(source)).copied();
        Self { reasoning, calls }
    }

    /// Names of the two parts, such as `think + hermes`; `text` where there is neither.
    pub fn name(&self) -> String {
        let names = [self.reasoning.map(|r| r.name), self.calls.map(|c| c.name)];
        let names: Vec<&str> = names.into_iter().flatten().collect();
        if names.is_empty() { "text".to_owned() } else { names.join(" + ") }
    }

    /// The syntax of this [`name`](Self::name), for formats that have no template; `None` for an unknown name.
    pub fn named(name: &str) -> Option<Self> {
        let mut syntax = Self { reasoning: None, calls: None };
        for part in name.split(" + ").filter(|part| *part != "text") {
            let reasoning = reasoning::ALL.iter().find(|r| r.name == part).copied();
            let calls = CALLS.iter().find(|c| c.name == part).copied();
            if reasoning.is_none() && calls.is_none() {
                return None;
            }
            syntax = Self { reasoning: reasoning.or(syntax.reasoning), calls: calls.or(syntax.calls) };
        }
        Some(syntax)
    }

    /// The mark that closes the reasoning which the end of `prompt` opens, if it does.
    pub fn open_reasoning(&self, prompt: &str) -> Option<&'static str> {
        self.reasoning.filter(|r| r.is_open_after(prompt)).map(|r| r.close)
    }

    /// The marks around reasoning, where there is any.
    pub fn reasoning_marks(&self) -> Option<(&'static str, &'static str)> {
        self.reasoning.map(|r| (r.open, r.close))
    }

    /// What of an answer is behind its reasoning.
    pub(in crate::text) fn behind_reasoning<'a>(&self, answer: &'a str) -> &'a str {
        let behind = self.reasoning.and_then(|r| answer.rsplit_once(r.close));
        behind.map_or(answer, |(_, behind)| behind.trim_start())
    }

    pub(super) fn markers(&self, prompt: &str) -> Vec<Marker> {
        let mut markers = self.reasoning.map(|r| r.markers()).unwrap_or_default();
        if let Some(calls) = self.calls {
            let told = calls.only_with.is_none_or(|text| prompt.contains(text));
            markers.extend(calls.markers.iter().filter(|m| told || m.place != Place::Start));
        }
        markers
    }

    /// Markers that count where there are tools.
    pub(super) fn bare_markers(&self) -> &'static [Marker] {
        self.calls.map_or(&[], |calls| calls.bare)
    }

    pub(super) fn reasoning_after(&self, prompt: &str) -> bool {
        self.reasoning.is_some_and(|r| r.is_open_after(prompt))
    }

    pub(super) fn block_closed_by(&self, prompt: &str) -> bool {
        self.reasoning.is_some_and(|r| r.is_closed_after(prompt))
    }

    pub(super) fn opened_by(&self, prompt: &str) -> Option<NewGrammar> {
        let (end, grammar) = self.calls?.opened_by?;
        prompt.trim_end().ends_with(end).then_some(grammar)
    }
}
