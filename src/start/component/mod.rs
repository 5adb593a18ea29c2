//! Parts that run alone, over HTTPS with an identity of their own: the same code as in a server or an agent.

mod accounts;
mod kubelet;

pub use kubelet::kubelet;

use super::{Running, node, signing};
use crate::cache::Caches;
use crate::config::component::{Controllers, Proxy, Scheduler};
use crate::task::Group;
use crate::{client, controllers, join, leader};
use kube::Client;
use std::sync::Arc;

/// The scheduler, as `system:kube-scheduler`. Returns before it leads.
pub fn scheduler(config: &Scheduler, root: &Group) -> anyhow::Result<Running> {
    let client = client::followed(&config.kubeconfig, root)?.client(join::NAMESPACE);
    let (own, group) = (client.clone(), root.clone());
    elected(config.leader_elect.then_some((client, controllers::SCHEDULER)), root, async move {
        controllers::schedule(own.clone(), &Caches::new(own, group.clone()), &group);
        Ok(())
    });
    Ok(Running::default())
}

/// The controllers: `system:kube-controller-manager` reads for all of them, each writes as its own service account.
/// Returns before they lead.
pub fn controllers(config: Controllers, root: &Group) -> anyhow::Result<Running> {
    let client = client::followed(&config.kubeconfig, root)?.client(join::NAMESPACE);
    let certificates = config.signing.as_ref().map(|dir| signing::from_files(dir)).transpose()?;
    let (_, root_ca) = client::cluster_of(&config.kubeconfig)?;
    let settings = controllers::Config {
        cluster_cidrs: vec![config.cluster.cluster_cidr.to_string()],
        node_mask_v4: config.node_mask,
        root_ca: root_ca.map(String::from_utf8).transpose()?.unwrap_or_default(),
        certificates: certificates.unwrap_or_default(),
        node_grace: Some(config.node_grace),
        ..Default::default()
    };
    let (own, group) = (client.clone(), root.clone());
    elected(config.leader_elect.then_some((client, controllers::MANAGER)), root, async move {
        let accounts = accounts::clients(&config.kubeconfig, &own, &group).await?;
        let caches = Caches::new(own.clone(), group.clone());
        controllers::run(&|name| accounts.get(name).unwrap_or(&own).clone(), &caches, settings, &group);
        Ok(())
    });
    Ok(Running::default())
}

/// Services, pod network and DNS, as `system:kube-proxy` (with WireGuard as the node, which publishes its key).
pub async fn proxy(config: &Proxy, root: &Group) -> anyhow::Result<Running> {
    let client = client::followed(&config.kubeconfig, root)?.client(join::NAMESPACE);
    let caches: Arc<Caches> = Caches::new(client.clone(), root.clone());
    node::proxy(&config.node, &config.cluster, client, caches, root).await?;
    Ok(Running::default())
}

/// Do it when this process leads (None: at once); an error ends the program.
fn elected(
    lease: Option<(Client, &'static str)>,
    root: &Group,
    work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    let group = root.clone();
    root.spawn("election", async move {
        let started = async {
            if let Some((client, name)) = lease {
                leader::lead(&client, name, &group).await?;
            }
            work.await
        };
        if let Err(error) = started.await {
            group.fail(error);
        }
    });
}
