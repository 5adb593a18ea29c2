//! Server-side apply and managed fields (KEP-555; structured-merge-diff's rules).

use super::fields::{Form, Set, Shape, children, form};
use super::managed::{Id, Managers, Operation};
use super::{Manager, Typed};
use crate::object::{Object, ObjectExt};
use crate::server::schema::{Schema, Type};
use crate::status::{Cause, Details, Reason, Result, Status};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// kubectl's client-side apply keeps the whole configuration here.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Fields of `metadata` that nobody manages.
const UNMANAGED_METADATA: &[&str] = &[
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:selfLink",
    "f:uid",
    "f:clusterName",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
];

/// Apply `config` by `manager` on `live` (None: create). `force` takes ownership on conflict, else 409 with one
/// FieldManagerConflict cause a field. The result carries the new `metadata.managedFields`.
pub fn apply(
    live: Option<&Object>,
    config: &Object,
    manager: Manager<'_>,
    force: bool,
    typed: Typed<'_>,
) -> Result<Object> {
    if config.at(&["metadata", "managedFields"]).and_then(Value::as_array).is_some_and(|l| !l.is_empty()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let root = Type::Struct(typed.ty);
    let shape = Shape::root(&root);
    let empty = Value::Object(Map::new());
    let live = live.unwrap_or(&empty);
    let id = Id::new(manager, Operation::Apply);
    let mut managers = Managers::of(live);
    let mut set = Set::of(config, shape, typed.schema);
    strip(&mut set, manager.subresource);

    let mut merged = merge(live, config, shape, typed.schema);
    let change = compare(live, &merged, shape, typed.schema);
    let mut touched = change.added;
    touched.union(&change.modified);
    let conflicts = conflicts(&managers, &id, &touched);
    if !conflicts.is_empty() && !force && !upgrades_from_client_side(live, manager, &conflicts, shape, typed.schema) {
        return Err(conflict_status(&conflicts));
    }
    managers.take_from_others(&id, &touched);
    if let Some(last) = managers.get(&id) {
        let mut owned = set.clone();
        managers.others(&id).for_each(|e| owned.union(&e.set));
        prune(&mut merged, &last.set, Some(&owned), shape, typed.schema);
    }
    let removed = compare(live, &merged, shape, typed.schema).removed;
    managers.take_from_others(&id, &removed);
    managers.put(id, set, manager.time);
    refresh_last_applied(live, config, manager, &mut merged);
    managers.write(&mut merged);
    Ok(merged)
}

/// Record who owns what after a create, update or non-apply patch: sets `new.metadata.managedFields` from `old`'s,
/// the difference, and the manager. `old` None: create. Removes nothing else from `new`.
pub fn update(old: Option<&Object>, new: &mut Object, manager: Manager<'_>, typed: Typed<'_>) {
    let root = Type::Struct(typed.ty);
    let shape = Shape::root(&root);
    let empty = Value::Object(Map::new());
    let mut managers = starting_point(old, new);
    let id = Id::new(manager, Operation::Update);
    let mut change = compare(old.unwrap_or(&empty), new, shape, typed.schema);
    for set in [&mut change.added, &mut change.modified, &mut change.removed] {
        strip(set, manager.subresource);
    }
    let mut touched = change.added;
    touched.union(&change.modified);
    managers.take_from_others(&id, &touched);
    managers.take_from_others(&id, &change.removed);
    let mut mine = managers.get(&id).map(|e| e.set.clone()).unwrap_or_default();
    mine.subtract(&change.removed);
    mine.union(&touched);
    managers.put(id, mine, manager.time);
    managers.write(new);
}

/// The client may edit managedFields: `[{}]` resets them, absence keeps the old ones.
fn starting_point(old: Option<&Object>, new: &Object) -> Managers {
    match new.at(&["metadata", "managedFields"]).and_then(Value::as_array) {
        Some(list) if matches!(list.as_slice(), [Value::Object(one)] if one.is_empty()) => Managers::default(),
        Some(list) if !list.is_empty() => Managers::of(new),
        _ => old.map(Managers::of).unwrap_or_default(),
    }
}

/// Remove what nobody manages, and what this subresource cannot write.
fn strip(set: &mut Set, subresource: &str) {
    for path in ["f:apiVersion", "f:kind"] {
        set.remove_subtree(&[path]);
    }
    for field in UNMANAGED_METADATA {
        set.remove_subtree(&["f:metadata", field]);
    }
    if let Some(metadata) = set.children.get_mut("f:metadata") {
        metadata.member = false;
        if metadata.is_empty() {
            set.children.remove("f:metadata");
        }
    }
    match subresource {
        "status" => set.remove_subtree(&["f:spec"]),
        _ => set.remove_subtree(&["f:status"]),
    }
}

/// `config` laid over `live`.
fn merge(live: &Value, config: &Value, shape: Shape<'_>, schema: &Schema) -> Value {
    match (live, config, form(config, shape, schema)) {
        (Value::Object(base), Value::Object(_), Form::Map) => {
            let mut out = base.clone();
            for part in children(config, shape, schema).unwrap_or_default() {
                let key = &part.element[2..];
                let merged = match base.get(key) {
                    Some(old) => merge(old, part.value, part.shape, schema),
                    None => part.value.clone(),
                };
                out.insert(key.to_owned(), merged);
            }
            Value::Object(out)
        }
        (Value::Array(_), Value::Array(_), Form::List) => merge_list(live, config, shape, schema),
        _ => config.clone(),
    }
}

/// Items of `config` in its order; items only in `live` keep their places relative to shared ones.
fn merge_list(live: &Value, config: &Value, shape: Shape<'_>, schema: &Schema) -> Value {
    let old = children(live, shape, schema).unwrap_or_default();
    let new = children(config, shape, schema).unwrap_or_default();
    let position = |id: &str| new.iter().position(|p| p.element == id);
    let mut out = Vec::with_capacity(old.len() + new.len());
    let mut next = 0;
    for part in &old {
        match position(&part.element) {
            None => out.push(part.value.clone()),
            Some(at) => {
                while next <= at {
                    out.push(merged_item(&old, &new[next], schema));
                    next += 1;
                }
            }
        }
    }
    out.extend(new[next..].iter().map(|part| merged_item(&old, part, schema)));
    Value::Array(out)
}

fn merged_item(old: &[super::fields::Part<'_, '_>], part: &super::fields::Part<'_, '_>, schema: &Schema) -> Value {
    match old.iter().find(|o| o.element == part.element) {
        Some(before) => merge(before.value, part.value, part.shape, schema),
        None => part.value.clone(),
    }
}

/// What differs between two objects.
#[derive(Default)]
struct Comparison {
    added: Set,
    modified: Set,
    removed: Set,
}

fn compare(old: &Value, new: &Value, shape: Shape<'_>, schema: &Schema) -> Comparison {
    if old == new {
        return Comparison::default();
    }
    let (Some(before), Some(after)) = (children(old, shape, schema), children(new, shape, schema)) else {
        return Comparison { modified: Set::leaf(), ..Comparison::default() };
    };
    let by_element: BTreeMap<&str, usize> = after.iter().enumerate().map(|(i, p)| (p.element.as_str(), i)).collect();
    let known: BTreeMap<&str, usize> = before.iter().enumerate().map(|(i, p)| (p.element.as_str(), i)).collect();
    let mut out = Comparison::default();
    let mut put = |set: fn(&mut Comparison) -> &mut Set, element: &str, child: Set| {
        if !child.is_empty() {
            set(&mut out).children.insert(element.to_owned(), child);
        }
    };
    for part in &before {
        match by_element.get(part.element.as_str()) {
            None => put(|c| &mut c.removed, &part.element, whole(part, schema)),
            Some(i) => {
                let inner = compare(part.value, after[*i].value, part.shape, schema);
                put(|c| &mut c.added, &part.element, inner.added);
                put(|c| &mut c.modified, &part.element, inner.modified);
                put(|c| &mut c.removed, &part.element, inner.removed);
            }
        }
    }
    for part in after.iter().filter(|p| !known.contains_key(p.element.as_str())) {
        put(|c| &mut c.added, &part.element, whole(part, schema));
    }
    out
}

/// The set of one part with its own path where that counts.
fn whole(part: &super::fields::Part<'_, '_>, schema: &Schema) -> Set {
    let mut set = Set::of(part.value, part.shape, schema);
    let hollow = part.value.is_null() || part.value.as_object().is_some_and(Map::is_empty);
    set.member |= part.owned || hollow;
    set
}

/// Remove from `value` what the manager's last set held and nobody owns now. Named fields above removed leaves go too
/// when nothing owned is left below them.
fn prune(value: &mut Value, last: &Set, owned: Option<&Set>, shape: Shape<'_>, schema: &Schema) {
    let mut gone = Vec::new();
    let mut deeper: Vec<(String, &Set, Option<&Set>)> = Vec::new();
    for (element, child) in &last.children {
        let keeper = owned.and_then(|o| o.children.get(element));
        match keeper {
            None if child.member || element.starts_with("f:") => gone.push(element.clone()),
            _ => deeper.push((element.clone(), child, keeper)),
        }
    }
    let parts: Vec<(String, Shape<'_>)> = match children(value, shape, schema) {
        Some(parts) => parts.into_iter().map(|p| (p.element, p.shape)).collect(),
        None => return,
    };
    for (element, child, keeper) in deeper {
        let Some(at) = parts.iter().position(|(e, _)| *e == element) else { continue };
        let inner = match value {
            Value::Object(map) => map.get_mut(&element[2..]),
            Value::Array(items) => items.get_mut(at),
            _ => None,
        };
        if let Some(inner) = inner {
            prune(inner, child, keeper, parts[at].1, schema);
        }
    }
    match value {
        Value::Object(map) => map.retain(|key, _| !gone.iter().any(|g| g[2..] == **key)),
        Value::Array(items) => {
            let mut index = 0;
            items.retain(|_| {
                let kept = !gone.contains(&parts[index].0);
                index += 1;
                kept
            });
        }
        _ => {}
    }
}

/// Every other manager with the paths it would lose.
fn conflicts(managers: &Managers, id: &Id, touched: &Set) -> Vec<(Id, Set)> {
    let one = |e: &super::managed::Entry| {
        let common = e.set.intersection(touched);
        (!common.is_empty()).then(|| (e.id.clone(), common))
    };
    managers.others(id).filter_map(one).collect()
}

fn conflict_status(conflicts: &[(Id, Set)]) -> Status {
    let mut causes = Vec::new();
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (id, set) in conflicts {
        for path in set.paths() {
            let message = format!("conflict with {}", id.shown());
            causes.push(Cause { reason: "FieldManagerConflict".to_owned(), message, field: path.clone() });
            lines.entry(id.shown()).or_default().push(path);
        }
    }
    let text = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => {
            let group = |(manager, paths): (&String, &Vec<String>)| {
                format!("conflicts with {manager}:\n- {}", paths.join("\n- "))
            };
            let groups: Vec<String> = lines.iter().map(group).collect();
            format!("Apply failed with {} conflicts: {}", many.len(), groups.join("\n"))
        }
    };
    Status::new(Reason::Conflict, text).with_details(Details { causes, ..Details::default() })
}

/// kubectl moving an object from client-side to server-side apply: no conflict over fields that its own last-applied
/// configuration set and that still hold that value.
fn upgrades_from_client_side(
    live: &Object,
    manager: Manager<'_>,
    conflicts: &[(Id, Set)],
    shape: Shape<'_>,
    schema: &Schema,
) -> bool {
    if manager.name != "kubectl" {
        return false;
    }
    let annotation = live.annotations().and_then(|a| a.get(LAST_APPLIED)).and_then(Value::as_str);
    let Some(config) = annotation.and_then(|a| serde_json::from_str::<Value>(a).ok()) else { return false };
    let mut allowed = Set::of(&config, shape, schema);
    allowed.subtract(&compare(live, &merge(live, &config, shape, schema), shape, schema).modified);
    conflicts.iter().all(|(_, set)| {
        let mut left = set.clone();
        left.subtract(&allowed);
        left.is_empty()
    })
}

/// kubectl's server-side apply keeps an existing last-applied annotation current, so that going back works.
fn refresh_last_applied(live: &Object, config: &Object, manager: Manager<'_>, merged: &mut Object) {
    let has = live.annotations().is_some_and(|a| a.contains_key(LAST_APPLIED));
    if manager.name == "kubectl" && manager.subresource.is_empty() && has {
        let mut text = config.to_string();
        text.push('\n');
        merged.set_at(&["metadata", "annotations", LAST_APPLIED], Value::from(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::schema;
    use serde_json::json;

    const DEPLOYMENT: (&str, &str, &str) = ("apps", "v1", "Deployment");

    fn typed(kind: (&str, &str, &str)) -> Typed<'static> {
        let schema = schema::builtin();
        Typed { schema, ty: schema.of(kind.0, kind.1, kind.2).expect("a built-in kind") }
    }

    fn manager(name: &str) -> Manager<'_> {
        Manager { name, api_version: "apps/v1", subresource: "", time: "2026-01-02T03:04:05Z" }
    }

    fn owned(object: &Value, name: &str) -> Vec<String> {
        let managers = Managers::of(object);
        managers.0.iter().filter(|e| e.id.manager == name).flat_map(|e| e.set.paths()).collect()
    }

    fn spec(spec: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
    }

    fn applied(live: Option<&Value>, name: &str, config: Value, force: bool) -> Result<Value> {
        apply(live, &config, manager(name), force, typed(DEPLOYMENT))
    }

    #[test]
    fn a_new_object_belongs_to_its_applier() {
        let config = spec(json!({"replicas": 2, "template": {"spec": {"containers": [
            {"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}}));
        let object = applied(None, "me", config, false).expect("no conflict");
        assert_eq!(
            owned(&object, "me"),
            [
                ".spec.replicas",
                ".spec.template.spec.containers[name=\"c\"]",
                ".spec.template.spec.containers[name=\"c\"].image",
                ".spec.template.spec.containers[name=\"c\"].name",
                ".spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ]
        );
    }

    #[test]
    fn dropped_fields_go_unless_someone_else_owns_them() {
        let first =
            applied(None, "a", spec(json!({"replicas": 2, "paused": true, "minReadySeconds": 5})), false).unwrap();
        let shared = applied(Some(&first), "b", spec(json!({"paused": true})), false).expect("same value: no conflict");
        let second = applied(Some(&shared), "a", spec(json!({"replicas": 2})), false).unwrap();
        assert_eq!(second["spec"], json!({"replicas": 2, "paused": true}));
        assert_eq!(owned(&second, "a"), [".spec.replicas"]);
        assert_eq!(owned(&second, "b"), [".spec.paused"]);
    }

    #[test]
    fn a_removed_list_item_takes_its_defaults_with_it() {
        let two = spec(
            json!({"template": {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}}}),
        );
        let mut live = applied(None, "me", two, false).unwrap();
        live["spec"]["template"]["spec"]["containers"][1]["imagePullPolicy"] = json!("Always");
        let one = spec(json!({"template": {"spec": {"containers": [{"name": "a", "image": "1"}]}}}));
        let object = applied(Some(&live), "me", one, false).unwrap();
        assert_eq!(object["spec"]["template"]["spec"]["containers"], json!([{"name": "a", "image": "1"}]));
    }

    #[test]
    fn another_managers_value_is_a_conflict_until_forced() {
        let live = applied(None, "a", spec(json!({"replicas": 2})), false).unwrap();
        let refused = applied(Some(&live), "b", spec(json!({"replicas": 3})), false).unwrap_err();
        assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
        assert_eq!((refused.code(), refused.details.unwrap().causes[0].field.as_str()), (409, ".spec.replicas"));
        let forced = applied(Some(&live), "b", spec(json!({"replicas": 3})), true).unwrap();
        assert_eq!(forced["spec"]["replicas"], 3);
        assert_eq!((owned(&forced, "a"), owned(&forced, "b")), (vec![], vec![".spec.replicas".to_owned()]));
    }

    #[test]
    fn updates_take_what_they_change() {
        let live = applied(None, "a", spec(json!({"replicas": 2, "minReadySeconds": 1})), false).unwrap();
        let mut new = live.clone();
        new["spec"]["replicas"] = json!(5);
        new["spec"]["paused"] = json!(true);
        new["status"] = json!({"replicas": 9});
        update(Some(&live), &mut new, manager("scaler"), typed(DEPLOYMENT));
        assert_eq!(owned(&new, "a"), [".spec.minReadySeconds"]);
        assert_eq!(owned(&new, "scaler"), [".spec.paused", ".spec.replicas"]);
        let refused = applied(Some(&new), "a", spec(json!({"replicas": 2, "minReadySeconds": 1})), false).unwrap_err();
        assert_eq!(
            refused.message,
            "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas"
        );
    }

    #[test]
    fn managed_fields_can_be_reset_and_are_kept_when_absent() {
        let live = applied(None, "a", spec(json!({"replicas": 2})), false).unwrap();
        let mut kept = live.clone();
        kept.remove_at(&["metadata", "managedFields"]);
        update(Some(&live), &mut kept, manager("x"), typed(DEPLOYMENT));
        assert_eq!(kept, live);
        let mut reset = live.clone();
        reset["metadata"]["managedFields"] = json!([{}]);
        update(Some(&live), &mut reset, manager("x"), typed(DEPLOYMENT));
        assert_eq!(reset.at(&["metadata", "managedFields"]), None);
    }

    #[test]
    fn kubectl_moves_from_client_side_without_conflict() {
        let config = spec(json!({"replicas": 2}));
        let mut live = config.clone();
        live.set_at(&["metadata", "annotations", LAST_APPLIED], Value::from(config.to_string()));
        update(None, &mut live, manager("kubectl-client-side-apply"), typed(DEPLOYMENT));
        let wanted = spec(json!({"replicas": 3}));
        assert!(applied(Some(&live), "other", wanted.clone(), false).is_err());
        let moved = applied(Some(&live), "kubectl", wanted, false).expect("kubectl may");
        assert_eq!(moved["spec"]["replicas"], 3);
    }

    #[test]
    fn many_updaters_are_squashed() {
        let mut live = spec(json!({"replicas": 0}));
        for i in 0..30 {
            let mut new = live.clone();
            new.set_at(&["metadata", "labels", &format!("l{i}")], json!("x"));
            let (name, time) = (format!("m{i}"), format!("2026-01-02T03:04:{i:02}Z"));
            let who = Manager { name: &name, time: &time, ..manager("") };
            update(Some(&live), &mut new, who, typed(DEPLOYMENT));
            live = new;
        }
        let managers = Managers::of(&live);
        assert_eq!(managers.0.len(), 10);
        assert!(managers.0.iter().any(|e| e.id.manager == "ancient-changes"));
        assert_eq!(managers.0.iter().map(|e| e.set.paths().len()).sum::<usize>(), 30);
    }
}
