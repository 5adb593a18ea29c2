//! A node that was switched off for longer than its certificate lives comes back by its key: it shows the certificate
//! that has ended, and a signing request that the same key has signed. The request then goes the way of every other,
//! as the node's own: node authorizer, admission, approval, record of the node's key.
//!
//! No TLS with the old certificate is needed: the request's own signature proves the key, and a replayed request gets a
//! certificate that is worth nothing without it.

use crate::client;
use crate::join::identity::Kind;
use crate::join::{GROUP, Renewal, Renewed, request, token};
use crate::pki;
use crate::server::api::{Api, json_response};
use crate::server::request::UserInfo;
use crate::status::{Reason, Result, Status};
use axum::body::Body;
use http::{Method, Request, Response};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::PostParams;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Renewals at once; more are told to come again: everyone may ask here, and each costs two signatures to check.
const AT_ONCE: usize = 8;
/// Largest body.
const MAX_BYTES: usize = 32 * 1024;
/// How long a request may take to be signed, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub struct Renewals {
    /// PEM of the CA of client certificates.
    client_ca: String,
    slots: Semaphore,
}

impl Renewals {
    pub fn new(client_ca: String) -> Self {
        Renewals { client_ca, slots: Semaphore::new(AT_ONCE) }
    }

    pub async fn answer(&self, api: &Arc<Api>, request: Request<Body>) -> Result<Response<Body>> {
        let _slot = self.slots.try_acquire().map_err(|_| Status::new(Reason::TooManyRequests, "try again later"))?;
        if request.method() != Method::POST {
            return Err(Status::new(Reason::MethodNotAllowed, "POST a certificate and a request"));
        }
        let body = axum::body::to_bytes(request.into_body(), MAX_BYTES).await;
        let body = body.map_err(|e| Status::bad_request(format!("the body cannot be read: {e}")))?;
        let renewal: Renewal = serde_json::from_slice(&body).map_err(|e| Status::bad_request(e.to_string()))?;
        let user = node_of(&renewal, &self.client_ca).map_err(|why| {
            tracing::info!(why, "a node's renewal is refused");
            Status::new(Reason::Forbidden, why)
        })?;
        let certificate = sign(api, &user, &renewal.request).await?;
        tracing::info!(user, "a node is back after its certificate had ended");
        json_response(&Renewed { certificate })
    }
}

/// The user of a node that proves to be it; Err says what is wrong.
fn node_of(renewal: &Renewal, client_ca: &str) -> Result<String, &'static str> {
    let certificate = CertificateDer::from_pem_slice(renewal.certificate.as_bytes()).map_err(|_| "no certificate")?;
    let ca = CertificateDer::from_pem_slice(client_ca.as_bytes()).map_err(|_| "no CA")?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).map_err(|_| "no certificate")?;
    let (_, ca) = x509_parser::parse_x509_certificate(&ca).map_err(|_| "no CA")?;
    if certificate.verify_signature(Some(ca.public_key())).is_err() {
        return Err("the certificate is not from this cluster: join again with a token");
    }
    let request = pki::Request::parse(renewal.request.as_bytes()).map_err(|_| "no request signed by its own key")?;
    if request.key_hash != token::hex(&token::sha256(certificate.public_key().raw)) {
        return Err("certificate and request are of different keys");
    }
    let mut groups = certificate.subject().iter_organization().filter_map(|o| o.as_str().ok());
    let user = certificate.subject().iter_common_name().next().and_then(|c| c.as_str().ok()).unwrap_or_default();
    if !user.starts_with("system:node:") || !groups.any(|g| g == GROUP) {
        return Err("the certificate is not a node's");
    }
    Ok(user.to_owned())
}

/// Let the request be approved and signed, as the node's own.
async fn sign(api: &Arc<Api>, user: &str, pem: &str) -> Result<String> {
    let client = client::local(api.local(UserInfo::authenticated(user, &[GROUP])));
    let requests: kube::Api<CertificateSigningRequest> = kube::Api::all(client);
    let failed = |error: kube::Error| match error {
        kube::Error::Api(status) => Status::new(Reason::Forbidden, status.message.clone()),
        other => Status::internal(other.to_string()),
    };
    let made = requests.create(&PostParams::default(), &request::object(Kind::Client, pem)).await.map_err(failed)?;
    let name = made.metadata.name.unwrap_or_default();
    let wait = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(outcome) = request::outcome(&requests.get(&name).await.map_err(failed)?) {
                return outcome.map_err(|why| Status::new(Reason::Forbidden, why));
            }
        }
    };
    let late = || Status::unavailable(format!("the request {name} waits: kubectl certificate approve {name}"));
    tokio::time::timeout(PATIENCE, wait).await.map_err(|_| late())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{LeafSpec, Pki, PkiConfig};
    use rcgen::{CertificateParams, KeyPair};

    fn request(key: &KeyPair) -> String {
        CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn only_the_same_key_and_our_ca() {
        let dir = tempfile::tempdir().unwrap();
        let pki = |name: &str| {
            let config = PkiConfig {
                node_name: "s".into(),
                node_ips: vec![],
                service_ips: vec![],
                cluster_domain: "cluster.local".into(),
                tls_sans: vec![],
                life: crate::pki::LEAF_LIFE,
            };
            Pki::load_or_create(&dir.path().join(name), config).unwrap()
        };
        let (ours, foreign) = (pki("ours"), pki("foreign"));
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let node = LeafSpec::client("system:node:n1", "system:nodes");
        // It ended an hour ago.
        let ended = |pki: &Pki, spec: &LeafSpec| pki.client_ca().sign_request(&request(&key), spec, -3600).unwrap();
        let cases = [
            (ended(&ours, &node), request(&key), Ok("system:node:n1")),
            (ended(&foreign, &node), request(&key), Err("not from this cluster")),
            (ended(&ours, &node), request(&other), Err("different keys")),
            (ended(&ours, &LeafSpec::client("jane", "system:masters")), request(&key), Err("not a node's")),
            (ended(&ours, &LeafSpec::client("system:node:n1", "")), request(&key), Err("not a node's")),
            (String::new(), request(&key), Err("no certificate")),
            (ended(&ours, &node), "x".into(), Err("no request")),
        ];
        for (certificate, request, want) in cases {
            let got = node_of(&Renewal { certificate, request }, ours.client_ca().pem());
            match (got, want) {
                (Ok(user), Ok(want)) => assert_eq!(user, want),
                (Err(why), Err(want)) => assert!(why.contains(want), "{why}"),
                (got, want) => panic!("{got:?}, not {want:?}"),
            }
        }
    }
}
