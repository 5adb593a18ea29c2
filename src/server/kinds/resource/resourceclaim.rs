//! ResourceClaim (`resource.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "resource.k8s.io",
    kind: "ResourceClaim",
    plural: "resourceclaims",
    singular: "resourceclaim",
    subresources: &[STATUS],
    storage: "resourceclaims",
    ..Kind::BASE
};
