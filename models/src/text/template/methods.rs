//! The methods of Python's strings, dicts and lists that templates call.

use std::ops::Range;

use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

use super::marks::{self, Marked};
use super::python::{failed, str_of};

/// Calls the method `name` of `value`.
pub(super) fn call(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => string(state, value.as_str().unwrap_or_default(), name, args),
        ValueKind::Map => dict(value, name, args),
        ValueKind::Seq | ValueKind::Iterable => list(value, name, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// A string argument without its marks.
fn plain(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(marks::removed(text).into_owned()),
        None => Err(failed(format!("a string is needed here, not a {}", value.kind()))),
    }
}

fn dict(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let pairs = || -> Result<Vec<(Value, Value)>, Error> {
        value.try_iter()?.map(|key| Ok((key.clone(), value.get_item(&key)?))).collect()
    };
    match name {
        "items" | "keys" | "values" => {
            let () = from_args(args)?;
            Ok(match name {
                "keys" => value.try_iter()?.collect(),
                "values" => pairs()?.into_iter().map(|(_, value)| value).collect(),
                _ => pairs()?.into_iter().map(|(key, value)| Value::from(Tuple::from(vec![key, value]))).collect(),
            })
        }
        "get" => {
            let (key, default): (Value, Option<Value>) = from_args(args)?;
            let found = value.get_item(&key)?;
            Ok(if found.is_undefined() { default.unwrap_or_else(|| Value::from(())) } else { found })
        }
        "copy" => Ok(value.clone()),
        "update" | "pop" | "popitem" | "clear" | "setdefault" => Err(unchangeable(name, "dict")),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn list(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "index" | "count" => {
            let (wanted,): (Value,) = from_args(args)?;
            let mut found = value.try_iter()?.enumerate().filter(|(_, item)| *item == wanted).map(|(at, _)| at);
            match name {
                "count" => Ok(Value::from(found.count())),
                _ => found.next().map(Value::from).ok_or_else(|| failed("the list has no such item")),
            }
        }
        "copy" => Ok(value.clone()),
        "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort" | "reverse" => {
            Err(unchangeable(name, "list"))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// The sandbox of transformers lets no template change a value.
fn unchangeable(name: &str, of: &str) -> Error {
    failed(format!("templates may not change a {of}, and `{name}` does"))
}

fn string(state: &mut State<'_, '_>, value: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    // Each pass over the text has its price, as the engine's own have.
    state.consume_fuel(value.len() as u64 / 64)?;
    let read = Marked::read(value);
    let text = &*read.text;
    let part = |range: Range<usize>| Value::from(read.part(range));
    Ok(match name {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<Value>,) = from_args(args)?;
            let chars = chars.filter(|chars| !chars.is_none()).map(|chars| plain(&chars)).transpose()?;
            part(stripped(text, name != "rstrip", name != "lstrip", chars.as_deref()))
        }
        "split" | "rsplit" => {
            let (separator, limit, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.map_or_else(|| kwargs.get("sep"), |separator| Ok(Some(separator)))?;
            let limit = limit.map_or_else(|| kwargs.get("maxsplit"), |limit| Ok(Some(limit)))?;
            kwargs.assert_all_used()?;
            let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
            let separator = separator.filter(|s| !s.is_none()).map(|s| plain(&s)).transpose()?;
            if separator.as_deref() == Some("") {
                return Err(failed("an empty separator cannot split a string"));
            }
            let ranges = split(text, separator.as_deref(), limit, name == "rsplit");
            ranges.into_iter().map(part).collect()
        }
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            lines(text, keep.unwrap_or(false)).into_iter().map(part).collect()
        }
        "partition" | "rpartition" => {
            let (separator,): (Value,) = from_args(args)?;
            let separator = plain(&separator)?;
            let found = if name == "partition" { text.find(&separator) } else { text.rfind(&separator) };
            let (end, start) = match found {
                Some(at) => (at, at + separator.len()),
                None if name == "partition" => (text.len(), text.len()),
                None => (0, 0),
            };
            Value::from(Tuple::from(vec![part(0..end), part(end..start), part(start..text.len())]))
        }
        "startswith" | "endswith" => {
            let (wanted,): (Value,) = from_args(args)?;
            let fits = |wanted: &Value| {
                let wanted = plain(wanted)?;
                Ok::<_, Error>(if name == "startswith" { text.starts_with(&wanted) } else { text.ends_with(&wanted) })
            };
            let fits = match wanted.kind() {
                ValueKind::Seq => wanted.try_iter()?.map(|wanted| fits(&wanted)).collect::<Result<Vec<_>, _>>()?,
                _ => vec![fits(&wanted)?],
            };
            Value::from(fits.contains(&true))
        }
        "removeprefix" | "removesuffix" => {
            let (affix,): (Value,) = from_args(args)?;
            let affix = plain(&affix)?;
            match name {
                "removeprefix" if text.starts_with(&affix) => part(affix.len()..text.len()),
                "removesuffix" if text.ends_with(&affix) => part(0..text.len() - affix.len()),
                _ => part(0..text.len()),
            }
        }
        "replace" => {
            let (from, to, count): (Value, Value, Option<i64>) = from_args(args)?;
            replace(state, &read, &from, &to, count)?
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let (wanted,): (Value,) = from_args(args)?;
            let wanted = plain(&wanted)?;
            let found = if name.starts_with('r') { text.rfind(&wanted) } else { text.find(&wanted) };
            match (name, found) {
                ("count", _) => Value::from(text.matches(&wanted).count()),
                (_, Some(at)) => Value::from(text[..at].chars().count()),
                ("find" | "rfind", None) => Value::from(-1),
                _ => return Err(failed(format!("the string has no {wanted:?}"))),
            }
        }
        "join" => {
            let (items,): (Value,) = from_args(args)?;
            let mut out = String::new();
            for (n, item) in items.try_iter()?.enumerate() {
                let item = item.as_str().ok_or_else(|| failed("join needs strings"))?;
                state.consume_fuel((item.len() + value.len()) as u64 / 64 + 1)?;
                out.push_str(if n > 0 { value } else { "" });
                out.push_str(item);
            }
            Value::from(out)
        }
        "lower" | "upper" | "title" | "capitalize" => {
            let () = from_args(args)?;
            Value::from(read.changed(|text| cased(name, text)))
        }
        "zfill" | "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<Value>) = from_args(args)?;
            let missing = width.saturating_sub(text.chars().count());
            let fill = fill.map_or_else(|| Ok(" ".to_owned()), |fill| plain(&fill))?;
            let fill = if name == "zfill" { "0" } else { &fill };
            state.consume_fuel((missing as u64).saturating_mul(fill.len() as u64) / 64)?;
            let left = match name {
                "ljust" => 0,
                // CPython's rounding.
                "center" => missing / 2 + (missing & width & 1),
                _ => missing,
            };
            Value::from(fill.repeat(left) + value + &fill.repeat(missing - left))
        }
        "format" => Value::from(formatted(&read, args)?),
        "isdigit" | "isdecimal" | "isnumeric" => Value::from(all(text, char::is_numeric)),
        "isalpha" => Value::from(all(text, char::is_alphabetic)),
        "isalnum" => Value::from(all(text, char::is_alphanumeric)),
        "isspace" => Value::from(all(text, char::is_whitespace)),
        "islower" => Value::from(text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)),
        "isupper" => Value::from(text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)),
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

fn all(text: &str, is: fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(is)
}

/// White space as `str.strip()` sees it.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The range of `text` without the given characters, or else white space, at its start and end.
pub(super) fn stripped(text: &str, start: bool, end: bool, chars: Option<&str>) -> Range<usize> {
    let gone = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let from = if start { text.len() - text.trim_start_matches(gone).len() } else { 0 };
    let to = if end { text.trim_end_matches(gone).len() } else { text.len() };
    from..to.max(from)
}

/// The parts between separators, or between white space; at most `limit` cuts, `from_end` counts them from the end.
fn split(text: &str, separator: Option<&str>, limit: usize, from_end: bool) -> Vec<Range<usize>> {
    let Some(separator) = separator else { return words(text, limit, from_end) };
    let mut cuts: Vec<usize> = if from_end {
        text.rmatch_indices(separator).take(limit).map(|(at, _)| at).collect()
    } else {
        text.match_indices(separator).take(limit).map(|(at, _)| at).collect()
    };
    cuts.sort_unstable();
    let mut start = 0;
    let mut parts = Vec::with_capacity(cuts.len() + 1);
    for cut in cuts {
        parts.push(start..cut);
        start = cut + separator.len();
    }
    parts.push(start..text.len());
    parts
}

fn words(text: &str, limit: usize, from_end: bool) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut left = stripped(text, true, true, None);
    while !left.is_empty() {
        let inside = &text[left.clone()];
        let cut = if from_end { inside.rfind(is_space) } else { inside.find(is_space) };
        match cut.filter(|_| parts.len() < limit) {
            None => {
                // The last part keeps the white space at the other end of the text.
                let whole = if from_end { 0..left.end } else { left.start..text.len() };
                parts.push(if parts.len() < limit { left } else { whole });
                break;
            }
            Some(at) if from_end => {
                let c = inside[at..].chars().next().map_or(1, char::len_utf8);
                parts.push(left.start + at + c..left.end);
                left = left.start..left.start + inside[..at].trim_end_matches(is_space).len();
            }
            Some(at) => {
                parts.push(left.start..left.start + at);
                let behind = &inside[at..];
                left.start += at + (behind.len() - behind.trim_start_matches(is_space).len());
            }
        }
    }
    if from_end {
        parts.reverse();
    }
    parts
}

/// The lines of `text`, with their ends if `keep`.
fn lines(text: &str, keep: bool) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}') {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && chars.next_if(|&(_, c)| c == '\n').is_some() {
            end += 1;
        }
        parts.push(start..if keep { end } else { at });
        start = end;
    }
    if start < text.len() {
        parts.push(start..text.len());
    }
    parts
}

/// Python's `replace`, the marks of both texts kept.
pub(super) fn replace(
    state: &State<'_, '_>,
    read: &Marked<'_>,
    from: &Value,
    to: &Value,
    count: Option<i64>,
) -> Result<Value, Error> {
    let (from, to) = (plain(from)?, str_of(to)?);
    let limit = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let text = &*read.text;
    let found: Vec<(usize, &str)> = text.match_indices(&from).take(limit).collect();
    // Before it is allocated: a hostile template may ask for gigabytes.
    state.consume_fuel((found.len() as u64).saturating_mul(to.len() as u64) / 64)?;
    let mut out = String::with_capacity(text.len());
    let mut start = 0;
    for (at, _) in found {
        read.push_part(start..at, &mut out);
        out.push_str(&to);
        start = at + from.len();
    }
    read.push_part(start..text.len(), &mut out);
    Ok(Value::from(out))
}

/// `str.format` with fields `{}`, `{0}` and `{name}`, without format specifications.
fn formatted(read: &Marked<'_>, args: &[Value]) -> Result<String, Error> {
    let (args, kwargs): (&[Value], Kwargs) = from_args(args)?;
    let text = &*read.text;
    let (mut out, mut at, mut next) = (String::new(), 0, 0..);
    while let Some(found) = text[at..].find(['{', '}']) {
        let start = at + found;
        read.push_part(at..start, &mut out);
        let sign = &text[start..start + 1];
        if text[start + 1..].starts_with(sign) {
            out.push_str(sign);
            at = start + 2;
            continue;
        }
        let end = text[start..].find('}').filter(|_| sign == "{").map(|end| start + end);
        let end = end.ok_or_else(|| failed(format!("the format {text:?} has a single {sign:?}")))?;
        let field = &text[start + 1..end];
        let position = if field.is_empty() { next.next() } else { field.parse::<usize>().ok() };
        let value = match position {
            Some(position) => args.get(position).cloned(),
            None => kwargs.get::<Option<Value>>(field)?,
        };
        let value = value.ok_or_else(|| failed(format!("the format {text:?} has no value for {field:?}")))?;
        out.push_str(&str_of(&value)?);
        at = end + 1;
    }
    read.push_part(at..text.len(), &mut out);
    Ok(out)
}

/// `text` as the method `name` writes its letters.
pub(super) fn cased(name: &str, text: &str) -> String {
    match name {
        "lower" => text.to_lowercase(),
        "upper" => text.to_uppercase(),
        _ => {
            // The filter of jinja2 sees words where the method sees letters.
            let begins = |c: char| match name {
                "title filter" => c.is_whitespace() || "-({[<".contains(c),
                "title" => !c.is_alphabetic(),
                _ => false,
            };
            let mut inside = false;
            let mut out = String::with_capacity(text.len());
            for c in text.chars() {
                if inside {
                    out.extend(c.to_lowercase());
                } else {
                    out.extend(c.to_uppercase());
                }
                inside = !begins(c);
            }
            out
        }
    }
}
