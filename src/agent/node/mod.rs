//! The Node object and its Lease: registration, heartbeat, conditions, status.

mod lease;
mod status;

use super::context::Agent;
use crate::cache::{Cache, Changes, Notice};
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

/// Keep the Node object true until the group ends. `runtime_up`: whether our containerd answers. `own`: the Node as the
/// API has it.
pub async fn run(agent: Arc<Agent>, own: Cache<Node>, runtime_up: watch::Receiver<bool>, group: Group) {
    let nodes: Api<Node> = Api::all(agent.client.clone());
    while let Err(error) = register(&agent, &nodes).await {
        debug!("registering the node: {error}");
        tokio::time::sleep(RETRY).await;
    }
    let (back, server_back) = watch::channel(0);
    group.spawn("node lease", lease::run(agent.clone(), back));
    report(&agent, &nodes, own, runtime_up, server_back).await;
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

/// Write the status when it changes, when somebody else changed it, and now and then. The Node is followed, not read:
/// an idle node is silent but for its Lease.
async fn report(
    agent: &Arc<Agent>,
    nodes: &Api<Node>,
    own: Cache<Node>,
    mut runtime_up: watch::Receiver<bool>,
    mut server_back: watch::Receiver<u64>,
) {
    let name = agent.config.node_name.clone();
    let (mut pressure, mut changes) = (status::Pressure::default(), own.subscribe());
    let mut stopping = agent.stopping.subscribe();
    // What the API has tells since when conditions are as they are; a server that is away is not waited for.
    let _ = tokio::time::timeout(RETRY, own.synced()).await;
    let mut sent: Option<(serde_json::Value, Instant)> = None;
    loop {
        let known = own.get("", &name);
        let old = known.as_ref().and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_deref());
        let up = *runtime_up.borrow_and_update();
        let back = server_back.has_changed().unwrap_or(false);
        server_back.borrow_and_update();
        let fresh = status::collect(agent, &mut pressure, old.unwrap_or_default(), up).await;
        let comparable = status::without_heartbeats(&fresh.value);
        let is_told = sent.as_ref().is_some_and(|(told, at)| *told == comparable && at.elapsed() < REPORT_EVERY);
        if !is_told || back || (own.is_synced() && known.is_none()) || status::is_doubted(&fresh.value, old) {
            match write(agent, nodes, &fresh.value).await {
                Ok(()) => {
                    if fresh.ready && sent.is_none() {
                        info!("node {name} is ready");
                    }
                    sent = Some((comparable, Instant::now()));
                }
                Err(error) => {
                    debug!("writing the node's status: {error}");
                    sent = None;
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        let pause = if fresh.ready { LOOK_EVERY } else { LOOK_UNREADY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = notable(&mut changes, &fresh.value) => {}
            Ok(()) = server_back.changed() => server_back.mark_changed(),
            Ok(()) = stopping.changed() => {}
            changed = runtime_up.changed() => if changed.is_err() {
                tokio::time::sleep(pause).await;
            },
        }
    }
}

/// Resolves when the Node was deleted, or somebody else says something else of it than `told`.
async fn notable(changes: &mut Changes<Node>, told: &serde_json::Value) {
    loop {
        match changes.next().await {
            Some(Notice::Change(change)) => {
                let Some(node) = change.new else { return };
                if status::is_doubted(told, node.status.as_ref().and_then(|s| s.conditions.as_deref())) {
                    return;
                }
            }
            Some(Notice::Resync) => return,
            None => std::future::pending().await,
        }
    }
}

async fn write(agent: &Agent, nodes: &Api<Node>, status: &serde_json::Value) -> kube::Result<()> {
    let patch = Patch::Strategic(json!({"status": status}));
    match nodes.patch_status(&agent.config.node_name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(error)) if error.is_not_found() => {
            warn!("node {} was deleted; registering it again", agent.config.node_name);
            register(agent, nodes).await?;
            nodes.patch_status(&agent.config.node_name, &PatchParams::default(), &patch).await.map(drop)
        }
        written => written.map(drop),
    }
}
