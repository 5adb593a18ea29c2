//! The Pod's Table row: what `kubectl get pods` says a pod is doing.

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::{bool_at, int_at, list};
use serde_json::Value;

pub fn row(pod: &Object, now: i64) -> Vec<Value> {
    let state = State::of(pod);
    let restarts = match state.last_restart {
        Some(time) if state.restarts != 0 => {
            format!("{} ({} ago)", state.restarts, crate::time::human_duration(now - time))
        }
        _ => state.restarts.to_string(),
    };
    vec![
        pod.name().into(),
        format!("{}/{}", state.ready, state.total).into(),
        state.reason.into(),
        restarts.into(),
        age(pod, now),
        or_none(pod_ip(pod)),
        or_none(pod.str_at(&["spec", "nodeName"])),
        or_none(pod.str_at(&["status", "nominatedNodeName"])),
        readiness_gates(pod).into(),
    ]
}

#[derive(Default)]
struct State {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    /// Unix seconds of the last termination that counts.
    last_restart: Option<i64>,
}

/// Init containers with restart policy Always (sidecars) count as containers once they have started.
struct Init<'a> {
    sidecars: Vec<&'a str>,
    total: usize,
}

impl State {
    fn of(pod: &Object) -> State {
        let phase = pod.str_at(&["status", "phase"]);
        let spec = &pod["spec"];
        let inits = list(spec, "initContainers");
        let is_sidecar = |c: &&Value| c.str_at(&["restartPolicy"]) == "Always";
        let init = Init {
            sidecars: inits.iter().filter(is_sidecar).map(|c| c.str_at(&["name"])).collect(),
            total: inits.len(),
        };
        let mut state = State {
            total: list(spec, "containers").len() + init.sidecars.len(),
            reason: first_set(&[pod.str_at(&["status", "reason"]), phase]).to_owned(),
            ..State::default()
        };
        let status = &pod["status"];
        let gated = |c: &Value| (c.str_at(&["type"]), c.str_at(&["reason"])) == ("PodScheduled", "SchedulingGated");
        if list(status, "conditions").iter().any(gated) {
            state.reason = "SchedulingGated".to_owned();
        }
        let mut sidecars = State::default();
        let initializing = state.read_init(list(status, "initContainerStatuses"), &init, &mut sidecars);
        if !initializing || condition(pod, "Initialized") == "True" {
            state.restarts = sidecars.restarts;
            state.last_restart = sidecars.last_restart;
            state.read_containers(list(status, "containerStatuses"), condition(pod, "Ready") == "True");
        }
        if pod.is_deleting() {
            if pod.str_at(&["status", "reason"]) == "NodeLost" {
                state.reason = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                state.reason = "Terminating".to_owned();
            }
        }
        state
    }

    fn count_restarts(&mut self, status: &Value) {
        self.restarts += int_at(status, &["restartCount"]).unwrap_or(0);
        let finished = crate::time::parse_seconds(status.str_at(&["lastState", "terminated", "finishedAt"]));
        self.last_restart = self.last_restart.max(finished);
    }

    /// True while init containers still run or have failed; the reason then says which.
    fn read_init(&mut self, statuses: &[Value], init: &Init<'_>, sidecars: &mut State) -> bool {
        for (i, status) in statuses.iter().enumerate() {
            self.count_restarts(status);
            let is_sidecar = init.sidecars.contains(&status.str_at(&["name"]));
            if is_sidecar {
                sidecars.count_restarts(status);
            }
            let terminated = status.at(&["state", "terminated"]).filter(|v| v.is_object());
            let waiting = status.str_at(&["state", "waiting", "reason"]);
            let reason = match terminated {
                Some(state) if number(state, &["exitCode"]) == 0 => continue,
                _ if is_sidecar && bool_at(status, &["started"]) => {
                    self.ready += usize::from(bool_at(status, &["ready"]));
                    continue;
                }
                Some(state) => ended(state),
                None if !waiting.is_empty() && waiting != "PodInitializing" => waiting.to_owned(),
                None => format!("{i}/{}", init.total),
            };
            self.reason = format!("Init:{reason}");
            return true;
        }
        false
    }

    fn read_containers(&mut self, statuses: &[Value], pod_is_ready: bool) {
        let mut has_running = false;
        for status in statuses.iter().rev() {
            self.count_restarts(status);
            let waiting = status.str_at(&["state", "waiting", "reason"]);
            let terminated = status.at(&["state", "terminated"]).filter(|v| v.is_object());
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(state) = terminated {
                self.reason = ended(state);
            } else if bool_at(status, &["ready"]) && status.at(&["state", "running"]).is_some_and(Value::is_object) {
                has_running = true;
                self.ready += 1;
            }
        }
        // One container is done, another still runs.
        if self.reason == "Completed" && has_running {
            self.reason = if pod_is_ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

/// How a terminated container ended: its reason, else its signal, else its exit code.
fn ended(state: &Value) -> String {
    let reason = state.str_at(&["reason"]);
    match number(state, &["signal"]) {
        _ if !reason.is_empty() => reason.to_owned(),
        0 => format!("ExitCode:{}", number(state, &["exitCode"])),
        signal => format!("Signal:{signal}"),
    }
}

fn first_set<'a>(texts: &[&'a str]) -> &'a str {
    texts.iter().find(|t| !t.is_empty()).copied().unwrap_or_default()
}

fn pod_ip(pod: &Object) -> &str {
    let ips = pod.get("status").map(|s| list(s, "podIPs")).unwrap_or_default();
    ips.first().map_or_else(|| pod.str_at(&["status", "podIP"]), |ip| ip.str_at(&["ip"]))
}

fn readiness_gates(pod: &Object) -> String {
    let gates = pod.get("spec").map(|s| list(s, "readinessGates")).unwrap_or_default();
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|g| condition(pod, g.str_at(&["conditionType"])) == "True").count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Ready, Status and Restarts of a pod with this spec and status, ten minutes after 2024-01-01.
    fn check(spec: Value, status: Value, expected: [&str; 3]) {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        let row = row(&pod, 1_704_067_200 + 600);
        let cells: Vec<&str> = row[1..4].iter().filter_map(Value::as_str).collect();
        assert_eq!(cells, expected, "{status}");
    }

    #[test]
    fn statuses() {
        let one = || json!({"containers": [{"name": "a"}]});
        let two = || json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let init = || json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let running = || json!({"name": "a", "ready": true, "state": {"running": {}}});
        let wait = |reason: &str| json!({"name": "a", "state": {"waiting": {"reason": reason}}});
        let ended = |state: Value| json!({"name": "a", "state": {"terminated": state}});
        let phase = |phase: &str, statuses: Value| json!({"phase": phase, "containerStatuses": statuses});
        let inits = |statuses: Value| json!({"phase": "Pending", "initContainerStatuses": statuses});

        check(one(), json!({"phase": "Pending"}), ["0/1", "Pending", "0"]);
        check(one(), phase("Running", json!([running()])), ["1/1", "Running", "0"]);
        check(one(), phase("Pending", json!([wait("ContainerCreating")])), ["0/1", "ContainerCreating", "0"]);
        check(one(), phase("Pending", json!([wait("ImagePullBackOff")])), ["0/1", "ImagePullBackOff", "0"]);
        let crashed = json!({"name": "a", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2024-01-01T00:05:00Z"}}});
        check(one(), phase("Running", json!([crashed])), ["0/1", "CrashLoopBackOff", "3 (5m ago)"]);
        check(
            one(),
            phase("Succeeded", json!([ended(json!({"exitCode": 0, "reason": "Completed"}))])),
            ["0/1", "Completed", "0"],
        );
        check(one(), phase("Failed", json!([ended(json!({"exitCode": 3}))])), ["0/1", "ExitCode:3", "0"]);
        check(one(), phase("Failed", json!([ended(json!({"exitCode": 137, "signal": 9}))])), ["0/1", "Signal:9", "0"]);
        let mixed = json!([running(), ended(json!({"exitCode": 0, "reason": "Completed"}))]);
        check(two(), phase("Running", mixed), ["1/2", "NotReady", "0"]);
        check(one(), json!({"phase": "Failed", "reason": "Evicted"}), ["0/1", "Evicted", "0"]);
        let gated = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]);
        check(one(), json!({"phase": "Pending", "conditions": gated}), ["0/1", "SchedulingGated", "0"]);

        let done = || json!({"name": "i", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let second = json!({"name": "j", "restartCount": 2, "state": {"running": {}}});
        check(init(), inits(json!([done(), second])), ["0/1", "Init:1/2", "2"]);
        let failed = json!({"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}});
        check(init(), inits(json!([failed])), ["0/1", "Init:Error", "0"]);
        let backoff = json!({"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        check(init(), inits(json!([backoff])), ["0/1", "Init:CrashLoopBackOff", "0"]);
        let starting = json!({"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}});
        check(init(), inits(json!([starting])), ["0/1", "Init:0/2", "0"]);

        let sidecar = json!({"containers": [{"name": "a"}],
            "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let up = json!({"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}});
        let status = json!({"phase": "Running", "initContainerStatuses": [up], "containerStatuses": [running()]});
        check(sidecar, status, ["2/2", "Running", "1"]);
    }

    #[test]
    fn deleted() {
        let pod = |status: Value| {
            json!({"metadata": {"name": "p", "deletionTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"containers": [{}]}, "status": status})
        };
        for (status, reason) in [
            (json!({"phase": "Running"}), "Terminating"),
            (json!({"phase": "Running", "reason": "NodeLost"}), "Unknown"),
            (json!({"phase": "Succeeded"}), "Succeeded"),
        ] {
            assert_eq!(row(&pod(status), 0)[2], reason);
        }
    }
}
