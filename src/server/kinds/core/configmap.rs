//! ConfigMap (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    storage: "configmaps",
    ..Kind::BASE
};
