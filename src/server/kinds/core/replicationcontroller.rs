//! ReplicationController (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    subresources: &[SCALE, STATUS],
    storage: "controllers",
    selectable: &["status.replicas"],
    ..Kind::BASE
};
