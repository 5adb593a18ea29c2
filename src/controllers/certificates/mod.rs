//! CertificateSigningRequests: approved where the rules are clear, signed where approved, removed when old.
//!
//! | part | what it does | model |
//! |---|---|---|
//! | [`approve`] | decides about certificates of nodes; everything else waits for `kubectl certificate approve` | kube-controller-manager's csrapproving, kubelet-csr-approver |
//! | [`rules`] | what a request of a node may say | upstream's signers |
//! | [`node_keys`] | whose key a node's name belongs to | k3s' node passwords |
//! | [`sign`] | certificates for approved requests of the built-in signers | csrsigning |
//! | [`clean`] | old requests go | csrcleaner |

mod approve;
mod clean;
mod node_keys;
mod rules;
mod sign;

pub use approve::new as approver;
pub use clean::new as cleaner;
pub use node_keys::new as node_keys;
pub use sign::new as signer;

use crate::pki::Request;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;
use std::time::Duration;

/// Client certificates of users (approved by people).
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Client certificates of nodes.
pub const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Serving certificates of nodes.
pub const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";
/// Requests from before there were signers' names; no trust goes with them.
pub const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// Signs: the signer's name, the request, its usages, the life in seconds; gives PEM.
type SignFn = dyn Fn(&str, &Request, &[String], i64) -> anyhow::Result<String> + Send + Sync;

/// Whoever holds the keys of the CAs.
#[derive(Clone)]
pub struct Signer(pub Arc<SignFn>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

/// How certificates are signed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// None: somebody else signs.
    pub signer: Option<Signer>,
    /// Longest life of a certificate, and that of one whose request names none (`--cluster-signing-duration`).
    pub life: Duration,
    /// Names and addresses of the API server: no node gets a certificate for one of these.
    pub api_names: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { signer: None, life: Duration::from_secs(365 * 24 * 3600), api_names: Vec::new() }
    }
}

fn conditions(csr: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    csr.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

/// Is the condition there, not as "False"?
fn has(csr: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(csr).iter().any(|c| c.type_ == kind && c.status != "False")
}

fn condition(kind: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    let now = Some(Time(crate::time::now()));
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: now.clone(),
        last_update_time: now,
    }
}

fn certificate(csr: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = csr.status.as_ref().and_then(|s| s.certificate.as_ref());
    certificate.map(|c| c.0.as_slice()).filter(|c| !c.is_empty())
}
