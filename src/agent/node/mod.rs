//! The Node object and its Lease: registration, heartbeat, conditions, status.

mod lease;
mod status;

use super::context::Agent;
use crate::task::Group;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// How often the status is computed, and how often it is written although nothing changed (upstream's numbers).
const LOOK_EVERY: Duration = Duration::from_secs(10);
const REPORT_EVERY: Duration = Duration::from_secs(300);
/// Until the node is ready, every moment counts.
const LOOK_UNREADY: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_secs(1);

/// Keep the Node object true until the group ends. `runtime_up`: whether our containerd answers.
pub async fn run(agent: Arc<Agent>, runtime_up: watch::Receiver<bool>, group: Group) {
    let nodes: Api<Node> = Api::all(agent.client.clone());
    let uid = loop {
        match register(&agent, &nodes).await {
            Ok(node) => break node.metadata.uid.unwrap_or_default(),
            Err(error) => {
                debug!("registering the node: {error}");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    group.spawn("node lease", lease::run(agent.clone(), uid));
    report(&agent, &nodes, runtime_up).await;
}

/// Labels that every node has, and the configured ones.
fn labels(agent: &Agent) -> BTreeMap<String, String> {
    let arch = agent.machine.architecture();
    let own = [
        ("kubernetes.io/hostname", agent.config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
        ("node.kubernetes.io/instance-type", "kedge"),
    ];
    let own = own.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
    own.chain(agent.config.node_labels.iter().cloned()).collect()
}

/// Make the Node, or bring the labels of one that exists up to date.
async fn register(agent: &Agent, nodes: &Api<Node>) -> kube::Result<Node> {
    let name = &agent.config.node_name;
    let metadata = json!({"name": name, "labels": labels(agent)});
    let node: Node =
        serde_json::from_value(json!({"metadata": metadata, "spec": {}})).map_err(kube::Error::SerdeError)?;
    match nodes.create(&PostParams::default(), &node).await {
        Ok(node) => {
            info!("registered node {name}");
            Ok(node)
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let patch = json!({"metadata": {"labels": labels(agent)}});
            nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
        }
        Err(error) => Err(error),
    }
}

/// Write the status when it changes, and now and then when it does not.
async fn report(agent: &Arc<Agent>, nodes: &Api<Node>, mut runtime_up: watch::Receiver<bool>) {
    let name = agent.config.node_name.clone();
    let mut pressure = status::Pressure::default();
    let mut sent: Option<serde_json::Value> = None;
    let mut sent_at = Instant::now();
    loop {
        let old = nodes.get_opt(&name).await.ok().flatten();
        let old = old.and_then(|n| n.status).and_then(|s| s.conditions).unwrap_or_default();
        let up = *runtime_up.borrow_and_update();
        let fresh = status::collect(agent, &mut pressure, &old, up).await;
        let comparable = status::without_heartbeats(&fresh.value);
        if sent.as_ref() != Some(&comparable) || sent_at.elapsed() > REPORT_EVERY {
            let patch = Patch::Strategic(json!({"status": fresh.value}));
            match nodes.patch_status(&name, &PatchParams::default(), &patch).await {
                Ok(_) => {
                    if fresh.ready && sent.is_none() {
                        info!("node {name} is ready");
                    }
                    sent = Some(comparable);
                    sent_at = Instant::now();
                }
                Err(kube::Error::Api(error)) if error.is_not_found() => {
                    warn!("node {name} was deleted; registering it again");
                    let _ = register(agent, nodes).await;
                    sent = None;
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                Err(error) => {
                    debug!("writing the node's status: {error}");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        let pause = if fresh.ready { LOOK_EVERY } else { LOOK_UNREADY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = runtime_up.changed() => if changed.is_err() {
                tokio::time::sleep(pause).await;
            },
        }
    }
}
