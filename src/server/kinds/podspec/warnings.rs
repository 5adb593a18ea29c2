//! `Warning:` headers for what a pod spec should not say any more.

use crate::object::ObjectExt;
use crate::server::kinds::tree::{int_at, list};
use serde_json::Value;
use std::collections::BTreeSet;

const OLD_NODE_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

/// Warnings about the template of a workload kind.
pub fn template_warnings(object: &Value) -> Vec<String> {
    object.at(&["spec", "template", "spec"]).map(|spec| warnings(spec, "spec.template.spec")).unwrap_or_default()
}

/// Warnings about the pod spec at `path`.
pub fn warnings(spec: &Value, path: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (old, new) in OLD_NODE_LABELS {
        if spec.at(&["nodeSelector", old]).is_some() {
            all.push(format!("{path}.nodeSelector[{old}]: deprecated since v1.14; use \"{new}\" instead"));
        }
    }
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        if volume.get("gitRepo").is_some_and(|v| !v.is_null()) {
            all.push(format!("{path}.volumes[{i}].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"));
        }
    }
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if secret.str_at(&["name"]).is_empty() {
            all.push(format!("{path}.imagePullSecrets[{i}].name: invalid empty name \"\""));
        }
    }
    for kind in ["initContainers", "containers"] {
        for (i, container) in list(spec, kind).iter().enumerate() {
            container_warnings(container, &format!("{path}.{kind}[{i}]"), &mut all);
        }
    }
    if int_at(spec, &["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        all.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    all
}

fn container_warnings(container: &Value, path: &str, all: &mut Vec<String>) {
    let mut names = BTreeSet::new();
    for (i, variable) in list(container, "env").iter().enumerate() {
        let name = variable.str_at(&["name"]);
        if !names.insert(name) {
            all.push(format!(
                "{path}.env[{i}]: hides previous definition of \"{name}\", which may be dropped when using apply"
            ));
        }
    }
    let mut ports = BTreeSet::new();
    for (i, port) in list(container, "ports").iter().enumerate() {
        let key = (int_at(port, &["containerPort"]), port.str_at(&["protocol"]));
        let host = int_at(port, &["hostPort"]).unwrap_or(0);
        if !ports.insert((key, host, port.str_at(&["hostIP"]))) {
            all.push(format!("{path}.ports[{i}]: duplicate port definition"));
        }
    }
}
