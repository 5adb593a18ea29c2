//! ReplicaSet (`apps/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[SCALE, STATUS],
    storage: "replicasets",
    selectable: &["status.replicas"],
    ..Kind::BASE
};
