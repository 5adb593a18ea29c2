//! Signs approved requests of the built-in signers (kube-controller-manager's csrsigning).

use super::super::driver::{Controller, Requeue, Wakes};
use super::super::{Config, Context, apply};
use super::{certificate, condition, has, rules};
use crate::cache::{Cache, Key};
use crate::pki::Request;
use async_trait::async_trait;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::{Api, Client};
use std::sync::Arc;
use tracing::info;

/// No certificate is shorter, whatever its request says.
const SHORTEST_SECONDS: i64 = 600;

struct Sign {
    client: Client,
    config: Arc<Config>,
    requests: Cache<CertificateSigningRequest>,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(Sign { client: context.client.clone(), config: context.config.clone(), requests: context.caches.of() })
}

#[async_trait]
impl Controller for Sign {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-signing-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.requests);
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let Some(csr) = self.requests.at(key).filter(|csr| is_due(csr)) else { return Ok(Requeue::Done) };
        let Some(outcome) = self.outcome(&csr.spec) else { return Ok(Requeue::Done) };
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        apply::status(&api, csr.as_ref(), |fresh| {
            let status = fresh.status.get_or_insert_default();
            match &outcome {
                Ok(pem) => status.certificate = Some(ByteString(pem.clone().into_bytes())),
                Err(why) => {
                    let failed = condition("Failed", "SignerValidationFailure", why);
                    status.conditions.get_or_insert_default().push(failed);
                }
            }
        })
        .await?;
        match outcome {
            Ok(_) => info!(request = key.name, user = csr.spec.username, "certificate signed"),
            Err(why) => info!(request = key.name, user = csr.spec.username, why, "certificate not signed"),
        }
        Ok(Requeue::Done)
    }
}

/// Approved, and neither signed nor given up.
fn is_due(csr: &CertificateSigningRequest) -> bool {
    has(csr, "Approved") && !has(csr, "Denied") && !has(csr, "Failed") && certificate(csr).is_none()
}

impl Sign {
    /// The certificate, or why there can be none. None: not a signer of ours.
    fn outcome(&self, spec: &CertificateSigningRequestSpec) -> Option<Result<String, String>> {
        let settings = &self.config.certificates;
        let signer = settings.signer.as_ref()?;
        let signed = || {
            let request = Request::parse(&spec.request.0).map_err(|e| format!("{e:#}"))?;
            let Some(fits) = rules::fits_signer(spec, &request) else { return Ok(None) };
            fits?;
            let life = life(spec.expiration_seconds, settings.life.as_secs() as i64);
            let usages = spec.usages.clone().unwrap_or_default();
            (signer.0)(&spec.signer_name, &request, &usages, life).map(Some).map_err(|e| format!("{e:#}"))
        };
        signed().transpose()
    }
}

/// Seconds: what was asked for, between the shortest and the longest we give.
fn life(asked: Option<i32>, longest: i64) -> i64 {
    asked.map_or(longest, |asked| i64::from(asked).max(SHORTEST_SECONDS).min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives() {
        let year = 365 * 24 * 3600;
        for (asked, longest, want) in [
            (None, year, year),
            (Some(60), year, 600),
            (Some(3600), year, 3600),
            (Some(i32::MAX), year, year),
            (Some(3600), 60, 60),
        ] {
            assert_eq!(life(asked, longest), want, "{asked:?}");
        }
    }
}
