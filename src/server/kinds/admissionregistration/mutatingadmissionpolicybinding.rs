//! MutatingAdmissionPolicyBinding (`admissionregistration.k8s.io/v1`).

use super::validatingadmissionpolicybinding::{default_binding, row};
use crate::object::Object;
use crate::server::kinds::cells::text;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    kind: "MutatingAdmissionPolicyBinding",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    storage: "mutatingadmissionpolicybindings",
    columns: &[Column::NAME, text("PolicyName"), text("ParamRef"), Column::AGE],
    strategy: &MutatingAdmissionPolicyBinding,
    ..Kind::BASE
};

struct MutatingAdmissionPolicyBinding;

impl Strategy for MutatingAdmissionPolicyBinding {
    fn default(&self, binding: &mut Object) {
        default_binding(binding);
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, binding: &Object, now: i64) -> Vec<Value> {
        row(binding, now)
    }
}
