//! LimitRange (`v1`).

use crate::field::Errors;
use crate::object::Object;
use crate::object::ObjectExt;
use crate::server::kinds::podspec::resources;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check};
use crate::server::kinds::*;
use std::collections::BTreeSet;

pub static KIND: Kind = Kind {
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    storage: "limitranges",
    strategy: &LimitRange,
    ..Kind::BASE
};

struct LimitRange;

impl Strategy for LimitRange {
    fn default(&self, range: &mut Object) {
        let Some(spec) = child(range, "spec") else { return };
        for item in items(spec, "limits").filter(|i| i.str_at(&["type"]) == "Container") {
            fill(item, "max", "default");
            fill(item, "default", "defaultRequest");
            fill(item, "min", "defaultRequest");
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, range: &Object, errors: &mut Errors) {
        check(range, errors, |range| {
            let mut seen = BTreeSet::new();
            for limit in range.at(&["spec", "limits"]).items() {
                validate_limit(&limit);
                if !seen.insert(limit.get("type").str()) {
                    limit.get("type").duplicate();
                }
            }
        });
    }
}

/// Quantities of `from` that `to` lacks.
fn fill(item: &mut Value, from: &str, to: &str) {
    let Some(quantities) = item.get(from).and_then(Value::as_object).filter(|m| !m.is_empty()).cloned() else { return };
    if let Some(target) = child_or_new(item, to) {
        for (name, quantity) in quantities {
            default_nil(target, &name, quantity);
        }
    }
}

fn validate_limit(limit: &View<'_>) {
    let kind = limit.get("type");
    kind.formats(names::qualified_name);
    let standard = ["Pod", "Container", "PersistentVolumeClaim"].contains(&kind.str());
    if !kind.str().contains('/') && !standard {
        kind.invalid("must be a standard limit type or fully qualified");
    }
    let name_rule = if ["Pod", "Container"].contains(&kind.str()) {
        resources::container_resource_name
    } else {
        resources::resource_name
    };
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"].map(|l| limit.get(l)) {
        list.entries().for_each(|(name, at)| name_rule(&at, name));
    }
    if kind.str() == "Pod" {
        for list in ["default", "defaultRequest"].map(|l| limit.get(l)).iter().filter(|l| !l.is_empty()) {
            list.forbidden("may not be specified when `type` is 'Pod'");
        }
    }
    if kind.str() == "PersistentVolumeClaim"
        && !["min", "max"].iter().any(|side| limit.get(side).get("storage").is_set())
    {
        limit.get("limits").required("either minimum or maximum storage value is required, but neither was provided");
    }
    // (smaller, its name in texts, larger, its name, which of the two is at fault)
    const ORDER: [(&str, &str, &str, &str, &str); 6] = [
        ("min", "min", "max", "max", "min"),
        ("min", "min", "defaultRequest", "default request", "defaultRequest"),
        ("defaultRequest", "default request", "max", "max", "defaultRequest"),
        ("defaultRequest", "default request", "default", "default limit", "defaultRequest"),
        ("min", "min", "default", "default", "default"),
        ("default", "default", "max", "max", "default"),
    ];
    for (low, low_name, high, high_name, fault) in ORDER {
        for (name, at) in limit.get(low).entries() {
            let (Some(small), Some(large)) = (at.quantity(), limit.get(high).get(name).quantity()) else { continue };
            if small > large {
                let fault = limit.get(fault).get(name).named(limit.path().child(fault).key(name));
                fault.invalid(format!("{low_name} value {small} is greater than {high_name} value {large}"));
            }
        }
    }
}
