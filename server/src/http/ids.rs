//! Names of new objects, and the time.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{SystemTime, UNIX_EPOCH},
};

/// Seconds since the epoch; 0 where the clock is before it.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A random number: the standard library's hash maps have one for their keys.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The name of a new object.
pub(super) fn new_id(prefix: &str) -> String {
    format!("{prefix}{:016x}{:016x}", random(), random())
}
