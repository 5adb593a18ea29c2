//! RoleBinding (`rbac.authorization.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "rbac.authorization.k8s.io",
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    storage: "rolebindings",
    ..Kind::BASE
};
