//! The downward API: `fieldRef` and `resourceFieldRef`, for variables and for files.

use crate::agent::machine::Machine;
use crate::agent::resources::quantity;
use crate::quantity::Quantity;
use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use std::collections::BTreeMap;

/// What the API object may not say yet.
pub struct Place<'a> {
    pub node_ip: &'a str,
    /// Of the sandbox that runs now.
    pub pod_ips: &'a [String],
}

/// A field of a pod by its path.
pub fn of_pod(pod: &Pod, path: &str, place: &Place<'_>) -> anyhow::Result<String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            other => bail!("unsupported fieldPath: {other}"),
        };
        return Ok(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    let text = |t: Option<&String>| t.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(metadata.name.as_ref()),
        "metadata.namespace" => text(metadata.namespace.as_ref()),
        "metadata.uid" => text(metadata.uid.as_ref()),
        "metadata.labels" => format_map(metadata.labels.as_ref()),
        "metadata.annotations" => format_map(metadata.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => place.node_ip.to_owned(),
        "status.podIP" => text(place.pod_ips.first()),
        "status.podIPs" => place.pod_ips.join(","),
        other => bail!("unsupported fieldPath: {other}"),
    })
}

/// `metadata.labels['a/b']` → the map and the key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` lines, as upstream writes labels into files.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", go_quote(v))).collect();
    lines.join("\n")
}

/// Go's `%q` for what labels and annotations contain.
fn go_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out + "\""
}

/// A request or limit of a container, divided and rounded up. Without a limit it is what the node has.
pub fn of_resources(
    pod: &Pod,
    container: &Container,
    field: &ResourceFieldSelector,
    machine: &Machine,
) -> anyhow::Result<String> {
    let named;
    let container = match field.container_name.as_deref().filter(|n| !n.is_empty()) {
        Some(name) => {
            let all = super::plan::containers(pod);
            named =
                all.into_iter().find(|(_, c)| c.name == name).with_context(|| format!("container {name} not found"))?.1;
            &named
        }
        None => container,
    };
    let (side, resource) = field.resource.split_once('.').context("invalid resource")?;
    let resources = container.resources.as_ref();
    let found = match side {
        "requests" => resources.and_then(|r| quantity(r.requests.as_ref(), resource)),
        "limits" => {
            resources.and_then(|r| quantity(r.limits.as_ref(), resource)).or_else(|| machine.allocatable(resource))
        }
        other => bail!("unsupported container resource: {other}.{resource}"),
    };
    let zero: Quantity = "0".parse().unwrap_or_default();
    let divisor = field.divisor.as_ref().and_then(|d| d.0.parse::<Quantity>().ok()).filter(|d| !d.is_zero());
    Ok(divided(found.unwrap_or(zero), divisor, resource).to_string())
}

/// CPU in divisors of thousandths, everything else in whole units; both rounded up.
fn divided(value: Quantity, divisor: Option<Quantity>, resource: &str) -> i64 {
    let ceil = |a: i64, b: i64| if b <= 0 { a } else { (a + b - 1) / b };
    if resource == "cpu" {
        ceil(value.milli_value(), divisor.map_or(1000, |d| d.milli_value()))
    } else {
        ceil(value.value(), divisor.map_or(1, |d| d.value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_of_a_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a/b": "x\"y", "c": "d"}},
            "spec": {"nodeName": "node", "serviceAccountName": "sa", "containers": []},
        }))
        .unwrap();
        let ips = ["10.0.0.1".to_owned(), "fd00::1".to_owned()];
        let place = Place { node_ip: "1.2.3.4", pod_ips: &ips };
        let cases = [
            ("metadata.name", Some("p")),
            ("metadata.labels['a/b']", Some("x\"y")),
            ("metadata.labels['none']", Some("")),
            ("metadata.labels", Some("a/b=\"x\\\"y\"\nc=\"d\"")),
            ("spec.nodeName", Some("node")),
            ("status.hostIP", Some("1.2.3.4")),
            ("status.podIPs", Some("10.0.0.1,fd00::1")),
            ("spec.containers", None),
        ];
        for (path, wanted) in cases {
            assert_eq!(of_pod(&pod, path, &place).ok().as_deref(), wanted, "{path}");
        }
    }

    #[test]
    fn resources_are_rounded_up() {
        let machine = Machine { cpus: 4, memory_bytes: 1 << 30, ..Default::default() };
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources":
            {"requests": {"cpu": "1500m", "memory": "10Mi"}, "limits": {"memory": "3Mi"}}}]}}))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let cases = [
            ("requests.cpu", None, "2"),
            ("requests.cpu", Some("1m"), "1500"),
            ("limits.cpu", None, "4"),
            ("requests.memory", Some("1Mi"), "10"),
            ("limits.memory", Some("2Mi"), "2"),
            ("requests.ephemeral-storage", None, "0"),
        ];
        for (resource, divisor, wanted) in cases {
            let field = json!({"resource": resource, "divisor": divisor});
            let field = serde_json::from_value(field).unwrap();
            assert_eq!(of_resources(&pod, container, &field, &machine).unwrap(), wanted, "{resource} {divisor:?}");
        }
    }
}
