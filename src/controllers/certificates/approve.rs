//! Approves requests for nodes' certificates: client certificates if the requestor may ask for them (a
//! SubjectAccessReview on `certificatesigningrequests/nodeclient` or `/selfnodeclient`, as kube-controller-manager's
//! csrapproving) and the node's name is free or its own ([`super::node_keys`]); serving certificates by [`super::rules`].

use super::super::driver::{Controller, Requeue, Wakes};
use super::super::{Config, Context, apply};
use super::node_keys::{Claim, Records, claim};
use super::rules::{self, Verdict};
use super::{NODE_CLIENT, NODE_SERVING, certificate, condition, has};
use crate::cache::{Cache, Key};
use crate::events::{Recorder, Warning};
use crate::pki::Request;
use async_trait::async_trait;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::api::core::v1::Node;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// How long an undecided request waits for the next look: somebody may be given the right, a Node may report more.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

struct Approve {
    client: Client,
    config: Arc<Config>,
    requests: Cache<CertificateSigningRequest>,
    nodes: Cache<Node>,
    records: Records,
    recorder: Recorder,
    /// Why requests wait, as was told. Bounded by the number of requests.
    told: Mutex<HashMap<Key, String>>,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(Approve {
        client: context.client.clone(),
        config: context.config.clone(),
        requests: context.caches.of(),
        nodes: context.caches.of(),
        records: Records::new(&context.client),
        recorder: context.recorder.clone(),
        told: Mutex::default(),
    })
}

#[async_trait]
impl Controller for Approve {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-approving-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.requests);
        let requests = self.requests.clone();
        // A serving certificate may wait for what its Node reports.
        wakes.on(&self.nodes, move |change| {
            let user = format!("system:node:{}", change.key.name);
            let waits = |csr: &&Arc<CertificateSigningRequest>| {
                csr.spec.username.as_deref() == Some(&user) && csr.spec.signer_name == NODE_SERVING && is_open(csr)
            };
            requests.list().iter().filter(waits).map(|csr| Key::of(csr.as_ref())).collect()
        });
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let Some(csr) = self.requests.at(key).filter(|csr| is_open(csr)) else {
            self.told.lock().remove(key);
            return Ok(Requeue::Done);
        };
        // What cannot be read is for a person to look at.
        let Ok(request) = Request::parse(&csr.spec.request.0) else { return Ok(Requeue::Done) };
        if !matches!(rules::fits_signer(&csr.spec, &request), Some(Ok(()))) {
            return Ok(Requeue::Done);
        }
        let decision = match csr.spec.signer_name.as_str() {
            NODE_CLIENT => self.client_certificate(&csr.spec, &request).await?,
            NODE_SERVING => self.serving_certificate(&csr.spec, &request),
            _ => return Ok(Requeue::Done),
        };
        self.act(&csr, decision).await
    }
}

/// Nobody has decided about it.
fn is_open(csr: &CertificateSigningRequest) -> bool {
    certificate(csr).is_none() && !has(csr, "Approved") && !has(csr, "Denied")
}

enum Decision {
    Approve(&'static str),
    Deny { reason: &'static str, message: String },
    Wait(String),
}

impl Approve {
    fn serving_certificate(&self, spec: &CertificateSigningRequestSpec, request: &Request) -> Decision {
        let name = rules::node_name(request);
        let (node, all) = (self.nodes.get("", name), self.nodes.list());
        let others = all.iter().map(Arc::as_ref).filter(|n: &&Node| n.metadata.name.as_deref() != Some(name));
        match rules::serving(spec, request, node.as_deref(), others, &self.config.certificates.api_names) {
            Verdict::Approve => {
                Decision::Approve("Auto approving the serving certificate of the node that asks for it.")
            }
            Verdict::Deny(message) => Decision::Deny { reason: "NotAllowed", message },
            Verdict::Wait(why) => Decision::Wait(why),
        }
    }

    async fn client_certificate(
        &self,
        spec: &CertificateSigningRequestSpec,
        request: &Request,
    ) -> anyhow::Result<Decision> {
        let node = rules::node_name(request);
        if rules::is_own(spec, request) && self.may(spec, "selfnodeclient").await? {
            self.records.renew(node, &request.key_hash).await?;
            return Ok(Decision::Approve("Auto approving self kubelet client certificate after SubjectAccessReview."));
        }
        if !self.may(spec, "nodeclient").await? {
            return Ok(Decision::Wait(format!("{} may not ask for it", spec.username.as_deref().unwrap_or(""))));
        }
        // Read, not from a cache: a Node that was made or deleted a moment ago counts.
        let nodes: Api<Node> = Api::all(self.client.clone());
        let exists = nodes.get_opt(node).await?.is_some();
        let record = self.records.get(node).await?;
        match claim(record.as_ref(), exists, &request.key_hash, crate::time::now_seconds()) {
            Claim::Known => {}
            Claim::Free => self.records.give(node, &request.key_hash, record).await?,
            Claim::Taken => {
                let message = format!(
                    "node {node} is known with another key. If that machine is gone or was set up anew, run \
                     `kubectl delete node {node}` and join again; otherwise give this machine another --node-name"
                );
                return Ok(Decision::Deny { reason: "NodeNameTaken", message });
            }
        }
        Ok(Decision::Approve("Auto approving kubelet client certificate after SubjectAccessReview."))
    }

    /// May the requestor create `certificatesigningrequests/<what>`?
    async fn may(&self, spec: &CertificateSigningRequestSpec, what: &str) -> anyhow::Result<bool> {
        let review = json!({"spec": {
            "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
            "resourceAttributes": {"group": "certificates.k8s.io", "resource": "certificatesigningrequests",
                                   "verb": "create", "subresource": what}}});
        let review: SubjectAccessReview = serde_json::from_value(review)?;
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|s| s.allowed))
    }

    async fn act(&self, csr: &CertificateSigningRequest, decision: Decision) -> anyhow::Result<Requeue> {
        let name = Key::of(csr).name;
        let condition = match decision {
            Decision::Approve(message) => {
                info!(request = name, user = csr.spec.username, "certificate approved");
                condition("Approved", "AutoApproved", message)
            }
            Decision::Deny { reason, message } => {
                warn!(request = name, user = csr.spec.username, message, "certificate denied");
                condition("Denied", reason, &message)
            }
            Decision::Wait(why) => {
                let before = self.told.lock().insert(Key::of(csr), why.clone());
                if before.as_ref() != Some(&why) {
                    info!(request = name, user = csr.spec.username, why, "certificate not approved yet");
                    self.recorder.event(&csr.object_ref(&()), Warning, "NotApproved", why);
                }
                return Ok(Requeue::After(LOOK_AGAIN));
            }
        };
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let mut fresh = apply::unchanged(&api, csr).await?;
        fresh.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
        api.replace_subresource("approval", &name, &PostParams::default(), &fresh).await?;
        Ok(Requeue::Done)
    }
}
