//! This host as a node: network and kubelet, the same on a server and on an agent.

use crate::cache::Caches;
use crate::client::Line;
use crate::pki::LiveCertificate;
use crate::task::Group;
use crate::{agent, config, netproxy};
use anyhow::Context;
use std::path::Path;
use std::sync::Arc;

/// How the node sees the cluster, and whom its own API lets in.
pub struct Access {
    /// As `system:node:<name>`.
    pub client: kube::Client,
    /// To a server in another process: carries its way back to this node.
    pub line: Option<Line>,
    pub caches: Arc<Caches>,
    /// Certificate of the kubelet's API.
    pub serving: Arc<LiveCertificate>,
    /// PEM of the CA behind the clients of the kubelet's API.
    pub client_ca: String,
}

/// Start everything that a node has. Returns when rules, DNS and the kubelet's API are there; registration goes on.
/// Without a kubelet it gives no pods.
pub async fn start(
    node: &config::Node,
    cluster: &config::Cluster,
    access: Access,
    root: &Group,
) -> anyhow::Result<Option<agent::shutdown::Pods>> {
    if !node.is_disabled("proxy") {
        proxy(node, cluster, access.client.clone(), access.caches.clone(), root).await?;
    }
    if node.is_disabled("kubelet") {
        return Ok(None);
    }
    kubelet(node, cluster, access, root).await.map(Some)
}

/// Services, pod network and DNS. Returns when rules and DNS are there.
pub async fn proxy(
    node: &config::Node,
    cluster: &config::Cluster,
    client: kube::Client,
    caches: Arc<Caches>,
    root: &Group,
) -> anyhow::Result<()> {
    let network = network(node, cluster, &node.agent_dir());
    netproxy::run(network, client, caches, root.clone()).await.context("pod network")
}

/// The kubelet. Returns when its API is there; registration goes on.
pub async fn kubelet(
    node: &config::Node,
    cluster: &config::Cluster,
    access: Access,
    root: &Group,
) -> anyhow::Result<agent::shutdown::Pods> {
    let dir = node.agent_dir();
    let Access { client, line, caches, serving, client_ca } = access;
    let settings = agent::Config {
        node_name: node.name.clone(),
        node_ip: node.ip,
        node_external_ip: node.external_ip,
        node_labels: node.labels.clone(),
        run_dir: node.run_dir.clone(),
        kubelet_dir: dir.join("kubelet"),
        log_dir: node.pod_log_dir.clone(),
        cgroup_root: format!("{}/kubepods", node.cgroup_root.trim_end_matches('/')),
        container_runtime_endpoint: node.container_runtime_endpoint.clone(),
        resolv_conf: node.resolv_conf.clone(),
        cluster_dns: cluster.cluster_dns,
        cluster_domain: cluster.cluster_domain.clone(),
        kubelet_port: node.kubelet_port,
        serving,
        client_ca,
        max_pods: node.max_pods,
        shutdown_grace: node.shutdown_grace,
        shutdown_grace_critical: node.shutdown_grace_critical,
        foreign_cni: cluster.overlay == netproxy::overlay::Backend::None,
        dir,
    };
    agent::run(settings, client, line, caches, root.clone()).await.context("agent")
}

fn network(node: &config::Node, cluster: &config::Cluster, dir: &Path) -> netproxy::Config {
    netproxy::Config {
        node_name: node.name.clone(),
        node_ip: node.ip,
        cluster_cidr: cluster.cluster_cidr.to_string(),
        service_cidr: cluster.service_cidr.to_string(),
        cluster_dns: cluster.cluster_dns,
        foreign_dns: node.is_disabled("dns"),
        cluster_domain: cluster.cluster_domain.clone(),
        node_port_range: cluster.node_ports,
        resolv_conf: node.resolv_conf.clone(),
        dir: dir.join("network"),
        run_dir: node.run_dir.clone(),
        table: "kedge".to_owned(),
        interface_prefix: "kdg".to_owned(),
        overlay: cluster.overlay,
        cni_conf_dir: dir.join("cni/net.d"),
        cni_bin_dir: dir.join("cni/bin"),
    }
}
