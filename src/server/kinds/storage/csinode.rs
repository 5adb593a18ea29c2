//! CSINode (`storage.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    kind: "CSINode",
    plural: "csinodes",
    singular: "csinode",
    scope: Scope::Cluster,
    subresources: &[STATUS],
    storage: "csinodes",
    ..Kind::BASE
};
