//! VolumeAttachment (`storage.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    kind: "VolumeAttachment",
    plural: "volumeattachments",
    singular: "volumeattachment",
    scope: Scope::Cluster,
    subresources: &[STATUS],
    storage: "volumeattachments",
    ..Kind::BASE
};
