//! The fields of a request: each is read once, by name, with one message where it is wrong. Unknown ones stay unread.

use serde_json::{Map, Value};

use super::error::ApiError;

/// The fields of a JSON object. Those that are null count as missing.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    all: Map<String, Value>,
    /// Stands before the names in messages: where the object is.
    place: String,
}

type Result<T> = std::result::Result<T, ApiError>;

impl Fields {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(all)) => Ok(Self { all, place: String::new() }),
            Ok(_) => Err(ApiError::status(400, "the request's body is no JSON object")),
            Err(error) => Err(ApiError::status(400, format!("the request's body is not JSON: {error}"))),
        }
    }

    /// Takes the fields of an object out that is itself a field; none where it is missing.
    pub fn inner(&mut self, name: &str) -> Result<Self> {
        let place = format!("{}.", self.place(name));
        match self.take(name) {
            None => Ok(Self { all: Map::new(), place }),
            Some(Value::Object(all)) => Ok(Self { all, place }),
            Some(_) => Err(self.wrong(name, "must be an object")),
        }
    }

    /// The name of a field with where it is.
    pub fn place(&self, name: &str) -> String {
        format!("{}{name}", self.place)
    }

    /// An error of a field.
    pub fn wrong(&self, name: &str, why: impl std::fmt::Display) -> ApiError {
        ApiError::field(self.place(name), why)
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.all.get(name).filter(|value| !value.is_null())
    }

    /// Takes a field out.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.all.get_mut(name).map(Value::take).filter(|value| !value.is_null())
    }

    /// Takes a list out that must be there and have elements.
    pub fn take_list(&mut self, name: &str) -> Result<Vec<Value>> {
        match self.take(name) {
            Some(Value::Array(list)) if !list.is_empty() => Ok(list),
            Some(Value::Array(_)) => Err(self.wrong(name, "is empty")),
            Some(_) => Err(self.wrong(name, "must be a list")),
            None => Err(self.wrong(name, "is missing")),
        }
    }

    fn read<'a, T>(&'a self, name: &str, wanted: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(name, format!("must be {wanted}")))
    }

    pub fn string(&self, name: &str) -> Result<Option<&str>> {
        self.read(name, "a string", Value::as_str)
    }

    pub fn boolean(&self, name: &str) -> Result<bool> {
        self.boolean_or(name, false)
    }

    pub fn boolean_or(&self, name: &str, otherwise: bool) -> Result<bool> {
        Ok(self.read(name, "true or false", Value::as_bool)?.unwrap_or(otherwise))
    }

    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        self.read(name, "a number", Value::as_f64)
    }

    /// A whole number; 3.0 is one.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        self.read(name, "a whole number", |value| {
            let whole = value.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < (1u64 << 53) as f64);
            value.as_i64().or(whole.map(|x| x as i64))
        })
    }

    /// A whole number from `least` to `most`.
    pub fn count(&self, name: &str, least: usize, most: usize) -> Result<Option<usize>> {
        let Some(n) = self.integer(name)? else { return Ok(None) };
        let n = usize::try_from(n).ok().filter(|n| (least..=most).contains(n));
        let wanted = match most {
            usize::MAX => format!("must be {least} or more"),
            _ => format!("must be from {least} to {most}"),
        };
        n.map(Some).ok_or_else(|| self.wrong(name, wanted))
    }

    pub fn object(&self, name: &str) -> Result<Option<&Map<String, Value>>> {
        self.read(name, "an object", Value::as_object)
    }

    pub fn list(&self, name: &str) -> Result<Option<&Vec<Value>>> {
        self.read(name, "a list", Value::as_array)
    }

    /// A string or a list of strings.
    pub fn strings(&self, name: &str) -> Result<Vec<String>> {
        let all = self.read(name, "a string or a list of strings", |value| match value {
            Value::String(one) => Some(vec![one.clone()]),
            Value::Array(all) => all.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
            _ => None,
        })?;
        Ok(all.unwrap_or_default())
    }

    /// Refuses fields that would change the answer and have no effect here.
    pub fn refuse(&self, names: &[&str], why: &str) -> Result<()> {
        let given = names.iter().find(|name| self.get(name).is_some_and(|value| *value != Value::Bool(false)));
        given.map_or(Ok(()), |name| Err(self.wrong(name, why)))
    }
}

/// Token ids.
pub(crate) fn ids(list: &[Value], name: &str) -> Result<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids: Option<Vec<u32>> = list.iter().map(id).collect();
    ids.ok_or_else(|| ApiError::field(name, "has an element that is no token id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_fields_are_named_and_null_is_nothing() {
        let fields = Fields::parse(
            br#"{"n": 2.0, "half": 0.5, "text": "x", "none": null, "many": ["a", "b"], "far": 1e300, "neg": -1}"#,
        )
        .unwrap();
        assert_eq!(fields.integer("n").unwrap(), Some(2));
        assert_eq!(fields.count("n", 0, 5).unwrap(), Some(2));
        assert_eq!(fields.string("none").unwrap(), None);
        assert_eq!(fields.strings("text").unwrap(), ["x"]);
        assert_eq!(fields.strings("many").unwrap(), ["a", "b"]);
        assert!(!fields.boolean("missing").unwrap());
        let wrong = [
            fields.integer("half").err(),
            fields.integer("far").err(),
            fields.count("n", 3, 5).err(),
            fields.count("neg", 0, usize::MAX).err(),
            fields.boolean("text").err(),
            fields.object("many").err(),
            fields.list("text").err(),
            fields.refuse(&["text"], "is not there").err(),
        ];
        for (i, error) in wrong.into_iter().enumerate() {
            let error = error.unwrap_or_else(|| panic!("case {i}")).json();
            assert!(error["error"]["param"].is_string(), "{error}");
        }
        for body in [&b"[1]"[..], b"", b"{", b"\xff"] {
            assert!(Fields::parse(body).is_err());
        }
    }
}
