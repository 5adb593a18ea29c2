//! MutatingAdmissionPolicy (`admissionregistration.k8s.io/v1`).

use super::validatingadmissionpolicy::{default_policy, param_kind};
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    kind: "MutatingAdmissionPolicy",
    plural: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    storage: "mutatingadmissionpolicies",
    columns: &[Column::NAME, integer("Mutations"), text("ParamKind"), Column::AGE],
    strategy: &MutatingAdmissionPolicy,
    ..Kind::BASE
};

struct MutatingAdmissionPolicy;

impl Strategy for MutatingAdmissionPolicy {
    fn default(&self, policy: &mut Object) {
        default_policy(policy);
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, policy: &Object, now: i64) -> Vec<Value> {
        let mutations = count(policy, &["spec", "mutations"]);
        vec![policy.name().into(), mutations.into(), param_kind(policy).into(), age(policy, now)]
    }
}
