//! Environment variables and the fields and resources that they (and downward API volumes) refer to.

use crate::server::kinds::names;
use crate::server::kinds::view::View;

/// What environment variables can show of the pod.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields that downward API labels can be converted from; the rest is unknown.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.host",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const BYTE_DIVISORS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// `env` and `envFrom` of a container.
pub(super) fn env(container: &View<'_>) {
    for variable in container.get("env").items() {
        let name = variable.get("name");
        if name.require() {
            name.formats(names::env_var_name);
        }
        if variable.get("valueFrom").is_set() {
            value_from(&variable.get("valueFrom"), !variable.get("value").is_empty());
        }
    }
    let all = container.get("envFrom");
    for source in all.items() {
        let prefix = source.get("prefix");
        if !prefix.is_empty() {
            prefix.formats(names::env_var_name);
        }
        let refs = [source.get("configMapRef"), source.get("secretRef")];
        for name in refs.iter().filter(|r| r.is_set()).map(|r| r.get("name")) {
            if name.require() {
                name.format(names::dns_subdomain);
            }
        }
        match refs.iter().filter(|r| r.is_set()).count() {
            0 => all.invalid_value("", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => all.invalid_value("", "may not have more than one field specified at a time"),
        }
    }
}

fn value_from(source: &View<'_>, has_value: bool) {
    let kinds = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let sources: Vec<View<'_>> = kinds.iter().map(|k| source.get(k)).filter(View::is_set).collect();
    for (kind, one) in kinds.iter().map(|k| (k, source.get(k))).filter(|(_, one)| one.is_set()) {
        match *kind {
            "fieldRef" => field_selector(&one, ENV_FIELDS),
            "resourceFieldRef" => resource_selector(&one, false),
            "fileKeyRef" => {
                for field in ["volumeName", "path", "key"] {
                    one.get(field).require();
                }
            }
            _ => key_selector(&one),
        }
    }
    let why = match sources.len() {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        _ if has_value => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    source.invalid_value("", why);
}

fn key_selector(selector: &View<'_>) {
    selector.get("name").format(names::dns_subdomain);
    let key = selector.get("key");
    if key.require() {
        key.formats(names::config_map_key);
    }
}

/// A field of the pod, perhaps with a subscript: `metadata.labels['app']`.
pub(super) fn field_selector(selector: &View<'_>, supported: &[&str]) {
    let (version, field) = (selector.get("apiVersion"), selector.get("fieldPath"));
    if !version.require() || !field.require() {
        return;
    }
    if version.str() != "v1" {
        return field.invalid(format!("error converting fieldPath: unsupported pod version: {}", version.str()));
    }
    if let Some((path, subscript)) = field.str().strip_suffix("']").and_then(|f| f.split_once("['")) {
        match path {
            "metadata.annotations" => report(selector, &subscript.to_lowercase()),
            "metadata.labels" => report(selector, subscript),
            _ => {
                let why =
                    format!("error converting fieldPath: field label does not support subscript: {}", field.str());
                field.invalid(why);
            }
        }
    } else if !KNOWN_FIELDS.contains(&field.str()) {
        field.invalid(format!("error converting fieldPath: field label not supported: {}", field.str()));
    } else if !supported.contains(&field.str()) {
        field.not_supported(supported);
    }
}

fn report(at: &View<'_>, key: &str) {
    for why in names::qualified_name(key) {
        at.invalid_value(key, why);
    }
}

/// A request or limit of a container.
pub(super) fn resource_selector(selector: &View<'_>, in_volume: bool) {
    let resource = selector.get("resource");
    let is_hugepages = ["limits.hugepages-", "requests.hugepages-"].iter().any(|p| resource.str().starts_with(p));
    if in_volume && selector.get("containerName").is_empty() {
        selector.get("containerName").required("");
    } else if resource.require() && !is_hugepages {
        resource.one_of(RESOURCES);
    }
    let divisor = selector.get("divisor");
    let Some(quantity) = divisor.quantity().filter(|q| !q.is_zero()) else { return };
    let shown = quantity.to_string();
    let (allowed, list, what): (&[&str], _, _) = match resource.str() {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"], "1m and 1", "cpu"),
        "limits.memory" | "requests.memory" => (BYTE_DIVISORS, "", "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (BYTE_DIVISORS, "", "local ephemeral storage"),
        _ if is_hugepages => (BYTE_DIVISORS, "", "hugepages"),
        _ => return,
    };
    if !allowed.contains(&shown.as_str()) {
        let list = if list.is_empty() { BYTE_DIVISORS.join(", ") } else { list.to_owned() };
        let why = format!("only divisor's values {list} are supported with the {what} resource");
        divisor.invalid_value(resource.str(), why);
    }
}
