//! The parser: text, reasoning and whatever a grammar reads, one character at a time.

use std::collections::VecDeque;

use serde_json::Value;

use super::call::{Call, Grammar, Step};
use super::lexer::{Lexer, Piece, Progress};
use super::markers::{Action, Marker, Place};
use super::values::ToolTypes;
use super::{ReplyEvent, ReplySyntax};

/// Where the answer stands. It decides what becomes of spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    /// Nothing came yet.
    ReplyStart,
    /// Reasoning or a call came, and no text since.
    AfterBlock,
    /// Text came.
    Running,
}

/// A construct at hand.
#[derive(Debug)]
struct Construct {
    grammar: Box<dyn Grammar>,
    lexer: Lexer,
    /// All text since the opening marker or the last complete call.
    source: String,
    /// Spaces of the answer in front of `source`.
    space: String,
    /// Whether it held a call.
    called: bool,
}

/// Takes a streamed reply apart into [`ReplyEvent`]s.
///
/// Push the reply's text as it is decoded, with control tokens visible and without the token that ended the turn; then
/// call [`finish`](Self::finish) once. All work is proportional to the text, whatever a model writes.
#[derive(Debug)]
pub struct ReplyParser {
    markers: Vec<Marker>,
    /// Markers that count once tools are known.
    bare: &'static [Marker],
    types: ToolTypes,
    reasoning: bool,
    lead: Lead,
    /// Whether one space at the reply's start belongs to the prompt: see [`new`](Self::new).
    drop_space: bool,
    /// Spaces not given out: a marker or the reply's end may follow.
    space: String,
    /// May become a marker.
    held: String,
    construct: Option<Construct>,
    /// Characters to read again after a construct failed, before all further ones.
    again: VecDeque<char>,
    calls: usize,
}

impl ReplyParser {
    /// A parser of the reply to `prompt`, a rendered prompt. Only its end matters: it may have opened a reasoning block
    /// or a heading, or closed one. Where it ends without white space, as `Assistant:` does, the reply's first space is
    /// not part of the answer.
    pub fn new(syntax: &ReplySyntax, prompt: &str) -> Self {
        let reasoning = syntax.reasoning_after(prompt);
        let after_block = reasoning || syntax.block_closed_by(prompt);
        let mut parser = Self {
            markers: syntax.markers(prompt),
            bare: syntax.bare_markers(),
            types: ToolTypes::default(),
            reasoning,
            lead: if after_block { Lead::AfterBlock } else { Lead::ReplyStart },
            drop_space: !prompt.is_empty() && !prompt.ends_with(char::is_whitespace),
            space: String::new(),
            held: String::new(),
            construct: None,
            again: VecDeque::new(),
            calls: 0,
        };
        if let Some(grammar) = syntax.opened_by(prompt) {
            parser.open(grammar(), String::new());
        }
        parser
    }

    /// Tells the types of the tools' parameters, as in a request's `tools` (JSON Schema). Syntaxes that write all
    /// values as bare text (Qwen3-Coder, GLM, MiniMax, Seed and their like) need them to tell the text `5` from the
    /// number; without them a value that reads as JSON is JSON. Tools of an unknown form are left out. Syntaxes of the
    /// Hermes family take JSON without its markers for a call of a tool that is among them.
    pub fn with_tools(mut self, tools: &[Value]) -> Self {
        self.types = ToolTypes::of(tools);
        if !tools.is_empty() {
            self.markers.extend(std::mem::take(&mut self.bare));
        }
        self
    }

    /// Takes more of the reply and appends what it decides to `out`. Text is joined to an event of the same kind that
    /// `out` ends with.
    pub fn push(&mut self, text: &str, out: &mut Vec<ReplyEvent>) {
        for c in text.chars() {
            self.step(c, out);
            while let Some(c) = self.again.pop_front() {
                self.step(c, out);
            }
        }
    }

    /// Ends the reply: what was held back comes out, an incomplete call as text.
    ///
    /// `complete` says that the model itself ended its turn. Code that a model hands to a tool has no other end, so it
    /// is a call only then; code that a limit or the user cut off is text.
    pub fn finish(&mut self, complete: bool, out: &mut Vec<ReplyEvent>) {
        if let Some(mut construct) = self.construct.take() {
            match construct.lexer.end().filter(|_| complete) {
                Some(piece) => self.take_piece(construct, piece, out),
                None => self.give_back(construct, out),
            }
        }
        if let Some(construct) = self.construct.take() {
            self.give_back(construct, out);
        }
        for c in std::mem::take(&mut self.held).chars() {
            self.emit(c, out);
        }
        if !self.reasoning && self.lead != Lead::AfterBlock {
            let space = std::mem::take(&mut self.space);
            push_text(&space, false, out);
        }
        self.space.clear();
    }

    fn step(&mut self, c: char, out: &mut Vec<ReplyEvent>) {
        match self.construct.take() {
            Some(construct) => self.step_construct(construct, c, out),
            None => self.step_text(c, out),
        }
    }

    /// A character outside of constructs.
    fn step_text(&mut self, c: char, out: &mut Vec<ReplyEvent>) {
        self.held.push(c);
        loop {
            let mut begins = false;
            let mut whole = None;
            for marker in self.markers.iter().filter(|m| self.counts(m.place)) {
                match marker.text.strip_prefix(self.held.as_str()) {
                    Some("") => whole = whole.or(Some(*marker)),
                    Some(_) => begins = true,
                    None => {}
                }
            }
            if let Some(marker) = whole {
                self.held.clear();
                return self.act(marker);
            }
            if begins {
                return;
            }
            let first = self.held.remove(0);
            self.emit(first, out);
            if self.held.is_empty() {
                return;
            }
        }
    }

    /// Whether a marker of this place counts here.
    fn counts(&self, place: Place) -> bool {
        match place {
            Place::Anywhere => true,
            Place::Reasoning => self.reasoning,
            Place::Text => !self.reasoning,
            Place::Start => !self.reasoning && self.lead != Lead::Running,
        }
    }

    fn act(&mut self, marker: Marker) {
        match marker.action {
            Action::BeginReasoning => self.turn(true),
            Action::EndReasoning | Action::Drop => self.turn(false),
            Action::Open(grammar) => self.open(grammar(), marker.text.to_owned()),
        }
    }

    /// Goes on with reasoning or with the answer, after a block.
    fn turn(&mut self, reasoning: bool) {
        self.reasoning = reasoning;
        self.lead = Lead::AfterBlock;
        self.space.clear();
    }

    fn open(&mut self, mut grammar: Box<dyn Grammar>, source: String) {
        let lexer = Lexer::new(grammar.begin());
        let space = std::mem::take(&mut self.space);
        self.construct = Some(Construct { grammar, lexer, source, space, called: false });
    }

    fn step_construct(&mut self, mut construct: Construct, c: char, out: &mut Vec<ReplyEvent>) {
        construct.source.push(c);
        let piece = match construct.lexer.push(c) {
            Progress::More => {
                self.construct = Some(construct);
                return;
            }
            Progress::Fail(unread) => {
                // The end of the source may begin another marker: it is read again, and is never longer than a literal.
                let tail = construct.source.split_off(construct.source.len().saturating_sub(unread));
                tail.chars().rev().for_each(|c| self.again.push_front(c));
                return self.give_back(construct, out);
            }
            Progress::Piece(piece) => piece,
        };
        self.take_piece(construct, piece, out);
    }

    /// Hands a piece to the grammar, and does what that makes of it.
    fn take_piece(&mut self, mut construct: Construct, piece: Piece, out: &mut Vec<ReplyEvent>) {
        let mut calls = Vec::new();
        let step = construct.grammar.next(piece, &self.types, &mut calls);
        if !calls.is_empty() {
            calls.into_iter().for_each(|call| self.emit_call(call, out));
            self.turn(false);
            construct.called = true;
            construct.source.clear();
            construct.space.clear();
        }
        match step {
            Step::Want(want) => {
                construct.lexer = Lexer::new(want);
                self.construct = Some(construct);
            }
            Step::Done if construct.called => {}
            Step::Done | Step::Fail => self.give_back(construct, out),
            Step::Text => self.turn(false),
            Step::Reasoning => self.turn(true),
        }
    }

    /// Gives out the source of a construct that failed.
    fn give_back(&mut self, construct: Construct, out: &mut Vec<ReplyEvent>) {
        self.space = construct.space;
        for c in construct.source.chars() {
            self.emit(c, out);
        }
    }

    fn emit_call(&mut self, call: Call, out: &mut Vec<ReplyEvent>) {
        let index = self.calls;
        self.calls += 1;
        out.push(ReplyEvent::CallBegins { index, name: call.name, id: call.id });
        out.push(ReplyEvent::CallArguments { index, json: call.arguments });
        out.push(ReplyEvent::CallEnds { index });
    }

    /// Gives out a character of text or reasoning; a space only once it is known to stay.
    fn emit(&mut self, c: char, out: &mut Vec<ReplyEvent>) {
        if std::mem::take(&mut self.drop_space) && c == ' ' && self.lead == Lead::ReplyStart {
            return;
        }
        if c.is_whitespace() && !self.markers.is_empty() {
            if self.lead != Lead::AfterBlock {
                self.space.push(c);
            }
            return;
        }
        self.lead = Lead::Running;
        if !self.space.is_empty() {
            push_text(&self.space, self.reasoning, out);
            self.space.clear();
        }
        push_text(c.encode_utf8(&mut [0; 4]), self.reasoning, out);
    }
}

#[cfg(test)]
impl ReplyParser {
    /// The texts of all markers.
    pub(super) fn markers(&self) -> impl Iterator<Item = &'static str> {
        self.markers.iter().map(|m| m.text)
    }

    /// The texts of markers that give no text.
    pub(super) fn dropped(&self) -> impl Iterator<Item = &'static str> {
        self.markers.iter().filter(|m| !matches!(m.action, Action::Open(_))).map(|m| m.text)
    }
}

/// Appends text or reasoning, to the last event where that is of the same kind.
fn push_text(text: &str, reasoning: bool, out: &mut Vec<ReplyEvent>) {
    match out.last_mut() {
        Some(ReplyEvent::Text(last)) if !reasoning => last.push_str(text),
        Some(ReplyEvent::Reasoning(last)) if reasoning => last.push_str(text),
        _ if text.is_empty() => {}
        _ if reasoning => out.push(ReplyEvent::Reasoning(text.to_owned())),
        _ => out.push(ReplyEvent::Text(text.to_owned())),
    }
}
