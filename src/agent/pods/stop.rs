//! Stopping containers: pre-stop hook, stop signal, SIGKILL, all within one deadline that may come nearer.

use super::hooks;
use super::plan::{Kind, containers};
use crate::agent::context::Agent;
use crate::agent::observed::Container as Seen;
use crate::events::{Normal, Warning};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What is left for the stop signal when a pre-stop hook has used up the grace period (upstream's number).
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// The moment at which whatever still runs is killed. A delete with a shorter grace period moves it.
pub type Deadline = watch::Receiver<Instant>;

/// Stop one container at once, without its hook.
pub async fn stop_now(agent: &Agent, pod: &Pod, name: &str, id: &str, why: &str) {
    agent.event(pod, Some(name), Normal, "Killing", why);
    if let Err(error) = agent.cri.stop_container(id, LEAST_GRACE).await {
        tracing::warn!("stopping container {name}: {error}");
    }
}

/// Stop one container with its hook. Returns when it has ended, or the runtime cannot tell (the next look can).
pub async fn stop(agent: &Agent, pod: &Pod, seen: &Seen, pod_ips: &[String], message: &str, mut deadline: Deadline) {
    agent.event(pod, Some(&seen.name), Normal, "Killing", message);
    let had_hook = pre_stop(agent, pod, seen, pod_ips, &mut deadline).await;
    let least = Instant::now() + if had_hook { LEAST_GRACE } else { Duration::ZERO };
    loop {
        let until = (*deadline.borrow_and_update()).max(least);
        // Whole seconds, rounded up: a container never gets less than it was promised.
        let left = Duration::from_secs(until.saturating_duration_since(Instant::now()).as_secs_f64().ceil() as u64);
        tokio::select! {
            result = agent.cri.stop_container(&seen.id, left) => {
                if let Err(error) = result {
                    tracing::warn!("stopping container {}: {error}", seen.name);
                }
                return;
            }
            () = moved(&mut deadline) => {}
        }
    }
}

/// Whether a hook was run.
async fn pre_stop(agent: &Agent, pod: &Pod, seen: &Seen, pod_ips: &[String], deadline: &mut Deadline) -> bool {
    let Some((_, container)) = containers(pod).into_iter().find(|(_, c)| c.name == seen.name) else { return false };
    let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) else { return false };
    if *deadline.borrow() <= Instant::now() {
        return false;
    }
    let mut run = std::pin::pin!(hooks::run(agent, pod, &container, &seen.id, pod_ips, hook));
    loop {
        let until = *deadline.borrow_and_update();
        tokio::select! {
            result = &mut run => {
                if let Err(error) = result {
                    let message = format!("PreStopHook failed: {error}");
                    agent.event(pod, Some(&seen.name), Warning, "FailedPreStopHook", message);
                }
                return true;
            }
            () = tokio::time::sleep_until(until) => return true,
            () = moved(deadline) => {}
        }
    }
}

/// Resolves when the deadline has changed; never, when nobody can change it any more.
async fn moved(deadline: &mut Deadline) {
    if deadline.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Stop everything of a pod: all but sidecars together, then sidecars in reverse order (KEP-753).
pub async fn stop_all(agent: &Agent, pod: &Pod, running: Vec<Seen>, pod_ips: Vec<String>, deadline: Deadline) {
    let kinds = containers(pod);
    let sidecars: Vec<&str> =
        kinds.iter().filter(|(kind, _)| *kind == Kind::Sidecar).map(|(_, c)| c.name.as_str()).collect();
    let (last, first): (Vec<Seen>, Vec<Seen>) =
        running.into_iter().partition(|seen| sidecars.contains(&seen.name.as_str()));
    let stop_one = |seen: Seen| {
        let (pod_ips, deadline) = (pod_ips.clone(), deadline.clone());
        async move { stop(agent, pod, &seen, &pod_ips, &format!("Stopping container {}", seen.name), deadline).await }
    };
    join_all(first.into_iter().map(stop_one)).await;
    for name in sidecars.iter().rev() {
        for seen in last.iter().filter(|seen| seen.name == **name) {
            stop_one(seen.clone()).await;
        }
    }
}
