//! ComponentStatus (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "ComponentStatus",
    plural: "componentstatuses",
    singular: "componentstatus",
    scope: Scope::Cluster,
    short_names: &["cs"],
    verbs: Verbs::ReadOnly,
    ..Kind::BASE
};
