//! ClusterTrustBundle (`certificates.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "certificates.k8s.io",
    kind: "ClusterTrustBundle",
    plural: "clustertrustbundles",
    singular: "clustertrustbundle",
    scope: Scope::Cluster,
    storage: "clustertrustbundles",
    selectable: &["spec.signerName"],
    columns: &[Column::NAME, text("SignerName")],
    strategy: &ClusterTrustBundle,
    ..Kind::BASE
};

struct ClusterTrustBundle;

impl Strategy for ClusterTrustBundle {
    fn allow_unconditional_update(&self) -> bool {
        false
    }

    /// `signer.example.com:name`, the signer's slashes as colons.
    fn validate_name(&self, name: &str) -> Result<(), String> {
        name.rsplit_once(':').map_or(Ok(()), |(signer, _)| names::path_segment(signer))?;
        names::dns_subdomain(name.rsplit(':').next().unwrap_or(name))
    }

    fn row(&self, bundle: &Object, _now: i64) -> Vec<Value> {
        vec![bundle.name().into(), string(bundle, &["spec", "signerName"])]
    }
}
