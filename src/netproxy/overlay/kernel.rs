//! Makes the kernel have what a plan wants, by the least change. Blocking.

use super::wireguard::Key;
use super::{Device, Exit, Kind, Path, Wanted, vxlan, wireguard};
use crate::netproxy::link::wireguard::{Peer as WgPeer, WireGuard};
use crate::netproxy::link::{Link, Links, Mac, Route, Vxlan, no_tx_checksum};
use crate::netproxy::net::Family;
use crate::netproxy::netlink::errno;
use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use tracing::{debug, info};

/// Marks our routes, so that those of an earlier start are found: a number that iproute2's `rt_protos` gives nobody.
pub const ROUTE_PROTOCOL: u8 = 107;

/// What must be remembered from one [`Kernel::apply`] to the next.
pub struct Kernel {
    prefix: String,
    private: Option<Key>,
    /// Where peers were said to be. WireGuard follows a peer that moves, so what it has now says nothing.
    told: BTreeMap<Key, SocketAddr>,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub changes: usize,
    /// Indices of our devices.
    pub links: BTreeSet<u32>,
    /// Of our WireGuard device.
    pub public_key: Option<Key>,
}

impl Kernel {
    /// `private`: the key for a WireGuard device.
    pub fn new(prefix: &str, private: Option<Key>) -> Self {
        Kernel { prefix: prefix.to_owned(), private, told: BTreeMap::new() }
    }

    /// May be repeated; what is right stays.
    pub fn apply(&mut self, wanted: &Wanted) -> anyhow::Result<Applied> {
        let mut links = Links::open().context("open rtnetlink")?;
        let mut done = Applied::default();
        for name in names(&self.prefix).into_iter().filter(|name| wanted.devices.iter().all(|d| d.name != *name)) {
            done.changes += usize::from(links.delete(&name).with_context(|| format!("remove {name}"))?);
        }
        for device in &wanted.devices {
            self.device(&mut links, device, &mut done).with_context(|| format!("interface {}", device.name))?;
        }
        routes(&mut links, &wanted.routes, &mut done).context("routes to other nodes' pods")?;
        Ok(done)
    }

    fn device(&mut self, links: &mut Links, device: &Device, done: &mut Applied) -> anyhow::Result<()> {
        let found = links.by_name(&device.name)?;
        let link = match found {
            Some(link) if is_as_wanted(&link, device) => link,
            other => {
                if other.is_some() {
                    links.delete(&device.name)?;
                }
                create(links, device)?;
                info!(interface = device.name, mtu = device.mtu, "made the interface to other nodes' pods");
                done.changes += 1;
                links.by_name(&device.name)?.context("it is gone again")?
            }
        };
        done.links.insert(link.index);
        if link.mtu != device.mtu {
            links.set_mtu(link.index, device.mtu)?;
            done.changes += 1;
        }
        addresses(links, link.index, &device.addresses, done)?;
        if !link.up {
            // Without IPv6 there is nothing to switch off.
            let _ = links.no_ipv6_address(link.index);
            links.up(link.index)?;
            done.changes += 1;
        }
        match &device.kind {
            Kind::Vxlan { neighbours, forwarding, .. } => {
                if let Err(error) = no_tx_checksum(&device.name) {
                    debug!(%error, interface = device.name, "checksum offload cannot be switched off");
                }
                self::neighbours(links, link.index, neighbours, done)?;
                self::forwarding(links, link.index, forwarding, done)?;
            }
            Kind::WireGuard { port, peers } => self.wireguard(&device.name, *port, peers, done)?,
        }
        Ok(())
    }

    fn wireguard(
        &mut self,
        name: &str,
        port: u16,
        peers: &BTreeMap<Key, wireguard::Peer>,
        done: &mut Applied,
    ) -> anyhow::Result<()> {
        let private = self.private.context("no private key was given")?;
        let mut wg = WireGuard::open()?;
        let mut held = wg.get(name)?;
        if (held.private, held.port) != (private.0, port) {
            wg.set_key_and_port(name, &private.0, port)
                .with_context(|| format!("set its key and UDP port {port}; does another program use the port?"))?;
            held = wg.get(name)?;
            done.changes += 1;
        }
        let is_right = |key: &Key, peer: &wireguard::Peer| {
            let same = held.peers.get(&key.0).is_some_and(|h| h.allowed == peer.allowed);
            same && self.told.get(key) == Some(&peer.endpoint)
        };
        let put: Vec<(Key, WgPeer)> = peers
            .iter()
            .filter(|(key, peer)| !is_right(key, peer))
            .map(|(key, peer)| (*key, WgPeer { endpoint: Some(peer.endpoint), allowed: peer.allowed.clone() }))
            .collect();
        let gone = held.peers.keys().filter(|key| !peers.contains_key(&Key(**key))).map(|key| (*key, None));
        let changes: Vec<_> = gone.chain(put.iter().map(|(key, peer)| (key.0, Some(peer)))).collect();
        wg.set_peers(name, &changes).context("set its peers")?;
        done.changes += changes.len();
        done.public_key = Some(Key(held.public));
        self.told = peers.iter().map(|(key, peer)| (*key, peer.endpoint)).collect();
        Ok(())
    }
}

/// Names of all devices that any backend makes.
fn names(prefix: &str) -> [String; 2] {
    [vxlan::device(prefix), wireguard::device(prefix)]
}

/// Is it the wanted device, but for what can be changed on it?
fn is_as_wanted(link: &Link, device: &Device) -> bool {
    match &device.kind {
        Kind::Vxlan { vxlan, mac, .. } => link.vxlan == Some(*vxlan) && link.mac == *mac,
        Kind::WireGuard { .. } => link.kind == "wireguard",
    }
}

fn create(links: &mut Links, device: &Device) -> anyhow::Result<()> {
    match &device.kind {
        Kind::Vxlan { vxlan, mac, .. } => {
            links.add_vxlan(&device.name, *mac, device.mtu, vxlan).map_err(|error| vxlan_refused(error, vxlan))
        }
        Kind::WireGuard { .. } => links.add_wireguard(&device.name, device.mtu).context("make it"),
    }
}

fn vxlan_refused(error: std::io::Error, vxlan: &Vxlan) -> anyhow::Error {
    let what = match errno(&error) {
        Some(libc::EEXIST | libc::EADDRINUSE) => format!(
            "another VXLAN interface uses network {} on UDP port {} (left by another Kubernetes?): find it with `ip -d link show \
             type vxlan` and remove it with `ip link delete`",
            vxlan.id, vxlan.port
        ),
        _ => "make it".to_owned(),
    };
    anyhow::Error::new(error).context(what)
}

fn addresses(links: &mut Links, link: u32, wanted: &[IpAddr], done: &mut Applied) -> anyhow::Result<()> {
    let link_local = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
    let held: BTreeSet<IpAddr> = links.addresses()?.into_iter().filter(|(_, l)| *l == link).map(|(a, _)| a).collect();
    for address in held.iter().filter(|a| !wanted.contains(a) && !link_local(a)) {
        links.delete_address(link, *address)?;
        done.changes += 1;
    }
    for address in wanted.iter().filter(|a| !held.contains(a)) {
        links.add_address(link, *address, false, None)?;
        done.changes += 1;
    }
    Ok(())
}

fn neighbours(links: &mut Links, link: u32, wanted: &BTreeMap<IpAddr, Mac>, done: &mut Applied) -> anyhow::Result<()> {
    let held: BTreeMap<IpAddr, Mac> = links.neighbours(link)?.into_iter().collect();
    for address in held.keys().filter(|a| !wanted.contains_key(a)) {
        links.delete_neighbour(link, *address)?;
        done.changes += 1;
    }
    for (address, mac) in wanted.iter().filter(|(a, mac)| held.get(*a) != Some(mac)) {
        links.add_neighbour(link, *address, *mac)?;
        done.changes += 1;
    }
    Ok(())
}

fn forwarding(links: &mut Links, link: u32, wanted: &BTreeMap<Mac, IpAddr>, done: &mut Applied) -> anyhow::Result<()> {
    let held = links.forwarding(link)?;
    for (mac, to) in held.iter().filter(|(mac, to)| wanted.get(mac) != Some(to)) {
        links.delete_forwarding(link, *mac, *to)?;
        done.changes += 1;
    }
    for (mac, to) in wanted.iter().filter(|(mac, to)| !held.contains(&(**mac, **to))) {
        links.add_forwarding(link, *mac, *to)?;
        done.changes += 1;
    }
    Ok(())
}

fn routes(links: &mut Links, wanted: &[Path], done: &mut Applied) -> anyhow::Result<()> {
    let wanted = wanted.iter().map(|path| resolve(links, path)).collect::<anyhow::Result<Vec<_>>>()?;
    let held = ours(links)?;
    // First what is new, in place of what was: no moment without a way.
    for route in wanted.iter().filter(|r| !held.contains(r)) {
        let to = route.dst.map(|d| d.to_string()).unwrap_or_default();
        links.add_route(route).with_context(|| format!("add the route to {to}"))?;
        done.changes += 1;
    }
    for route in held.iter().filter(|r| !wanted.contains(r)) {
        done.changes += usize::from(links.delete_route(route)?);
    }
    Ok(())
}

fn ours(links: &mut Links) -> anyhow::Result<Vec<Route>> {
    let mut all = links.routes(Family::V4)?;
    all.extend(links.routes(Family::V6)?);
    all.retain(|r| r.protocol == ROUTE_PROTOCOL);
    Ok(all)
}

fn resolve(links: &mut Links, path: &Path) -> anyhow::Result<Route> {
    let route = match &path.exit {
        Exit::Nowhere => Route { metric: super::NOWHERE_METRIC, ..Route::unreachable(path.to) },
        Exit::Link(link) => Route::to(path.to, *link),
        Exit::Device(name) => {
            let link = links.by_name(name)?.with_context(|| format!("interface {name} is gone again"))?;
            // Nothing but this route says that the gateway is there.
            Route { onlink: path.via.is_some(), ..Route::to(path.to, link.index) }
        }
    };
    Ok(Route { via: path.via, source: path.source, protocol: ROUTE_PROTOCOL, ..route })
}

/// Remove all devices and routes of ours.
pub fn remove(prefix: &str) -> anyhow::Result<()> {
    Kernel::new(prefix, None).apply(&Wanted::default()).map(drop)
}
