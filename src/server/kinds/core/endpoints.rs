//! Endpoints (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    storage: "services/endpoints",
    ..Kind::BASE
};
