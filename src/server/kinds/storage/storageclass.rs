//! StorageClass (`storage.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    scope: Scope::Cluster,
    short_names: &["sc"],
    storage: "storageclasses",
    ..Kind::BASE
};
