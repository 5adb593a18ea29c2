//! ValidatingAdmissionPolicy (`admissionregistration.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingAdmissionPolicy",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    subresources: &[STATUS],
    storage: "validatingadmissionpolicies",
    ..Kind::BASE
};
