//! What the API server makes at each start: namespaces, priority classes, the default RBAC policy, its own Service and
//! the cluster DNS Service, what aggregated API servers and machines that join must know. Existing objects are only
//! completed, never reset.

mod join;
mod network;
pub mod policy;
mod rbac;
mod writer;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::IpAddr;
use writer::Writer;

/// The user that bootstrap writes as: upstream's loopback client.
pub const USER: &str = "system:apiserver";

/// The namespaces that always exist.
pub const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// What the cluster looks like.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients reach this server.
    pub advertise_address: IpAddr,
    /// Where all servers are reached: the endpoints of Service `default/kubernetes`.
    pub servers: Vec<IpAddr>,
    pub https_port: u16,
    /// `10.43.0.0/16`
    pub service_cidr: String,
    /// First address of the service CIDR.
    pub service_ip: IpAddr,
    pub cluster_dns: IpAddr,
    /// `cluster.local`
    pub cluster_domain: String,
    /// `10.42.0.0/16`
    pub cluster_cidr: String,
    /// PEM of the CA of serving certificates.
    pub server_ca: String,
    /// PEM of the CA of client certificates.
    pub client_ca: String,
    /// PEM of the CA of the front proxy's client certificate.
    pub request_header_ca: String,
}

/// Make what is missing. `client` writes as [`USER`] in `system:masters`. May be called any number of times.
pub async fn run(client: &kube::Client, config: &Config) -> Result<()> {
    let writer = Writer::new(client.clone());
    for name in NAMESPACES {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        writer.ensure("/api/v1/namespaces", namespace).await?;
    }
    rbac::reconcile(&writer).await.context("default RBAC policy")?;
    for class in priority_classes() {
        writer.ensure("/apis/scheduling.k8s.io/v1/priorityclasses", class).await?;
    }
    network::reconcile(&writer, config).await?;
    join::reconcile(&writer, config).await?;
    writer.ensure_fields("/api/v1/namespaces/kube-system/configmaps", authentication(config), &["data"]).await
}

/// Have the API's Service lead to these servers.
pub async fn publish(client: &kube::Client, config: &Config, servers: &[IpAddr]) -> Result<()> {
    network::endpoints(&Writer::new(client.clone()), config, servers).await
}

/// The classes that only system pods may have.
fn priority_classes() -> [Value; 2] {
    let class = |name: &str, value: u32, description: &str| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
               "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority"})
    };
    [
        class("system-node-critical", 2_000_001_000, "For system pods that must run, and must stay on their node."),
        class("system-cluster-critical", 2_000_000_000, "For system pods that must run, on whatever node."),
    ]
}

/// What aggregated API servers need to authenticate requests (upstream's contract for this ConfigMap).
fn authentication(config: &Config) -> Value {
    let list = |items: &[&str]| json!(items).to_string();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": config.client_ca,
            "requestheader-allowed-names": list(&[crate::pki::FRONT_PROXY_USER]),
            "requestheader-client-ca-file": config.request_header_ca,
            "requestheader-extra-headers-prefix": list(&["X-Remote-Extra-"]),
            "requestheader-group-headers": list(&["X-Remote-Group"]),
            "requestheader-uid-headers": list(&["X-Remote-Uid"]),
            "requestheader-username-headers": list(&["X-Remote-User"]),
        },
    })
}

#[cfg(test)]
mod tests;
