//! ResourceSlice (`resource.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "resource.k8s.io",
    kind: "ResourceSlice",
    plural: "resourceslices",
    singular: "resourceslice",
    scope: Scope::Cluster,
    storage: "resourceslices",
    selectable: &["spec.nodeName", "spec.driver"],
    ..Kind::BASE
};
