//! ClusterRole (`rbac.authorization.k8s.io/v1`).

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
}
