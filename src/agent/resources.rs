//! Requests and limits of containers as numbers, and what the runtime gets of them.

use super::cgroups::{CPU_PERIOD_US, Limits, quota_of_milli, shares_of_milli};
use super::qos::{self, Qos};
use crate::quantity::Quantity;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;

type Quantities = BTreeMap<String, ApiQuantity>;

/// A quantity of a map; None: not there (or not a quantity, which the API refuses).
pub fn quantity(map: Option<&Quantities>, resource: &str) -> Option<Quantity> {
    map?.get(resource)?.0.parse().ok()
}

fn requirements(container: &Container) -> Option<&ResourceRequirements> {
    container.resources.as_ref()
}

/// A request in thousandths; where only a limit is given, that.
pub fn milli_request(container: &Container, resource: &str) -> i64 {
    request(container, resource).map_or(0, |q| q.milli_value())
}

/// A limit in thousandths, 0: none.
pub fn milli_limit(container: &Container, resource: &str) -> i64 {
    limit(container, resource).map_or(0, |q| q.milli_value())
}

fn request(container: &Container, resource: &str) -> Option<Quantity> {
    let r = requirements(container)?;
    quantity(r.requests.as_ref(), resource).or_else(|| quantity(r.limits.as_ref(), resource))
}

fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    quantity(requirements(container)?.limits.as_ref(), resource)
}

/// A request in whole units, 0: none.
pub fn request_units(container: &Container, resource: &str) -> i64 {
    request(container, resource).map_or(0, |q| q.value())
}

/// A limit in whole units, 0: none.
pub fn limit_units(container: &Container, resource: &str) -> i64 {
    limit(container, resource).map_or(0, |q| q.value())
}

/// An init container that keeps running beside the others (a sidecar).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What a pod asks for, in thousandths: the larger of its steady state and of each init container with the sidecars
/// that run by then (KEP-753), plus overhead. Pod-level requests (KEP-2837) go first.
pub fn pod_milli_request(pod: &Pod, resource: &str) -> i64 {
    let Some(spec) = &pod.spec else { return 0 };
    let overhead = quantity(spec.overhead.as_ref(), resource).map_or(0, |q| q.milli_value());
    if let Some(q) = spec.resources.as_ref().and_then(|r| quantity(r.requests.as_ref(), resource)) {
        return q.milli_value() + overhead;
    }
    let mut sidecars = 0;
    let mut most_at_start = 0;
    for init in spec.init_containers.iter().flatten() {
        let own = milli_request(init, resource);
        if is_sidecar(init) {
            sidecars += own;
            most_at_start = most_at_start.max(sidecars);
        } else {
            most_at_start = most_at_start.max(sidecars + own);
        }
    }
    let steady: i64 = spec.containers.iter().map(|c| milli_request(c, resource)).sum::<i64>() + sidecars;
    steady.max(most_at_start) + overhead
}

/// Limits of a pod's cgroup. A quota or memory limit only where every container has one.
pub fn pod_limits(pod: &Pod) -> Limits {
    let Some(spec) = &pod.spec else { return Limits::default() };
    let sidecars = || spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let inits = || spec.init_containers.iter().flatten().filter(|c| !is_sidecar(c));
    let sum_limit = |resource: &str| -> Option<i64> {
        if let Some(q) = spec.resources.as_ref().and_then(|r| quantity(r.limits.as_ref(), resource)) {
            return Some(q.milli_value());
        }
        let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
        if all().any(|c| limit(c, resource).is_none()) {
            return None;
        }
        let steady: i64 = spec.containers.iter().chain(sidecars()).map(|c| milli_limit(c, resource)).sum();
        let start = inits().map(|c| milli_limit(c, resource)).max().unwrap_or(0);
        Some(steady.max(start))
    };
    Limits {
        cpu_shares: Some(shares_of_milli(pod_milli_request(pod, "cpu"))),
        cpu_quota_us: sum_limit("cpu").filter(|m| *m > 0).map(quota_of_milli),
        memory_bytes: sum_limit("memory").map(|m| m / 1000).filter(|m| *m > 0),
        pids: None,
    }
}

/// Resources of one container for the runtime.
pub fn for_runtime(pod: &Pod, container: &Container, node_memory: i64, unified: bool) -> cri::LinuxContainerResources {
    let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
    let memory_request = request_units(container, "memory");
    let cpu_limit = milli_limit(container, "cpu");
    let mut unified_settings = std::collections::HashMap::new();
    if unified {
        // One process killed for memory takes its container along, as on version 1 nodes users expect.
        unified_settings.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    cri::LinuxContainerResources {
        cpu_period: CPU_PERIOD_US,
        cpu_quota: if cpu_limit > 0 { quota_of_milli(cpu_limit) } else { 0 },
        cpu_shares: shares_of_milli(milli_request(container, "cpu")),
        memory_limit_in_bytes: limit_units(container, "memory"),
        oom_score_adj: qos::oom_score_adj(Qos::of(pod), priority, memory_request, node_memory),
        hugepage_limits: hugepages(container),
        unified: unified_settings,
        ..Default::default()
    }
}

fn hugepages(container: &Container) -> Vec<cri::HugepageLimit> {
    let limits = requirements(container).and_then(|r| r.limits.as_ref());
    let pages = limits.into_iter().flatten().filter_map(|(name, value)| {
        let size = name.strip_prefix("hugepages-")?;
        let limit = value.0.parse::<Quantity>().ok()?.value();
        // The kernel's names: 2MB, 1GB.
        let page_size = format!("{}B", size.trim_end_matches('i'));
        Some(cri::HugepageLimit { page_size, limit: limit as u64 })
    });
    pages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pod_requests_and_limits() {
        let c = |cpu: &str, limit: Option<&str>| {
            let mut resources = json!({"requests": {"cpu": cpu}});
            if let Some(limit) = limit {
                resources["limits"] = json!({"cpu": limit});
            }
            json!({"name": "c", "resources": resources})
        };
        let sidecar = |cpu: &str| {
            let mut value = c(cpu, None);
            value["restartPolicy"] = json!("Always");
            value
        };
        let cases = [
            (json!([]), json!([c("100m", None)]), 100, None),
            (json!([c("1", None)]), json!([c("100m", None)]), 1000, None),
            (json!([sidecar("200m"), c("300m", None)]), json!([c("100m", None)]), 500, None),
            (json!([]), json!([c("100m", Some("200m")), c("1", Some("1"))]), 1100, Some(120_000)),
            (json!([]), json!([c("100m", Some("200m")), c("1", None)]), 1100, None),
        ];
        for (init, main, milli, quota) in cases {
            let pod = json!({"spec": {"initContainers": init, "containers": main}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(pod_milli_request(&pod, "cpu"), milli);
            assert_eq!(pod_limits(&pod).cpu_quota_us, quota);
        }
    }
}
