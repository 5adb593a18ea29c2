//! Secret (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    storage: "secrets",
    selectable: &["type"],
    ..Kind::BASE
};
