//! Filters and functions where jinja2 and transformers differ from the engine's own, or where marks matter.

use std::borrow::Cow;

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State};

use super::marks::{self, Marked};
use super::methods;
use super::python::{Generator, JsonStyle, failed, str_of, to_json};
use super::source::{BOUNDED, ITERABLE};
use super::time::LocalTime;

/// The message of a `raise_exception`, as the source of the engine's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// Filters of the engine that jinja2 has not: a template with one fails there.
const UNKNOWN_TO_JINJA2: [&str; 5] = ["split", "lines", "bool", "chain", "zip"];

/// Sets the filters and functions of `environment`.
pub(super) fn install(environment: &mut Environment<'_>) {
    for name in UNKNOWN_TO_JINJA2 {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: &Value| str_of(value));
    environment.add_filter("trim", |state: &State, value: &Value, chars: Option<Value>| {
        on_text(state, value, |read| {
            let chars = chars.filter(|chars| !chars.is_none()).map(|chars| str_of(&chars)).transpose()?;
            Ok(read.part(methods::stripped(&read.text, true, true, chars.as_deref())))
        })
    });
    for name in ["lower", "upper", "title", "capitalize"] {
        environment.add_filter(name, move |state: &State, value: &Value| {
            let case = if name == "title" { "title filter" } else { name };
            on_text(state, value, |read| Ok(read.changed(|text| methods::cased(case, text))))
        });
    }
    environment.add_filter("replace", |state: &State, value: &Value, from: &Value, to: &Value, count: Option<i64>| {
        let text = str_of(value)?;
        methods::replace(state, &Marked::read(&text), from, to, count)
    });
    for name in ["length", "count"] {
        environment.add_filter(name, length);
    }
    environment.add_filter("dictsort", dictsort);
    environment.add_filter("join", join);
    environment.add_filter("items", items);
    environment.add_filter("int", |value: &Value, default: Option<Value>| number(value, default, false));
    environment.add_filter("float", |value: &Value, default: Option<Value>| number(value, default, true));
    environment.add_filter(ITERABLE, iterable);
    environment.add_filter(BOUNDED, bounded);
    generators(environment);
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::String)
    });
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        let message = marks::removed(&str_of(message)?).into_owned();
        Err(failed(message.clone()).with_source(Raised(message)))
    });
}

/// Sets the filters that return generators in jinja2.
fn generators(environment: &mut Environment<'_>) {
    use minijinja::filters;

    environment.add_filter("map", |state: &mut State, value: &Value, args: Rest<ValueOrKwargs>| {
        filters::map(state, iterable(value)?, args).map(Generator::value)
    });
    environment.add_filter(
        "select",
        |state: &mut State, value: &Value, test: Option<Cow<'_, str>>, args: Rest<ValueOrKwargs>| {
            filters::select(state, iterable(value)?, test, args).map(Generator::value)
        },
    );
    environment.add_filter(
        "reject",
        |state: &mut State, value: &Value, test: Option<Cow<'_, str>>, args: Rest<ValueOrKwargs>| {
            filters::reject(state, iterable(value)?, test, args).map(Generator::value)
        },
    );
    type Key<'a> = Cow<'a, str>;
    environment.add_filter(
        "selectattr",
        |state: &mut State, value: &Value, key: Key<'_>, test: Option<Key<'_>>, args: Rest<ValueOrKwargs>| {
            filters::selectattr(state, iterable(value)?, key, test, args).map(Generator::value)
        },
    );
    environment.add_filter(
        "rejectattr",
        |state: &mut State, value: &Value, key: Key<'_>, test: Option<Key<'_>>, args: Rest<ValueOrKwargs>| {
            filters::rejectattr(state, iterable(value)?, key, test, args).map(Generator::value)
        },
    );
}

/// Sets the functions that tell `now`.
pub(super) fn install_clock(environment: &mut Environment<'_>, now: LocalTime) {
    environment.add_function("strftime_now", move |format: &str| now.format(format));
}

/// `tojson` of transformers: `json.dumps` without HTML's escapes.
fn tojson(value: &Value, ensure_ascii: Option<bool>, indent: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let flag = |key: &str| kwargs.get::<Option<bool>>(key).map(Option::unwrap_or_default);
    let indent = indent.map_or_else(|| kwargs.get::<Option<Value>>("indent"), |indent| Ok(Some(indent)))?;
    let indent = indent.filter(|indent| !indent.is_none());
    let separators = kwargs.get::<Option<Value>>("separators")?.filter(|separators| !separators.is_none());
    let style = JsonStyle {
        ensure_ascii: ensure_ascii.map_or_else(|| flag("ensure_ascii"), Ok)?,
        sort_keys: flag("sort_keys")?,
        indent: indent.map(|indent| match indent.as_str() {
            Some(indent) => indent.to_owned(),
            None => " ".repeat(indent.as_usize().unwrap_or_default().min(100)),
        }),
        separators: separators
            .map(|pair| {
                let part = |at: usize| pair.get_item(&Value::from(at)).and_then(|part| str_of(&part));
                Ok::<_, Error>((part(0)?, part(1)?))
            })
            .transpose()?,
    };
    kwargs.assert_all_used()?;
    to_json(value, &style).map(Value::from)
}

/// The result of `change` for the text of `value`.
fn on_text(
    state: &State<'_, '_>,
    value: &Value,
    change: impl FnOnce(&Marked<'_>) -> Result<String, Error>,
) -> Result<Value, Error> {
    let text = str_of(value)?;
    state.consume_fuel(text.len() as u64 / 64)?;
    change(&Marked::read(&text)).map(Value::from)
}

/// The number of items, or of characters without marks.
fn length(value: &Value) -> Result<usize, Error> {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => Ok(marks::removed(text).chars().count()),
        // jinja2's undefined has the length 0.
        (None, ValueKind::Undefined) => Ok(0),
        (None, kind) => value.len().ok_or_else(|| failed(format!("a value of type {kind} has no length"))),
    }
}

/// Pairs in the order of their keys, or values, without regard of case unless asked for.
fn dictsort(state: &State<'_, '_>, value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    if value.kind() != ValueKind::Map {
        return Err(failed("dictsort needs a dict"));
    }
    let by_value = kwargs.get::<Option<&str>>("by")? == Some("value");
    let case_sensitive = kwargs.get::<Option<bool>>("case_sensitive")?.unwrap_or_default();
    let reverse = kwargs.get::<Option<bool>>("reverse")?.unwrap_or_default();
    kwargs.assert_all_used()?;
    let mut pairs: Vec<(Value, Value)> =
        value.try_iter()?.map(|key| Ok((key.clone(), value.get_item(&key)?))).collect::<Result<_, Error>>()?;
    state.consume_fuel(pairs.len() as u64 * 8)?;
    let order = |value: &Value| match value.as_str() {
        Some(text) if case_sensitive => Value::from(marks::removed(text)),
        Some(text) => Value::from(marks::removed(text).to_lowercase()),
        None => value.clone(),
    };
    pairs.sort_by_cached_key(|(key, value)| order(if by_value { value } else { key }));
    if reverse {
        pairs.reverse();
    }
    Ok(pairs.into_iter().map(|(key, value)| Value::from(Tuple::from(vec![key, value]))).collect())
}

/// The items' texts, with `separator` between them.
fn join(state: &mut State<'_, '_>, value: &Value, separator: Option<&str>, kwargs: Kwargs) -> Result<String, Error> {
    let attribute = kwargs.get::<Option<&str>>("attribute")?;
    let separator = separator.map_or_else(|| kwargs.get::<Option<&str>>("d"), |s| Ok(Some(s)))?.unwrap_or_default();
    kwargs.assert_all_used()?;
    let mut out = String::new();
    for (n, item) in value.try_iter()?.enumerate() {
        let item = attribute.map_or(Ok(item.clone()), |name| item.get_attr(name))?;
        let item = str_of(&item)?;
        state.consume_fuel((item.len() + separator.len()) as u64 / 64 + 1)?;
        out.push_str(if n > 0 { separator } else { "" });
        out.push_str(&item);
    }
    Ok(out)
}

/// The pairs of a dict; none of undefined.
fn items(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(Value::from(Vec::<Value>::new())),
        ValueKind::Map => {
            let pair = |key: Value| Ok(Value::from(Tuple::from(vec![key.clone(), value.get_item(&key)?])));
            value.try_iter()?.map(pair).collect::<Result<Vec<Value>, Error>>().map(Value::from)
        }
        _ => Err(failed("Can only get item pairs from a mapping.")),
    }
}

/// The whole number or float of `value`, or else `default`, or else 0.
fn number(value: &Value, default: Option<Value>, float: bool) -> Value {
    let text = value.as_str().map(|text| marks::removed(text).trim().replace('_', ""));
    let whole = match &text {
        Some(text) => text.parse::<i64>().ok().map(Value::from),
        None => value.as_i64().filter(|_| value.is_integer() || value.kind() == ValueKind::Bool).map(Value::from),
    };
    let real = match &text {
        Some(text) => text.parse::<f64>().ok(),
        None => f64::try_from(value.clone()).ok(),
    };
    let found = match (float, whole, real) {
        (false, Some(whole), _) => Some(whole),
        (false, None, Some(real)) if real.abs() < 9e18 => Some(Value::from(real as i64)),
        (true, _, Some(real)) => Some(Value::from(real)),
        _ => None,
    };
    found.or(default).unwrap_or_else(|| if float { Value::from(0.0) } else { Value::from(0) })
}

/// Deepest nesting of a variable's value. Values are freed, compared and written by recursion, and a loop could nest
/// them without end.
const MAX_DEPTH: usize = 200;

/// A value that may be set, its iterators as lists, since these nest as well.
fn bounded(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    check_depth(state, value, MAX_DEPTH)?;
    if value.kind() == ValueKind::Iterable && value.downcast_object_ref::<Generator>().is_none() {
        return value.try_iter().map(|items| items.collect());
    }
    Ok(value.clone())
}

fn check_depth(state: &State<'_, '_>, value: &Value, depth: usize) -> Result<(), Error> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
        return Ok(());
    }
    if depth == 0 {
        return Err(failed(format!("a variable is set to a value nested over {MAX_DEPTH} deep")));
    }
    for item in value.try_iter()? {
        state.consume_fuel(1)?;
        match value.kind() {
            ValueKind::Map => check_depth(state, &value.get_item(&item)?, depth - 1)?,
            _ => check_depth(state, &item, depth - 1)?,
        }
    }
    Ok(())
}

/// The items of a loop: the engine takes none for an empty list, and Python does not.
fn iterable(value: &Value) -> Result<Value, Error> {
    match value.as_str() {
        None if value.is_none() => Err(failed("'NoneType' object is not iterable")),
        None => Ok(value.clone()),
        Some(text) => {
            let read = Marked::read(text);
            let chars = read.text.char_indices();
            Ok(chars.map(|(at, c)| Value::from(read.part(at..at + c.len_utf8()))).collect())
        }
    }
}
