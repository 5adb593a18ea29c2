//! What runs in an agent, in which order: the identity first, kept or by a join; then the node.

use super::{Running, node, unplugged};
use crate::cache::Caches;
use crate::client::Line;
use crate::join::identity::{Identity, Kind};
use crate::join::renewal::{self, Renewer};
use crate::join::{self, As};
use crate::kept::Vault;
use crate::task::Group;
use crate::{config, join::enter};
use anyhow::Context;
use std::sync::Arc;
use std::time::Instant;
use tracing::{info, warn};

/// Start an agent; returns when the node's parts run. A host that has joined before starts everything although the
/// server is away.
pub async fn agent(config: &config::Agent, root: &Group) -> anyhow::Result<Running> {
    let started = Instant::now();
    unplugged::prepare(&config.node, root)?;
    let identity = Arc::new(enter::enter(config).await?);
    identity.keep_names()?;
    come_back(&identity, config).await?;
    let line = line(&identity)?;
    let client = line.client(join::NAMESPACE);
    let settings = join::current_settings(&client, &identity).await?;
    let vault = Vault::open(&config.node.agent_dir().join("kept"), &identity.secret()?).context("what was kept")?;
    let caches = Caches::kept(client.clone(), vault, root.clone());
    join::elsewhere::follow(line.clone(), &caches, root);
    Renewer { identity: identity.clone(), line: line.clone(), token: config.token.clone() }.start(&Kind::ALL, root);
    let access = node::Access {
        client,
        line: Some(line),
        caches,
        serving: identity.live(Kind::Serving),
        client_ca: settings.client_ca.clone(),
    };
    let pods = node::start(&config.node, &settings.cluster, access, root).await?;
    info!(ms = started.elapsed().as_millis() as u64, "the node's parts run");
    Ok(Running { store: None, pods, run_dir: config.node.run_dir.clone() })
}

/// The one connection of this process: every part of the agent, its renewals and the server's way back included.
fn line(identity: &Identity) -> anyhow::Result<Line> {
    join::line(&identity.server, Some(&identity.server_ca), As::Node(identity.live(Kind::Client)))
}

/// A node that was away for longer than its certificate lives gets a new one first, if the server answers.
async fn come_back(identity: &Identity, config: &config::Agent) -> anyhow::Result<()> {
    if !renewal::has_ended(identity) {
        return Ok(());
    }
    info!("this node's certificate has ended; asking for a new one");
    match renewal::comeback(identity, config.token.as_ref()).await {
        Ok(certificate) => identity.install(Kind::Client, certificate),
        Err(failure) => {
            warn!("no new certificate yet: {failure}");
            Ok(())
        }
    }
}
