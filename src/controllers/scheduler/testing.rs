//! Objects for the scheduler's tests.

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

/// A node with 4 CPUs, 8 GiB and room for 110 pods.
pub fn node(name: &str, spec: Value) -> Node {
    let allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    let node = json!({"metadata": {"name": name, "uid": name}, "spec": spec, "status": {"allocatable": allocatable}});
    serde_json::from_value(node).unwrap()
}

pub fn pod(name: &str, spec: Value) -> Pod {
    let mut spec = spec;
    let defaults = json!({"containers": [{"name": "c"}], "schedulerName": "default-scheduler"});
    for (key, value) in defaults.as_object().unwrap() {
        spec.as_object_mut().unwrap().entry(key).or_insert(value.clone());
    }
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": spec})).unwrap()
}

/// One container that requests this much.
pub fn asking(cpu: &str, memory: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]})
}
