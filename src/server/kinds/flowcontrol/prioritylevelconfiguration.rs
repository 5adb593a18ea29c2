//! PriorityLevelConfiguration (`flowcontrol.apiserver.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    scope: Scope::Cluster,
    subresources: &[STATUS],
    storage: "prioritylevelconfigurations",
    ..Kind::BASE
};
