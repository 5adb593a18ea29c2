//! ClusterRoleBinding (`rbac.authorization.k8s.io/v1`).

use super::rolebinding;
use crate::field::Errors;
use crate::object::Object;
use crate::server::kinds::view::{check, check_change};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "rbac.authorization.k8s.io",
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    scope: Scope::Cluster,
    storage: "clusterrolebindings",
    columns: rolebinding::COLUMNS,
    strategy: &ClusterRoleBinding,
    ..Kind::BASE
};

struct ClusterRoleBinding;

impl Strategy for ClusterRoleBinding {
    fn default(&self, binding: &mut Object) {
        rolebinding::default_binding(binding);
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        names::path_segment(name)
    }

    fn validate(&self, binding: &Object, errors: &mut Errors) {
        check(binding, errors, |binding| rolebinding::validate_binding(binding, false));
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, rolebinding::validate_change);
    }

    fn row(&self, binding: &Object, now: i64) -> Vec<Value> {
        rolebinding::row(binding, now)
    }
}
