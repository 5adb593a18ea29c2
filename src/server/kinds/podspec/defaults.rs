//! Defaults of pod specs: in Pods, and in the templates of workload kinds.
//!
//! Some defaults are written only into Pods, not into templates, so that templates stay what users wrote:
//! [`pod`] has those, [`template_spec`] the rest.

use crate::quantity::Quantity;
use crate::server::kinds::tree::*;
use serde_json::{Map, Value};

/// Permission bits 0644 of files projected into volumes.
const FILE_MODE: i64 = 420;
const TOKEN_EXPIRATION_SECONDS: i64 = 3600;
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// A whole Pod.
pub fn pod(pod: &mut Value) {
    let Some(spec) = child(pod, "spec") else { return };
    template_spec(spec);
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            if let Some(resources) = child(container, "resources") {
                requests_from_limits(resources);
            }
        }
    }
    super::resources::default_pod_level(spec);
    default_nil(spec, "enableServiceLinks", true);
    if bool_at(spec, &["hostNetwork"]) {
        host_network_ports(spec);
    }
}

/// The `spec` of a pod template (`spec.template.spec` of a Deployment).
pub fn template_spec(spec: &mut Value) {
    for volume in items(spec, "volumes") {
        default_volume(volume);
    }
    for container in CONTAINER_LISTS {
        for container in items(spec, container) {
            default_container(container);
        }
    }
    default_zero(spec, "dnsPolicy", "ClusterFirst");
    default_zero(spec, "restartPolicy", "Always");
    default_nil(spec, "securityContext", Map::new());
    default_nil(spec, "terminationGracePeriodSeconds", 30);
    default_zero(spec, "schedulerName", "default-scheduler");
    both_account_names(spec);
}

/// `serviceAccount` is the old name of `serviceAccountName`; upstream writes both.
fn both_account_names(spec: &mut Value) {
    let name = ["serviceAccountName", "serviceAccount"].iter().find(|key| !is_zero(spec, key));
    let Some(name) = name.and_then(|key| spec.get(*key)).cloned() else { return };
    if let Some(map) = spec.as_object_mut() {
        map.insert("serviceAccountName".to_owned(), name.clone());
        map.insert("serviceAccount".to_owned(), name);
    }
}

/// The spec below the template of a workload kind: `path` leads to the template.
pub fn template(owner: &mut Value, path: &[&str]) {
    if let Some(template) = descend(owner, path)
        && let Some(spec) = child(template, "spec")
    {
        template_spec(spec);
    }
}

/// Quantities finer than a thousandth are rounded up: upstream cannot keep them.
fn round_quantities(resources: &mut Value) {
    for side in ["limits", "requests"] {
        let list = resources.get_mut(side).and_then(Value::as_object_mut).into_iter().flatten();
        for (_, quantity) in list {
            let text = quantity.as_str().unwrap_or_default();
            // Only these can be that fine.
            if !text.contains(['n', 'u', '.', 'e', 'E']) {
                continue;
            }
            if let Ok(exact) = text.parse::<Quantity>()
                && exact.round_up_milli() != exact
            {
                *quantity = exact.round_up_milli().to_string().into();
            }
        }
    }
}

fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).filter(|l| !l.is_empty()).cloned() else {
        return;
    };
    if let Some(requests) = child_or_new(resources, "requests") {
        for (name, quantity) in limits {
            default_nil(requests, &name, quantity);
        }
    }
}

/// With host networking a container port is the host's port.
fn host_network_ports(spec: &mut Value) {
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            for port in items(container, "ports") {
                if let Some(number) = port.get("containerPort").cloned() {
                    default_zero(port, "hostPort", number);
                }
            }
        }
    }
}

fn default_container(container: &mut Value) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = pull_policy(image);
    default_zero(container, "imagePullPolicy", policy);
    if let Some(resources) = child(container, "resources") {
        round_quantities(resources);
    }
    default_zero(container, "terminationMessagePath", "/dev/termination-log");
    default_zero(container, "terminationMessagePolicy", "File");
    for port in items(container, "ports") {
        default_zero(port, "protocol", "TCP");
    }
    for env in items(container, "env") {
        if let Some(field) = descend(env, &["valueFrom", "fieldRef"]) {
            default_zero(field, "apiVersion", "v1");
        }
    }
    for env in items(container, "env") {
        if let Some(file) = descend(env, &["valueFrom", "fileKeyRef"]) {
            default_nil(file, "optional", false);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child(container, probe) {
            default_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(http) = descend(container, &["lifecycle", hook, "httpGet"]) {
            default_http_get(http);
        }
    }
}

/// `Always` for the tag `latest`, which is also the tag of an image without tag and digest.
fn pull_policy(image: &str) -> &'static str {
    if image_tag(image) == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// Tag of an image reference; None where a digest alone says which image, or the text is no reference.
fn image_tag(image: &str) -> Option<&str> {
    if image.is_empty() || image.contains(char::is_whitespace) {
        return None;
    }
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, tag)) => Some(tag),
        None if digest.is_some() => None,
        None => Some("latest"),
    }
}

fn default_probe(probe: &mut Value) {
    default_zero(probe, "timeoutSeconds", 1);
    default_zero(probe, "periodSeconds", 10);
    default_zero(probe, "successThreshold", 1);
    default_zero(probe, "failureThreshold", 3);
    if let Some(http) = child(probe, "httpGet") {
        default_http_get(http);
    }
    if let Some(grpc) = child(probe, "grpc") {
        default_nil(grpc, "service", "");
    }
}

fn default_http_get(http: &mut Value) {
    default_zero(http, "path", "/");
    default_zero(http, "scheme", "HTTP");
}

fn default_volume(volume: &mut Value) {
    let Some(map) = volume.as_object() else { return };
    if !map.iter().any(|(key, source)| key != "name" && !source.is_null()) {
        default_nil(volume, "emptyDir", Map::new());
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child(volume, source) {
            default_nil(source, "defaultMode", FILE_MODE);
            default_field_refs(source);
        }
    }
    if let Some(projected) = child(volume, "projected") {
        for source in items(projected, "sources") {
            if let Some(token) = child(source, "serviceAccountToken") {
                default_nil(token, "expirationSeconds", TOKEN_EXPIRATION_SECONDS);
            }
            if let Some(downward) = child(source, "downwardAPI") {
                default_field_refs(downward);
            }
        }
    }
    if let Some(claim) = descend(volume, &["ephemeral", "volumeClaimTemplate", "spec"]) {
        claim_spec(claim);
    }
    if let Some(image) = child(volume, "image") {
        let policy = pull_policy(image.get("reference").and_then(Value::as_str).unwrap_or_default());
        default_zero(image, "pullPolicy", policy);
    }
    volume_source(volume);
}

fn default_field_refs(downward: &mut Value) {
    for item in items(downward, "items") {
        if let Some(field) = child(item, "fieldRef") {
            default_zero(field, "apiVersion", "v1");
        }
    }
}

/// The spec of a PersistentVolumeClaim, alone or as template.
pub fn claim_spec(spec: &mut Value) {
    default_nil(spec, "volumeMode", "Filesystem");
}

/// Sources that pod volumes and PersistentVolumes share.
pub fn volume_source(volume: &mut Value) {
    const DEFAULTS: &[(&str, &str, &str)] = &[
        ("iscsi", "iscsiInterface", "default"),
        ("rbd", "pool", "rbd"),
        ("rbd", "user", "admin"),
        ("rbd", "keyring", "/etc/ceph/keyring"),
        ("azureDisk", "cachingMode", "ReadWrite"),
        ("azureDisk", "kind", "Shared"),
        ("azureDisk", "fsType", "ext4"),
        ("scaleIO", "storageMode", "ThinProvisioned"),
        ("scaleIO", "fsType", "xfs"),
    ];
    for (source, field, value) in DEFAULTS {
        if let Some(source) = child(volume, source) {
            default_zero(source, field, *value);
        }
    }
    if let Some(path) = child(volume, "hostPath") {
        default_nil(path, "type", "");
    }
    if let Some(disk) = child(volume, "azureDisk") {
        default_nil(disk, "readOnly", false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tags() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:0011", "IfNotPresent"),
            ("nginx:latest@sha256:0011", "Always"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn smallest_pod() {
        let mut object = json!({"spec": {"containers": [{"name": "a", "image": "b:1"}]}});
        pod(&mut object);
        let spec = json!({
            "containers": [{
                "name": "a", "image": "b:1", "imagePullPolicy": "IfNotPresent",
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
            "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "enableServiceLinks": true,
        });
        assert_eq!(object["spec"], spec);
        let once = object.clone();
        pod(&mut object);
        assert_eq!(object, once, "defaulting twice changes nothing");
    }

    #[test]
    fn pod_level_resources() {
        let container = |limit: &str| json!({"name": "a", "resources": {"limits": {"cpu": limit}}});
        for (resources, expected) in [
            (json!({"limits": {"cpu": "3"}}), json!({"limits": {"cpu": "3"}, "requests": {"cpu": "2"}})),
            (
                json!({"limits": {"memory": "1Gi"}}),
                json!({"limits": {"memory": "1Gi"},
                "requests": {"cpu": "2", "memory": "1Gi"}}),
            ),
            (json!({"requests": {"cpu": "2"}}), json!({"limits": {"cpu": "2"}, "requests": {"cpu": "2"}})),
        ] {
            let mut object = json!({"spec": {"resources": resources, "containers": [container("1"), container("1")]}});
            pod(&mut object);
            assert_eq!(object["spec"]["resources"], expected);
        }
    }

    #[test]
    fn everything_with_a_default() {
        let mut object = json!({"spec": {
            "hostNetwork": true, "serviceAccountName": "sa",
            "containers": [{
                "name": "a", "image": "b", "ports": [{"containerPort": 80}],
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"port": 80}, "timeoutSeconds": 0},
                "readinessProbe": {"grpc": {"port": 80}, "periodSeconds": 3},
                "lifecycle": {"preStop": {"httpGet": {"port": 80, "scheme": "HTTPS"}}},
            }],
            "volumes": [
                {"name": "none"}, {"name": "cm", "configMap": {"name": "x"}},
                {"name": "all", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}},
                    {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
                {"name": "host", "hostPath": {"path": "/"}},
                {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            ],
        }});
        pod(&mut object);
        let spec = &object["spec"];
        let container = &spec["containers"][0];
        assert_eq!(spec["serviceAccount"], "sa");
        assert_eq!(container["imagePullPolicy"], "Always");
        assert_eq!(container["ports"], json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]));
        assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(container["resources"]["requests"], json!({"cpu": "100m", "memory": "1Gi"}));
        let liveness = json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
            "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
        assert_eq!(container["livenessProbe"], liveness);
        assert_eq!(container["readinessProbe"]["grpc"], json!({"port": 80, "service": ""}));
        assert_eq!(container["readinessProbe"]["periodSeconds"], 3);
        assert_eq!(container["lifecycle"]["preStop"]["httpGet"], json!({"port": 80, "path": "/", "scheme": "HTTPS"}));
        let volumes = json!([
            {"name": "none", "emptyDir": {}}, {"name": "cm", "configMap": {"name": "x", "defaultMode": 420}},
            {"name": "all", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
                {"downwardAPI": {"items": [
                    {"path": "l", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}]}}]}},
            {"name": "host", "hostPath": {"path": "/", "type": ""}},
            {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {"volumeMode": "Filesystem"}}}},
        ]);
        assert_eq!(spec["volumes"], volumes);
    }
}
