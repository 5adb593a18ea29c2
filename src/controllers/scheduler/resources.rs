//! What pods ask for and nodes have, as numbers.

use crate::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;

/// What a container without requests counts as in scores: 0.1 CPU, 200 MB (upstream's defaults).
const UNSTATED_MILLI_CPU: i64 = 100;
const UNSTATED_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// Amounts of every resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Amounts {
    pub milli_cpu: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    /// Number of pods; of a node only.
    pub pods: i64,
    /// Extended resources and huge pages.
    pub others: BTreeMap<String, i64>,
}

impl Amounts {
    pub fn parse(list: Option<&BTreeMap<String, Text>>) -> Self {
        let mut amounts = Amounts::default();
        for (name, text) in list.into_iter().flatten() {
            // The server admits no other text; a foreign one's mistake counts as nothing.
            let Ok(quantity) = text.0.parse::<Quantity>() else { continue };
            amounts.set(name, if name == "cpu" { quantity.milli_value() } else { quantity.value() });
        }
        amounts
    }

    fn set(&mut self, name: &str, amount: i64) {
        match name {
            "cpu" => self.milli_cpu = amount,
            "memory" => self.memory_bytes = amount,
            "ephemeral-storage" => self.ephemeral_bytes = amount,
            "pods" => self.pods = amount,
            other => {
                self.others.insert(other.to_owned(), amount);
            }
        }
    }

    pub fn add(&mut self, more: &Amounts) {
        self.combine(more, i64::saturating_add);
    }

    pub fn subtract(&mut self, less: &Amounts) {
        self.combine(less, i64::saturating_sub);
    }

    fn raise_to(&mut self, other: &Amounts) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Amounts, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory_bytes = with(self.memory_bytes, other.memory_bytes);
        self.ephemeral_bytes = with(self.ephemeral_bytes, other.ephemeral_bytes);
        self.pods = with(self.pods, other.pods);
        for (name, amount) in &other.others {
            let held = self.others.entry(name.clone()).or_insert(0);
            *held = with(*held, *amount);
        }
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What a pod needs at once: its containers and sidecars, or any init container with the sidecars before it,
/// whichever is more (KEP-753); amounts stated for the whole pod win (KEP-2837); overhead on top (KEP-688).
pub fn requests(pod: &Pod) -> Amounts {
    total(pod, |container| Amounts::parse(container.resources.as_ref().and_then(|r| r.requests.as_ref())))
}

/// The same for scores, where containers without requests count too.
pub fn scored_requests(pod: &Pod) -> Amounts {
    total(pod, |container| {
        let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        let states = |name: &str| requests.is_some_and(|r| r.contains_key(name));
        let mut amounts = Amounts::parse(requests);
        if !states("cpu") {
            amounts.milli_cpu = UNSTATED_MILLI_CPU;
        }
        if !states("memory") {
            amounts.memory_bytes = UNSTATED_MEMORY_BYTES;
        }
        amounts
    })
}

fn total(pod: &Pod, of: impl Fn(&Container) -> Amounts) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::default() };
    let mut sum = Amounts::default();
    spec.containers.iter().for_each(|container| sum.add(&of(container)));
    let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        if is_sidecar(container) {
            sum.add(&own);
            sidecars.add(&own);
            peak.raise_to(&sidecars);
        } else {
            let mut with_sidecars = own;
            with_sidecars.add(&sidecars);
            peak.raise_to(&with_sidecars);
        }
    }
    sum.raise_to(&peak);
    if let Some(stated) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let amounts = Amounts::parse(Some(stated));
        for name in stated.keys() {
            match name.as_str() {
                "cpu" => sum.milli_cpu = amounts.milli_cpu,
                "memory" => sum.memory_bytes = amounts.memory_bytes,
                other if other.starts_with("hugepages-") => sum.set(other, amounts.others[other]),
                _ => {}
            }
        }
    }
    sum.add(&Amounts::parse(spec.overhead.as_ref()));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn container(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}})
    }

    fn sidecar(cpu: &str) -> Value {
        json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn requests_are_the_larger_of_start_and_run() {
        let cases = [
            (json!({"containers": [container("100m"), container("1")]}), 1100),
            (json!({"containers": [container("100m")], "initContainers": [container("2")]}), 2000),
            (json!({"containers": [container("1")], "initContainers": [sidecar("500m"), container("800m")]}), 1500),
            (json!({"containers": [container("1")], "initContainers": [container("800m"), sidecar("500m")]}), 1500),
            (json!({"containers": [container("100m")], "initContainers": [sidecar("500m"), container("2")]}), 2500),
            (json!({"containers": [container("1")], "overhead": {"cpu": "250m"}}), 1250),
            (json!({"containers": [container("1")], "resources": {"requests": {"cpu": "3"}}}), 3000),
        ];
        for (spec, expected) in cases {
            assert_eq!(requests(&pod(spec.clone())).milli_cpu, expected, "{spec}");
        }
    }

    #[test]
    fn unstated_requests_count_in_scores_only() {
        let bare = pod(json!({"containers": [{"name": "c"}, container("1")]}));
        assert_eq!(requests(&bare).milli_cpu, 1000);
        let scored = scored_requests(&bare);
        assert_eq!((scored.milli_cpu, scored.memory_bytes), (1100, (200 + 1) * 1024 * 1024));
    }

    #[test]
    fn extended_resources_add_and_subtract() {
        let gpus = pod(json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "2"}}}]}));
        let mut held = requests(&gpus);
        held.add(&requests(&gpus));
        assert_eq!(held.others["example.com/gpu"], 4);
        held.subtract(&requests(&gpus));
        assert_eq!(held.others["example.com/gpu"], 2);
    }
}
