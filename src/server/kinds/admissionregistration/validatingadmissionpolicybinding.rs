//! ValidatingAdmissionPolicyBinding (`admissionregistration.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    storage: "validatingadmissionpolicybindings",
    ..Kind::BASE
};
