//! Whom a proxy request is for: the kubelet of a node, a port of a node, a pod, a ready endpoint of a Service.

use crate::object::{Object, ObjectExt};
use crate::server::admission::Reader;
use crate::server::kubelet;
use crate::status::{Result, Status};
use serde_json::Value;
use std::net::IpAddr;

/// Where the request goes.
#[derive(Debug, PartialEq)]
pub enum Target {
    /// The kubelet of this node, on its own port: verified.
    Kubelet(Object),
    /// An address on the network of `node` ("" if none is known); TLS there is not verified, as upstream does.
    Address { node: String, tls: bool, host: String, port: Option<u16> },
}

impl Target {
    /// Host and port as a URL names them.
    pub fn authority(&self) -> String {
        match self {
            Target::Kubelet(node) => kubelet::endpoint(node).map(|(h, p)| format!("{h}:{p}")).unwrap_or_default(),
            Target::Address { host, port, .. } => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                port.map_or(host.clone(), |port| format!("{host}:{port}"))
            }
        }
    }
}

/// `[scheme:]name[:port]`.
struct Id<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

/// What `resource`/`id` means now. Errors are upstream's.
pub async fn find(reader: &dyn Reader, resource: &str, namespace: &str, id: &str) -> Result<Target> {
    let one = resource.trim_end_matches('s');
    let id = parse(id).ok_or_else(|| Status::bad_request(format!("invalid {one} request \"{id}\"")))?;
    match resource {
        "nodes" => node(get(reader, "nodes", "", id.name).await?, &id),
        "pods" => pod(&get(reader, "pods", namespace, id.name).await?, &id),
        _ => service(reader, namespace, &id).await,
    }
}

async fn get(reader: &dyn Reader, resource: &str, namespace: &str, name: &str) -> Result<Object> {
    reader.get("", resource, namespace, name).await?.ok_or_else(|| Status::not_found("", resource, name))
}

fn parse(id: &str) -> Option<Id<'_>> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match *parts.as_slice() {
        [name] => ("", name, ""),
        [name, port] => ("", name, port),
        [scheme, name, port] => (scheme, name, port),
        _ => return None,
    };
    let known = matches!(scheme, "" | "http" | "https");
    (known && !name.is_empty()).then_some(Id { tls: scheme == "https", name, port })
}

fn node(node: Object, id: &Id) -> Result<Target> {
    let (host, kubelet) = kubelet::endpoint(&node)?;
    if id.port.is_empty() || id.port == kubelet.to_string() {
        return Ok(Target::Kubelet(node));
    }
    address(node.name(), id.tls, &host, Some(number(id.port)?))
}

fn pod(pod: &Object, id: &Id) -> Result<Target> {
    let ports = list(pod, &["spec", "containers"]).iter().flat_map(|c| list(c, &["ports"]));
    let port = match id.port {
        "" => ports.into_iter().next().and_then(container_port),
        // Beyond upstream, which knows numbers alone: the names of the pod's own ports.
        name => match ports.into_iter().find(|p| p.str_at(&["name"]) == name).and_then(container_port) {
            Some(port) => Some(port),
            None => Some(number(name)?),
        },
    };
    address(pod.str_at(&["spec", "nodeName"]), id.tls, ips(pod).next().unwrap_or_default(), port)
}

async fn service(reader: &dyn Reader, namespace: &str, id: &Id<'_>) -> Result<Target> {
    let mut port = id.port.to_owned();
    if let Ok(number) = id.port.parse::<u16>() {
        let service = get(reader, "services", namespace, id.name).await?;
        let declared = list(&service, &["spec", "ports"]).iter().find(|p| p["port"] == number);
        let missing = || Status::unavailable(format!("no service port {number} found for service \"{}\"", id.name));
        port = declared.ok_or_else(missing)?.str_at(&["name"]).to_owned();
    }
    let endpoints = get(reader, "endpoints", namespace, id.name).await?;
    for (address, port) in candidates(&endpoints, &port) {
        if let Some(node) = node_of(reader, namespace, address).await? {
            return self::address(&node, id.tls, address.str_at(&["ip"]), Some(port));
        }
    }
    Err(Status::unavailable(format!("no endpoints available for service \"{}\"", id.name)))
}

/// Ready addresses with the number of the named port, in random order.
fn candidates<'a>(endpoints: &'a Object, port: &str) -> Vec<(&'a Object, u16)> {
    let mut found = Vec::new();
    for subset in list(endpoints, &["subsets"]) {
        let Some(port) = list(subset, &["ports"]).iter().find(|p| p.str_at(&["name"]) == port) else { continue };
        let Some(port) = port["port"].as_u64().and_then(|p| u16::try_from(p).ok()) else { continue };
        found.extend(list(subset, &["addresses"]).iter().map(|a| (a, port)));
    }
    let start = rand::random_range(0..found.len().max(1));
    found.rotate_left(start);
    found
}

/// The node of the pod behind an endpoint; None where no pod of this namespace has that address: whoever may write
/// Endpoints must not thereby reach what the server's network reaches.
async fn node_of(reader: &dyn Reader, namespace: &str, address: &Object) -> Result<Option<String>> {
    let target = address.at(&["targetRef"]).filter(|t| t.str_at(&["namespace"]) == namespace);
    let Some(target) = target else { return Ok(None) };
    let pod = reader.get("", "pods", namespace, target.str_at(&["name"])).await?;
    let pod = pod.filter(|pod| ips(pod).any(|ip| ip == address.str_at(&["ip"])));
    Ok(pod.map(|pod| pod.str_at(&["spec", "nodeName"]).to_owned()))
}

fn address(node: &str, tls: bool, host: &str, port: Option<u16>) -> Result<Target> {
    let allowed = host.parse::<IpAddr>().map_or(!host.is_empty() && host != "localhost", is_global_unicast);
    if !allowed {
        return Err(Status::bad_request("address not allowed"));
    }
    Ok(Target::Address { node: node.to_owned(), tls, host: host.to_owned(), port })
}

fn is_global_unicast(ip: IpAddr) -> bool {
    let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !special && !link_local
}

fn number(port: &str) -> Result<u16> {
    let unknown = || Status::unavailable(format!("error trying to reach service: dial tcp: unknown port tcp/{port}"));
    port.parse().ok().filter(|p| *p > 0).ok_or_else(unknown)
}

fn container_port(port: &Object) -> Option<u16> {
    port["containerPort"].as_u64().and_then(|p| u16::try_from(p).ok())
}

fn ips(pod: &Object) -> impl Iterator<Item = &str> {
    list(pod, &["status", "podIPs"]).iter().map(|ip| ip.str_at(&["ip"]))
}

fn list<'a>(object: &'a Object, path: &[&str]) -> &'a [Value] {
    object.at(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use serde_json::json;

    /// Objects by "resource/name" in the namespace `n`.
    struct Few(Value);

    #[async_trait]
    impl Reader for Few {
        async fn get(&self, _: &str, resource: &str, _: &str, name: &str) -> Result<Option<Object>> {
            Ok(self.0.get(format!("{resource}/{name}")).cloned())
        }

        async fn list(&self, _: &str, _: &str, _: &str) -> Result<Vec<Object>> {
            Ok(vec![])
        }
    }

    fn cluster() -> Few {
        let pod = |node: &str, ip: &str| {
            json!({"spec": {"nodeName": node, "containers": [{"name": "s"},
                {"name": "c", "ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 9}]}]},
                "status": {"podIPs": [{"ip": ip}]}})
        };
        let address =
            |pod: &str, ip: &str| json!({"ip": ip, "targetRef": {"kind": "Pod", "namespace": "n", "name": pod}});
        Few(json!({
            "nodes/one": {"metadata": {"name": "one"}, "status": {
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}},
            "nodes/loop": {"metadata": {"name": "loop"}, "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}},
            "pods/p": pod("one", "10.42.0.5"),
            "pods/new": {"spec": {"containers": []}},
            "services/s": {"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 443}]}},
            "services/none": {"spec": {"ports": [{"port": 80}]}},
            "endpoints/s": {"subsets": [{"ports": [{"name": "a", "port": 8080}], "addresses": [
                address("p", "10.42.0.9"), address("gone", "10.42.0.5"), {"ip": "10.0.0.1"}, address("p", "10.42.0.5")]},
                {"ports": [{"name": "b", "port": 8443}], "notReadyAddresses": [address("p", "10.42.0.5")]}]},
            "endpoints/none": {"subsets": []},
        }))
    }

    #[tokio::test]
    async fn what_a_name_means() {
        let here = |tls: bool, port: Option<u16>| {
            Ok(Target::Address { node: "one".into(), tls, host: "10.42.0.5".into(), port })
        };
        let refused = |text: &str| Err(text.to_owned());
        let cases = [
            ("pods", "p", here(false, Some(8080))),
            ("pods", "https:p:web", here(true, Some(8080))),
            ("pods", "p:9", here(false, Some(9))),
            ("pods", "http:p:", here(false, Some(8080))),
            ("pods", "ftp:p:9", refused("invalid pod request \"ftp:p:9\"")),
            ("pods", "x", refused("pods \"x\" not found")),
            ("pods", "new", refused("address not allowed")),
            ("pods", "p:ssh", refused("error trying to reach service: dial tcp: unknown port tcp/ssh")),
            ("services", "s:80", here(false, Some(8080))),
            ("services", "https:s:a", here(true, Some(8080))),
            ("services", "s:81", refused("no service port 81 found for service \"s\"")),
            ("services", "s:b", refused("no endpoints available for service \"s\"")),
            ("services", "s", refused("no endpoints available for service \"s\"")),
            ("services", "none:80", refused("no endpoints available for service \"none\"")),
            ("services", "x:80", refused("services \"x\" not found")),
            ("nodes", "loop:1", refused("address not allowed")),
            ("nodes", "x:1", refused("nodes \"x\" not found")),
            (
                "nodes",
                "one:9100",
                Ok(Target::Address { node: "one".into(), tls: false, host: "192.0.2.1".into(), port: Some(9100) }),
            ),
        ];
        for (resource, id, expected) in cases {
            let found = find(&cluster(), resource, "n", id).await.map_err(|s| s.message);
            assert_eq!(found, expected, "{resource}/{id}");
        }
        for id in ["one", "one:10250", "https:one:10250"] {
            assert!(matches!(find(&cluster(), "nodes", "", id).await, Ok(Target::Kubelet(_))), "{id}");
        }
    }
}
