//! The machine goes down: the node says so, and its pods end in order, less important ones first (KEP-2000, KEP-2712).
//!
//! Only when the machine stops: a restart or an upgrade of kedge leaves pods running. The service manager tells which it
//! is by a file in the run directory (`systemd/kedge.service` does). Unlike upstream's, these pods do not become Failed:
//! they stay on the node and start again with it, as an edge machine that reboots needs it.

use super::context::Agent;
use super::observed::{Observed, Settled};
use super::pods::stop_all;
use crate::cache::Cache;
use crate::task::Group;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

/// Below the run directory, there when the machine is stopping. The run directory does not outlive the machine.
const MARKER: &str = "machine-stopping";
/// Pods of at least this priority end last: `system-cluster-critical` and above.
const CRITICAL: i32 = 2_000_000_000;
/// Until the pods' tasks have let go of them.
const LET_GO: Duration = Duration::from_secs(2);
/// Grace of pods that name none.
const POD_GRACE_SECONDS: i64 = 30;

/// Whether a stop now is one of the machine.
pub fn machine_is_stopping(run_dir: &Path) -> bool {
    run_dir.join(MARKER).exists()
}

/// A new start: the machine does not stop.
pub(super) fn forget(run_dir: &Path) {
    let _ = std::fs::remove_file(run_dir.join(MARKER));
}

/// How to end the pods of a running agent.
pub struct Pods {
    pub(super) agent: Arc<Agent>,
    pub(super) cache: Cache<Pod>,
    /// The tasks of the pods.
    pub(super) tasks: Group,
}

impl Pods {
    /// End all pods within the configured time; the node is not ready from now on.
    pub async fn end(&self) {
        let (agent, pods) = (&self.agent, self.cache.list());
        info!(pods = pods.len(), "the machine stops: ending pods");
        agent.stopping.send_replace(true);
        // Nobody starts again what ends now.
        let _ = self.tasks.join(LET_GO).await;
        for (pods, time) in phases(pods, agent.config.shutdown_grace, agent.config.shutdown_grace_critical) {
            let end = Instant::now() + time;
            let all = join_all(pods.iter().map(|pod| stop(agent, pod, end)));
            if tokio::time::timeout_at(end, all).await.is_err() {
                warn!("pods did not end in {time:?}");
            }
        }
        info!("pods have ended");
    }
}

/// Who ends when, and in which time; phases without pods take none.
fn phases(pods: Vec<Arc<Pod>>, all: Duration, critical: Duration) -> Vec<(Vec<Arc<Pod>>, Duration)> {
    let is_critical = |pod: &Arc<Pod>| pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0) >= CRITICAL;
    let (last, first): (Vec<_>, Vec<_>) = pods.into_iter().partition(is_critical);
    let critical = if last.is_empty() { Duration::ZERO } else { critical.min(all) };
    let phases = [(first, all - critical), (last, critical)];
    phases.into_iter().filter(|(pods, _)| !pods.is_empty()).collect()
}

async fn stop(agent: &Agent, pod: &Pod, end: Instant) {
    let uid = pod.metadata.uid.as_deref().unwrap_or("");
    let observed = match Observed::of(&agent.cri, uid, &mut Settled::default()).await {
        Ok(observed) => observed,
        Err(error) => return warn!("ending pod {uid}: {error}"),
    };
    let own = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(POD_GRACE_SECONDS);
    let deadline = Instant::now() + Duration::from_secs(own.max(0) as u64);
    let (_keeps, deadline) = watch::channel(deadline.min(end));
    let ips = observed.sandbox().map(|s| s.ips.clone()).unwrap_or_default();
    let running = observed.containers.into_iter().filter(|c| c.is_running()).collect();
    stop_all(agent, pod, running, ips, deadline).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn critical_pods_end_last() {
        let pod = |name: &str, priority: i32| -> Arc<Pod> {
            let value = json!({"metadata": {"name": name}, "spec": {"priority": priority, "containers": []}});
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let told = |pods: Vec<Arc<Pod>>| {
            let name = |p: &Arc<Pod>| p.metadata.name.clone().unwrap();
            let phases = phases(pods, Duration::from_secs(30), Duration::from_secs(10)).into_iter();
            phases.map(|(pods, time)| (pods.iter().map(name).collect::<String>(), time.as_secs())).collect::<Vec<_>>()
        };
        let want = |phases: &[(&str, u64)]| phases.iter().map(|(p, s)| ((*p).to_owned(), *s)).collect::<Vec<_>>();
        assert_eq!(told(vec![pod("a", 0), pod("c", CRITICAL), pod("b", 5)]), want(&[("ab", 20), ("c", 10)]));
        assert_eq!(told(vec![pod("a", 0)]), want(&[("a", 30)]));
        assert_eq!(told(vec![pod("c", i32::MAX)]), want(&[("c", 10)]));
        assert!(told(vec![]).is_empty());
    }
}
