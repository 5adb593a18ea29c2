//! StatefulSet (`apps/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    subresources: &[SCALE, STATUS],
    storage: "statefulsets",
    ..Kind::BASE
};
