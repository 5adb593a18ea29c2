//! PersistentVolume (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    scope: Scope::Cluster,
    short_names: &["pv"],
    subresources: &[STATUS],
    storage: "persistentvolumes",
    ..Kind::BASE
};
