//! A certificate by a CertificateSigningRequest (KEP-1513), as the kubelet gets its own.

use super::failure::{self, Failure};
use super::identity::{Identity, Kind};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// Between looks at a request: short at first, as ours are signed within milliseconds.
const LOOK_FIRST: Duration = Duration::from_millis(25);
const LOOK_SLOWEST: Duration = Duration::from_secs(5);
/// A request that waits for a person is mentioned this often.
const MENTION_EVERY: Duration = Duration::from_secs(60);

/// The signer of a kind of certificate, and what the certificate is for.
fn signer(kind: Kind) -> (&'static str, [&'static str; 2]) {
    match kind {
        Kind::Client => ("kubernetes.io/kube-apiserver-client-kubelet", ["digital signature", "client auth"]),
        Kind::Serving => ("kubernetes.io/kubelet-serving", ["digital signature", "server auth"]),
    }
}

/// The request as an object of the API.
pub fn object(kind: Kind, pem: &str) -> CertificateSigningRequest {
    let (signer, usages) = signer(kind);
    let prefix = match kind {
        Kind::Client => "node-csr-",
        Kind::Serving => "csr-",
    };
    CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some(prefix.to_owned()), ..Default::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.as_bytes().to_vec()),
            signer_name: signer.to_owned(),
            usages: Some(usages.map(str::to_owned).to_vec()),
            ..Default::default()
        },
        status: None,
    }
}

/// Get a certificate for the identity's key; waits until somebody has approved. Gives PEM.
pub async fn certificate(client: &Client, identity: &Identity, kind: Kind) -> Result<String, Failure> {
    let (key, _) = identity.key(kind)?;
    let wanted = object(kind, &identity.signing_request(kind, &key)?);
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let failed = |error: kube::Error| failure::of(&error, &identity.server);
    let made = requests.create(&PostParams::default(), &wanted).await.map_err(failed)?;
    let name = made.metadata.name.clone().unwrap_or_default();
    let (mut pause, mut mentioned) = (LOOK_FIRST, Instant::now());
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LOOK_SLOWEST);
        let seen = requests.get_opt(&name).await.map_err(failed)?;
        let Some(seen) = seen else {
            return Err(Failure::later(format!("the certificate request {name} was deleted; asking again")));
        };
        if let Some(outcome) = outcome(&seen) {
            return outcome.map_err(|why| {
                let node = &identity.node_name;
                Failure::refused(format!("the server refuses a certificate for node {node}: {why}"))
            });
        }
        if mentioned.elapsed() > MENTION_EVERY {
            mentioned = Instant::now();
            let kind = kind.name();
            warn!("the request for this node's {kind} certificate waits: kubectl certificate approve {name}");
        }
    }
}

/// What became of a request: the certificate (PEM), or why there is none; None while it waits.
pub fn outcome(request: &CertificateSigningRequest) -> Option<Result<String, String>> {
    let status = request.status.as_ref()?;
    if let Some(certificate) = status.certificate.as_ref().filter(|c| !c.0.is_empty()) {
        let text = String::from_utf8(certificate.0.clone());
        return Some(text.map_err(|_| "what was signed is not PEM".to_owned()));
    }
    let bad = status.conditions.iter().flatten().find(|c| matches!(c.type_.as_str(), "Denied" | "Failed"))?;
    Some(Err(bad.message.clone().or(bad.reason.clone()).unwrap_or_default()))
}
