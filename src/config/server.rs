//! `kedge server`.

use super::agent::given_token;
use super::node::duration;
use super::{Cidr, Cluster, Node};
use crate::cli::flags;
use anyhow::{Context, bail, ensure};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Parts that `--disable` knows.
const PARTS: &[&str] = &["scheduler", "dns", "proxy"];

/// Everything `kedge server` needs to know, checked.
#[derive(Clone, Debug)]
pub struct Server {
    pub node: Node,
    pub cluster: Cluster,
    pub bind_address: IpAddr,
    pub port: u16,
    pub advertise_address: IpAddr,
    pub tls_san: Vec<String>,
    pub node_mask: u8,
    pub agent: bool,
    /// What nodes join with; None: the one kept, or a new one.
    pub token: Option<String>,
    /// Life of certificates of the server and of nodes.
    pub certificate_life: Duration,
    /// A node silent for this long is lost.
    pub node_grace: Duration,
    /// Tolerations of pods that name none, for nodes that are not ready and lost.
    pub not_ready_seconds: u32,
    pub unreachable_seconds: u32,
    pub kubeconfig: PathBuf,
    pub kubeconfig_mode: u32,
}

impl Server {
    /// Check the flags. Makes the data directory (the node's name is kept there).
    pub fn from_flags(flags: flags::Server) -> anyhow::Result<Self> {
        let cluster = cluster(&flags)?;
        let node_mask = flags.node_cidr_mask_size;
        ensure!(
            (cluster.cluster_cidr.bits..=30).contains(&node_mask),
            "--node-cidr-mask-size {node_mask} must lie between {} (--cluster-cidr) and 30",
            cluster.cluster_cidr.bits
        );
        ensure!(flags.https_listen_port != 0, "--https-listen-port: 0 is no port");
        let kubeconfig_mode =
            u32::from_str_radix(&flags.write_kubeconfig_mode, 8).ok().filter(|m| *m <= 0o777).with_context(|| {
                format!("--write-kubeconfig-mode {}: expected an octal mode such as 0600", flags.write_kubeconfig_mode)
            })?;
        let node = Node::from_flags(flags.host, flags.node, PARTS)?;
        Ok(Server {
            advertise_address: flags.advertise_address.unwrap_or(node.ip),
            node,
            cluster,
            bind_address: flags.bind_address,
            port: flags.https_listen_port,
            tls_san: flags.tls_san,
            node_mask,
            agent: !flags.disable_agent,
            token: given_token(&flags.token)?,
            certificate_life: flags.certificate_ttl.map_or(crate::pki::LEAF_LIFE, Duration::from_secs),
            node_grace: node_grace(&flags.node_monitor_grace_period)?,
            not_ready_seconds: flags.default_not_ready_toleration_seconds,
            unreachable_seconds: flags.default_unreachable_toleration_seconds,
            kubeconfig: flags.write_kubeconfig,
            kubeconfig_mode,
        })
    }

    /// Address of Service `default/kubernetes`: the first of the range.
    pub fn kubernetes_ip(&self) -> IpAddr {
        let services = self.cluster.service_cidr;
        IpAddr::V4(services.nth(1).unwrap_or(services.address))
    }
}

fn cluster(flags: &flags::Server) -> anyhow::Result<Cluster> {
    let cluster_cidr = cidr("cluster-cidr", &flags.cluster_cidr)?;
    let service_cidr = cidr("service-cidr", &flags.service_cidr)?;
    ensure!(
        !cluster_cidr.overlaps(service_cidr),
        "--cluster-cidr {cluster_cidr} and --service-cidr {service_cidr} overlap"
    );
    ensure!(service_cidr.bits <= 28, "--service-cidr {service_cidr} is too small: /28 or larger");
    ensure!(
        crate::server::kinds::names::dns_subdomain(&flags.cluster_domain).is_ok(),
        "--cluster-domain {}: expected a lower-case domain such as cluster.local",
        flags.cluster_domain
    );
    Ok(Cluster {
        cluster_cidr,
        service_cidr,
        cluster_dns: cluster_dns(flags.cluster_dns, service_cidr)?,
        cluster_domain: flags.cluster_domain.clone(),
        node_ports: port_range(&flags.service_node_port_range)?,
        overlay: flags.overlay,
    })
}

/// Shorter than two heartbeats (5 s each), every delay would cost a node.
const GRACE_LEAST: Duration = Duration::from_secs(10);

fn node_grace(text: &str) -> anyhow::Result<Duration> {
    let grace = duration("node-monitor-grace-period", text)?;
    ensure!(grace >= GRACE_LEAST, "--node-monitor-grace-period {text}: nodes report every 5 s; write 10s or more");
    Ok(grace)
}

fn cidr(flag: &str, text: &str) -> anyhow::Result<Cidr> {
    Cidr::parse(text).with_context(|| format!("--{flag} {text}"))
}

fn cluster_dns(given: Option<IpAddr>, services: Cidr) -> anyhow::Result<IpAddr> {
    let Some(address) = given else {
        return Ok(IpAddr::V4(services.nth(10).context("--service-cidr has no tenth address")?));
    };
    match address {
        IpAddr::V4(v4) if services.contains(v4) => Ok(address),
        _ => bail!("--cluster-dns {address} is not inside --service-cidr {services}"),
    }
}

fn port_range(text: &str) -> anyhow::Result<(u16, u16)> {
    let parsed = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match parsed {
        Some((from, to)) if from <= to && from > 0 => Ok((from, to)),
        _ => bail!("--service-node-port-range {text}: expected FROM-TO such as 30000-32767"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_periods() {
        for (text, seconds) in [("40s", 40), ("2m", 120), ("1m30s", 90)] {
            assert_eq!(node_grace(text).unwrap().as_secs(), seconds, "{text}");
        }
        for bad in ["", "40", "-40s", "9s", "soon"] {
            assert!(node_grace(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn port_ranges() {
        assert_eq!(port_range("30000-32767").unwrap(), (30000, 32767));
        for bad in ["", "1", "2-1", "0-5", "a-b", "1-70000"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
    }
}
