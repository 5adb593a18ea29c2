//! FlowSchema (`flowcontrol.apiserver.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "FlowSchema",
    plural: "flowschemas",
    singular: "flowschema",
    scope: Scope::Cluster,
    subresources: &[STATUS],
    storage: "flowschemas",
    ..Kind::BASE
};
