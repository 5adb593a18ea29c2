//! `kedge component`: what each part needs to know, checked.

use super::server::node_grace;
use super::{Cluster, Node};
use crate::cli::flags;
use anyhow::Context;
use std::path::PathBuf;
use std::time::Duration;

pub struct Scheduler {
    pub kubeconfig: PathBuf,
    pub leader_elect: bool,
}

pub struct Controllers {
    pub kubeconfig: PathBuf,
    pub leader_elect: bool,
    pub cluster: Cluster,
    pub node_mask: u8,
    /// A node silent for this long is lost.
    pub node_grace: Duration,
    /// Folder of the CAs that sign; None: somebody else signs.
    pub signing: Option<PathBuf>,
}

pub struct Kubelet {
    pub kubeconfig: PathBuf,
    pub node: Node,
    pub cluster: Cluster,
    /// PEM of the CA behind the clients of the kubelet's API.
    pub client_ca: String,
    /// Files of certificate and key of the kubelet's API; None: to be asked for.
    pub serving: Option<(PathBuf, PathBuf)>,
}

pub struct Proxy {
    pub kubeconfig: PathBuf,
    pub node: Node,
    pub cluster: Cluster,
}

impl Scheduler {
    pub fn from_flags(flags: flags::Scheduler) -> Self {
        Scheduler { kubeconfig: flags.kubeconfig.kubeconfig, leader_elect: flags.election.leader_elect }
    }
}

impl Controllers {
    pub fn from_flags(flags: flags::Controllers) -> anyhow::Result<Self> {
        let cluster = Cluster::from_flags(&flags.networks)?;
        Ok(Controllers {
            kubeconfig: flags.kubeconfig.kubeconfig,
            leader_elect: flags.election.leader_elect,
            node_mask: cluster.node_mask(&flags.networks)?,
            cluster,
            node_grace: node_grace(&flags.monitor)?,
            signing: flags.cluster_signing_dir,
        })
    }
}

impl Kubelet {
    /// Check the flags. Makes the data directory (the node's name is kept there).
    pub fn from_flags(flags: flags::Kubelet) -> anyhow::Result<Self> {
        let kubeconfig = flags.kubeconfig.kubeconfig;
        let client_ca = match &flags.client_ca_file {
            Some(file) => std::fs::read(file).with_context(|| format!("--client-ca-file {}", file.display()))?,
            None => {
                crate::client::cluster_of(&kubeconfig)?.1.context("give --client-ca-file: the kubeconfig has no CA")?
            }
        };
        Ok(Kubelet {
            kubeconfig,
            node: Node::from_flags(flags.host, flags.node, &[])?,
            cluster: Cluster::from_flags(&flags.networks)?,
            serving: flags.tls_cert_file.zip(flags.tls_private_key_file),
            client_ca: String::from_utf8(client_ca).context("the clients' CA is not PEM")?,
        })
    }
}

impl Proxy {
    /// Check the flags. Makes the data directory (the node's name is kept there).
    pub fn from_flags(flags: flags::Proxy) -> anyhow::Result<Self> {
        Ok(Proxy {
            kubeconfig: flags.kubeconfig.kubeconfig,
            node: Node::from_flags(flags.host, flags.node, &["dns"])?,
            cluster: Cluster::from_flags(&flags.networks)?,
        })
    }
}
