//! Label and field selectors on stored values, parsing no more than they need.

use super::parse;
use crate::object::{Object, ObjectExt};
use crate::selector::{FieldSelector, LabelSelector};
use crate::server::kinds::Kind;
use crate::server::raw;
use crate::server::request::options::ListOptions;
use crate::status::{Result, Status};
use crate::store::KeyValue;
use serde_json::Value;
use std::cell::OnceCell;
use std::sync::Arc;

/// Which objects of a kind are asked for.
#[derive(Clone)]
pub struct Selection {
    kind: &'static Kind,
    labels: LabelSelector,
    fields: FieldSelector,
    /// Some term names a field that only the parsed object shows.
    parses: bool,
}

/// A stored value, parsed at most once.
pub struct Candidate<'a> {
    pub kv: &'a KeyValue,
    object: OnceCell<Option<Object>>,
}

impl<'a> Candidate<'a> {
    pub fn new(kv: &'a KeyValue) -> Self {
        Candidate { kv, object: OnceCell::new() }
    }

    /// The parsed object; None where the stored value is broken.
    pub fn object(&self, kind: &Kind) -> Option<&Object> {
        self.object.get_or_init(|| parse(kind, &self.kv.value, self.kv.mod_revision).ok()).as_ref()
    }

    pub fn into_object(self, kind: &Kind) -> Result<Object> {
        match self.object.into_inner().flatten() {
            Some(object) => Ok(object),
            None => parse(kind, &self.kv.value, self.kv.mod_revision),
        }
    }
}

impl Selection {
    /// 400 for fields that the kind does not let clients select by.
    pub fn new(kind: &'static Kind, options: &ListOptions) -> Result<Self> {
        let mut parses = false;
        for term in &options.fields.terms {
            match term.field.as_str() {
                "metadata.name" => {}
                "metadata.namespace" if kind.is_namespaced() => {}
                field if kind.selectable.contains(&field) => parses = true,
                field => return Err(Status::bad_request(format!("field label not supported: {field}"))),
            }
        }
        Ok(Selection { kind, labels: options.labels.clone(), fields: options.fields.clone(), parses })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The one name that can match, if the selector says so.
    pub fn name(&self) -> Option<&str> {
        self.fields.exact("metadata.name").filter(|n| !n.is_empty())
    }

    pub fn matches(&self, candidate: &Candidate<'_>) -> bool {
        self.is_everything() || (self.matches_labels(&candidate.kv.value) && self.matches_fields(candidate))
    }

    /// [`Selection::matches`] where a parsed object can be had from elsewhere.
    pub fn matches_shared(&self, kv: &KeyValue, object: impl FnOnce() -> Option<Arc<Object>>) -> bool {
        if self.is_everything() {
            return true;
        }
        if !self.matches_labels(&kv.value) {
            return false;
        }
        let object = if self.parses { object() } else { None };
        self.matches_fields_of(&kv.key, object.as_deref())
    }

    fn matches_labels(&self, value: &[u8]) -> bool {
        if self.labels.is_everything() {
            return true;
        }
        let labels = raw::find(value, &["metadata", "labels"]).map(|range| &value[range]);
        self.labels.matches(|key| raw::plain_str(labels?, key))
    }

    fn matches_fields(&self, candidate: &Candidate<'_>) -> bool {
        let object = if self.parses { candidate.object(self.kind) } else { None };
        self.matches_fields_of(&candidate.kv.key, object)
    }

    fn matches_fields_of(&self, key: &[u8], object: Option<&Object>) -> bool {
        if self.fields.is_everything() {
            return true;
        }
        let (namespace, name) = split_key(key);
        if self.parses && object.is_none() {
            return false;
        }
        self.fields.matches(|field| match (field, object) {
            ("metadata.name", _) => name.to_owned(),
            ("metadata.namespace", _) => namespace.to_owned(),
            (field, Some(object)) => field_value(self.kind, object, field),
            (_, None) => String::new(),
        })
    }
}

/// Namespace (or, for cluster scope, the resource) and name at the end of a store key.
fn split_key(key: &[u8]) -> (&str, &str) {
    let key = std::str::from_utf8(key).unwrap_or("");
    let (rest, name) = key.rsplit_once('/').unwrap_or(("", key));
    (rest.rsplit('/').next().unwrap_or(""), name)
}

/// The value of a selectable field as selectors compare it.
pub fn field_value(kind: &Kind, object: &Object, field: &str) -> String {
    if let Some(value) = kind.strategy.selectable_value(object, field) {
        return value;
    }
    let path: Vec<&str> = field.split('.').collect();
    match object.at(&path) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
