//! Services → nftables, pod network (CNI), node-local DNS (DESIGN D7, D8, D9). Sees the cluster through `client` and
//! `cache` only.

pub mod cni;
mod conntrack;
mod host;
mod link;
pub mod net;
mod netlink;
pub mod netns;
mod nft;
mod plan;
mod rules;
mod state;
mod sysctl;
mod tables;
#[cfg(test)]
mod traffic_tests;

use std::net::IpAddr;
use std::path::PathBuf;

/// Everything the network part needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    pub node_ip: IpAddr,
    pub cluster_cidr: String,
    pub service_cidr: String,
    pub cluster_dns: IpAddr,
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
    /// Where the container runtime looks for network configurations: `<data-dir>/agent/cni/net.d`.
    pub cni_conf_dir: PathBuf,
    /// Where it looks for plugins: `<data-dir>/agent/cni/bin`; both plugins there are links to our executable.
    pub cni_bin_dir: PathBuf,
}
