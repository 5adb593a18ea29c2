//! ClusterRole (`rbac.authorization.k8s.io/v1`).

use super::role::validate_rule;
use crate::field::Errors;
use crate::object::Object;
use crate::server::kinds::view::check;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "rbac.authorization.k8s.io",
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    scope: Scope::Cluster,
    storage: "clusterroles",
    strategy: &ClusterRole,
    ..Kind::BASE
};

struct ClusterRole;

impl Strategy for ClusterRole {
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        names::path_segment(name)
    }

    fn validate(&self, role: &Object, errors: &mut Errors) {
        check(role, errors, |role| {
            role.get("rules").items().for_each(|rule| validate_rule(&rule, false));
            let aggregation = role.get("aggregationRule");
            if aggregation.is_set() {
                let selectors = aggregation.get("clusterRoleSelectors");
                if selectors.is_empty() {
                    selectors.required("at least one clusterRoleSelector required if aggregationRule is non-nil");
                }
                selectors.items().for_each(|selector| rules::label_selector(&selector));
            }
        });
    }
}
