//! The licence of a model, for people and as JSON.

use crate::fetch;
use handmill_models::licence::{self, Licence};
use handmill_runtime::format::Checkpoint;
use serde_json::{Value, json};

/// The licence of a model: what its files state, else what was stated where it was fetched.
pub fn of(checkpoint: &Checkpoint) -> Licence {
    let own = licence::of(checkpoint);
    if own.name.is_some() { own } else { fetch::licence(checkpoint.path()).unwrap_or(own) }
}

/// The licence in JSON; null where none is stated.
pub fn json(licence: &Licence) -> Value {
    let Licence { name, link, restricts, known } = licence;
    let stated = name.as_ref().map(|_| json!({ "name": name, "link": link, "restricts": restricts, "known": known }));
    stated.unwrap_or_default()
}
