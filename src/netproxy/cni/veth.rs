//! A pod's way to the network: a routed veth (DESIGN D7).
//!
//! The pod has its address as a host route of its own and sends everything to a link-local gateway that exists only as
//! a permanent neighbour entry: the hardware address of the veth's other end. The node has one route per pod. No bridge
//! and no ARP, so every packet between pods passes the node's rules, and the first one need not wait.

use crate::netproxy::link::{End, Link, Links, Mac, Route};
use crate::netproxy::net::{Cidr, Family};
use crate::netproxy::{netns, sysctl};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;

/// What pods send everything to.
pub fn gateway(address: IpAddr) -> IpAddr {
    match Family::of(address) {
        Family::V4 => Ipv4Addr::new(169, 254, 1, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// A pod's attachment. Names and hardware addresses follow from it, so that whoever repeats the work finds the same.
#[derive(Clone, Debug)]
pub struct Attachment<'a> {
    pub prefix: &'a str,
    pub container_id: &'a str,
    pub netns: &'a Path,
    pub ifname: &'a str,
    pub addresses: &'a [IpAddr],
    /// The node's own address in each family: what it speaks to pods as.
    pub node: &'a [IpAddr],
    pub mtu: u32,
}

/// The node's end of the veth of a container: at most 15 bytes, the same at each start.
pub fn host_name(prefix: &str, container_id: &str, ifname: &str) -> String {
    let digest = Sha256::digest(format!("{container_id} {ifname}"));
    let hex: String = digest.iter().take(6).map(|b| format!("{b:02x}")).collect();
    format!("{prefix}{}", &hex[..11.min(15 - prefix.len().min(4))])
}

impl Attachment<'_> {
    pub fn host_interface(&self) -> String {
        host_name(self.prefix, self.container_id, self.ifname)
    }

    pub fn host_mac(&self) -> Mac {
        self.mac(0)
    }

    pub fn mac_of_pod(&self) -> Mac {
        self.mac(1)
    }

    /// Locally administered, unicast.
    fn mac(&self, end: u8) -> Mac {
        let digest = Sha256::digest(format!("{} {} {end}", self.container_id, self.ifname));
        let mut mac = [0x0a; 6];
        mac[1..].copy_from_slice(&digest[..5]);
        mac
    }

    /// Make it all. What an earlier try left under the same name is removed first.
    pub fn connect(&self) -> io::Result<()> {
        let host = self.host_interface();
        let mut node = Links::open()?;
        node.delete(&host)?;
        let namespace = File::open(self.netns)?;
        let here = End { name: &host, mac: self.host_mac() };
        let there = End { name: self.ifname, mac: self.mac_of_pod() };
        node.add_veth(&here, &there, namespace.as_fd(), self.mtu)?;
        let made = self.pod_side().and_then(|()| self.node_side(&mut node, &host));
        if made.is_err() {
            // The failure is what counts; a leftover goes with the next try or with DEL.
            let _ = node.delete(&host);
        }
        made
    }

    fn pod_side(&self) -> io::Result<()> {
        let mut pod = netns::within(self.netns, || {
            // Inside `/proc/sys/net` shows the pod's settings. A link-local gateway needs no duplicate detection.
            let _ = sysctl::set(&format!("ipv6/conf/{}/accept_dad", self.ifname), "0");
            Links::open()
        })?;
        let link = pod.by_name(self.ifname)?.ok_or_else(|| io::Error::other("the pod's interface is gone"))?.index;
        if let Some(lo) = pod.by_name("lo")? {
            pod.up(lo.index)?;
        }
        pod.up(link)?;
        for address in self.addresses {
            let via = gateway(*address);
            let family = Family::of(*address);
            pod.add_address(link, *address, false, None)?;
            pod.add_neighbour(link, via, self.host_mac())?;
            let to_gateway = Cidr::new(via, family.bits());
            pod.add_route(&Route::to(to_gateway, link))?;
            pod.add_route(&Route { via: Some(via), ..Route::default_on(family, link) })?;
        }
        Ok(())
    }

    fn node_side(&self, node: &mut Links, host: &str) -> io::Result<()> {
        let link = node.by_name(host)?.ok_or_else(|| io::Error::other("the new interface is gone"))?.index;
        // Both refine only: without IPv6 there is nothing to switch off; node ports on localhost need route_localnet,
        // and the guard chain of our table keeps pods away from 127.0.0.0/8.
        let _ = node.no_ipv6_address(link);
        let _ = sysctl::set(&format!("ipv4/conf/{host}/route_localnet"), "1");
        node.up(link)?;
        for address in self.addresses {
            let family = Family::of(*address);
            let source = self.node.iter().find(|n| Family::of(**n) == family).copied();
            node.add_neighbour(link, *address, self.mac_of_pod())?;
            let route = Route { source, ..Route::to(Cidr::new(*address, family.bits()), link) };
            // The node may have lost this address of its own: then any serves.
            node.add_route(&route).or_else(|_| node.add_route(&Route { source: None, ..route }))?;
        }
        Ok(())
    }

    /// Put the way to the pod back when it is gone: the kernel drops routes with a source that the node no longer has.
    /// `links` and `routes` are all of the node. True when it was gone.
    pub fn mend(&self, node: &mut Links, links: &[Link], routes: &[Route]) -> io::Result<bool> {
        let host = self.host_interface();
        let Some(link) = links.iter().find(|l| l.name == host) else { return Ok(false) };
        let has = |address: &IpAddr| {
            let own = (Some(Cidr::new(*address, Family::of(*address).bits())), Some(link.index));
            routes.iter().any(|r| (r.dst, r.link) == own)
        };
        if self.addresses.iter().all(has) {
            return Ok(false);
        }
        self.node_side(node, &host).map(|()| true)
    }

    /// Is everything there?
    pub fn check(&self) -> io::Result<()> {
        let host = self.host_interface();
        let mut node = Links::open()?;
        let link = node.by_name(&host)?.ok_or_else(|| missing(&format!("interface {host}")))?;
        let mut pod = netns::within(self.netns, Links::open)?;
        if pod.by_name(self.ifname)?.is_none() {
            return Err(missing(&format!("interface {} of the pod", self.ifname)));
        }
        let inside: Vec<IpAddr> = pod.addresses()?.into_iter().map(|(address, _)| address).collect();
        for address in self.addresses {
            let family = Family::of(*address);
            if !inside.contains(address) {
                return Err(missing(&format!("address {address} of the pod")));
            }
            let own = (Some(Cidr::new(*address, family.bits())), Some(link.index));
            if !node.routes(family)?.iter().any(|r| (r.dst, r.link) == own) {
                return Err(missing(&format!("route to {address}")));
            }
        }
        Ok(())
    }
}

fn missing(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{what} is missing"))
}

/// Remove a container's veth; true when it was there. Its routes go with it, and its other end.
pub fn disconnect(prefix: &str, container_id: &str, ifname: &str) -> io::Result<bool> {
    Links::open()?.delete(&host_name(prefix, container_id, ifname))
}

/// Remove every veth of ours but those named.
pub fn disconnect_all_but(prefix: &str, keep: &BTreeSet<String>) -> io::Result<()> {
    let mut links = Links::open()?;
    for link in links.list()?.into_iter().filter(|l| is_ours(prefix, &l.name) && !keep.contains(&l.name)) {
        links.delete(&link.name)?;
    }
    Ok(())
}

/// Our names are the prefix and eleven hex digits.
fn is_ours(prefix: &str, name: &str) -> bool {
    let digits = name.strip_prefix(prefix).unwrap_or_default();
    digits.len() == 11.min(15 - prefix.len().min(4)) && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_are_ours() {
        let name = host_name("kdg", "4f0d", "eth0");
        assert_eq!(name.len(), 14);
        assert_eq!(name, host_name("kdg", "4f0d", "eth0"));
        assert_ne!(name, host_name("kdg", "4f0d", "eth1"));
        assert_eq!(host_name("kedg", "4f0d", "eth0").len(), 15);
        assert!(is_ours("kdg", &name) && is_ours("kedg", &host_name("kedg", "x", "eth0")));
        for foreign in ["kdg0", "docker0", "kdg-uplink-0001", "kdg"] {
            assert!(!is_ours("kdg", foreign), "{foreign}");
        }
    }
}
