//! The node's heartbeat: a Lease in kube-node-lease, renewed every 5 s (KEP-589).

use crate::agent::context::Agent;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::debug;

const NAMESPACE: &str = "kube-node-lease";
const RENEW_EVERY: Duration = Duration::from_secs(5);
const DURATION_SECONDS: i32 = 40;
const RETRY: Duration = Duration::from_secs(1);

/// Renew until the task is dropped. `back` counts how often the server came back after it had been away.
pub async fn run(agent: Arc<Agent>, back: watch::Sender<u64>) {
    let leases: Api<Lease> = Api::namespaced(agent.client.clone(), NAMESPACE);
    let mut away = false;
    loop {
        let pause = match renew(&agent, &leases).await {
            Ok(()) => {
                if std::mem::take(&mut away) {
                    back.send_modify(|times| *times += 1);
                }
                RENEW_EVERY
            }
            Err(error) => {
                debug!("renewing the node's lease: {error}");
                away = true;
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Only the time goes over the wire, and no object comes back.
async fn renew(agent: &Agent, leases: &Api<Lease>) -> kube::Result<()> {
    let name = &agent.config.node_name;
    let now = crate::time::rfc3339_micro(crate::time::now());
    let change = json!({"spec": {"renewTime": now, "holderIdentity": name}});
    match leases.patch_metadata(name, &PatchParams::default(), &Patch::Merge(change)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => create(agent, leases, &now).await,
        renewed => renewed.map(drop),
    }
}

/// The Lease goes with its Node, so it is made for the Node that is there now.
async fn create(agent: &Agent, leases: &Api<Lease>, now: &str) -> kube::Result<()> {
    let name = &agent.config.node_name;
    let node = Api::<Node>::all(agent.client.clone()).get(name).await?;
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.metadata.uid});
    let lease = json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": [owner]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now},
    });
    let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
    leases.create(&PostParams::default(), &lease).await.map(drop)
}
