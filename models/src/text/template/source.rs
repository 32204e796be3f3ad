//! The text of a Jinja template before it is compiled: its words, and two constructs that the engine lacks.

use std::collections::HashSet;
use std::ops::Range;

/// The filter that [`prepared`] puts behind the iterable of each loop.
pub(super) const ITERABLE: &str = "iterable_of_a_loop";
/// The filter that [`prepared`] puts behind each value that a variable is set to.
pub(super) const BOUNDED: &str = "value_of_a_variable";

/// Most words, strings and signs of a tag: the engine recurses over chains like `a ~ b ~ c`. Known templates have some
/// hundred.
const MAX_TOKENS: usize = 4096;

/// A part of a template between `{{` and `}}`, or `{%` and `%}`.
struct Tag {
    block: bool,
    n_tokens: usize,
    /// The bytes between the delimiters.
    inside: Range<usize>,
}

/// All tags of `source`, in order, without comments and what stands in raw blocks.
fn tags(source: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut at = 0;
    while let Some(found) = source[at..].find('{') {
        at += found + 1;
        let block = match source.as_bytes().get(at) {
            Some(b'%') => true,
            Some(b'{') => false,
            Some(b'#') => {
                at = source[at..].find("#}").map_or(source.len(), |end| at + end + 2);
                continue;
            }
            _ => continue,
        };
        let start = at + 1;
        let (mut depth, mut n_tokens) = (0_u32, 0);
        let mut end = source.len();
        for token in (Tokens { text: source, at: start }) {
            n_tokens += 1;
            match &source[token.clone()] {
                "%" if block && depth == 0 && source[token.end..].starts_with('}') => {
                    end = token.start;
                    break;
                }
                "}" if !block && depth == 0 && source[token.end..].starts_with('}') => {
                    end = token.start;
                    break;
                }
                "{" | "[" | "(" => depth += 1,
                "}" | "]" | ")" => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        at = (end + 2).min(source.len());
        let inside = start..end;
        if block && source[inside.clone()].trim_matches(['-', '+', ' ', '\n', '\t', '\r']) == "raw" {
            at = source[at..].find("endraw").map_or(source.len(), |end| at + end);
            continue;
        }
        tags.push(Tag { block, n_tokens, inside });
    }
    tags
}

/// The strings, words and single characters of an expression.
struct Tokens<'s> {
    text: &'s str,
    at: usize,
}

impl Iterator for Tokens<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let rest = self.text[self.at..].trim_start();
        let start = self.text.len() - rest.len();
        let first = rest.chars().next()?;
        let len = if first == '\'' || first == '"' {
            let mut escaped = false;
            let close = rest[1..].find(|c| {
                let closes = c == first && !escaped;
                escaped = c == '\\' && !escaped;
                closes
            });
            close.map_or(rest.len(), |at| at + 2)
        } else if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        self.at = start + len;
        Some(start..self.at)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The words of a template: strings in quotes, and the names it uses.
///
/// A template compares with the strings (`part.type == 'text'`), and looks up both in dicts. The user's strings and
/// keys of the same text stay unmarked, so that this works. They can only become part of a control token where the
/// template puts the token's other characters around them.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// In lower case: a template may write `type | upper == 'STRING'`.
    strings: HashSet<String>,
    names: HashSet<String>,
}

impl Words {
    /// The words of `source`.
    pub(super) fn of(source: &str) -> Self {
        let mut words = Self::default();
        for tag in tags(source) {
            let inside = &source[tag.inside];
            for token in (Tokens { text: inside, at: 0 }) {
                let token = &inside[token];
                if token.starts_with(['\'', '"']) {
                    let string = token[1..].strip_suffix(&token[..1]).unwrap_or(&token[1..]);
                    // A whole control token, or a bracket of one, is never left to the user.
                    if !string.contains(['<', '>', '[', ']', '{', '}', '|', '｜', '\\']) {
                        words.strings.insert(string.to_lowercase());
                    }
                } else if token.starts_with(is_word) {
                    words.names.insert(token.to_owned());
                }
            }
        }
        words
    }

    /// Whether `text` is one of the strings.
    pub(super) fn has_string(&self, text: &str) -> bool {
        self.strings.contains(&text.to_lowercase())
    }

    /// Whether `text` is one of the names.
    pub(super) fn has_name(&self, text: &str) -> bool {
        self.names.contains(text)
    }
}

/// The text for the engine. The tags by which transformers finds an assistant's tokens for training become `if true`,
/// which treats the white space around them alike. The iterable of each loop goes through the filter [`ITERABLE`], and
/// what variables are set to through [`BOUNDED`].
///
/// # Errors
/// Says what is wrong with a tag that the engine should not see.
pub(super) fn prepared(source: &str) -> Result<String, String> {
    let mut out = String::with_capacity(source.len() + 256);
    let mut done = 0;
    let tags = tags(source);
    if let Some(tag) = tags.iter().find(|tag| tag.n_tokens > MAX_TOKENS) {
        let line = source[..tag.inside.start].matches('\n').count() + 1;
        return Err(format!("line {line}: the tag has {} parts, and {MAX_TOKENS} are the most", tag.n_tokens));
    }
    for tag in tags.into_iter().filter(|tag| tag.block) {
        let mut words = Tokens { text: &source[..tag.inside.end], at: tag.inside.start };
        // A sign for the white space may stand before the word.
        let word = words.find(|word| !matches!(&source[word.clone()], "-" | "+"));
        let Some(word) = word else { continue };
        let replaced = match &source[word.clone()] {
            "generation" => "if true",
            "endgeneration" => "endif",
            keyword @ ("for" | "set") => {
                let (after, filter) = if keyword == "for" { ("in", ITERABLE) } else { ("=", BOUNDED) };
                if let Some(value) = value(source, words, after) {
                    out.push_str(&source[done..value.start]);
                    out.push('(');
                    out.push_str(&source[value.clone()]);
                    out.push_str(")|");
                    out.push_str(filter);
                    done = value.end;
                }
                continue;
            }
            _ => continue,
        };
        out.push_str(&source[done..word.start]);
        out.push_str(replaced);
        done = word.end;
    }
    out.push_str(&source[done..]);
    Ok(out)
}

/// The expression behind the word or sign `after`, in the tag of a loop or a variable with these tokens.
fn value(source: &str, tokens: Tokens<'_>, after: &str) -> Option<Range<usize>> {
    let mut depth = 0_u32;
    let mut found = false;
    let mut whole: Option<Range<usize>> = None;
    for token in tokens {
        match &source[token.clone()] {
            word if !found && depth == 0 && word == after => {
                found = true;
                continue;
            }
            "if" | "recursive" if found && depth == 0 && after == "in" => break,
            // The sign for the white space behind the tag is no part of it.
            "-" | "+" if source[token.end..].starts_with("%}") => break,
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if found {
            whole = Some(whole.map_or(token.clone(), |whole| whole.start..token.end));
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_and_generation_tags_are_rewritten() {
        for (source, text) in [
            ("{% for x in xs %}a{% endfor %}", "{% for x in (xs)|F %}a{% endfor %}"),
            ("{%- for k, v in d['in'].items() if v -%}", "{%- for k, v in (d['in'].items())|F if v -%}"),
            ("{% for x in [a if b else c]-%}", "{% for x in ([a if b else c])|F-%}"),
            ("{%for x in a, b recursive%}", "{%for x in (a, b)|F recursive%}"),
            ("{% for x in '%}' ~ \"\\\"%}\" %}", "{% for x in ('%}' ~ \"\\\"%}\")|F %}"),
            ("{# {% for x in xs %} #}{% raw %}{% for x in xs %}{% endraw %}", ""),
            ("{{ {'a': {}} }}{% for x in xs %}", "{{ {'a': {}} }}{% for x in (xs)|F %}"),
            ("{%- generation +%}x{% endgeneration -%}", "{%- if true +%}x{% endif -%}"),
            ("{% set for_x = 'for x in xs' %}{ {% for", "{% set for_x = ('for x in xs')|B %}{ {% for"),
            ("{%- set ns.x = a == b if c -%}", "{%- set ns.x = (a == b if c)|B -%}"),
            (
                "{% set a, b = 1, f(x=2) %}{% set c %}d{% endset %}",
                "{% set a, b = (1, f(x=2))|B %}{% set c %}d{% endset %}",
            ),
            (
                "{% set c | indent(width=2) %}d{% endset %}{% for (a, b) in c %}",
                "{% set c | indent(width=2) %}d{% endset %}{% for (a, b) in (c)|F %}",
            ),
            ("{% for x in", ""),
        ] {
            let text = if text.is_empty() { source } else { text };
            assert_eq!(prepared(source).unwrap().replace(ITERABLE, "F").replace(BOUNDED, "B"), text);
        }
    }

    #[test]
    fn words_are_those_of_the_code() {
        let words = Words::of("role {{ a.b == 'text' }} {% set x = \"a[b\" ~ '<|x|>' ~ d[\"k-1\"] %}{# no 'y' #}");
        let sorted = |words: HashSet<String>| {
            let mut words: Vec<_> = words.into_iter().collect();
            words.sort_unstable();
            words
        };
        assert_eq!(sorted(words.strings), ["k-1", "text"]);
        assert_eq!(sorted(words.names), ["a", "b", "d", "set", "x"]);
    }

    #[test]
    fn long_chains_do_not_reach_the_engine() {
        let fault = prepared(&format!("\n{{{{ 1{} }}}}", " ~ 1".repeat(MAX_TOKENS))).unwrap_err();
        assert!(fault.starts_with("line 2: the tag has"), "{fault}");
    }
}
