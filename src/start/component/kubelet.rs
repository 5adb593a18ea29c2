//! The kubelet alone. Its API's certificate is given, or comes by a CertificateSigningRequest (upstream's
//! `serverTLSBootstrap`); the server reaches it at the node's address, as there is no tunnel.

use crate::cache::Caches;
use crate::client::{self, Line};
use crate::config::ServerUrl;
use crate::config::component::Kubelet;
use crate::join::identity::{Host, Kind};
use crate::join::renewal::Renewer;
use crate::pki::{Leaf, LiveCertificate};
use crate::start::{Running, node};
use crate::task::Group;
use crate::{config, join};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

/// How often given files are read again: whoever made them renews them.
const READ_EVERY: Duration = Duration::from_secs(60);

/// The kubelet, as `system:node:<name>`.
pub async fn kubelet(config: &Kubelet, root: &Group) -> anyhow::Result<Running> {
    let line = client::followed(&config.kubeconfig, root)?;
    let client = line.client(join::NAMESPACE);
    let serving = match &config.serving {
        Some(files) => given(files.clone(), root)?,
        None => asked_for(&config.kubeconfig, &config.node, line, root)?,
    };
    let access = node::Access {
        caches: Caches::new(client.clone(), root.clone()),
        client,
        line: None,
        serving,
        client_ca: config.client_ca.clone(),
    };
    let pods = node::kubelet(&config.node, &config.cluster, access, root).await?;
    Ok(Running { store: None, pods: Some(pods), run_dir: config.node.run_dir.clone() })
}

fn given((certificate, key): (PathBuf, PathBuf), root: &Group) -> anyhow::Result<Arc<LiveCertificate>> {
    let live: Arc<LiveCertificate> = Arc::default();
    live.set(&leaf(&certificate, &key)?)?;
    let shown = live.clone();
    root.spawn("certificate", async move {
        loop {
            tokio::time::sleep(READ_EVERY).await;
            // Two files do not change together: what does not fit yet is read again later.
            let renewed = leaf(&certificate, &key).and_then(|leaf| shown.set(&leaf));
            if let Err(error) = renewed {
                debug!(error = format!("{error:#}"), "the kubelet's certificate is not read");
            }
        }
    });
    Ok(live)
}

fn leaf(certificate: &Path, key: &Path) -> anyhow::Result<Leaf> {
    let read = |file: &Path| std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()));
    let leaf = Leaf { cert_pem: read(certificate)?, key_pem: read(key)? };
    anyhow::ensure!(leaf.is_whole(), "{} and {} do not belong together", certificate.display(), key.display());
    Ok(leaf)
}

fn asked_for(kubeconfig: &Path, node: &config::Node, line: Line, root: &Group) -> anyhow::Result<Arc<LiveCertificate>> {
    let (server, _) = client::cluster_of(kubeconfig)?;
    let host = Host {
        dir: node.agent_dir().join("kubelet/pki"),
        server: ServerUrl::parse(&server).with_context(|| format!("the server {server}"))?,
        node_name: node.name.clone(),
        addresses: std::iter::once(node.ip).chain(node.external_ip).collect(),
    };
    let identity = Arc::new(host.serving()?);
    Renewer { identity: identity.clone(), line, token: None }.start(&[Kind::Serving], root);
    Ok(identity.live(Kind::Serving))
}
