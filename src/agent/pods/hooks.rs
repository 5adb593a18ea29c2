//! Lifecycle hooks: exec, HTTP, sleep (and TCP, which never did anything).

use super::probe_http;
use crate::agent::context::Agent;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use std::time::Duration;

/// A hook has no time limit of its own; the pod's end or the grace period cut it off. This one is for what hangs.
const HOOK_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const HTTP_TIMEOUT: Duration = Duration::from_secs(3600);

/// Run a hook. Err: why it failed, for the event.
pub async fn run(
    agent: &Agent,
    pod: &Pod,
    container: &Container,
    id: &str,
    pod_ips: &[String],
    hook: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        let answer = agent.cri.exec_sync(id, command, HOOK_TIMEOUT).await.map_err(|e| e.to_string())?;
        if answer.exit_code != 0 {
            let output = String::from_utf8_lossy(&answer.stderr).into_owned();
            return Err(format!("command '{shown}' exited with {}: {}", answer.exit_code, output.trim_end()));
        }
        return Ok(());
    }
    if let Some(http) = &hook.http_get {
        let target = probe_http::Target::of(pod, container, http, pod_ips, &agent.config.node_ip.to_string())?;
        // Any answer will do (upstream looks at the error only).
        return probe_http::get(&target, HTTP_TIMEOUT).await.map(drop);
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
    }
    Ok(())
}
