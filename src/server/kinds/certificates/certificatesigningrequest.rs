//! CertificateSigningRequest (`certificates.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    scope: Scope::Cluster,
    short_names: &["csr"],
    subresources: &[Subresource { name: "approval", verbs: &["get", "patch", "update"], kind: None }, STATUS],
    storage: "certificatesigningrequests",
    selectable: &["spec.signerName"],
    ..Kind::BASE
};
