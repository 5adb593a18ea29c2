//! Follows nodes and keeps the kernel as the plan says; heals what others break.

use super::kernel::{Applied, Kernel, ROUTE_PROTOCOL};
use super::peers::{PUBLIC_KEY, Peer, peer};
use super::wireguard::{self, Key};
use super::{Backend, Here, Problem, Wanted, plan};
use crate::cache::Cache;
use crate::durable;
use crate::events::{Recorder, Warning};
use crate::netproxy::link::Links;
use crate::netproxy::link::monitor::{Monitor, Seen};
use crate::netproxy::net::{Cidr, Family};
use crate::netproxy::{Shared, host};
use crate::task::Group;
use anyhow::Context;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

/// Changes that come together are worked on together.
const PAUSE: Duration = Duration::from_millis(200);
/// How often everything is looked at, come what may.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// After a failure: the first wait and the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// The other nodes as last seen, so that a node that starts while the API server is away reaches them.
const PEERS_FILE: &str = "peers.json";

/// Keeps the way to other nodes' pods.
pub(in crate::netproxy) struct Keeper {
    shared: Arc<Shared>,
    nodes: Cache<Node>,
    client: Client,
    recorder: Recorder,
    /// This node's own pod networks.
    pods: watch::Receiver<Vec<Cidr>>,
    kernel: Arc<Mutex<Kernel>>,
    wake: Arc<Notify>,
    /// Indices of our devices.
    links: Arc<Mutex<BTreeSet<u32>>>,
    told: BTreeSet<Problem>,
    kept: Vec<Peer>,
}

impl Keeper {
    /// Start keeping. With [`Backend::None`] only what an earlier start left is removed. `client`: may write this Node.
    pub async fn start(
        shared: Arc<Shared>,
        nodes: Cache<Node>,
        client: Client,
        pods: watch::Receiver<Vec<Cidr>>,
    ) -> anyhow::Result<()> {
        let config = &shared.config;
        if config.overlay == Backend::None {
            let prefix = config.interface_prefix.clone();
            return Group::blocking(move || super::remove(&prefix)).await?;
        }
        let private = match config.overlay {
            Backend::WireGuard => Some(wireguard::private_key(&config.dir).context("the node's WireGuard key")?),
            _ => None,
        };
        let kernel = Arc::new(Mutex::new(Kernel::new(&config.interface_prefix, private)));
        let recorder = Recorder::new(client.clone(), "kedge-network", &config.node_name, &shared.group);
        let wake = Arc::new(Notify::new());
        let monitor = Monitor::open().context("watch rtnetlink")?;
        let (group, told) = (shared.group.clone(), BTreeSet::new());
        let kept = read_peers(&config.dir.join(PEERS_FILE));
        let links: Arc<Mutex<BTreeSet<u32>>> = Arc::default();
        group.spawn("overlay-monitor", watch_kernel(monitor, links.clone(), wake.clone()));
        let keeper = Keeper { shared, nodes, client, recorder, pods, kernel, wake, links, told, kept };
        group.spawn("overlay", keeper.keep());
        Ok(())
    }

    async fn keep(mut self) {
        let mut changes = self.nodes.subscribe();
        let mut retry = RETRY_FIRST;
        loop {
            let pause = match self.round().await {
                Ok(()) => {
                    retry = RETRY_FIRST;
                    LOOK_INTERVAL
                }
                Err(error) => {
                    warn!(error = format!("{error:#}"), "pods of other nodes may not be reached");
                    retry = (retry * 2).min(RETRY_LONGEST);
                    retry / 2
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {}
                changed = self.pods.changed() => if changed.is_err() { return },
                notice = changes.next() => if notice.is_none() { return },
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Look, decide, act.
    async fn round(&mut self) -> anyhow::Result<()> {
        let peers = self.peers();
        let pods = self.pods.borrow_and_update().clone();
        let (shared, kernel) = (self.shared.clone(), self.kernel.clone());
        let acted = Group::blocking(move || {
            let here = look(&shared, &peers, pods).context("look at this node's network")?;
            let wanted = plan(shared.config.overlay, &here, &peers);
            kernel.lock().apply(&wanted).map(|applied| (wanted, applied, peers))
        });
        let (wanted, applied, peers) = acted.await??;
        if applied.changes > 0 {
            let to = wanted.routes.len().saturating_sub(self.shared.settings.len());
            info!(changes = applied.changes, nodes = peers.len(), routes = to, "ways to other nodes' pods");
        }
        self.links.lock().clone_from(&applied.links);
        self.tell(&wanted);
        self.keep_peers(peers);
        self.publish(&applied).await
    }

    /// The other nodes; while the API server has not been reached, as last seen.
    fn peers(&self) -> Vec<Peer> {
        if !self.nodes.is_synced() {
            return self.kept.clone();
        }
        let config = &self.shared.config;
        let family = Family::of(config.node_ip);
        self.nodes.list().iter().filter_map(|node| peer(node, &config.node_name, family)).collect()
    }

    fn keep_peers(&mut self, peers: Vec<Peer>) {
        if peers == self.kept {
            return;
        }
        let file = self.shared.config.dir.join(PEERS_FILE);
        let bytes = serde_json::to_vec_pretty(&peers).unwrap_or_default();
        match durable::write(&file, &bytes, durable::PUBLIC) {
            Ok(()) => self.kept = peers,
            Err(error) => warn!(%error, file = %file.display(), "the other nodes' addresses cannot be kept"),
        }
    }

    /// New problems, as log lines and as Events about this Node.
    fn tell(&mut self, wanted: &Wanted) {
        let about = node_reference(&self.shared.config.node_name);
        for problem in wanted.problems.difference(&self.told) {
            warn!(node = problem.node, reason = problem.reason, "{}", problem.message);
            self.recorder.event(&about, Warning, problem.reason, &problem.message);
        }
        self.told = wanted.problems.clone();
    }

    /// Other nodes need our WireGuard key.
    async fn publish(&self, applied: &Applied) -> anyhow::Result<()> {
        let Some(key) = applied.public_key else { return Ok(()) };
        let name = &self.shared.config.node_name;
        let published = |node: &Node| node.metadata.annotations.as_ref()?.get(PUBLIC_KEY)?.parse::<Key>().ok();
        let Some(node) = self.nodes.get("", name) else { return Ok(()) };
        if published(&node) == Some(key) {
            return Ok(());
        }
        let patch = json!({ "metadata": { "annotations": { PUBLIC_KEY: key.to_string() } } });
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.context("publish our WireGuard key")?;
        debug!(%key, "published our WireGuard key");
        Ok(())
    }
}

fn look(shared: &Shared, peers: &[Peer], pods: Vec<Cidr>) -> io::Result<Here> {
    let config = &shared.config;
    let mut links = Links::open()?;
    let mut ways = std::collections::BTreeMap::new();
    for peer in peers {
        if let Some(way) = links.way_to(peer.address)? {
            ways.insert(peer.address, way);
        }
    }
    Ok(Here {
        name: config.node_name.clone(),
        address: config.node_ip,
        pods,
        cluster: shared.settings.iter().map(|s| s.cluster).collect(),
        prefix: config.interface_prefix.clone(),
        link_mtu: host::mtu(config.node_ip)?,
        ways,
    })
}

fn read_peers(file: &PathBuf) -> Vec<Peer> {
    let Ok(bytes) = std::fs::read(file) else { return Vec::new() };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        warn!(%error, file = %file.display(), "cannot be read; waiting for the API server instead");
        Vec::new()
    })
}

/// Events about nodes name them by name, not by UID, as the kubelet's do.
fn node_reference(name: &str) -> ObjectReference {
    ObjectReference { kind: Some("Node".into()), name: Some(name.into()), uid: Some(name.into()), ..Default::default() }
}

/// Wake the keeper when something changed that may be ours. Our own changes wake it once more, and then nothing is to do.
async fn watch_kernel(monitor: Monitor, links: Arc<Mutex<BTreeSet<u32>>>, wake: Arc<Notify>) {
    // SAFETY: the descriptor is the monitor's own, stays open while it lives, and nothing below replaces it.
    let Ok(mut monitor) = (unsafe { AsyncFd::register(monitor) }) else {
        return warn!("rtnetlink cannot be watched: what others remove is healed only every {LOOK_INTERVAL:?}");
    };
    loop {
        let Ok(mut ready) = monitor.readable_mut().await else { return };
        let mut concerns_us = false;
        let polled = ready.get_inner_mut().poll(|seen| concerns_us |= concerns(&seen, &links.lock()));
        ready.clear_ready();
        // More than the queue holds: anything may have changed.
        if concerns_us || polled.is_err() {
            wake.notify_one();
        }
        // So that an interface that flaps does not keep a core busy.
        tokio::time::sleep(PAUSE).await;
    }
}

/// Pods' interfaces come and go, and neighbours of the node's link all the time: they are not looked at.
fn concerns(seen: &Seen, ours: &BTreeSet<u32>) -> bool {
    match seen {
        Seen::Link(link) => link.kind != "veth",
        Seen::Address => true,
        Seen::Route(route) => route.protocol == ROUTE_PROTOCOL,
        Seen::Neighbour(link) => ours.contains(link),
    }
}
