//! PodCertificateRequest (`certificates.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "certificates.k8s.io",
    kind: "PodCertificateRequest",
    plural: "podcertificaterequests",
    singular: "podcertificaterequest",
    subresources: &[STATUS],
    storage: "podcertificaterequests",
    selectable: &["spec.signerName", "spec.nodeName"],
    ..Kind::BASE
};
