//! ValidatingWebhookConfiguration (`admissionregistration.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    storage: "validatingwebhookconfigurations",
    ..Kind::BASE
};
