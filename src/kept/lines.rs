//! Objects as content of a [`super::Vault`] file: JSON, one after the other.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::Write;
use tracing::warn;

/// Parts of a kind that change all the time and that nobody needs while the server is away: a field of the object, and
/// one of that field.
const VOLATILE: [(&str, &str, &str); 3] =
    [("Node", "status", "conditions"), ("Node", "status", "images"), ("Node", "metadata", "resourceVersion")];

/// What cannot be written as JSON is left out.
pub fn write<'a, T: Serialize + 'a>(kind: &str, objects: impl IntoIterator<Item = &'a T>) -> Vec<u8> {
    let mut out = Vec::new();
    for object in objects {
        let start = out.len();
        let written = match VOLATILE.iter().any(|(k, ..)| *k == kind) {
            true => serde_json::to_value(object).and_then(|v| serde_json::to_writer(&mut out, &steady(kind, v))),
            false => serde_json::to_writer(&mut out, object),
        };
        match written {
            Ok(()) => drop(out.write_all(b"\n")),
            Err(_) => out.truncate(start),
        }
    }
    out
}

fn steady(kind: &str, mut object: Value) -> Value {
    for (_, outer, inner) in VOLATILE.iter().filter(|(k, ..)| *k == kind) {
        if let Some(fields) = object.get_mut(outer).and_then(Value::as_object_mut) {
            fields.remove(*inner);
        }
    }
    object
}

/// What cannot be read (another version wrote it) is left out with a warning.
pub fn read<T: DeserializeOwned>(kind: &str, content: &[u8]) -> Vec<T> {
    let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let parse = |line| serde_json::from_slice(line).inspect_err(|error| warn!("a kept {kind} is left out: {error}"));
    lines.filter_map(|line| parse(line).ok()).collect()
}
