//! MutatingWebhookConfiguration (`admissionregistration.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    kind: "MutatingWebhookConfiguration",
    plural: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    storage: "mutatingwebhookconfigurations",
    ..Kind::BASE
};
