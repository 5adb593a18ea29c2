//! DeviceTaintRule (`resource.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "resource.k8s.io",
    kind: "DeviceTaintRule",
    plural: "devicetaintrules",
    singular: "devicetaintrule",
    scope: Scope::Cluster,
    subresources: &[STATUS],
    storage: "devicetaintrules",
    ..Kind::BASE
};
