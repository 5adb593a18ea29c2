//! VolumeAttributesClass (`storage.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    kind: "VolumeAttributesClass",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    scope: Scope::Cluster,
    short_names: &["vac"],
    storage: "volumeattributesclasses",
    ..Kind::BASE
};
