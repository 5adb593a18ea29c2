//! A container's environment: Services, `envFrom`, values, `$(VAR)` expansion, fields, resources (upstream's order).

use super::fields;
use super::sources::PodSources;
use crate::agent::context::Agent;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};
use std::collections::HashMap;
use std::sync::Arc;

/// Names and values in order.
pub type Env = Vec<(String, String)>;

/// Build it. Errors are for the container's `CreateContainerConfigError`.
pub async fn build(
    agent: &Agent,
    sources: &PodSources,
    pod: &Pod,
    container: &Container,
    pod_ips: &[String],
) -> anyhow::Result<Env> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let services = agent.services().await;
    let mut env: Env = Vec::new();
    let mut from_sources: HashMap<String, String> = HashMap::new();
    for (name, value) in of_services(&services, namespace, links) {
        from_sources.insert(name, value);
    }
    let lookups = Lookups { agent, namespace, sources };
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            let Some(map) = lookups.config_map(&reference.name, reference.optional).await? else { continue };
            for (key, value) in map.data.iter().flatten() {
                from_sources.insert(format!("{prefix}{key}"), value.clone());
            }
        } else if let Some(reference) = &source.secret_ref {
            let Some(secret) = lookups.secret(&reference.name, reference.optional).await? else { continue };
            for (key, value) in secret.data.iter().flatten() {
                from_sources.insert(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => match lookups.value(source, pod, container, pod_ips).await? {
                Some(value) => value,
                None => continue,
            },
            None => expand(variable.value.as_deref().unwrap_or_default(), |name| {
                // What was set before wins over Services and sources.
                env.iter()
                    .rev()
                    .find(|(n, _)| n == name)
                    .map(|(_, v)| v.clone())
                    .or_else(|| from_sources.get(name).cloned())
            }),
        };
        env.retain(|(name, _)| *name != variable.name);
        env.push((variable.name.clone(), value));
    }
    let mut rest: Vec<_> = from_sources.into_iter().filter(|(name, _)| !env.iter().any(|(n, _)| n == name)).collect();
    rest.sort();
    env.extend(rest);
    Ok(env)
}

/// Where values come from.
struct Lookups<'a> {
    agent: &'a Agent,
    namespace: &'a str,
    sources: &'a PodSources,
}

impl Lookups<'_> {
    async fn config_map(&self, name: &str, optional: Option<bool>) -> anyhow::Result<Option<Arc<ConfigMap>>> {
        match self.sources.config_map(name).await? {
            None if optional != Some(true) => anyhow::bail!("configmap \"{name}\" not found"),
            found => Ok(found),
        }
    }

    async fn secret(&self, name: &str, optional: Option<bool>) -> anyhow::Result<Option<Arc<Secret>>> {
        match self.sources.secret(name).await? {
            None if optional != Some(true) => anyhow::bail!("secret \"{name}\" not found"),
            found => Ok(found),
        }
    }

    /// None: an optional source that is not there.
    async fn value(
        &self,
        source: &EnvVarSource,
        pod: &Pod,
        container: &Container,
        pod_ips: &[String],
    ) -> anyhow::Result<Option<String>> {
        let namespace = self.namespace;
        if let Some(field) = &source.field_ref {
            let place = fields::Place { node_ip: &self.agent.config.node_ip.to_string(), pod_ips };
            return fields::of_pod(pod, &field.field_path, &place).map(Some);
        }
        if let Some(field) = &source.resource_field_ref {
            return fields::of_resources(pod, container, field, &self.agent.machine).map(Some);
        }
        if let Some(key) = &source.config_map_key_ref {
            let Some(map) = self.config_map(&key.name, key.optional).await? else { return Ok(None) };
            let value = map.data.as_ref().and_then(|d| d.get(&key.key)).cloned();
            if value.is_none() && key.optional != Some(true) {
                anyhow::bail!("couldn't find key {} in ConfigMap {namespace}/{}", key.key, key.name);
            }
            return Ok(value);
        }
        if let Some(key) = &source.secret_key_ref {
            let Some(secret) = self.secret(&key.name, key.optional).await? else { return Ok(None) };
            let value = secret.data.as_ref().and_then(|d| d.get(&key.key));
            if value.is_none() && key.optional != Some(true) {
                anyhow::bail!("couldn't find key {} in Secret {namespace}/{}", key.key, key.name);
            }
            return Ok(value.map(|v| String::from_utf8_lossy(&v.0).into_owned()));
        }
        Ok(Some(String::new()))
    }
}

/// `$(NAME)` becomes the variable's value, `$$` a dollar; what is not defined stays as it is.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

/// Variables of Services: those of the pod's namespace if it wants links, and always `default/kubernetes`.
pub fn of_services(services: &[Arc<Service>], namespace: &str, links: bool) -> Env {
    let wanted = |service: &&Arc<Service>| {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let own = service.metadata.namespace.as_deref().unwrap_or_default();
        let has_ip = service
            .spec
            .as_ref()
            .and_then(|s| s.cluster_ip.as_deref())
            .is_some_and(|ip| !ip.is_empty() && ip != "None");
        has_ip && ((own == "default" && name == "kubernetes") || (links && own == namespace))
    };
    let mut chosen: Vec<_> = services.iter().filter(wanted).collect();
    // The namespace's own `kubernetes` hides the default one.
    chosen.sort_by_key(|s| (s.metadata.name.clone(), s.metadata.namespace.as_deref() == Some(namespace)));
    chosen.iter().flat_map(|service| of_service(service)).collect()
}

fn of_service(service: &Service) -> Env {
    let (Some(name), Some(spec)) = (&service.metadata.name, &service.spec) else { return Vec::new() };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (Some(ip), Some(first)) = (&spec.cluster_ip, ports.first()) else { return Vec::new() };
    let upper = |text: &str| text.replace('-', "_").to_ascii_uppercase();
    let prefix = upper(name);
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    let protocol = |p: &Option<String>| p.clone().unwrap_or_else(|| "TCP".into());
    let url = |p: &str, port: i32| format!("{}://{host}:{port}", p.to_ascii_lowercase());
    let mut env = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.clone()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            env.push((format!("{prefix}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string()));
        }
    }
    env.push((format!("{prefix}_PORT"), url(&protocol(&first.protocol), first.port)));
    for port in ports {
        let protocol = protocol(&port.protocol);
        let start = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_ascii_uppercase());
        env.push((start.clone(), url(&protocol, port.port)));
        env.push((format!("{start}_PROTO"), protocol.to_ascii_lowercase()));
        env.push((format!("{start}_PORT"), port.port.to_string()));
        env.push((format!("{start}_ADDR"), ip.clone()));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expansion() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        let cases = [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
        ];
        for (text, wanted) in cases {
            assert_eq!(expand(text, lookup), wanted, "{text}");
        }
    }

    #[test]
    fn service_variables() {
        let service = |namespace: &str, name: &str, ip: &str| -> Arc<Service> {
            let ports = json!([{"name": "web-ui", "port": 80}, {"port": 53, "protocol": "UDP"}]);
            let object =
                json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"clusterIP": ip, "ports": ports}});
            Arc::new(serde_json::from_value(object).unwrap())
        };
        let all = [
            service("default", "kubernetes", "10.43.0.1"),
            service("ns", "my-db", "10.43.0.7"),
            service("ns", "headless", "None"),
            service("other", "x", "10.43.0.8"),
        ];
        let names = |links| -> Vec<String> {
            let env = of_services(&all, "ns", links);
            env.into_iter().map(|(n, _)| n).filter(|n| n.ends_with("_SERVICE_HOST")).collect()
        };
        assert_eq!(names(true), ["KUBERNETES_SERVICE_HOST", "MY_DB_SERVICE_HOST"]);
        assert_eq!(names(false), ["KUBERNETES_SERVICE_HOST"]);
        let env: HashMap<String, String> = of_service(&all[1]).into_iter().collect();
        for (name, value) in [
            ("MY_DB_SERVICE_PORT", "80"),
            ("MY_DB_SERVICE_PORT_WEB_UI", "80"),
            ("MY_DB_PORT", "tcp://10.43.0.7:80"),
            ("MY_DB_PORT_53_UDP", "udp://10.43.0.7:53"),
            ("MY_DB_PORT_53_UDP_PROTO", "udp"),
            ("MY_DB_PORT_80_TCP_ADDR", "10.43.0.7"),
        ] {
            assert_eq!(env[name], value, "{name}");
        }
    }
}
