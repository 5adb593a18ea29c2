//! Field paths and field errors, as upstream's `util/validation/field`: what makes a 422 say where and why.

use crate::status::Cause;
use serde_json::Value;
use std::fmt;

/// Where in an object: `spec.containers[0].name`, `metadata.labels[app]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    pub fn root() -> Self {
        Path(String::new())
    }

    pub fn new(name: &str) -> Self {
        Path(name.to_owned())
    }

    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Path(name.to_owned()) } else { Path(format!("{}.{name}", self.0)) }
    }

    pub fn index(&self, i: usize) -> Self {
        Path(format!("{}[{i}]", self.0))
    }

    pub fn key(&self, key: &str) -> Self {
        Path(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// One field error: cause reason (`FieldValueRequired`, …), path and full text.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    reason: &'static str,
    path: Path,
    message: String,
}

/// All field errors of one object. Empty means valid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors(Vec<Error>);

/// A value as upstream prints it in messages: strings quoted, the rest as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        other => other.to_string(),
    }
}

impl Errors {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn extend(&mut self, other: Errors) {
        self.0.extend(other.0);
    }

    fn push(&mut self, reason: &'static str, path: &Path, message: String) {
        self.0.push(Error { reason, path: path.clone(), message });
    }

    /// `spec.x: Required value: why`
    pub fn required(&mut self, path: &Path, why: &str) {
        let text = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        self.push("FieldValueRequired", path, text);
    }

    /// `spec.x: Invalid value: "bad": why`
    pub fn invalid(&mut self, path: &Path, value: impl Into<Value>, why: impl fmt::Display) {
        let value = value.into();
        self.push("FieldValueInvalid", path, format!("Invalid value: {}: {why}", shown(&value)));
    }

    /// `spec.x: Unsupported value: "bad": supported values: "A", "B"`
    pub fn not_supported(&mut self, path: &Path, value: impl Into<Value>, supported: &[&str]) {
        let value = value.into();
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        let text = format!("Unsupported value: {}: supported values: {list}", shown(&value));
        self.push("FieldValueNotSupported", path, text);
    }

    /// `spec.x: Duplicate value: "x"`
    pub fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        let value = value.into();
        self.push("FieldValueDuplicate", path, format!("Duplicate value: {}", shown(&value)));
    }

    /// `spec.x: Forbidden: why`
    pub fn forbidden(&mut self, path: &Path, why: impl fmt::Display) {
        self.push("FieldValueForbidden", path, format!("Forbidden: {why}"));
    }

    /// `spec.x: Not found: "x"`
    pub fn not_found(&mut self, path: &Path, value: impl Into<Value>) {
        let value = value.into();
        self.push("FieldValueNotFound", path, format!("Not found: {}", shown(&value)));
    }

    /// `spec.x: Too long: may not be more than N bytes`
    pub fn too_long(&mut self, path: &Path, max_bytes: usize) {
        self.push("FieldValueTooLong", path, format!("Too long: may not be more than {max_bytes} bytes"));
    }

    /// `spec.x: Too many: N: must have at most M items`
    pub fn too_many(&mut self, path: &Path, actual: usize, max: usize) {
        self.push("FieldValueTooMany", path, format!("Too many: {actual}: must have at most {max} items"));
    }

    pub fn into_causes(self) -> Vec<Cause> {
        let cause = |e: Error| Cause { reason: e.reason.to_owned(), message: e.message, field: e.path.to_string() };
        self.0.into_iter().map(cause).collect()
    }
}

impl fmt::Display for Errors {
    /// One error alone, several as `[a, b]`: upstream's aggregate form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(|e| format!("{}: {}", e.path, e.message)).collect();
        if let [one] = texts.as_slice() { f.write_str(one) } else { write!(f, "[{}]", texts.join(", ")) }
    }
}
