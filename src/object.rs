//! API objects as JSON trees, and the accessors everything shares (DESIGN D2: trees in the server).

use serde_json::{Map, Value};

/// An API object in the server: canonical JSON (keys sorted, as `serde_json::Map` keeps them).
pub type Object = Value;

/// Group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gvk {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// `v1` for the core group, else `group/version`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The parts of an `apiVersion`: (group, version).
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Reads that never fail: a missing or mistyped field is the empty value.
pub trait ObjectExt {
    /// String at a dotted path, or "".
    fn str_at(&self, path: &[&str]) -> &str;
    /// Value at a path.
    fn at(&self, path: &[&str]) -> Option<&Value>;
    fn name(&self) -> &str;
    fn namespace(&self) -> &str;
    fn uid(&self) -> &str;
    fn resource_version(&self) -> &str;
    /// `metadata`, made if missing. A non-object `metadata` is replaced.
    fn metadata_mut(&mut self) -> &mut Map<String, Value>;
    fn labels(&self) -> Option<&Map<String, Value>>;
    fn annotations(&self) -> Option<&Map<String, Value>>;
    fn finalizers(&self) -> Vec<&str>;
    fn is_deleting(&self) -> bool;
    /// Set a value at a path, making objects on the way.
    fn set_at(&mut self, path: &[&str], value: Value);
    /// Remove the value at a path.
    fn remove_at(&mut self, path: &[&str]) -> Option<Value>;
}

impl ObjectExt for Value {
    fn str_at(&self, path: &[&str]) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or("")
    }

    fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |v, key| v.get(*key))
    }

    fn name(&self) -> &str {
        self.str_at(&["metadata", "name"])
    }

    fn namespace(&self) -> &str {
        self.str_at(&["metadata", "namespace"])
    }

    fn uid(&self) -> &str {
        self.str_at(&["metadata", "uid"])
    }

    fn resource_version(&self) -> &str {
        self.str_at(&["metadata", "resourceVersion"])
    }

    fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        child_mut(self, "metadata")
    }

    fn labels(&self) -> Option<&Map<String, Value>> {
        self.at(&["metadata", "labels"]).and_then(Value::as_object)
    }

    fn annotations(&self) -> Option<&Map<String, Value>> {
        self.at(&["metadata", "annotations"]).and_then(Value::as_object)
    }

    fn finalizers(&self) -> Vec<&str> {
        let list = self.at(&["metadata", "finalizers"]).and_then(Value::as_array);
        list.map(|l| l.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }

    fn is_deleting(&self) -> bool {
        self.at(&["metadata", "deletionTimestamp"]).is_some_and(|v| !v.is_null())
    }

    fn set_at(&mut self, path: &[&str], value: Value) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut node = self;
        for key in parents {
            node = as_map(node).entry(*key).or_insert(Value::Null);
        }
        as_map(node).insert((*last).to_owned(), value);
    }

    fn remove_at(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        let parent = parents.iter().try_fold(self, |v, key| v.get_mut(*key))?;
        parent.as_object_mut()?.remove(*last)
    }
}

/// The object itself as a map; anything else is replaced by an empty one.
fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object above")
}

/// `parent[key]` as a map, made if missing.
fn child_mut<'a>(parent: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    as_map(as_map(parent).entry(key).or_insert(Value::Null))
}
