//! MutatingAdmissionPolicyBinding (`admissionregistration.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    kind: "MutatingAdmissionPolicyBinding",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    storage: "mutatingadmissionpolicybindings",
    ..Kind::BASE
};
