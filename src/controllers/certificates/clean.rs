//! Old requests go: decided ones after an hour, undecided ones after a day, and those whose certificate is no longer
//! valid (kube-controller-manager's csrcleaner).

use super::super::driver::{Controller, Requeue, Wakes};
use super::super::{Context, apply};
use super::{certificate, conditions, has};
use crate::cache::{Cache, Key};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::{Api, Client};
use std::time::Duration;

/// Life of a request that was decided (approved, denied, failed), and of one that was not. Seconds.
const DECIDED: i64 = 3600;
const UNDECIDED: i64 = 24 * 3600;

struct Clean {
    client: Client,
    requests: Cache<CertificateSigningRequest>,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(Clean { client: context.client.clone(), requests: context.caches.of() })
}

#[async_trait]
impl Controller for Clean {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-cleaner-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.requests);
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let Some(csr) = self.requests.at(key) else { return Ok(Requeue::Done) };
        let left = seconds_left(&csr, crate::time::now());
        if left > 0 {
            return Ok(Requeue::After(Duration::from_secs(left as u64)));
        }
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        apply::delete(&api, csr.as_ref()).await?;
        Ok(Requeue::Done)
    }
}

/// Until a request goes.
fn seconds_left(csr: &CertificateSigningRequest, now: Timestamp) -> i64 {
    let since = |then: Timestamp| now.as_second() - then.as_second();
    let created = csr.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    if let Some(end) = certificate(csr).and_then(not_after).filter(|end| *end <= now.as_second()) {
        return end - now.as_second();
    }
    if !["Approved", "Denied", "Failed"].iter().any(|kind| has(csr, kind)) {
        return UNDECIDED - since(created);
    }
    // An approved request that nobody signed may still be signed: it counts as undecided.
    if !has(csr, "Denied") && !has(csr, "Failed") && certificate(csr).is_none() {
        return UNDECIDED - since(created);
    }
    let decided = conditions(csr).iter().filter_map(|c| c.last_update_time.as_ref()).map(|t| t.0).max();
    DECIDED - since(decided.unwrap_or(created))
}

/// End of a certificate (PEM), Unix seconds.
fn not_after(pem: &[u8]) -> Option<i64> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&pem.contents).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn left(status: Value) -> i64 {
        let csr = json!({"metadata": {"name": "r", "creationTimestamp": "2026-06-02T00:00:00Z"},
            "spec": {"request": "", "signerName": "a.b/c"}, "status": status});
        seconds_left(&serde_json::from_value(csr).unwrap(), "2026-06-02T02:00:00Z".parse().unwrap())
    }

    #[test]
    fn what_is_done_goes_first() {
        let decided = |kind: &str| json!({"conditions": [{"type": kind, "status": "True", "lastUpdateTime": "2026-06-02T01:30:00Z"}]});
        let mut issued = decided("Approved");
        issued["certificate"] = "eA==".into();
        for (status, want) in [
            (json!({}), 22 * 3600),
            (decided("Approved"), 22 * 3600),
            (decided("Denied"), 1800),
            (decided("Failed"), 1800),
            (issued, 1800),
        ] {
            assert_eq!(left(status.clone()), want, "{status}");
        }
    }
}
