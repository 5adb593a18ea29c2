//! What goes when a pod ends: sandboxes, volumes, cgroups, then the object, containers, logs, directories.

use crate::agent::context::{Agent, pod_name};
use crate::agent::observed::Observed;
use crate::agent::qos::Qos;
use crate::agent::volumes::mounts;
use crate::task::Group;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

const DELETE_RETRY: Duration = Duration::from_secs(1);

/// Stop every sandbox: addresses and network go back.
pub async fn stop_sandboxes(agent: &Agent, observed: &Observed) -> crate::agent::cri::Result<()> {
    for sandbox in &observed.sandboxes {
        agent.cri.stop_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

/// Unmount and remove volumes, remove the pod's cgroup. Whatever fails is tried again by the caller.
pub async fn volumes_and_cgroup(agent: &Agent, pod: &Pod) -> anyhow::Result<()> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let dir = agent.paths.pod(&uid);
    Group::blocking(move || {
        // Sub-path mounts lie on volumes: they go first.
        mounts::remove_tree(&dir.join("volume-subpaths"))?;
        mounts::remove_tree(&dir.join("volumes"))
    })
    .await??;
    remove_cgroup(agent, Qos::of(pod), uid).await;
    Ok(())
}

/// systemd may have to be asked: not on a thread that others wait for.
pub async fn remove_cgroup(agent: &Agent, qos: Qos, uid: String) {
    let layout = agent.layout.clone();
    let _ = Group::blocking(move || layout.remove_pod(qos, &uid)).await;
}

/// Tell the API that the pod has ended: it removes the object.
pub async fn delete_object(agent: &Agent, pod: &Pod) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(agent.client.clone(), namespace);
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let parameters =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..Default::default() };
    loop {
        match pods.delete(name, &parameters).await {
            Ok(_) => return,
            // Gone already, or another pod of that name is there.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => return,
            Err(error) => {
                tracing::debug!(pod = %pod_name(pod), "deleting: {error}");
                tokio::time::sleep(DELETE_RETRY).await;
            }
        }
    }
}

/// Containers, sandboxes, logs and directories.
pub async fn records(agent: &Agent, pod: &Pod, observed: &Observed) {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (namespace, name, uid) = (text(&pod.metadata.namespace), text(&pod.metadata.name), text(&pod.metadata.uid));
    for container in &observed.containers {
        if let Err(error) = agent.cri.remove_container(&container.id).await {
            tracing::debug!(pod = %pod_name(pod), "removing a container: {error}");
        }
        let _ = fs::remove_file(agent.paths.container_link(&namespace, &name, &container.name, &container.id));
    }
    for sandbox in &observed.sandboxes {
        if let Err(error) = agent.cri.remove_sandbox(&sandbox.id).await {
            tracing::debug!(pod = %pod_name(pod), "removing a sandbox: {error}");
        }
    }
    let (logs, dir) = (agent.paths.pod_log(&namespace, &name, &uid), agent.paths.pod(&uid));
    let removed = Group::blocking(move || {
        let _ = fs::remove_dir_all(logs);
        mounts::remove_tree(&dir)
    });
    if let Ok(Err(error)) = removed.await {
        tracing::warn!(pod = %pod_name(pod), "removing its directory: {error:#}");
    }
    remove_cgroup(agent, Qos::of(pod), uid).await;
}

/// One dead container that is not needed any more, with its log.
pub async fn remove_container(agent: Arc<Agent>, pod: Arc<Pod>, id: String, name: String, log: String) {
    if agent.cri.remove_container(&id).await.is_err() {
        return;
    }
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let link = agent.paths.container_link(&text(&pod.metadata.namespace), &text(&pod.metadata.name), &name, &id);
    let _ = fs::remove_file(link);
    let Some((dir, file)) = log.rsplit_once('/') else { return };
    // The log and its rotated parts: `3.log`, `3.log.20260304-050607.gz`.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(file) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
