//! Grammars as llama.cpp writes them (GBNF), rewritten to Lark. Both are context-free; GBNF has no lexemes, so each character
//! class becomes a lexeme of one character.
//!
//! ```text
//! root  ::= item ("," item)*        start: rule_0
//! item  ::= [a-z]+ | "\""      →    rule_0: rule_1 ("," rule_1)*
//!                                   rule_1: /[\x{61}-\x{7a}]/+ | "\""
//! ```
//!
//! Source of the syntax: grammars/README.md of llama.cpp.

use std::{collections::HashMap, fmt::Write as _, iter::Peekable, str::Chars};

use serde_json::Value;

use super::ConstraintError;

/// Groups may be nested so deep.
const DEPTH: usize = 64;

/// The grammar in Lark.
///
/// # Errors
/// What is no such grammar, with the line.
pub(super) fn to_lark(grammar: &str) -> Result<String, ConstraintError> {
    let mut reader = Reader { chars: grammar.chars().peekable(), line: 1, names: HashMap::new() };
    let (mut rules, mut defined) = (String::new(), Vec::new());
    reader.skip(true);
    while reader.peek().is_some() {
        let name = reader.name()?;
        reader.skip(false);
        reader.expect("::=")?;
        let number = reader.number(&name);
        if defined.contains(&number) {
            return Err(reader.error(&format!("a second rule {name:?}")));
        }
        defined.push(number);
        reader.skip(true);
        let mut body = String::new();
        reader.alternatives(&mut body, 0)?;
        // Writing to a string does not fail.
        let _ = writeln!(rules, "rule_{number}: {body}");
        if !matches!(reader.peek(), None | Some('\n')) {
            return Err(reader.unexpected());
        }
        reader.skip(true);
    }
    let Some(root) = reader.names.get("root").copied().filter(|root| defined.contains(root)) else {
        return Err(ConstraintError::Grammar("the grammar has no rule \"root\"".to_owned()));
    };
    if let Some((name, _)) = reader.names.iter().find(|(_, number)| !defined.contains(number)) {
        return Err(ConstraintError::Grammar(format!("the grammar has no rule {name:?}, to which another refers")));
    }
    Ok(format!("start: rule_{root}\n{rules}"))
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
    /// Numbers of the rules: names in Lark may have fewer characters.
    names: HashMap<String, usize>,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn error(&self, what: &str) -> ConstraintError {
        ConstraintError::Grammar(format!("line {} of the grammar: {what}", self.line))
    }

    fn unexpected(&mut self) -> ConstraintError {
        match self.peek() {
            Some('<' | '!') => self.error("references to tokens are not supported"),
            Some(c) => self.error(&format!("{c:?} is unexpected here")),
            None => self.error("the grammar ends too early"),
        }
    }

    fn expect(&mut self, text: &str) -> Result<(), ConstraintError> {
        for c in text.chars() {
            if self.peek() != Some(c) {
                return Err(self.unexpected());
            }
            self.next();
        }
        Ok(())
    }

    /// Skips spaces and comments; with `lines` also ends of lines.
    fn skip(&mut self, lines: bool) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => {}
                Some('\n') if lines => {}
                Some('#') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.next();
                    }
                    continue;
                }
                _ => return,
            }
            self.next();
        }
    }

    fn name(&mut self) -> Result<String, ConstraintError> {
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
            name.push(c);
            self.next();
        }
        if name.is_empty() { Err(self.unexpected()) } else { Ok(name) }
    }

    fn number(&mut self, name: &str) -> usize {
        let next = self.names.len();
        *self.names.entry(name.to_owned()).or_insert(next)
    }

    fn alternatives(&mut self, out: &mut String, depth: usize) -> Result<(), ConstraintError> {
        if depth > DEPTH {
            return Err(self.error(&format!("groups are nested more than {DEPTH} deep")));
        }
        self.sequence(out, depth)?;
        while self.peek() == Some('|') {
            self.next();
            self.skip(true);
            out.push_str(" | ");
            self.sequence(out, depth)?;
        }
        Ok(())
    }

    fn sequence(&mut self, out: &mut String, depth: usize) -> Result<(), ConstraintError> {
        let start = out.len();
        loop {
            let mut item = String::new();
            match self.peek() {
                Some('"') => {
                    let text = self.literal()?;
                    item.push_str(&Value::from(text).to_string());
                }
                Some('[') => self.class(&mut item)?,
                Some('.') => {
                    self.next();
                    item.push_str(r"/[\x{0}-\x{10FFFF}]/");
                }
                Some('(') => {
                    self.next();
                    self.skip(true);
                    item.push('(');
                    self.alternatives(&mut item, depth + 1)?;
                    self.skip(true);
                    self.expect(")")?;
                    item.push(')');
                }
                Some(c) if c.is_ascii_alphanumeric() || c == '_' => {
                    let name = self.name()?;
                    let _ = write!(item, "rule_{}", self.number(&name));
                }
                _ => break,
            }
            self.skip(depth > 0);
            self.repetitions(&mut item)?;
            if out.len() > start {
                out.push(' ');
            }
            out.push_str(&item);
            self.skip(depth > 0);
        }
        if out.len() == start {
            out.push_str("\"\"");
        }
        Ok(())
    }

    /// What says how often an item comes; several of them nest.
    fn repetitions(&mut self, item: &mut String) -> Result<(), ConstraintError> {
        let mut repeated = false;
        while let Some(c @ ('*' | '+' | '?' | '{')) = self.peek() {
            if repeated {
                *item = format!("({item})");
            }
            repeated = true;
            self.next();
            if c != '{' {
                item.push(c);
                self.skip(false);
                continue;
            }
            self.skip(false);
            let least = self.count()?;
            self.skip(false);
            let most = if self.peek() == Some(',') {
                self.next();
                self.skip(false);
                self.count()?
            } else {
                least
            };
            self.skip(false);
            self.expect("}")?;
            let _ = match (least, most) {
                (None, None) => return Err(self.error("a repetition without numbers")),
                (least, Some(most)) => write!(item, "{{{},{most}}}", least.unwrap_or(0)),
                (Some(least), None) => write!(item, "{{{least},}}"),
            };
            self.skip(false);
        }
        Ok(())
    }

    fn count(&mut self) -> Result<Option<u32>, ConstraintError> {
        let mut digits = String::new();
        while let Some(c) = self.peek().filter(char::is_ascii_digit) {
            digits.push(c);
            self.next();
        }
        match digits.parse() {
            _ if digits.is_empty() => Ok(None),
            Ok(n) => Ok(Some(n)),
            Err(_) => Err(self.error(&format!("{digits} repetitions are too many"))),
        }
    }

    fn literal(&mut self) -> Result<String, ConstraintError> {
        self.expect("\"")?;
        let mut text = String::new();
        while self.peek() != Some('"') {
            text.push(self.character()?);
        }
        self.next();
        Ok(text)
    }

    /// A class of characters, as a lexeme.
    fn class(&mut self, out: &mut String) -> Result<(), ConstraintError> {
        self.expect("[")?;
        out.push_str("/[");
        if self.peek() == Some('^') {
            self.next();
            out.push('^');
        }
        let empty = out.len();
        while self.peek() != Some(']') {
            let first = self.character()?;
            let _ = write!(out, r"\x{{{:x}}}", u32::from(first));
            if self.peek() == Some('-') {
                self.next();
                // Before the end it stands for itself.
                let last = if self.peek() == Some(']') { None } else { Some(self.character()?) };
                let _ = match last {
                    Some(last) if last < first => {
                        return Err(self.error(&format!("a range from {first:?} to {last:?}")));
                    }
                    Some(last) => write!(out, r"-\x{{{:x}}}", u32::from(last)),
                    None => write!(out, r"\x{{2d}}"),
                };
            }
        }
        self.next();
        if out.len() == empty {
            return Err(self.error("a class without characters"));
        }
        out.push_str("]/");
        Ok(())
    }

    /// A character of a literal or a class, perhaps escaped.
    fn character(&mut self) -> Result<char, ConstraintError> {
        let Some(c) = self.next() else { return Err(self.unexpected()) };
        if c != '\\' {
            return Ok(c);
        }
        match self.next() {
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some(c @ ('\\' | '"' | '[' | ']' | '-' | '^' | '/')) => Ok(c),
            Some('x') => self.code_point(2),
            Some('u') => self.code_point(4),
            Some('U') => self.code_point(8),
            Some(c) => Err(self.error(&format!("the escape \\{c}"))),
            None => Err(self.unexpected()),
        }
    }

    fn code_point(&mut self, digits: usize) -> Result<char, ConstraintError> {
        let text: String = (0..digits).map_while(|_| self.next()).collect();
        let code = u32::from_str_radix(&text, 16).ok().filter(|_| text.len() == digits);
        code.and_then(char::from_u32).ok_or_else(|| self.error(&format!("no character has the code {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_rules() {
        let lark = to_lark(concat!(
            "root ::= item (\",\" item)* # end\n",
            "item-x ::= [^a-z\\]]{2,3} |\n  \"\\\"\" | .\n\n",
            "item ::= item-x? ( \"a\"\n  \"b\" )+ | \n",
        ));
        let want = concat!(
            "start: rule_0\n",
            "rule_0: rule_1 (\",\" rule_1)*\n",
            "rule_2: /[^\\x{61}-\\x{7a}\\x{5d}]/{2,3} | \"\\\"\" | /[\\x{0}-\\x{10FFFF}]/\n",
            "rule_1: rule_2? (\"a\" \"b\")+ | \"\"\n",
        );
        assert_eq!(lark.unwrap(), want);
    }

    #[test]
    fn what_is_no_grammar_is_told_with_its_line() {
        for (bad, what) in [
            ("", "no rule \"root\""),
            ("root", "ends too early"),
            ("root ::= x", "no rule \"x\""),
            ("a ::= \"b\"", "no rule \"root\""),
            ("\nroot ::= [z-a]", "line 2 of the grammar: a range"),
            ("root ::= \"a", "ends too early"),
            ("root ::= (\"a\"", "ends too early"),
            ("root ::= <[10]>", "references to tokens"),
            ("root ::= \"a\"{}", "without numbers"),
            ("root ::= \"a\"{99999999999}", "too many"),
            ("root ::= \"\\q\"", "escape"),
            ("root ::= \"\\uD800\"", "no character"),
            ("root ::= []", "without characters"),
            ("root ::= \"a\"\nroot ::= \"b\"", "line 2 of the grammar: a second rule"),
        ] {
            let error = to_lark(bad).unwrap_err().to_string();
            assert!(error.contains(what), "{bad:?}: {error}");
        }
        let deep = format!("root ::= {}\"a\"{}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(to_lark(&deep).unwrap_err().to_string().contains("nested"));
    }
}
