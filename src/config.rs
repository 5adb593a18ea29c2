//! Flags to checked values, before the first port opens. Errors name the flag and what to write instead.

use crate::cli::flags;
use crate::durable;
use anyhow::{Context, bail, ensure};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};

pub const CONFIG_FILE: &str = "/etc/kedge/config.yaml";
pub const DATA_DIR: &str = "/var/lib/kedge";
pub const RUN_DIR: &str = "/run/kedge";
pub const KUBECONFIG: &str = "/etc/kedge/kubeconfig.yaml";

/// Parts that `--disable` knows.
pub const PARTS: &[&str] = &["scheduler", "dns", "proxy"];

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: Ipv4Addr,
    pub bits: u8,
}

impl Cidr {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (address, bits) = text.split_once('/').context("expected ADDRESS/BITS")?;
        let address: Ipv4Addr = address.parse().context("the address is no IPv4 address")?;
        let bits: u8 = bits.parse().context("the part after / is no number")?;
        ensure!(bits <= 32, "the part after / is larger than 32");
        let cidr = Cidr { address, bits };
        ensure!(u32::from(address) & !cidr.mask() == 0, "host bits are set; write {}/{bits}", cidr.network());
        Ok(cidr)
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0)
    }

    fn network(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) & self.mask())
    }

    /// The `n`th address of the network, if it lies inside.
    pub fn nth(self, n: u32) -> Option<Ipv4Addr> {
        let address = u32::from(self.address).checked_add(n)?;
        self.contains(address.into()).then(|| address.into())
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.address)
    }

    fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Everything `kedge server` needs to know, checked.
#[derive(Clone, Debug)]
pub struct Server {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub bind_address: IpAddr,
    pub port: u16,
    pub advertise_address: IpAddr,
    pub tls_san: Vec<String>,
    pub cluster_cidr: Cidr,
    pub node_mask: u8,
    pub service_cidr: Cidr,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    pub node_ports: (u16, u16),
    pub node_name: String,
    pub node_ip: IpAddr,
    pub node_labels: Vec<(String, String)>,
    pub disabled: Vec<String>,
    pub agent: bool,
    pub container_runtime_endpoint: Option<String>,
    pub resolv_conf: Option<PathBuf>,
    pub kubelet_port: u16,
    pub pod_log_dir: PathBuf,
    pub cgroup_root: String,
    pub max_pods: u32,
    pub kubeconfig: PathBuf,
    pub kubeconfig_mode: u32,
}

impl Server {
    /// Check the flags. Makes the data directory (the node's name is kept there).
    pub fn from_flags(flags: flags::Server) -> anyhow::Result<Self> {
        let cluster_cidr = cidr("cluster-cidr", &flags.cluster_cidr)?;
        let service_cidr = cidr("service-cidr", &flags.service_cidr)?;
        ensure!(
            !cluster_cidr.overlaps(service_cidr),
            "--cluster-cidr {cluster_cidr} and --service-cidr {service_cidr} overlap"
        );
        ensure!(service_cidr.bits <= 28, "--service-cidr {service_cidr} is too small: /28 or larger");
        let node_mask = flags.node_cidr_mask_size;
        ensure!(
            (cluster_cidr.bits..=30).contains(&node_mask),
            "--node-cidr-mask-size {node_mask} must lie between {} (--cluster-cidr) and 30",
            cluster_cidr.bits
        );
        let cluster_dns = cluster_dns(flags.cluster_dns, service_cidr)?;
        if let Some(unknown) = flags.disable.iter().find(|p| !PARTS.contains(&p.as_str())) {
            bail!("--disable {unknown}: no such part; there are {}", PARTS.join(", "));
        }
        ensure!(
            crate::server::kinds::names::dns_subdomain(&flags.cluster_domain).is_ok(),
            "--cluster-domain {}: expected a lower-case domain such as cluster.local",
            flags.cluster_domain
        );
        ensure!(flags.https_listen_port != 0, "--https-listen-port: 0 is no port");
        let kubeconfig_mode =
            u32::from_str_radix(&flags.write_kubeconfig_mode, 8).ok().filter(|m| *m <= 0o777).with_context(|| {
                format!("--write-kubeconfig-mode {}: expected an octal mode such as 0600", flags.write_kubeconfig_mode)
            })?;
        durable::create_dir(&flags.data_dir, 0o755)
            .with_context(|| format!("cannot use the data directory {}", flags.data_dir.display()))?;
        let node_ip = flags.node_ip.or_else(default_address).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        ensure!(node_ip.is_ipv4(), "--node-ip {node_ip}: IPv6 nodes are not supported yet");
        Ok(Server {
            node_name: node_name(flags.node_name, &flags.data_dir)?,
            node_labels: flags.node_label.iter().map(|l| label(l)).collect::<Result<_, _>>()?,
            node_ports: port_range(&flags.service_node_port_range)?,
            advertise_address: flags.advertise_address.unwrap_or(node_ip),
            data_dir: flags.data_dir,
            run_dir: flags.run_dir,
            bind_address: flags.bind_address,
            port: flags.https_listen_port,
            tls_san: flags.tls_san,
            cluster_cidr,
            node_mask,
            service_cidr,
            cluster_dns,
            cluster_domain: flags.cluster_domain,
            node_ip,
            disabled: flags.disable,
            agent: !flags.disable_agent,
            container_runtime_endpoint: flags.container_runtime_endpoint,
            resolv_conf: flags.resolv_conf,
            kubelet_port: flags.kubelet_port,
            pod_log_dir: flags.pod_log_dir,
            cgroup_root: flags.cgroup_root,
            max_pods: flags.max_pods,
            kubeconfig: flags.write_kubeconfig,
            kubeconfig_mode,
        })
    }

    pub fn is_disabled(&self, part: &str) -> bool {
        self.disabled.iter().any(|p| p == part)
    }

    /// The address that programs on this host reach the API at.
    pub fn local_address(&self) -> IpAddr {
        if self.bind_address.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { self.bind_address }
    }

    /// Address of Service `default/kubernetes`: the first of the range.
    pub fn kubernetes_ip(&self) -> IpAddr {
        IpAddr::V4(self.service_cidr.nth(1).unwrap_or(self.service_cidr.address))
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

fn label(text: &str) -> anyhow::Result<(String, String)> {
    let (key, value) = text.split_once('=').with_context(|| format!("--node-label {text}: expected KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The node's name: the flag, else the one kept from the first start (host names change, nodes do not), else the
/// host name made a valid one.
fn node_name(given: Option<String>, data_dir: &Path) -> anyhow::Result<String> {
    let kept = data_dir.join("node-name");
    if let Some(name) = given {
        crate::server::kinds::names::dns_subdomain(&name).map_err(|e| anyhow::anyhow!("--node-name {name}: {e}"))?;
        return Ok(name);
    }
    if let Ok(name) = std::fs::read_to_string(&kept) {
        let name = name.trim().to_owned();
        if crate::server::kinds::names::dns_subdomain(&name).is_ok() {
            return Ok(name);
        }
    }
    let host = nix::unistd::gethostname().context("cannot read the host name")?;
    let name = cleaned(&host.to_string_lossy());
    durable::write(&kept, name.as_bytes(), 0o644).with_context(|| format!("cannot write {}", kept.display()))?;
    Ok(name)
}

/// A host name as a node name: lower case, other characters to `-`, never empty.
fn cleaned(host: &str) -> String {
    let ok = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let name: String = host.chars().map(ok).collect();
    let labels: Vec<&str> = name.split('.').map(|l| l.trim_matches('-')).filter(|l| !l.is_empty()).collect();
    if labels.is_empty() { "node".to_owned() } else { labels.join(".") }
}

/// The address of the default route (no packet is sent), else any global address of an interface.
fn default_address() -> Option<IpAddr> {
    let routed = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    let any = || {
        let global = |i: nix::ifaddrs::InterfaceAddress| {
            let ip = i.address?.as_sockaddr_in()?.ip();
            (!ip.is_loopback() && !ip.is_link_local()).then_some(IpAddr::V4(ip))
        };
        nix::ifaddrs::getifaddrs().ok()?.find_map(global)
    };
    routed().or_else(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        assert_eq!(Cidr::parse("10.43.0.0/16").unwrap().nth(10), Some(Ipv4Addr::new(10, 43, 0, 10)));
        assert_eq!(Cidr::parse("10.43.0.0/30").unwrap().nth(4), None);
        for (text, expect) in [
            ("10.43.0.0", "expected ADDRESS/BITS"),
            ("10.43.0.0/33", "the part after / is larger than 32"),
            ("10.43.0.1/16", "host bits are set; write 10.43.0.0/16"),
            ("::/16", "the address is no IPv4 address"),
        ] {
            assert_eq!(Cidr::parse(text).unwrap_err().to_string(), expect, "{text}");
        }
    }

    #[test]
    fn host_names_become_node_names() {
        for (host, name) in [("Pi_4", "pi-4"), ("-a-.B-", "a.b"), ("", "node"), ("___", "node"), ("ok", "ok")] {
            assert_eq!(cleaned(host), name);
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
