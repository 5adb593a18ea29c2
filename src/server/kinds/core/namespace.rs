//! Namespace (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    scope: Scope::Cluster,
    short_names: &["ns"],
    verbs: Verbs::NoCollectionDelete,
    subresources: &[Subresource { name: "finalize", verbs: &["update"], kind: None }, STATUS],
    storage: "namespaces",
    selectable: &["status.phase"],
    ..Kind::BASE
};
