//! StorageVersionMigration (`storagemigration.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "storagemigration.k8s.io",
    kind: "StorageVersionMigration",
    plural: "storageversionmigrations",
    singular: "storageversionmigration",
    scope: Scope::Cluster,
    subresources: &[STATUS],
    storage: "storageversionmigrations",
    ..Kind::BASE
};
