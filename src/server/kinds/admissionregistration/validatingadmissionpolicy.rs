//! ValidatingAdmissionPolicy (`admissionregistration.k8s.io/v1`).

use super::validatingwebhookconfiguration::{default_match, default_rule};
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingAdmissionPolicy",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    subresources: &[STATUS],
    storage: "validatingadmissionpolicies",
    columns: &[Column::NAME, integer("Validations"), text("ParamKind"), Column::AGE],
    strategy: &ValidatingAdmissionPolicy,
    ..Kind::BASE
};

struct ValidatingAdmissionPolicy;

impl Strategy for ValidatingAdmissionPolicy {
    fn default(&self, policy: &mut Object) {
        default_policy(policy);
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, policy: &Object, now: i64) -> Vec<Value> {
        let validations = count(policy, &["spec", "validations"]);
        vec![policy.name().into(), validations.into(), param_kind(policy).into(), age(policy, now)]
    }
}

/// Defaults of both kinds of policy.
pub fn default_policy(policy: &mut Object) {
    let Some(spec) = child(policy, "spec") else { return };
    default_nil(spec, "failurePolicy", "Fail");
    if let Some(constraints) = child(spec, "matchConstraints") {
        default_resources(constraints);
    }
}

/// Defaults of `MatchResources`.
pub fn default_resources(resources: &mut Value) {
    default_match(resources);
    for rules in ["resourceRules", "excludeResourceRules"] {
        items(resources, rules).for_each(default_rule);
    }
}

/// `apps/v1/Deployment`
pub fn param_kind(policy: &Object) -> String {
    match policy.at(&["spec", "paramKind"]) {
        Some(kind) if kind.is_object() => format!("{}/{}", kind.str_at(&["apiVersion"]), kind.str_at(&["kind"])),
        _ => UNSET.to_owned(),
    }
}
