//! Deployment (`apps/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[SCALE, STATUS],
    storage: "deployments",
    ..Kind::BASE
};
