//! Answers are put together from JSON text. What is JSON already, as events are, passes through as it
//! is: in a [`serde_json::Value`] it would be read, kept piece by piece, and written again.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// Fields of an object.
pub(super) type Fields = BTreeMap<String, Box<RawValue>>;

/// Something as JSON text. What we make always serializes: keys are strings.
pub(super) fn raw<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// `{"events": […]}`.
pub(super) fn events<T: Serialize>(events: &[T]) -> Box<RawValue> {
    raw(&BTreeMap::from([("events", events)]))
}

/// An event of a type with its content alone.
pub(super) fn event<T: Serialize + ?Sized>(kind: &str, content: &T) -> Box<RawValue> {
    raw(&BTreeMap::from([
        ("type", raw(kind)),
        ("content", raw(content)),
    ]))
}
