//! Can this kernel do what we need? For `kedge check`, which calls these in a network namespace of its own.

use super::link::{End, Links, Vxlan};
use super::nft::{Nft, Step, Table};
use super::rules::{self, Balancer, SETS, Setting, Via};
use super::{net::Family, netlink};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// Veth pairs.
pub fn veth() -> nix::Result<()> {
    let make = || {
        let namespace = File::open("/proc/thread-self/ns/net")?;
        let (here, there) =
            (End { name: "kdgprobe0", mac: [2, 0, 0, 0, 0, 1] }, End { name: "kdgprobe1", mac: [2, 0, 0, 0, 0, 2] });
        let mut links = Links::open()?;
        links.add_veth(&here, &there, namespace.as_fd(), 1400)?;
        links.delete(here.name)
    };
    number(make().map(drop))
}

/// What carries pods' packets between nodes by default.
pub fn vxlan() -> nix::Result<()> {
    let device = Vxlan { id: 1, local: [127, 0, 0, 1].into(), port: 8472 };
    let make = || {
        let mut links = Links::open()?;
        links.add_vxlan("kdgprobe2", [2, 0, 0, 0, 0, 3], 1450, &device)?;
        links.delete("kdgprobe2")
    };
    number(make().map(drop))
}

/// Everything our table uses of nftables.
pub fn nftables() -> nix::Result<()> {
    let setting = Setting {
        family: Family::V4,
        cluster: net("10.42.0.0/16"),
        services: net("10.43.0.0/16"),
        node: [192, 0, 2, 1].into(),
        dns: Some([10, 43, 0, 10].into()),
        interface_prefix: "kdg".into(),
        own_pods: true,
    };
    let table = Table { family: Family::V4, name: "kedge-probe".into() };
    let fixed = rules::chains(&setting);
    let balancer = Balancer { via: Via::NodePort, local: true, count: 2, affinity_seconds: 10 }.chain(Family::V4);
    let mut steps = vec![Step::AddTable];
    steps.extend(SETS.iter().map(|set| Step::AddSet(set)));
    steps.extend(fixed.iter().chain([&balancer]).map(Step::AddChain));
    let write = || {
        let mut nft = Nft::open()?;
        nft.apply(&table, &steps)?;
        nft.remove(&table)
    };
    number(write())
}

/// Chains of other firewalls that drop forwarded packets by policy, as "family table chain". The agent puts a rule at
/// their head that lets pods' packets pass.
pub fn forward_drops(our_table: &str) -> io::Result<Vec<String>> {
    Ok(Nft::open()?.forward_drops(our_table)?.iter().map(ToString::to_string).collect())
}

fn net(text: &str) -> super::net::Cidr {
    text.parse().unwrap_or(super::net::Cidr { network: [0, 0, 0, 0].into(), prefix: 0 })
}

fn number(result: io::Result<()>) -> nix::Result<()> {
    result.map_err(|error| netlink::errno(&error).map_or(nix::Error::EIO, nix::Error::from_raw))
}
