//! Node (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    scope: Scope::Cluster,
    short_names: &["no"],
    subresources: &[
        Subresource {
            name: "proxy",
            verbs: &["create", "delete", "get", "patch", "update"],
            kind: Some(("", "v1", "NodeProxyOptions")),
        },
        STATUS,
    ],
    storage: "minions",
    selectable: &["spec.unschedulable"],
    ..Kind::BASE
};
