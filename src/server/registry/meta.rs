//! Rules for `metadata` that all kinds share (upstream `ValidateObjectMeta`, `ValidateObjectMetaUpdate`).

use crate::field::{Errors, Path};
use crate::object::{Object, ObjectExt};
use crate::selector;
use crate::server::kinds::{Kind, names};
use rand::RngExt;
use serde_json::Value;

/// Letters and digits that cannot spell words.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// Longest generated name: it must also fit into a label.
const MAX_GENERATED_BYTES: usize = 63;
/// Keys and values of all annotations together.
const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

/// `base` (a `generateName`) with a random suffix.
pub fn generate_name(base: &str) -> String {
    let mut end = base.len().min(MAX_GENERATED_BYTES - SUFFIX_LENGTH);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], random_suffix(SUFFIX_LENGTH))
}

/// Random characters as names end with.
pub fn random_suffix(length: usize) -> String {
    let mut random = rand::rng();
    (0..length).map(|_| SUFFIX_ALPHABET[random.random_range(0..SUFFIX_ALPHABET.len())] as char).collect()
}

/// Check the metadata of a new object or of the new side of an update.
pub fn validate(kind: &Kind, object: &Object, errors: &mut Errors) {
    let meta = Path::new("metadata");
    validate_name(kind, object, &meta, errors);
    if kind.is_namespaced() {
        match object.namespace() {
            "" => errors.required(&meta.child("namespace"), ""),
            namespace => {
                if let Err(why) = names::dns_label(namespace) {
                    errors.invalid(&meta.child("namespace"), namespace, why);
                }
            }
        }
    }
    validate_labels(object.labels(), &meta.child("labels"), errors);
    validate_annotations(object, &meta.child("annotations"), errors);
    for (i, finalizer) in object.finalizers().iter().enumerate() {
        validate_finalizer(finalizer, &meta.child("finalizers").index(i), errors);
    }
    validate_owners(object, &meta.child("ownerReferences"), errors);
}

fn validate_name(kind: &Kind, object: &Object, meta: &Path, errors: &mut Errors) {
    let name = object.name();
    let base = object.str_at(&["metadata", "generateName"]);
    if !base.is_empty() {
        // A generated name ends with letters: a trailing dash or dot in the base is fine.
        let probe = format!("{}a", base.trim_end_matches('-'));
        if let Err(why) = kind.strategy.validate_name(&probe) {
            errors.invalid(&meta.child("generateName"), base, why);
        }
    }
    if name.is_empty() {
        errors.required(&meta.child("name"), "name or generateName is required");
        return;
    }
    // Names are path segments in every kind (upstream `path.IsValidPathSegmentName`).
    let segment = match name {
        "." | ".." => Some(format!("may not be '{name}'")),
        _ => name.chars().find(|c| matches!(c, '/' | '%')).map(|c| format!("may not contain '{c}'")),
    };
    if let Some(why) = segment {
        errors.invalid(&meta.child("name"), name, why);
    } else if let Err(why) = kind.strategy.validate_name(name) {
        errors.invalid(&meta.child("name"), name, why);
    }
}

/// Check a map of labels.
pub fn validate_labels(labels: Option<&serde_json::Map<String, Value>>, path: &Path, errors: &mut Errors) {
    for (key, value) in labels.into_iter().flatten() {
        if let Err(why) = selector::qualified_name(key) {
            errors.invalid(path, key.as_str(), why);
        }
        let value = value.as_str().unwrap_or("");
        if let Err(why) = selector::label_value(value) {
            errors.invalid(path, value, why);
        }
    }
}

fn validate_annotations(object: &Object, path: &Path, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in object.annotations().into_iter().flatten() {
        // Upstream checks annotation keys in lower case.
        if let Err(why) = selector::qualified_name(&key.to_lowercase()) {
            errors.invalid(path, key.as_str(), why);
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS_BYTES {
        errors.too_long(path, MAX_ANNOTATIONS_BYTES);
    }
}

fn validate_finalizer(finalizer: &str, path: &Path, errors: &mut Errors) {
    const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    if let Err(why) = selector::qualified_name(finalizer) {
        errors.invalid(path, finalizer, why);
    } else if !finalizer.contains('/') && !STANDARD.contains(&finalizer) {
        errors.invalid(path, finalizer, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

fn validate_owners(object: &Object, path: &Path, errors: &mut Errors) {
    let owners = object.at(&["metadata", "ownerReferences"]).and_then(Value::as_array);
    let mut controller: Option<&str> = None;
    for (i, owner) in owners.into_iter().flatten().enumerate() {
        let at = path.index(i);
        let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or("");
        if text("apiVersion").is_empty() {
            errors.invalid(&at.child("apiVersion"), text("apiVersion"), "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if text(field).is_empty() {
                errors.invalid(&at.child(field), text(field), format!("{field} must not be empty"));
            }
        }
        if text("kind") == "Event" && matches!(text("apiVersion"), "v1" | "events.k8s.io/v1") {
            let why = format!("{}, Kind=Event is disallowed from being an owner", text("apiVersion"));
            errors.invalid(&at, owner.clone(), why);
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            if let Some(first) = controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    text("name")
                );
                errors.invalid(path, Value::Null, why);
            }
            controller.get_or_insert(text("name"));
        }
    }
}

/// Check what an update does to metadata, after the server's own fields have been restored.
pub fn validate_update(new: &Object, old: &Object, errors: &mut Errors) {
    let path = Path::new("metadata").child("finalizers");
    if old.is_deleting() {
        let before = old.finalizers();
        let added: Vec<&str> = new.finalizers().into_iter().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let list = added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
            let why = "no new finalizers can be added if the object is being deleted, found new finalizers";
            errors.forbidden(&path, format!("{why} []string{{{list}}}"));
        }
    }
}

/// `Some(next)` where a generation is kept and the change raises it: anything but metadata and status differs.
pub fn raised_generation(new: &Object, old: &Object) -> Option<i64> {
    let generation = old.at(&["metadata", "generation"]).and_then(Value::as_i64).filter(|g| *g > 0)?;
    let (Value::Object(new), Value::Object(old)) = (new, old) else { return None };
    let counted = |key: &String| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind");
    let new_keys = new.keys().filter(|k| counted(k));
    let old_keys = old.keys().filter(|k| counted(k));
    let same = new_keys.clone().eq(old_keys) && new_keys.clone().all(|k| new[k] == old[k]);
    (!same).then_some(generation + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_generated_within_bounds() {
        for base in ["web-", &"x".repeat(100)] {
            let name = generate_name(base);
            assert!(name.len() <= MAX_GENERATED_BYTES && name.len() == base.len().min(58) + 5, "{name}");
            assert!(name.bytes().rev().take(5).all(|b| SUFFIX_ALPHABET.contains(&b)));
        }
    }

    #[test]
    fn metadata_is_checked() {
        let kind = &crate::server::kinds::core::configmap::KIND;
        let owner = |name: &str, controller: bool| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": controller});
        let cases = [
            (json!({"name": "a", "namespace": "b"}), 0),
            (json!({"namespace": "b"}), 1),
            (json!({"name": "A", "namespace": "b"}), 1),
            (json!({"name": "a/b", "namespace": "b"}), 1),
            (json!({"name": "a"}), 1),
            (json!({"name": "a", "namespace": "b", "labels": {"-x": "ok", "y": "-"}}), 2),
            (json!({"name": "a", "namespace": "b", "annotations": {"x": "y".repeat(262_144)}}), 1),
            (json!({"name": "a", "namespace": "b", "finalizers": ["orphan", "x.io/y"]}), 0),
            (json!({"name": "a", "namespace": "b", "finalizers": ["mine"]}), 1),
            (json!({"name": "a", "namespace": "b", "ownerReferences": [owner("p", true), owner("q", false)]}), 0),
            (json!({"name": "a", "namespace": "b", "ownerReferences": [owner("p", true), owner("q", true)]}), 1),
            (json!({"name": "a", "namespace": "b", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod"}]}), 2),
        ];
        for (metadata, count) in cases {
            let mut errors = Errors::new();
            validate(kind, &json!({"metadata": metadata}), &mut errors);
            assert_eq!(errors.len(), count, "{metadata} {errors}");
        }
    }

    #[test]
    fn generations() {
        let old = json!({"metadata": {"generation": 3}, "spec": {"a": 1}, "status": {"b": 1}});
        let change = |path: &[&str], value: Value| {
            let mut new = old.clone();
            new.set_at(path, value);
            raised_generation(&new, &old)
        };
        assert_eq!(change(&["spec", "a"], 2.into()), Some(4));
        assert_eq!(change(&["data"], 2.into()), Some(4));
        assert_eq!(change(&["status", "b"], 2.into()), None);
        assert_eq!(change(&["metadata", "labels"], json!({"x": "y"})), None);
        assert_eq!(raised_generation(&json!({"spec": 1}), &json!({"spec": 2, "metadata": {}})), None);
    }
}
