//! PriorityClass (`scheduling.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    scope: Scope::Cluster,
    short_names: &["pc"],
    storage: "priorityclasses",
    ..Kind::BASE
};
