//! PersistentVolumeClaim (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    subresources: &[STATUS],
    storage: "persistentvolumeclaims",
    ..Kind::BASE
};
