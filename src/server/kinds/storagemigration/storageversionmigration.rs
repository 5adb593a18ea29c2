//! StorageVersionMigration (`storagemigration.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::text;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "storagemigration.k8s.io",
    kind: "StorageVersionMigration",
    plural: "storageversionmigrations",
    singular: "storageversionmigration",
    scope: Scope::Cluster,
    subresources: &[STATUS],
    storage: "storageversionmigrations",
    columns: &[Column::NAME, text("Resource")],
    strategy: &StorageVersionMigration,
    ..Kind::BASE
};

struct StorageVersionMigration;

impl Strategy for StorageVersionMigration {
    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, migration: &Object, _now: i64) -> Vec<Value> {
        let (group, resource) =
            (migration.str_at(&["spec", "resource", "group"]), migration.str_at(&["spec", "resource", "resource"]));
        let dot = if group.is_empty() { "" } else { "." };
        vec![migration.name().into(), format!("{resource}{dot}{group}").into()]
    }
}
