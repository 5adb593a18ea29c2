//! LimitRange (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    storage: "limitranges",
    ..Kind::BASE
};
