//! ValidatingAdmissionPolicyBinding (`admissionregistration.k8s.io/v1`).

use super::validatingadmissionpolicy::default_resources;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    storage: "validatingadmissionpolicybindings",
    columns: &[Column::NAME, text("PolicyName"), text("ParamRef"), Column::AGE],
    strategy: &ValidatingAdmissionPolicyBinding,
    ..Kind::BASE
};

struct ValidatingAdmissionPolicyBinding;

impl Strategy for ValidatingAdmissionPolicyBinding {
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

/// Defaults of both kinds of binding.
pub fn default_binding(binding: &mut Object) {
    if let Some(resources) = descend(binding, &["spec", "matchResources"]) {
        default_resources(resources);
    }
}

/// A row of either kind of binding.
pub fn row(binding: &Object, now: i64) -> Vec<Value> {
    vec![binding.name().into(), string(binding, &["spec", "policyName"]), param(binding).into(), age(binding, now)]
}

/// `name`, `namespace/name`, or `*` in place of the name where a selector chooses.
fn param(binding: &Object) -> String {
    let Some(param) = binding.at(&["spec", "paramRef"]).filter(|p| p.is_object()) else { return UNSET.to_owned() };
    let (namespace, name) = (param.str_at(&["namespace"]), param.str_at(&["name"]));
    let name = if name.is_empty() { "*" } else { name };
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}
