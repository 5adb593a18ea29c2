//! The table as data, and what holds for every kind.

mod defaults;
mod rows;
mod validation;

use super::*;
use crate::object::ObjectExt;
use serde_json::json;

/// Group, version, plural, kind, scope, short names, categories, verbs, subresources with verbs: what upstream's
/// v1.37 discovery says of its GA resources.
const FACTS: &str = include_str!("../facts.txt");

fn verbs(kind: &Kind) -> &'static str {
    match kind.verbs {
        Verbs::All => "create,delete,deletecollection,get,list,patch,update,watch",
        Verbs::NoCollectionDelete => "create,delete,get,list,patch,update,watch",
        Verbs::CreateOnly => "create",
        Verbs::ReadOnly => "get,list",
    }
}

/// The line of `facts.txt` that this kind would be.
fn fact(kind: &Kind) -> String {
    let or_dash = |s: String| if s.is_empty() { "-".to_owned() } else { s };
    let subresource = |s: &Subresource| format!("{}={}", s.name, s.verbs.join(","));
    let mut subresources: Vec<String> = kind.subresources.iter().map(subresource).collect();
    subresources.sort();
    [
        or_dash(kind.group.to_owned()),
        kind.version.to_owned(),
        kind.plural.to_owned(),
        kind.kind.to_owned(),
        if kind.is_namespaced() { "N" } else { "C" }.to_owned(),
        or_dash(kind.short_names.join(",")),
        or_dash(kind.categories.join(",")),
        verbs(kind).to_owned(),
        or_dash(subresources.join(";")),
    ]
    .join(" ")
}

#[test]
fn table_equals_upstreams_discovery() {
    let ours: Vec<String> = TABLE.iter().map(|kind| fact(kind)).collect();
    let facts: Vec<&str> = FACTS.lines().collect();
    assert_eq!(ours, facts);
    assert_eq!(facts.len(), 72);
}

#[test]
fn table_is_consistent() {
    for kind in TABLE {
        let id = format!("{}/{}/{}", kind.group, kind.version, kind.plural);
        assert_eq!(kind.singular, kind.kind.to_lowercase(), "{id}");
        assert_eq!(kind.storage.is_empty(), !kind.is_stored(), "{id}");
        for other in TABLE.iter().filter(|o| o.is_stored() && o.storage == kind.storage) {
            let shares = |a: &Kind, b: &Kind| a.conversion.is_some_and(|c| c.stored == (b.group, b.version));
            let same = std::ptr::eq(*other, *kind);
            assert!(same || shares(kind, other) || shares(other, kind), "{id} shares {}", kind.storage);
        }
    }
}

/// Samples that are as empty, as odd and as full as objects come.
fn samples() -> Vec<Object> {
    let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "controller": true}]);
    let metadata = json!({"name": "x", "creationTimestamp": "2024-01-01T00:00:00Z", "ownerReferences": owner});
    vec![
        json!({}),
        json!({"metadata": {"name": "x"}, "spec": null, "status": null}),
        json!({"metadata": metadata, "spec": {}, "status": {}}),
        json!({"metadata": [], "spec": [], "status": "", "webhooks": {}, "limits": 1, "subjects": ""}),
        json!({"metadata": metadata, "spec": {"template": {"spec": {"containers": [{}], "volumes": [{"name": "v"}]}}}}),
        json!({"metadata": metadata, "subsets": [{}], "ports": [{}], "endpoints": [{}], "subjects": [{}],
            "webhooks": [{"rules": [{}]}], "spec": {"containers": [{}], "metrics": [{}], "rules": [{}]}}),
    ]
}

#[test]
fn rows_have_a_cell_for_every_column() {
    for kind in TABLE {
        for sample in samples() {
            let cells = kind.strategy.row(&sample, 0).len();
            assert_eq!(cells, kind.columns.len(), "{} {}", kind.group, kind.plural);
        }
    }
}

#[test]
fn defaulting_twice_changes_nothing() {
    for kind in TABLE {
        for mut sample in samples() {
            kind.strategy.default(&mut sample);
            let once = sample.clone();
            kind.strategy.default(&mut sample);
            assert_eq!(sample, once, "{} {}", kind.group, kind.plural);
        }
    }
}

fn kind(group_and_plural: &str) -> &'static Kind {
    let (plural, group) = group_and_plural.split_once('.').unwrap_or((group_and_plural, ""));
    let found = TABLE
        .iter()
        .rev()
        .find(|k| k.plural == plural && (k.group == group || k.group.starts_with(&format!("{group}."))));
    found.unwrap_or_else(|| panic!("no kind {group_and_plural}"))
}

/// A named object, defaulted as the server does.
fn defaulted(kind: &Kind, mut object: Value) -> Object {
    object.set_at(&["metadata", "namespace"], "d".into());
    if object.name().is_empty() {
        object.set_at(&["metadata", "name"], "x".into());
    }
    object.set_at(&["metadata", "uid"], "u".into());
    kind.strategy.default(&mut object);
    object
}

fn shown(errors: &Errors) -> String {
    if errors.is_empty() { String::new() } else { errors.to_string() }
}

fn template(labels: Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}
