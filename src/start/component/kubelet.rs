//! The kubelet alone. Its API's certificate comes by a CertificateSigningRequest (upstream's `serverTLSBootstrap`); the
//! server reaches it at the node's address, as there is no tunnel.

use crate::cache::Caches;
use crate::config::ServerUrl;
use crate::config::component::Kubelet;
use crate::join::identity::{Host, Kind};
use crate::join::renewal::Renewer;
use crate::start::{Running, node};
use crate::task::Group;
use crate::{client, join};
use anyhow::Context;
use std::sync::Arc;

/// The kubelet, as `system:node:<name>`.
pub async fn kubelet(config: &Kubelet, root: &Group) -> anyhow::Result<Running> {
    let line = client::followed(&config.kubeconfig, root)?;
    let client = line.client(join::NAMESPACE);
    let node = &config.node;
    let (server, _) = client::cluster_of(&config.kubeconfig)?;
    let host = Host {
        dir: node.agent_dir().join("kubelet/pki"),
        server: ServerUrl::parse(&server).with_context(|| format!("the server {server}"))?,
        node_name: node.name.clone(),
        addresses: std::iter::once(node.ip).chain(node.external_ip).collect(),
    };
    let identity = Arc::new(host.serving()?);
    Renewer { identity: identity.clone(), line, token: None }.start(&[Kind::Serving], root);
    let access = node::Access {
        caches: Caches::new(client.clone(), root.clone()),
        client,
        line: None,
        serving: identity.live(Kind::Serving),
        client_ca: config.client_ca.clone(),
    };
    let pods = node::kubelet(node, &config.cluster, access, root).await?;
    Ok(Running { store: None, pods: Some(pods), run_dir: node.run_dir.clone() })
}
