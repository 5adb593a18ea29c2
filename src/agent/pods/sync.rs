//! One step of a pod towards its spec: directories, volumes, sandbox, containers. Runs beside the pod's loop and is
//! dropped when the pod is to end.

use super::container::{Parts, Place};
use super::plan::{Kind, Plan, SandboxStep, containers};
use super::stop;
use super::{sandbox, shared::Shared};
use crate::agent::context::pod_name;
use crate::agent::images::pull::Failure;
use crate::agent::observed::{Observed, Settled};
use crate::agent::qos::Qos;
use crate::agent::resources;
use crate::events::{Normal, Warning};
use crate::task::Group;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Done,
    /// Something failed; try again after this (or earlier, when something changes).
    Retry(Duration),
}

/// Pauses after failures; those of sandboxes and volumes grow.
const CONTAINER_RETRY: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The pause after `failures` in a row.
fn growing(failures: u32) -> Duration {
    (FIRST_RETRY * 2u32.saturating_pow(failures.min(10))).min(LONGEST_RETRY)
}

/// Do what the plan says. `failures`: steps that failed in a row before this one.
pub async fn run(parts: Parts, plan: Plan, observed: Observed, failures: u32) -> Outcome {
    if let Err(error) = prepare(&parts).await {
        tracing::warn!(pod = %pod_name(&parts.pod), "preparing: {error:#}");
        return Outcome::Retry(growing(failures));
    }
    if let Err(errors) = parts.volumes.set_up(&parts.agent, &parts.pod, &[]).await {
        for error in errors {
            parts.agent.event(&parts.pod, None, Warning, "FailedMount", error.to_string());
        }
        return Outcome::Retry(growing(failures));
    }
    let (id, attempt, ips) = match plan.sandbox {
        SandboxStep::Keep => match observed.sandbox() {
            Some(s) => (s.id.clone(), s.attempt, s.ips.clone()),
            None => return Outcome::Retry(growing(failures)),
        },
        SandboxStep::Create { attempt } | SandboxStep::Replace { attempt } => {
            if matches!(plan.sandbox, SandboxStep::Replace { .. }) {
                replace(&parts, &observed).await;
            }
            match create(&parts, attempt).await {
                Some((id, ips)) => (id, attempt, ips),
                None => return Outcome::Retry(growing(failures)),
            }
        }
    };
    let config = sandbox::config(&parts.agent, &parts.pod, attempt);
    let ips = if ips.is_empty() { vec![parts.agent.config.node_ip.to_string()] } else { ips };
    start_all(&parts, &plan, &observed, &id, &config, &ips).await
}

async fn start_all(
    parts: &Parts,
    plan: &Plan,
    observed: &Observed,
    sandbox: &str,
    config: &k8s_cri::v1::PodSandboxConfig,
    ips: &[String],
) -> Outcome {
    let all = containers(&parts.pod);
    let mut outcome = Outcome::Done;
    for start in &plan.start {
        let Some((kind, container)) = all.iter().find(|(_, c)| c.name == start.name) else { continue };
        if start.attempt > 0 {
            next_backoff(&parts.shared, observed, &start.name);
        }
        let target = (*kind == Kind::Ephemeral).then(|| target_of(parts, observed, &start.name)).flatten();
        let place = Place { sandbox, config, ips, target };
        if let Err(failure) = parts.start(start, container, &place).await {
            let Failure { reason, message } = &failure;
            tracing::info!(pod = %pod_name(&parts.pod), container = container.name, reason, "{message}");
            parts.shared.set_waiting(&container.name, failure);
            outcome = Outcome::Retry(CONTAINER_RETRY);
            // One that cannot start does not hold up the others; an init container holds up all.
            if matches!(kind, Kind::Init | Kind::Sidecar) {
                return outcome;
            }
        }
    }
    outcome
}

/// A crashed container is started again: its next pause is longer.
fn next_backoff(shared: &Shared, observed: &Observed, name: &str) {
    let now = crate::time::now();
    let Some(seen) = observed.newest(name).filter(|c| c.is_exited()) else { return };
    let failed = seen.finished_at().unwrap_or(now);
    let mut memory = shared.memory.lock();
    match memory.backoff.get_mut(name) {
        Some(backoff) => backoff.next(failed, now),
        None => drop(memory.backoff.insert(name.to_owned(), super::backoff::Backoff::new(now))),
    }
}

fn target_of(parts: &Parts, observed: &Observed, name: &str) -> Option<String> {
    let spec = parts.pod.spec.as_ref()?;
    let ephemeral = spec.ephemeral_containers.iter().flatten().find(|e| e.name == name)?;
    let target = ephemeral.target_container_name.as_deref().filter(|t| !t.is_empty())?;
    observed.newest(target).filter(|c| c.is_running()).map(|c| c.id.clone())
}

/// Directories and the pod's cgroup.
async fn prepare(parts: &Parts) -> anyhow::Result<()> {
    let agent = &parts.agent;
    let uid = parts.pod.metadata.uid.as_deref().unwrap_or_default();
    let dir = agent.paths.pod(uid);
    fs::create_dir_all(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o750))?;
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let m = &parts.pod.metadata;
    fs::create_dir_all(agent.paths.pod_log(&text(&m.namespace), &text(&m.name), uid))?;
    let limits = resources::pod_limits(&parts.pod);
    let (layout, qos, uid) = (agent.layout.clone(), Qos::of(&parts.pod), uid.to_owned());
    if let Err(error) = Group::blocking(move || layout.ensure_pod(qos, &uid, &limits)).await? {
        tracing::debug!(pod = %pod_name(&parts.pod), "pod cgroup: {error}");
    }
    Ok(())
}

/// Stop what a dead sandbox has left.
async fn replace(parts: &Parts, observed: &Observed) {
    let message = "Pod sandbox changed, it will be killed and re-created.";
    parts.agent.event(&parts.pod, None, Normal, "SandboxChanged", message);
    let (_keep, deadline) = watch::channel(Instant::now() + Duration::from_secs(30));
    let running = observed.running().cloned().collect();
    stop::stop_all(&parts.agent, &parts.pod, running, Vec::new(), deadline).await;
    for sandbox in &observed.sandboxes {
        if let Err(error) = parts.agent.cri.stop_sandbox(&sandbox.id).await {
            tracing::warn!(pod = %pod_name(&parts.pod), "stopping the old sandbox: {error}");
        }
    }
}

/// A new sandbox and its addresses.
async fn create(parts: &Parts, attempt: u32) -> Option<(String, Vec<String>)> {
    let agent = &parts.agent;
    let config = sandbox::config(agent, &parts.pod, attempt);
    let id = match agent.cri.run_sandbox(config, "").await {
        Ok(id) => id,
        Err(error) => {
            let message = format!("Failed to create pod sandbox: {error}");
            agent.event(&parts.pod, None, Warning, "FailedCreatePodSandBox", &message);
            tracing::info!(pod = %pod_name(&parts.pod), "{message}");
            return None;
        }
    };
    parts.shared.note_container(agent, &id);
    parts.shared.wake.notify_one();
    let observed = Observed::of(&agent.cri, &parts.shared.uid, &mut Settled::default()).await.ok()?;
    let sandbox = observed.sandboxes.into_iter().find(|s| s.id == id)?;
    Some((id, sandbox.ips))
}
