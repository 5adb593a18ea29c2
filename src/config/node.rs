//! What a node needs to know, the same on a server's own node and on an agent's.

use crate::cli::flags;
use crate::durable;
use anyhow::{Context, bail, ensure};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The address of a host that has none: the IPv4 dummy address (RFC 7600), which nothing else ever has.
pub const UNPLUGGED: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// This host as a node, checked.
#[derive(Clone, Debug)]
pub struct Node {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub name: String,
    pub ip: IpAddr,
    /// There is no network: `ip` is [`UNPLUGGED`].
    pub unplugged: bool,
    /// Where others reach this node from outside, if that differs: `ExternalIP` of its status.
    pub external_ip: Option<IpAddr>,
    pub labels: Vec<(String, String)>,
    pub disabled: Vec<String>,
    pub container_runtime_endpoint: Option<String>,
    pub resolv_conf: Option<PathBuf>,
    pub kubelet_port: u16,
    pub pod_log_dir: PathBuf,
    pub cgroup_root: String,
    pub max_pods: u32,
    pub shutdown_grace: Duration,
    pub shutdown_grace_critical: Duration,
}

impl Node {
    /// Check the flags; `parts` are what `--disable` knows. Makes the data directory (the node's name is kept there).
    pub(super) fn from_flags(host: flags::Host, node: flags::Node, parts: &[&str]) -> anyhow::Result<Self> {
        if let Some(unknown) = node.disable.iter().find(|p| !parts.contains(&p.as_str())) {
            bail!("--disable {unknown}: no such part; there are {}", parts.join(", "));
        }
        let labels = node.node_label.iter().map(|l| label(l)).collect::<Result<_, _>>()?;
        let found = node.node_ip.or_else(default_address);
        let ip = found.unwrap_or(IpAddr::V4(UNPLUGGED));
        ensure!(ip.is_ipv4(), "--node-ip {ip}: IPv6 nodes are not supported yet");
        durable::create_dir(&host.data_dir, 0o755)
            .with_context(|| format!("cannot use the data directory {}", host.data_dir.display()))?;
        Ok(Node {
            name: name(node.node_name, &host.data_dir)?,
            data_dir: host.data_dir,
            run_dir: host.run_dir,
            ip,
            unplugged: found.is_none(),
            external_ip: node.node_external_ip,
            labels,
            disabled: node.disable,
            container_runtime_endpoint: node.container_runtime_endpoint,
            resolv_conf: node.resolv_conf,
            kubelet_port: node.kubelet_port,
            pod_log_dir: node.pod_log_dir,
            cgroup_root: node.cgroup_root,
            max_pods: node.max_pods,
            shutdown_grace: duration("shutdown-grace-period", &node.shutdown_grace_period)?,
            shutdown_grace_critical: duration(
                "shutdown-grace-period-critical-pods",
                &node.shutdown_grace_period_critical_pods,
            )?,
        })
    }

    pub fn is_disabled(&self, part: &str) -> bool {
        self.disabled.iter().any(|p| p == part)
    }

    /// Everything the agent part keeps: `<data-dir>/agent`.
    pub fn agent_dir(&self) -> PathBuf {
        self.data_dir.join("agent")
    }
}

/// A time as people write it.
pub(super) fn duration(flag: &str, text: &str) -> anyhow::Result<Duration> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
    parsed.with_context(|| format!("--{flag} {text}: expected a time such as 40s or 2m"))
}

fn label(text: &str) -> anyhow::Result<(String, String)> {
    let (key, value) = text.split_once('=').with_context(|| format!("--node-label {text}: expected KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The node's name: the flag, else the one kept from the first start (host names change, nodes do not), else the
/// host name made a valid one.
fn name(given: Option<String>, data_dir: &Path) -> anyhow::Result<String> {
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

/// First letters of the interfaces that kedge makes.
const OWN_INTERFACES: [&str; 2] = ["kdg", "kedge"];

/// The address of the default route (no packet is sent), else any global address of an interface that is not our own.
pub fn default_address() -> Option<IpAddr> {
    let routed = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    let any = || {
        let global = |i: nix::ifaddrs::InterfaceAddress| {
            let ip = i.address?.as_sockaddr_in()?.ip();
            let loopback = i.flags.contains(nix::net::if_::InterfaceFlags::IFF_LOOPBACK);
            if loopback || OWN_INTERFACES.iter().any(|prefix| i.interface_name.starts_with(prefix)) {
                return None;
            }
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
    fn host_names_become_node_names() {
        for (host, name) in [("Pi_4", "pi-4"), ("-a-.B-", "a.b"), ("", "node"), ("___", "node"), ("ok", "ok")] {
            assert_eq!(cleaned(host), name);
        }
    }
}
