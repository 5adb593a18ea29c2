//! The Node's status: addresses, capacity, conditions, images, facts.

use crate::agent::Config;
use crate::agent::context::Agent;
use crate::agent::machine;
use k8s_openapi::api::core::v1::NodeCondition;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Images in the status, largest first, and names of each (upstream's numbers): the object stays small.
const IMAGES_MAX: usize = 50;
const NAMES_MAX: usize = 5;
/// Below these a resource is under pressure (upstream's hard eviction thresholds).
const MEMORY_LEAST_BYTES: u64 = 100 << 20;
const DISK_LEAST_PERCENT: u64 = 10;
/// A tenth of a large disk is plenty: there this much is enough.
const DISK_LEAST_BYTES: u64 = 2 << 30;
const INODES_LEAST_PERCENT: u64 = 5;
/// Of all process ids.
const PIDS_LEAST_PERCENT: u64 = 2;
/// A pressure that was there stays for this long, so that the condition does not flap.
const PRESSURE_HOLD: Duration = Duration::from_secs(300);

/// When each pressure was last felt.
#[derive(Default)]
pub struct Pressure {
    memory: Option<Instant>,
    disk: Option<Instant>,
    pids: Option<Instant>,
}

/// A status, ready to be sent.
pub struct Fresh {
    pub value: Value,
    pub ready: bool,
}

/// Look at everything. `old`: the conditions that the API has.
pub async fn collect(agent: &Agent, pressure: &mut Pressure, old: &[NodeCondition], runtime_up: bool) -> Fresh {
    let problems = problems(agent, runtime_up).await;
    let ready = problems.is_empty();
    let version = agent.cri.version().await.ok();
    let runtime = version.map_or_else(
        || format!("{}://Unknown", agent.runtime_name),
        |v| format!("{}://{}", v.runtime_name, v.runtime_version),
    );
    let m = &agent.machine;
    let value = json!({
        "addresses": addresses(&agent.config),
        "capacity": texts(m.capacity()),
        "allocatable": texts(m.allocatable_all()),
        "conditions": conditions(agent, pressure, old, &problems),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": agent.config.kubelet_port}},
        "nodeInfo": {
            "machineID": m.machine_id, "systemUUID": m.system_uuid, "bootID": m.boot_id,
            "kernelVersion": m.kernel, "osImage": m.os_image, "operatingSystem": "linux",
            "architecture": m.architecture(), "containerRuntimeVersion": runtime,
            "kubeletVersion": crate::KUBERNETES_VERSION, "kubeProxyVersion": "",
        },
        "images": images(agent).await,
    });
    Fresh { value, ready }
}

fn addresses(config: &Config) -> Vec<Value> {
    let external = config.node_external_ip.map(|ip| json!({"type": "ExternalIP", "address": ip}));
    let fixed = [
        json!({"type": "InternalIP", "address": config.node_ip}),
        json!({"type": "Hostname", "address": config.node_name}),
    ];
    fixed.into_iter().chain(external).collect()
}

fn texts(map: BTreeMap<String, crate::quantity::Quantity>) -> Map<String, Value> {
    map.into_iter().map(|(name, quantity)| (name, quantity.to_string().into())).collect()
}

/// Why the node is not ready; empty: it is.
async fn problems(agent: &Agent, runtime_up: bool) -> Vec<String> {
    if *agent.stopping.borrow() {
        return vec!["node is shutting down".into()];
    }
    if !runtime_up {
        return vec!["container runtime is down".into()];
    }
    let status = match agent.cri.status().await {
        Ok(status) => status,
        Err(error) => return vec![format!("container runtime status check may not have completed yet: {error}")],
    };
    let mut out = Vec::new();
    for (kind, what) in
        [("RuntimeReady", "container runtime not ready"), ("NetworkReady", "container runtime network not ready")]
    {
        match status.conditions.iter().find(|c| c.r#type == kind) {
            Some(c) if c.status => {}
            Some(c) => out.push(format!("{what}: {kind}=false reason:{} message:{}", c.reason, c.message)),
            None => out.push(format!("{what}: condition {kind} is not set")),
        }
    }
    out
}

fn conditions(agent: &Agent, pressure: &mut Pressure, old: &[NodeCondition], problems: &[String]) -> Vec<Value> {
    let now = crate::time::rfc3339(crate::time::now());
    let make = |kind: &str, on: bool, reason: &str, message: &str| {
        let status = if on { "True" } else { "False" };
        let before = old.iter().find(|c| c.type_ == kind && c.status == status);
        let since = before.and_then(|c| c.last_transition_time.as_ref()).map(|t| crate::time::rfc3339(t.0));
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": since.unwrap_or_else(|| now.clone()),
        })
    };
    let memory = hold(&mut pressure.memory, memory_is_short());
    let disk = hold(&mut pressure.disk, disk_is_short(agent));
    let pids = hold(&mut pressure.pids, pids_are_short());
    let pick =
        |on: bool, bad: (&'static str, &'static str), good: (&'static str, &'static str)| if on { bad } else { good };
    let (memory_reason, memory_text) = pick(
        memory,
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    );
    let (disk_reason, disk_text) = pick(
        disk,
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    );
    let (pids_reason, pids_text) = pick(
        pids,
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    );
    let ready = if problems.is_empty() {
        make("Ready", true, "KubeletReady", "kubelet is posting ready status")
    } else {
        make("Ready", false, "KubeletNotReady", &format!("[{}]", problems.join(", ")))
    };
    vec![
        make("MemoryPressure", memory, memory_reason, memory_text),
        make("DiskPressure", disk, disk_reason, disk_text),
        make("PIDPressure", pids, pids_reason, pids_text),
        ready,
    ]
}

/// Pressure now, or not long ago.
fn hold(last: &mut Option<Instant>, now: bool) -> bool {
    if now {
        *last = Some(Instant::now());
    }
    *last = last.filter(|at| at.elapsed() < PRESSURE_HOLD);
    last.is_some()
}

fn memory_is_short() -> bool {
    machine::memory("MemAvailable:").is_some_and(|free| free < MEMORY_LEAST_BYTES)
}

fn disk_is_short(agent: &Agent) -> bool {
    machine::disk(&agent.config.dir).is_ok_and(|d| {
        d.free < (d.total / 100 * DISK_LEAST_PERCENT).min(DISK_LEAST_BYTES)
            || (d.inodes > 0 && d.inodes_free < d.inodes / 100 * INODES_LEAST_PERCENT)
    })
}

fn pids_are_short() -> bool {
    let number = |text: Option<&str>| text.and_then(|t| t.trim().parse::<u64>().ok());
    let max = number(std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().as_deref());
    // "0.00 0.01 0.05 2/345 6789": the second number of the fourth field is all threads.
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let used = number(load.split(' ').nth(3).and_then(|f| f.split_once('/')).map(|(_, all)| all));
    matches!((max, used), (Some(max), Some(used)) if max.saturating_sub(used) < max / 100 * PIDS_LEAST_PERCENT)
}

async fn images(agent: &Agent) -> Vec<Value> {
    let mut all = agent.cri.image_list().await.unwrap_or_default();
    all.sort_by_key(|i| (std::cmp::Reverse(i.size), i.id.clone()));
    let entry = |image: k8s_cri::v1::Image| {
        let names: Vec<String> = image.repo_digests.into_iter().chain(image.repo_tags).take(NAMES_MAX).collect();
        json!({"names": names, "sizeBytes": image.size})
    };
    all.into_iter().take(IMAGES_MAX).map(entry).collect()
}

/// A status without the times that change with every look.
pub fn without_heartbeats(status: &Value) -> Value {
    let mut out = status.clone();
    for condition in out["conditions"].as_array_mut().into_iter().flatten() {
        if let Some(map) = condition.as_object_mut() {
            map.remove("lastHeartbeatTime");
            map.remove("lastTransitionTime");
        }
    }
    out
}

/// Whether the API says something else about a condition of ours than we told it: the server gave the node up, and
/// changes nothing back by itself.
pub fn is_doubted(told: &Value, held: Option<&[NodeCondition]>) -> bool {
    let ours = told["conditions"].as_array();
    let differs = |held: &NodeCondition| {
        let same = |c: &&Value| c["type"] == held.type_.as_str();
        ours.into_iter().flatten().find(same).is_some_and(|c| c["status"] != held.status.as_str())
    };
    held.into_iter().flatten().any(differs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_held() {
        let mut last = None;
        assert!(!hold(&mut last, false));
        assert!(hold(&mut last, true));
        assert!(hold(&mut last, false));
        last = Instant::now().checked_sub(PRESSURE_HOLD);
        if last.is_some() {
            assert!(!hold(&mut last, false));
        }
    }

    #[test]
    fn what_others_say_is_noticed() {
        let told = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        let held = |kind: &str, status: &str| {
            vec![NodeCondition { type_: kind.into(), status: status.into(), ..Default::default() }]
        };
        assert!(is_doubted(&told, Some(&held("Ready", "Unknown"))));
        assert!(!is_doubted(&told, Some(&held("Ready", "True"))));
        assert!(!is_doubted(&told, Some(&held("NetworkUnavailable", "False"))), "not ours");
        assert!(!is_doubted(&told, None));
    }

    #[test]
    fn heartbeats_are_no_news() {
        let status =
            |time: &str| json!({"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": time}]});
        assert_eq!(without_heartbeats(&status("a")), without_heartbeats(&status("b")));
    }
}
