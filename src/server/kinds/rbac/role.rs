//! Role (`rbac.authorization.k8s.io/v1`).

use crate::field::Errors;
use crate::object::Object;
use crate::server::kinds::view::{View, check};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "rbac.authorization.k8s.io",
    kind: "Role",
    plural: "roles",
    singular: "role",
    storage: "roles",
    strategy: &Role,
    ..Kind::BASE
};

struct Role;

impl Strategy for Role {
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        names::path_segment(name)
    }

    fn validate(&self, role: &Object, errors: &mut Errors) {
        check(role, errors, |role| role.get("rules").items().for_each(|rule| validate_rule(&rule, true)));
    }
}

/// A rule of either kind of role.
pub fn validate_rule(rule: &View<'_>, is_namespaced: bool) {
    if rule.get("verbs").is_empty() {
        rule.get("verbs").required("verbs must contain at least one value");
    }
    let (groups, resources, object_names) = (rule.get("apiGroups"), rule.get("resources"), rule.get("resourceNames"));
    let urls = rule.get("nonResourceURLs");
    if !urls.is_empty() {
        if is_namespaced {
            urls.invalid("namespaced rules cannot apply to non-resource URLs");
        }
        if !groups.is_empty() || !resources.is_empty() || !object_names.is_empty() {
            urls.invalid("rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if groups.is_empty() {
        groups.required("resource rules must supply at least one api group");
    }
    if resources.is_empty() {
        resources.required("resource rules must supply at least one resource");
    }
}
