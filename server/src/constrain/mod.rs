//! Answers that follow a grammar: which tokens may come next, token by token, through the crate llguidance.
//!
//! A [`Grammars`] is made once a model, a [`Mask`] once an answer. The mask of the next token depends on the tokens chosen so
//! far alone, so it can be made while a step runs that chooses for others.

mod calls;
mod gbnf;
mod mask;
mod vocabulary;

use std::sync::Arc;

use handmill_models::text::Tokenizer;
use llguidance::{
    Matcher, ParserFactory,
    api::{GrammarWithLexer, TopLevelGrammar},
    toktrie::InferenceCapabilities,
};
use serde_json::{Value, json};

pub use calls::Calls;
pub use mask::{Mask, Reasoning};

/// The form that an answer must have.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema describes. References to other documents are refused.
    JsonSchema(Value),
    /// Text that a regular expression matches as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A grammar in llguidance's variant of Lark; its first rule is `start`.
    Lark(String),
    /// A grammar as llama.cpp writes them; its first rule is `root`.
    Gbnf(String),
    /// Calls of tools.
    Calls(Box<Calls>),
}

/// A constraint that cannot be followed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// A grammar, schema or expression that cannot be read, or that is too large.
    #[error("{0}")]
    Grammar(String),
    /// A choice among no texts or tools.
    #[error("there is nothing to choose from")]
    NoChoice,
    /// A reference out of a schema to another document.
    #[error("the schema refers to {0:?}, and references to other documents are not followed")]
    ForeignReference(String),
    /// An answer that the grammar does not allow, or whose grammar takes too long.
    #[error("the grammar cannot go on: {0}")]
    Stuck(String),
    /// A tokenizer whose vocabulary cannot be used.
    #[error("this model's vocabulary cannot be constrained: {0}")]
    Vocabulary(String),
}

/// Makes masks for one tokenizer.
pub struct Grammars {
    factory: ParserFactory,
    tokenizer: Arc<Tokenizer>,
    controls: Vec<(String, u32)>,
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

impl Grammars {
    /// Reads the vocabulary; `n_vocab` are the tokens that the model has logits for.
    ///
    /// # Errors
    /// A vocabulary without an end of turn.
    pub fn new(tokenizer: &Arc<Tokenizer>, n_vocab: usize) -> Result<Self, ConstraintError> {
        let vocabulary = vocabulary::Vocabulary::new(tokenizer.clone(), n_vocab)?;
        let controls = vocabulary.controls();
        let of_factory = |e: &dyn std::fmt::Display| ConstraintError::Vocabulary(e.to_string());
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&vocabulary.shared(), InferenceCapabilities::default(), &slices)
            .map_err(|e| of_factory(&e))?;
        factory.quiet();
        // Its errors would repeat the answer so far, which belongs in no log.
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory, tokenizer: tokenizer.clone(), controls })
    }

    /// The masks of an answer, in front of which there may be reasoning of any form.
    ///
    /// # Errors
    /// A constraint that cannot be read.
    pub fn mask(&self, constraint: &Constraint, reasoning: &Reasoning) -> Result<Mask, ConstraintError> {
        let parser = self.factory.create_parser(self.grammar(constraint)?).map_err(|e| grammar_error(&e))?;
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(error) => Err(ConstraintError::Grammar(first_line(&error))),
            None => Ok(Mask::new(matcher, self.tokenizer.clone(), reasoning)),
        }
    }

    fn grammar(&self, constraint: &Constraint) -> Result<TopLevelGrammar, ConstraintError> {
        Ok(match constraint {
            Constraint::JsonObject => TopLevelGrammar::from_json_schema(spaced(json!({ "type": "object" }))),
            Constraint::JsonSchema(schema) => {
                if let Some(foreign) = foreign_reference(schema) {
                    return Err(ConstraintError::ForeignReference(foreign.to_owned()));
                }
                TopLevelGrammar::from_json_schema(spaced(schema.clone()))
            }
            Constraint::Regex(expression) => TopLevelGrammar::from_regex(expression),
            Constraint::Choice(texts) if texts.is_empty() => return Err(ConstraintError::NoChoice),
            Constraint::Choice(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
                TopLevelGrammar::from_grammar(GrammarWithLexer::from_lark(format!("start: {}", texts.join(" | "))))
            }
            Constraint::Lark(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
            Constraint::Gbnf(grammar) => TopLevelGrammar::from_lark(gbnf::to_lark(grammar)?),
            Constraint::Calls(calls) => TopLevelGrammar::from_lark(calls::to_lark(calls, &self.controls)?),
        })
    }
}

/// The schema with few spaces between the parts of JSON: a small model might never end them.
fn spaced(mut schema: Value) -> Value {
    if let Value::Object(map) = &mut schema {
        map.insert("x-guidance".to_owned(), json!({ "whitespace_pattern": r"[ \n]{1,20}" }));
    }
    schema
}

/// A `$ref` that is not within its own document.
fn foreign_reference(schema: &Value) -> Option<&str> {
    match schema {
        Value::Object(map) => map.iter().find_map(|(key, value)| match (key.as_str(), value) {
            ("$ref", Value::String(to)) if !to.starts_with('#') => Some(to.as_str()),
            // These hold values, not schemas.
            ("const" | "enum" | "default" | "examples", _) => None,
            _ => foreign_reference(value),
        }),
        Value::Array(items) => items.iter().find_map(foreign_reference),
        _ => None,
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn grammar_error(error: &dyn std::fmt::Display) -> ConstraintError {
    ConstraintError::Grammar(first_line(&error.to_string()))
}

#[cfg(test)]
mod tests;
