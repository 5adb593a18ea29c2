//! ClusterRoleBinding (`rbac.authorization.k8s.io/v1`).

use super::rolebinding;
use crate::object::Object;
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

    fn row(&self, binding: &Object, now: i64) -> Vec<Value> {
        rolebinding::row(binding, now)
    }
}
