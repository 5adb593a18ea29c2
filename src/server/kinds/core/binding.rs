//! Binding (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind =
    Kind { kind: "Binding", plural: "bindings", singular: "binding", verbs: Verbs::CreateOnly, ..Kind::BASE };
