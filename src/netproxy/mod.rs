//! Services → nftables, pod network (CNI), node-local DNS (DESIGN D7, D8, D9). Sees the cluster through `client` and
//! `cache` only.
//!
//! | module | what it is |
//! |---|---|
//! | `endpoints`, `plan`, `rules`, `state` | pure: which endpoints; Services → elements; the fixed rules; the least change |
//! | `nft`, `link`, `conntrack`, `genl`, `netlink` | what the kernel is told, as messages |
//! | [`overlay`] | the way to other nodes' pods |
//! | `health` | `healthCheckNodePort` |
//! | `tables`, `proxy` | one transaction per change; woken by keys, heals what others break |
//! | [`cni`] | the CNI plugin and its server, addresses, routed veths |
//! | [`dns`] | the resolver at the cluster DNS address |
//! | `host` | forwarding, the route for Service addresses, the DNS address |

pub mod cni;
mod conntrack;
pub mod dns;
mod endpoints;
mod genl;
mod health;
mod host;
mod link;
pub mod net;
mod netlink;
pub mod netns;
mod nft;
pub mod overlay;
mod plan;
pub mod probe;
mod proxy;
mod rules;
mod state;
mod sysctl;
mod tables;
#[cfg(test)]
mod tests;

pub use host::{add_own_address, remove_own_address};

use crate::cache::{Cache, Caches, Changes};
use crate::task::Group;
use anyhow::Context;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use net::Cidr;
use overlay::Backend;
use overlay::keeper::Keeper;
use rules::Setting;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// Everything the network part needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    pub node_ip: IpAddr,
    pub cluster_cidr: String,
    pub service_cidr: String,
    pub cluster_dns: IpAddr,
    /// Somebody else answers there (`--disable=dns`).
    pub foreign_dns: bool,
    pub cluster_domain: String,
    pub node_port_range: (u16, u16),
    /// Upstream resolvers come from here; None: found by itself.
    pub resolv_conf: Option<PathBuf>,
    /// `<data-dir>/agent/network`: IPAM state.
    pub dir: PathBuf,
    /// Socket of the CNI server and other run-time files.
    pub run_dir: PathBuf,
    /// Name of our nft table (`kedge`; an instance's own in tests).
    pub table: String,
    /// First letters of the host side of every pod's veth, at most 4 (`kdg`; an instance's own in tests).
    pub interface_prefix: String,
    /// How pods of different nodes reach each other.
    pub overlay: overlay::Backend,
    /// Where the container runtime looks for network configurations: `<data-dir>/agent/cni/net.d`.
    pub cni_conf_dir: PathBuf,
    /// Where it looks for plugins: `<data-dir>/agent/cni/bin`; both plugins there are links to our executable.
    pub cni_bin_dir: PathBuf,
}

/// What all parts read.
struct Shared {
    config: Config,
    /// One per IP family of the cluster.
    settings: Vec<Setting>,
    group: Group,
}

impl Shared {
    fn node_addresses(&self) -> Vec<IpAddr> {
        self.settings.iter().map(|s| s.node).collect()
    }
}

/// What [`cleanup`] must find, written before anything is changed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Traces {
    table: String,
    interface_prefix: String,
    service_cidrs: Vec<String>,
    dns: Vec<IpAddr>,
    files: Vec<PathBuf>,
}

/// Names of our files: the configuration comes first of all (runtimes take the first by name).
const CONFLIST: &str = "10-kedge.conflist";
const SOCKET: &str = "cni.sock";
const TRACES: &str = "netproxy.json";
/// The node's pod networks as last seen, so that pods start while the API server is away.
const POD_CIDRS: &str = "pod-cidrs";
/// How long the API server is waited for before the pod networks last seen are used.
const NODE_PATIENCE: Duration = Duration::from_secs(5);

/// Start the node's network. Returns when rules and DNS are there; the pod network follows as soon as the Node object
/// names its pod network, and only then the runtime finds its configuration (so that the node is not Ready before).
/// `client`: the node's own, for its annotation and Events about it.
pub async fn run(config: Config, client: kube::Client, caches: Arc<Caches>, group: Group) -> anyhow::Result<()> {
    if config.overlay == Backend::WireGuard {
        overlay::probe_wireguard(&config.interface_prefix)?;
    }
    let settings = settings(&config)?;
    let shared = Arc::new(Shared { config, settings, group: group.clone() });
    let preparing = shared.clone();
    Group::blocking(move || prepare(&preparing)).await??;
    let (services, slices) = (caches.of::<Service>(), caches.of::<EndpointSlice>());
    let dir = shared.config.dir.clone();
    let running = Group::blocking(move || cni::server::running(&dir)).await?;
    let proxy = proxy::Proxy::start(shared.clone(), services.clone(), slices.clone(), &running, &group)
        .context("start the Service proxy")?;
    health::Health::start(&shared.config.node_name, services.clone(), slices.clone(), &group);
    if !shared.config.foreign_dns {
        dns::start(shared.clone(), services, slices, &group).await.context("start DNS")?;
    }
    group.spawn("pod-network", async move {
        if let Err(error) = pod_network(shared.clone(), client, &caches, proxy).await {
            shared.group.fail(error.context("start the pod network"));
        }
    });
    Ok(())
}

fn prepare(shared: &Shared) -> anyhow::Result<()> {
    let config = &shared.config;
    for dir in [&config.dir, &config.run_dir, &config.cni_conf_dir, &config.cni_bin_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    let traces = Traces {
        table: config.table.clone(),
        interface_prefix: config.interface_prefix.clone(),
        service_cidrs: shared.settings.iter().map(|s| s.services.to_string()).collect(),
        dns: shared.settings.iter().filter_map(|s| s.dns).collect(),
        files: vec![
            config.cni_conf_dir.join(CONFLIST),
            config.cni_bin_dir.join(cni::PLUGIN),
            config.cni_bin_dir.join(cni::LOOPBACK),
            config.run_dir.join(SOCKET),
        ],
    };
    replace_file(&config.run_dir.join(TRACES), &serde_json::to_vec_pretty(&traces)?)?;
    host::prepare(&shared.settings, &config.table)
}

/// One setting per family that both the cluster's and the Services' networks have.
fn settings(config: &Config) -> anyhow::Result<Vec<Setting>> {
    anyhow::ensure!(
        !config.interface_prefix.is_empty() && config.interface_prefix.len() <= 4,
        "the interface prefix {:?} must have 1 to 4 letters",
        config.interface_prefix
    );
    let services = Cidr::list(&config.service_cidr).context("service-cidr")?;
    let mut settings = Vec::new();
    for cluster in Cidr::list(&config.cluster_cidr).context("cluster-cidr")? {
        let family = cluster.family();
        let Some(services) = services.iter().find(|s| s.family() == family).copied() else { continue };
        let Some(node) = host::address_in(family, config.node_ip)? else {
            warn!(network = %cluster, "this node has no address of this family; the network is left out");
            continue;
        };
        let dns = Some(config.cluster_dns).filter(|dns| !config.foreign_dns && net::Family::of(*dns) == family);
        let interface_prefix = config.interface_prefix.clone();
        let own_pods = config.overlay != Backend::None;
        settings.push(Setting { family, cluster, services, node, dns, interface_prefix, own_pods });
    }
    anyhow::ensure!(!settings.is_empty(), "cluster-cidr and service-cidr have no IP family in common");
    Ok(settings)
}

async fn pod_network(
    shared: Arc<Shared>,
    client: kube::Client,
    caches: &Arc<Caches>,
    proxy: proxy::Proxy,
) -> anyhow::Result<()> {
    let config = shared.config.clone();
    let mut own = PodCidrs::new(&config, caches);
    shared.group.spawn("node-zone", follow_zone(own.nodes.clone(), config.node_name.clone(), proxy.clone()));
    let pools = own.first().await?;
    info!(pools = ?pools.iter().map(Cidr::to_string).collect::<Vec<_>>(), "pod network");
    let (sender, pods) = watch::channel(pools.clone());
    Keeper::start(shared.clone(), caches.of(), client, pods).await.context("start the overlay")?;
    if config.overlay == Backend::None {
        return Ok(());
    }
    let server = Arc::new(cni::server::Server::open(shared, pools, proxy).await?);
    let socket = config.run_dir.join(SOCKET);
    server.clone().listen(&socket)?;
    server.clone().keep_mended();
    let executable = std::env::current_exe().context("find our own executable")?;
    for plugin in [cni::PLUGIN, cni::LOOPBACK] {
        link_to(&executable, &config.cni_bin_dir.join(plugin))?;
    }
    let conflist = serde_json::to_vec_pretty(&cni::server::conflist(&socket))?;
    replace_file(&config.cni_conf_dir.join(CONFLIST), &conflist)?;
    while let Some(pools) = own.changed().await {
        server.replace_pools(pools.clone());
        sender.send_replace(pools);
    }
    Ok(())
}

/// Tell the proxy of the node's zone.
async fn follow_zone(nodes: Cache<Node>, name: String, proxy: proxy::Proxy) {
    let mut changes = nodes.subscribe();
    nodes.synced().await;
    loop {
        let node = nodes.get("", &name);
        let labels = node.as_ref().and_then(|n| n.metadata.labels.as_ref());
        proxy.set_zone(labels.and_then(|l| l.get("topology.kubernetes.io/zone")).map_or("", String::as_str));
        if changes.next().await.is_none() {
            return;
        }
    }
}

/// The node's own pod networks.
struct PodCidrs {
    name: String,
    file: PathBuf,
    nodes: Cache<Node>,
    changes: Changes<Node>,
    last: Vec<Cidr>,
}

impl PodCidrs {
    fn new(config: &Config, caches: &Arc<Caches>) -> Self {
        let nodes = caches.selected::<Node>(&format!("metadata.name={}", config.node_name));
        let (name, file) = (config.node_name.clone(), config.dir.join(POD_CIDRS));
        PodCidrs { name, file, changes: nodes.subscribe(), nodes, last: Vec::new() }
    }

    /// From the Node object; while the API server is away, as last seen.
    async fn first(&mut self) -> anyhow::Result<Vec<Cidr>> {
        let known = std::fs::read_to_string(&self.file).ok().and_then(|text| Cidr::list(text.trim()).ok());
        if let Some(known) = known.filter(|k| !k.is_empty())
            && tokio::time::timeout(NODE_PATIENCE, self.nodes.synced()).await.is_err()
        {
            self.last = known.clone();
            return Ok(known);
        }
        self.nodes.synced().await;
        self.next().await?.context("stopped before the node had a pod network")
    }

    /// The next other ones: a node that was deleted and comes back may get another part. None: the program stops.
    async fn changed(&mut self) -> Option<Vec<Cidr>> {
        loop {
            match self.next().await {
                Ok(pools) => return pools,
                Err(error) => warn!(error = format!("{error:#}"), "the node's pod network changed"),
            }
        }
    }

    async fn next(&mut self) -> anyhow::Result<Option<Vec<Cidr>>> {
        loop {
            let named = self.nodes.get("", &self.name).map(|node| overlay::pod_cidrs(&node)).unwrap_or_default();
            if !named.is_empty() && named != self.last {
                self.last = named.clone();
                let text: Vec<String> = named.iter().map(Cidr::to_string).collect();
                replace_file(&self.file, text.join(",").as_bytes())?;
                return Ok(Some(named));
            }
            if self.changes.next().await.is_none() {
                return Ok(None);
            }
        }
    }
}

fn replace_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    crate::durable::write(path, bytes, crate::durable::PUBLIC).with_context(|| format!("write {}", path.display()))
}

/// A link that always exists: a runtime may look at any moment.
fn link_to(target: &Path, link: &Path) -> anyhow::Result<()> {
    if std::fs::read_link(link).is_ok_and(|present| present == target) {
        return Ok(());
    }
    let temporary = link.with_extension("new");
    let _ = std::fs::remove_file(&temporary);
    symlink(target, &temporary)
        .and_then(|()| std::fs::rename(&temporary, link))
        .with_context(|| format!("link {}", link.display()))
}

/// Remove everything the network part of the instance with this run directory added to the machine: table, interfaces,
/// addresses, routes, files. May be repeated; nothing to do when it never ran.
pub async fn cleanup(run_dir: &Path) -> anyhow::Result<()> {
    let path = run_dir.join(TRACES);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("read {}", path.display()))?,
    };
    let traces: Traces = serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
    Group::blocking(move || remove_traces(&traces)).await??;
    std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
}

fn remove_traces(traces: &Traces) -> anyhow::Result<()> {
    tables::remove(&traces.table).context("remove our nftables table")?;
    overlay::remove(&traces.interface_prefix).context("remove the overlay's interface and routes")?;
    cni::veth::disconnect_all_but(&traces.interface_prefix, &Default::default()).context("remove pods' interfaces")?;
    let services: Vec<Cidr> = traces.service_cidrs.iter().filter_map(|c| c.parse().ok()).collect();
    host::undo(&services, &traces.dns).context("remove Service routes and the DNS address")?;
    for file in &traces.files {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", file.display()));
            }
            _ => (),
        }
    }
    Ok(())
}
