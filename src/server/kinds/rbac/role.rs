//! Role (`rbac.authorization.k8s.io/v1`).

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
}
