//! ResourceQuota (`v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::resources;
use crate::server::kinds::view::{View, check, check_change};
use crate::server::kinds::*;
use std::collections::BTreeSet;

pub static KIND: Kind = Kind {
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    subresources: &[STATUS],
    storage: "resourcequotas",
    columns: &[Column::NAME, text("Request"), text("Limit"), Column::AGE],
    strategy: &ResourceQuota,
    ..Kind::BASE
};

struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn validate(&self, quota: &Object, errors: &mut Errors) {
        check(quota, errors, |quota| {
            let spec = quota.get("spec");
            for (name, at) in spec.get("hard").entries() {
                resource_name(&at, name);
                resources::quantity_of(&at, name);
            }
            scopes(&spec.get("scopes"));
            scope_selector(&spec.get("scopeSelector"));
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| {
            let (new, old) = (new.at(&["spec", "scopes"]), old.at(&["spec", "scopes"]));
            let set = |list: &View<'_>| list.items().map(|s| s.str().to_owned()).collect::<BTreeSet<_>>();
            if set(&new) != set(&old) {
                new.invalid("field is immutable");
            }
        });
    }

    fn row(&self, quota: &Object, now: i64) -> Vec<Value> {
        let hard = quota.at(&["status", "hard"]).and_then(Value::as_object);
        let show = |limits: bool| {
            let names = hard.into_iter().flatten().filter(|(name, _)| name.starts_with("limits") == limits);
            let cell = |(name, hard): (&String, &Value)| {
                let used = quantity(quota.at(&["status", "used", name]));
                format!("{name}: {used}/{}", quantity(Some(hard)))
            };
            names.map(cell).collect::<Vec<_>>().join(", ")
        };
        vec![quota.name().into(), show(false).into(), show(true).into(), age(quota, now)]
    }
}

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

fn resource_name(at: &View<'_>, name: &str) {
    let counted = name.strip_prefix("count/").is_some();
    if !counted && name.contains('/') || !name.contains('/') {
        resources::resource_name(at, name);
    }
}

fn scopes(scopes: &View<'_>) {
    let has = |name: &str| scopes.items().any(|s| s.str() == name);
    if scopes.items().any(|scope| !SCOPES.contains(&scope.str())) {
        scopes.invalid("unsupported scope");
    }
    if (has("BestEffort") && has("NotBestEffort")) || (has("Terminating") && has("NotTerminating")) {
        scopes.invalid("conflicting scopes");
    }
}

fn scope_selector(selector: &View<'_>) {
    let all = selector.get("matchExpressions");
    for expression in all.items() {
        // Upstream's paths leave out the index.
        let at = |field: &str| expression.get(field).named(all.path().child(field));
        let (scope, operator, values) = (at("scopeName"), at("operator"), at("values"));
        if !SCOPES.contains(&scope.str()) {
            scope.invalid("unsupported scope");
        }
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                values.required("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector")
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                values.invalid("must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector")
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => operator.invalid_value(other, "not a valid selector operator"),
        }
    }
}
