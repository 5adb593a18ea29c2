//! The node's heartbeat: a Lease in kube-node-lease, renewed every 10 s (KEP-589).

use crate::agent::context::Agent;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

const NAMESPACE: &str = "kube-node-lease";
const RENEW_EVERY: Duration = Duration::from_secs(10);
const DURATION_SECONDS: i32 = 40;
const RETRY: Duration = Duration::from_secs(1);

/// Renew until the task is dropped. `uid` of the Node owns the Lease.
pub async fn run(agent: Arc<Agent>, uid: String) {
    let leases: Api<Lease> = Api::namespaced(agent.client.clone(), NAMESPACE);
    let mut held: Option<Lease> = None;
    loop {
        match renew(&agent, &leases, held.take(), &uid).await {
            Ok(lease) => {
                held = Some(lease);
                tokio::time::sleep(RENEW_EVERY).await;
            }
            Err(error) => {
                // Somebody else wrote it, or the server is away: read it anew.
                debug!("renewing the node's lease: {error}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn renew(agent: &Agent, leases: &Api<Lease>, held: Option<Lease>, uid: &str) -> kube::Result<Lease> {
    let name = &agent.config.node_name;
    let held = match held {
        Some(lease) => Some(lease),
        None => leases.get_opt(name).await?,
    };
    let now = crate::time::rfc3339_micro(crate::time::now());
    let Some(lease) = held else {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid});
        let lease = json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": [owner]},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now},
        });
        let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
        return leases.create(&PostParams::default(), &lease).await;
    };
    let mut value = serde_json::to_value(lease).map_err(kube::Error::SerdeError)?;
    value["spec"]["renewTime"] = now.into();
    value["spec"]["holderIdentity"] = name.as_str().into();
    value["spec"]["leaseDurationSeconds"] = DURATION_SECONDS.into();
    let lease = serde_json::from_value(value).map_err(kube::Error::SerdeError)?;
    leases.replace(name, &PostParams::default(), &lease).await
}
