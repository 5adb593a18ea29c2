//! ResourceClaimTemplate (`resource.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "resource.k8s.io",
    kind: "ResourceClaimTemplate",
    plural: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
    storage: "resourceclaimtemplates",
    ..Kind::BASE
};
