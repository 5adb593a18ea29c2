//! ResourceClaim (`resource.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "resource.k8s.io",
    kind: "ResourceClaim",
    plural: "resourceclaims",
    singular: "resourceclaim",
    subresources: &[STATUS],
    storage: "resourceclaims",
    columns: &[Column::NAME, text("State"), Column::AGE],
    strategy: &ResourceClaim,
    ..Kind::BASE
};

struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn default(&self, claim: &mut Object) {
        if let Some(spec) = child(claim, "spec") {
            default_spec(spec);
        }
    }

    fn row(&self, claim: &Object, now: i64) -> Vec<Value> {
        vec![claim.name().into(), state(claim).into(), age(claim, now)]
    }
}

/// Defaults of a claim's spec, alone or in a template.
pub fn default_spec(spec: &mut Value) {
    let Some(devices) = child(spec, "devices") else { return };
    for request in items(devices, "requests") {
        if let Some(exactly) = child(request, "exactly") {
            default_request(exactly);
        }
        items(request, "firstAvailable").for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    default_zero(request, "allocationMode", "ExactCount");
    if request.str_at(&["allocationMode"]) == "ExactCount" {
        default_zero(request, "count", 1);
    }
    for toleration in items(request, "tolerations") {
        default_zero(toleration, "operator", "Equal");
    }
}

fn state(claim: &Object) -> String {
    let mut states = Vec::new();
    if claim.is_deleting() {
        states.push("deleted");
    }
    if claim.at(&["status", "allocation"]).is_some_and(Value::is_object) {
        states.push("allocated");
        if count(claim, &["status", "reservedFor"]) > 0 {
            states.push("reserved");
        }
    } else if states.is_empty() {
        states.push("pending");
    }
    states.join(",")
}
