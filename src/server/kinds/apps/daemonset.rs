//! DaemonSet (`apps/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    subresources: &[STATUS],
    storage: "daemonsets",
    ..Kind::BASE
};
