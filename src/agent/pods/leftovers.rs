//! What the runtime and the disk have of pods that are not this node's any more. Only what carries our label, and
//! only below our own directories.

use super::teardown;
use crate::agent::context::Agent;
use crate::agent::cri::Labels;
use crate::agent::labels;
use crate::agent::volumes::mounts;
use crate::task::Group;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info, warn};

/// How often leftovers are looked for, besides when the runtime shows some.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Their containers get this long to end.
const GRACE: Duration = Duration::from_secs(30);

/// Uids of pods that have a task; asked at the last moment before anything is removed.
pub type Known = Arc<Mutex<HashSet<String>>>;

pub async fn run(agent: Arc<Agent>, known: Known) {
    loop {
        if let Err(error) = runtime(&agent, &known).await {
            debug!("looking for leftovers: {error}");
        }
        disk(&agent, &known).await;
        tokio::select! {
            () = agent.wakes.strangers.notified() => {}
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
    }
}

async fn runtime(agent: &Agent, known: &Known) -> crate::agent::cri::Result<()> {
    let cri = &agent.cri;
    let selector = Labels::from([(labels::INSTANCE.to_owned(), agent.instance.clone())]);
    for sandbox in cri.sandboxes(selector).await? {
        let Some(uid) = sandbox.labels.get(labels::POD_UID) else { continue };
        if known.lock().contains(uid) {
            continue;
        }
        info!("removing the sandbox of a pod that is gone: {uid}");
        let of_pod = Labels::from([(labels::POD_UID.to_owned(), uid.clone())]);
        for container in cri.containers(of_pod).await? {
            cri.stop_container(&container.id, GRACE).await?;
            cri.remove_container(&container.id).await?;
        }
        cri.stop_sandbox(&sandbox.id).await?;
        cri.remove_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

async fn disk(agent: &Agent, known: &Known) {
    let is_known = |uid: &str| known.lock().contains(uid);
    for entry in fs::read_dir(agent.paths.pods()).into_iter().flatten().flatten() {
        let uid = entry.file_name().to_string_lossy().into_owned();
        if is_known(&uid) {
            continue;
        }
        info!("removing the directory of a pod that is gone: {uid}");
        let dir = entry.path();
        if let Ok(Err(error)) = Group::blocking(move || mounts::remove_tree(&dir)).await {
            warn!("removing the directory of pod {uid}: {error:#}");
        }
    }
    for entry in fs::read_dir(agent.paths.pod_logs()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.rsplit('_').next().is_some_and(|uid| !is_known(uid)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    for entry in fs::read_dir(agent.paths.container_links()).into_iter().flatten().flatten() {
        // A link to a log that is gone.
        if entry.path().is_symlink() && !entry.path().exists() {
            let _ = fs::remove_file(entry.path());
        }
    }
    for (qos, uid) in agent.layout.pods() {
        if !is_known(&uid) {
            teardown::remove_cgroup(agent, qos, uid).await;
        }
    }
}
