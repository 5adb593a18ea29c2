//! What is the same for the whole cluster. The server has it from its flags; agents get it from the server as JSON and
//! keep it for starts while the server is away, so a field that is added later needs a serde default.

use super::Cidr;
use crate::cli::flags;
use crate::netproxy::overlay::Backend;
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Networks and names of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub cluster_cidr: Cidr,
    pub service_cidr: Cidr,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    /// First and last port for Services of type NodePort.
    pub node_ports: (u16, u16),
    /// How pods of different nodes reach each other.
    #[serde(default)]
    pub overlay: Backend,
}

impl Cluster {
    /// Check the flags.
    pub(super) fn from_flags(flags: &flags::Networks) -> anyhow::Result<Self> {
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

    /// Bits of a node's part of the pod network.
    pub(super) fn node_mask(&self, flags: &flags::Networks) -> anyhow::Result<u8> {
        let (mask, least) = (flags.node_cidr_mask_size, self.cluster_cidr.bits);
        ensure!(
            (least..=30).contains(&mask),
            "--node-cidr-mask-size {mask} must lie between {least} (--cluster-cidr) and 30"
        );
        Ok(mask)
    }
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
    fn port_ranges() {
        assert_eq!(port_range("30000-32767").unwrap(), (30000, 32767));
        for bad in ["", "1", "2-1", "0-5", "a-b", "1-70000"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
    }
}
