//! MutatingAdmissionPolicy (`admissionregistration.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    kind: "MutatingAdmissionPolicy",
    plural: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    storage: "mutatingadmissionpolicies",
    ..Kind::BASE
};
