//! ClusterTrustBundle (`certificates.k8s.io/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "certificates.k8s.io",
    kind: "ClusterTrustBundle",
    plural: "clustertrustbundles",
    singular: "clustertrustbundle",
    scope: Scope::Cluster,
    storage: "clustertrustbundles",
    selectable: &["spec.signerName"],
    ..Kind::BASE
};
