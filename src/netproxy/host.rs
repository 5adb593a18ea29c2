//! What the node itself needs besides rules: forwarding, a route for Service addresses, the cluster DNS address.

use super::link::{Link, Links, Route};
use super::net::{Cidr, Family};
use super::rules::Setting;
use super::sysctl;
use anyhow::Context;
use std::io;
use std::net::IpAddr;
use tracing::warn;

/// MTU when the node's address is on no interface that we see.
const DEFAULT_MTU: u32 = 1500;

/// Make the node forward and reach Service addresses. May be repeated; what is right stays.
pub fn prepare(settings: &[Setting], label: &str) -> anyhow::Result<()> {
    let mut links = Links::open().context("open rtnetlink")?;
    let lo = links.by_name("lo")?.context("this network namespace has no lo")?;
    if !lo.up {
        links.up(lo.index).context("bring up lo")?;
    }
    for setting in settings {
        let forwarding = match setting.family {
            Family::V4 => "ipv4/ip_forward",
            Family::V6 => "ipv6/conf/all/forwarding",
        };
        sysctl::set(forwarding, "1")
            .with_context(|| format!("set net/{forwarding} to 1: pods cannot be reached without"))?;
        add_service_route(&mut links, setting, &lo)
            .with_context(|| format!("add the route to {}", setting.services))?;
        if let Some(dns) = setting.dns {
            // Scope link: nothing that goes elsewhere may ever take this address for its source.
            let label = dns_label(label);
            links.add_address(lo.index, dns, true, Some(&label)).with_context(|| format!("add {dns} to lo"))?;
        }
    }
    Ok(())
}

/// Service addresses lead nowhere by themselves: rules translate them. But the kernel wants a route before it asks the
/// rules for the node's own packets, and an unplugged node has no default one.
fn add_service_route(links: &mut Links, setting: &Setting, lo: &Link) -> io::Result<()> {
    let mut route = service_route(setting, lo.index);
    links.add_route(&route).or_else(|error| {
        warn!(%error, node = %setting.node, "the node's address is not on this machine; Service calls take any source");
        route.source = None;
        links.add_route(&route)
    })
}

fn service_route(setting: &Setting, lo: u32) -> Route {
    Route { source: Some(setting.node), ..Route::to(setting.services, lo) }
}

fn dns_label(label: &str) -> String {
    format!("lo:{label}").chars().take(15).collect()
}

/// Is the DNS address still there? Something else may have flushed lo.
pub fn intact(settings: &[Setting]) -> io::Result<bool> {
    let mut links = Links::open()?;
    let addresses = links.addresses()?;
    let dns = settings.iter().filter_map(|s| s.dns).all(|dns| addresses.iter().any(|(a, _)| *a == dns));
    let routed = |s: &Setting| Ok::<_, io::Error>(links.routes(s.family)?.iter().any(|r| r.dst == Some(s.services)));
    let routes = settings.iter().map(routed).collect::<Result<Vec<_>, _>>()?;
    Ok(dns && routes.into_iter().all(|there| there))
}

/// Take back what [`prepare`] added. Forwarding stays: others may rely on it by now.
pub fn undo(services: &[Cidr], dns: &[IpAddr]) -> io::Result<()> {
    let mut links = Links::open()?;
    let Some(lo) = links.by_name("lo")? else { return Ok(()) };
    for cidr in services {
        links.delete_route(&Route::to(*cidr, lo.index))?;
    }
    for address in dns {
        links.delete_address(lo.index, *address)?;
    }
    Ok(())
}

/// Give a host without network an address, for itself and its pods. May be repeated.
pub fn add_own_address(address: IpAddr) -> io::Result<()> {
    let mut links = Links::open()?;
    let lo = links.by_name("lo")?.ok_or_else(|| io::Error::other("this network namespace has no lo"))?;
    links.up(lo.index)?;
    links.add_address(lo.index, address, true, None)
}

/// Take it back; nothing to do where it is not.
pub fn remove_own_address(address: IpAddr) -> io::Result<()> {
    let mut links = Links::open()?;
    // Looking needs no rights; most hosts never had it.
    match links.addresses()?.into_iter().find(|(held, _)| *held == address) {
        Some((_, link)) => links.delete_address(link, address).map(drop),
        None => Ok(()),
    }
}

/// The node's address in a family: `node_ip`, or one of the interface that has it.
pub fn address_in(family: Family, node_ip: IpAddr) -> io::Result<Option<IpAddr>> {
    if Family::of(node_ip) == family {
        return Ok(Some(node_ip));
    }
    let addresses = Links::open()?.addresses()?;
    let link = addresses.iter().find(|(a, _)| *a == node_ip).map(|(_, link)| *link);
    let usable = |a: &IpAddr| match a {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local(),
    };
    let mut candidates = addresses.iter().filter(|(a, l)| Family::of(*a) == family && usable(a) && Some(*l) == link);
    Ok(candidates.next().map(|(a, _)| *a))
}

/// The MTU pods get: that of the interface with the node's address.
pub fn mtu(node_ip: IpAddr) -> io::Result<u32> {
    let mut links = Links::open()?;
    let link = links.addresses()?.into_iter().find(|(a, _)| *a == node_ip).map(|(_, link)| link);
    let mtu = links.list()?.into_iter().find(|l| Some(l.index) == link && l.name != "lo").map(|l| l.mtu);
    Ok(mtu.unwrap_or(DEFAULT_MTU))
}
