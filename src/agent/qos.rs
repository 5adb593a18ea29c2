//! Quality of service classes: who is throttled and killed first (upstream's `qos` rules).

use super::resources;
use k8s_openapi::api::core::v1::Pod;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }

    /// The class of a pod: the one in its status (it never changes), else computed.
    pub fn of(pod: &Pod) -> Self {
        match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
            Some("Guaranteed") => Qos::Guaranteed,
            Some("Burstable") => Qos::Burstable,
            Some("BestEffort") => Qos::BestEffort,
            _ => Self::compute(pod),
        }
    }

    /// Guaranteed: every container has equal requests and limits of both cpu and memory. BestEffort: none has any.
    fn compute(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Qos::BestEffort };
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let (mut any, mut all) = (false, true);
        for container in containers {
            for resource in ["cpu", "memory"] {
                let request = resources::milli_request(container, resource);
                let limit = resources::milli_limit(container, resource);
                any |= request > 0 || limit > 0;
                all &= limit > 0 && request == limit;
            }
        }
        match (any, all) {
            (false, _) => Qos::BestEffort,
            (true, true) => Qos::Guaranteed,
            (true, false) => Qos::Burstable,
        }
    }
}

/// `oom_score_adj` of the sandbox's pause process: the last to go.
pub const OOM_SCORE_SANDBOX: i64 = -998;

/// `oom_score_adj` of a container: the larger its memory request, the later it goes.
pub fn oom_score_adj(qos: Qos, priority: i32, memory_request: i64, node_memory: i64) -> i64 {
    /// Priority of `system-node-critical`.
    const NODE_CRITICAL: i32 = 2_000_001_000;
    if priority >= NODE_CRITICAL {
        return -997;
    }
    match qos {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let share = 1000i128 * i128::from(memory_request) / i128::from(node_memory.max(1));
            (1000 - share as i64).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let full = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}});
        let cases = [
            (json!([{}]), Qos::BestEffort),
            (json!([full]), Qos::Guaranteed),
            (json!([{"limits": {"cpu": "1", "memory": "1Gi"}}]), Qos::Guaranteed),
            (json!([full, {}]), Qos::Burstable),
            (json!([{"requests": {"cpu": "1"}}]), Qos::Burstable),
            (json!([{"requests": {"cpu": "0"}}]), Qos::BestEffort),
        ];
        for (resources, wanted) in cases {
            let containers: Vec<_> =
                resources.as_array().unwrap().iter().map(|r| json!({"name": "c", "resources": r})).collect();
            let pod: Pod = serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap();
            assert_eq!(Qos::of(&pod), wanted, "{resources}");
        }
    }

    #[test]
    fn scores() {
        const GI: i64 = 1 << 30;
        let cases = [
            (Qos::Guaranteed, 0, GI, -997),
            (Qos::BestEffort, 0, 0, 1000),
            (Qos::Burstable, 0, 0, 999),
            (Qos::Burstable, 0, 2 * GI, 500),
            (Qos::Burstable, 0, 4 * GI, 3),
            (Qos::BestEffort, 2_000_001_000, 0, -997),
        ];
        for (qos, priority, request, wanted) in cases {
            assert_eq!(oom_score_adj(qos, priority, request, 4 * GI), wanted, "{qos:?} {request}");
        }
    }
}
