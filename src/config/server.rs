//! `kedge server`.

use super::agent::given_token;
use super::node::duration;
use super::{Cluster, Node};
use crate::backup::{self, Schedule};
use crate::cli::flags;
use crate::quantity::Quantity;
use crate::store::local::engine::Kind;
use anyhow::{Context, ensure};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Parts that `--disable` knows.
const PARTS: &[&str] = &["scheduler", "controllers", "kubelet", "proxy", "dns"];

/// Everything `kedge server` needs to know, checked.
#[derive(Clone, Debug)]
pub struct Server {
    pub node: Node,
    pub cluster: Cluster,
    pub bind_address: IpAddr,
    pub port: u16,
    pub advertise_address: IpAddr,
    pub tls_san: Vec<String>,
    /// Where the store is served as etcd.
    pub etcd: Option<Etcd>,
    /// In place of the server's own store.
    pub datastore: Option<Datastore>,
    /// What keeps the store's records.
    pub store_engine: Kind,
    /// Bytes on disk; 0: no limit.
    pub store_quota: u64,
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
    /// None: no backups but by hand.
    pub backups: Option<Schedule>,
    /// The file that the flags came from.
    pub config: PathBuf,
    pub kubeconfig: PathBuf,
    pub kubeconfig_mode: u32,
}

/// An etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datastore {
    pub endpoints: Vec<String>,
    pub ca: Option<PathBuf>,
    /// Certificate and key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// How the store is served as etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Etcd {
    pub address: SocketAddr,
    /// Without TLS.
    pub insecure: bool,
    /// How often watches without events hear how far they are, if they asked for it.
    pub progress_interval: Duration,
    /// Asked for: then it is an error if the address cannot be used.
    pub required: bool,
}

/// Where etcd listens.
const ETCD_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2379);

/// etcd's own bound.
const PROGRESS_LEAST: Duration = Duration::from_millis(100);

impl Server {
    /// Check the flags. Makes the data directory (the node's name is kept there).
    pub fn from_flags(flags: flags::Server) -> anyhow::Result<Self> {
        let cluster = Cluster::from_flags(&flags.networks)?;
        let node_mask = cluster.node_mask(&flags.networks)?;
        ensure!(flags.https_listen_port != 0, "--https-listen-port: 0 is no port");
        let kubeconfig_mode =
            u32::from_str_radix(&flags.write_kubeconfig_mode, 8).ok().filter(|m| *m <= 0o777).with_context(|| {
                format!("--write-kubeconfig-mode {}: expected an octal mode such as 0600", flags.write_kubeconfig_mode)
            })?;
        let config = flags.file.config.clone();
        let backups = backups(&flags.backup, &flags.host.data_dir)?;
        let node = Node::from_flags(flags.host, flags.node, PARTS)?;
        let datastore = datastore(flags.datastore)?;
        ensure!(
            datastore.is_none() || flags.etcd_listen.is_none(),
            "--datastore-endpoint: that etcd serves itself, there is nothing to serve at --etcd-listen"
        );
        Ok(Server {
            advertise_address: flags.advertise_address.unwrap_or(node.ip),
            node,
            cluster,
            bind_address: flags.bind_address,
            port: flags.https_listen_port,
            tls_san: flags.tls_san,
            etcd: etcd(flags.etcd_listen.as_deref(), flags.etcd_insecure, &flags.etcd_watch_progress_notify_interval)?
                .filter(|_| datastore.is_none()),
            datastore,
            store_engine: flags.store_engine,
            store_quota: quota(&flags.store_quota)?,
            node_mask,
            agent: !flags.disable_agent,
            token: given_token(&flags.token)?,
            certificate_life: flags.certificate_ttl.map_or(crate::pki::LEAF_LIFE, Duration::from_secs),
            node_grace: node_grace(&flags.monitor)?,
            not_ready_seconds: flags.default_not_ready_toleration_seconds,
            unreachable_seconds: flags.default_unreachable_toleration_seconds,
            backups,
            config,
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

/// Less would do little else.
const BACKUP_INTERVAL_LEAST: Duration = Duration::from_secs(60);

fn backups(flags: &flags::Backup, data_dir: &Path) -> anyhow::Result<Option<Schedule>> {
    let Some(interval) = &flags.backup_interval else { return Ok(None) };
    let every = duration("backup-interval", interval)?;
    ensure!(every >= BACKUP_INTERVAL_LEAST, "--backup-interval {interval}: write 1m or more");
    let passphrase = flags.backup_passphrase_file.as_deref().map(backup::passphrase).transpose()?;
    let directory = flags.backup_dir.clone().unwrap_or_else(|| backup::directory(data_dir));
    Ok(Some(Schedule { every, directory, keep: flags.backup_keep.into(), passphrase }))
}

impl Datastore {
    /// TLS with it, if a CA is given.
    pub fn tls(&self) -> anyhow::Result<Option<Arc<rustls::ClientConfig>>> {
        let client = self.client.as_ref().map(|(certificate, key)| (&**certificate, &**key));
        self.ca.as_deref().map(|ca| crate::client::etcd_tls(ca, client)).transpose()
    }
}

fn datastore(flags: flags::Datastore) -> anyhow::Result<Option<Datastore>> {
    let flags::Datastore { datastore_endpoint, datastore_cafile, datastore_certfile, datastore_keyfile } = flags;
    ensure!(
        datastore_cafile.is_some() || datastore_certfile.is_none(),
        "--datastore-certfile: give the CA of etcd's certificates, too (--datastore-cafile)"
    );
    let client = datastore_certfile.zip(datastore_keyfile);
    let datastore = Datastore { endpoints: datastore_endpoint, ca: datastore_cafile, client };
    Ok((!datastore.endpoints.is_empty()).then_some(datastore))
}

fn etcd(listen: Option<&str>, insecure: bool, progress: &str) -> anyhow::Result<Option<Etcd>> {
    const PROGRESS: &str = "etcd-watch-progress-notify-interval";
    let progress_interval = duration(PROGRESS, progress)?;
    ensure!(progress_interval >= PROGRESS_LEAST, "--{PROGRESS} {progress}: write 100ms or more");
    let address = match listen {
        Some("off") => return Ok(None),
        Some(text) => {
            let expected = || format!("--etcd-listen {text}: expected IP:PORT such as 127.0.0.1:2379, or off");
            text.parse().with_context(expected)?
        }
        None => ETCD_ADDRESS,
    };
    ensure!(
        !insecure || address.ip().is_loopback(),
        "--etcd-insecure: the whole cluster would be open to whoever reaches {address}; listen on 127.0.0.1"
    );
    Ok(Some(Etcd { address, insecure, progress_interval, required: listen.is_some() }))
}

fn quota(text: &str) -> anyhow::Result<u64> {
    let bytes = text.parse::<Quantity>().ok().and_then(|quantity| u64::try_from(quantity.value()).ok());
    bytes.with_context(|| format!("--store-quota {text}: expected bytes such as 8Gi"))
}

/// Shorter than two heartbeats (5 s each), every delay would cost a node.
const GRACE_LEAST: Duration = Duration::from_secs(10);

pub(super) fn node_grace(flags: &flags::Monitor) -> anyhow::Result<Duration> {
    let text = &flags.node_monitor_grace_period;
    let grace = duration("node-monitor-grace-period", text)?;
    ensure!(grace >= GRACE_LEAST, "--node-monitor-grace-period {text}: nodes report every 5 s; write 10s or more");
    Ok(grace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_periods() {
        let grace = |text: &str| node_grace(&flags::Monitor { node_monitor_grace_period: text.to_owned() });
        for (text, seconds) in [("40s", 40), ("2m", 120), ("1m30s", 90)] {
            assert_eq!(grace(text).unwrap().as_secs(), seconds, "{text}");
        }
        for bad in ["", "40", "-40s", "9s", "soon"] {
            assert!(grace(bad).is_err(), "{bad}");
        }
    }
}
