//! The garbage collector: what lost all its owners is deleted; foreground and orphan deletions are carried out.
//!
//! Watches the metadata of every kind that discovery names. Before anything is deleted, the object and its owners are
//! asked for at the server: a graph that lags, or lacks a kind, costs a request but never an object.

mod graph;
mod monitor;
mod verdict;

use super::Context;
use super::apply;
use super::driver::{Controller, Requeue, Wakes};
use super::kinds::Served;
use crate::cache::Key;
use async_trait::async_trait;
use futures::StreamExt;
use graph::{FOREGROUND, Graph, Item, ORPHAN, Uid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Notify, watch};
use verdict::{Owner, Verdict};

/// Metadata of an object of any kind.
type Meta = PartialObjectMeta<DynamicObject>;

/// What monitors, and the controller, share.
#[derive(Default)]
struct Shared {
    graph: Mutex<Graph>,
    /// By qualified resource name.
    kinds: Mutex<HashMap<Arc<str>, Served>>,
    news: Notify,
    /// All kinds have been listed once.
    ready: watch::Sender<bool>,
}

struct Collector {
    client: Client,
    shared: Arc<Shared>,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    let shared = Arc::<Shared>::default();
    context.group.spawn("gc monitors", monitor::run(context.client.clone(), shared.clone(), context.group.child()));
    Box::new(Collector { client: context.client.clone(), shared })
}

#[async_trait]
impl Controller for Collector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        let woken = futures::stream::unfold(self.shared.clone(), |shared| async move {
            shared.news.notified().await;
            let keys = shared.graph.lock().take_woken().into_iter().map(Uid::as_key).collect();
            Some((keys, shared))
        });
        wakes.stream(woken.boxed());
    }

    fn workers(&self) -> usize {
        20
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let Some(uid) = Uid::from_key(key) else { return Ok(Requeue::Done) };
        let Some(item) = self.shared.graph.lock().item(uid).cloned() else { return Ok(Requeue::Done) };
        let api = self.api(&item.resource, &item.namespace)?;
        let live = match api.get_opt(&item.name).await?.map(|object| object.metadata) {
            Some(meta) if meta.uid.as_deref() == Some(item.uid.as_str()) => meta,
            _ => {
                self.shared.graph.lock().remove(&item.resource, uid);
                self.shared.news.notify_one();
                return Ok(Requeue::Done);
            }
        };
        let item = Item::of(&item.resource, &live);
        if item.orphaning {
            self.orphan_dependents(uid).await?;
            without_finalizer(&api, &live, ORPHAN).await?;
        } else if item.foreground {
            self.finish_foreground(uid, &api, &live).await?;
        } else if !item.deleting {
            self.check_owners(uid, &item, &api, &live).await?;
        }
        Ok(Requeue::Done)
    }
}

impl Collector {
    fn api(&self, resource: &str, namespace: &str) -> anyhow::Result<Api<Meta>> {
        let kinds = self.shared.kinds.lock();
        let served = kinds.get(resource).ok_or_else(|| anyhow::anyhow!("{resource} is not served"))?;
        Ok(match served.namespaced {
            true => Api::namespaced_with(self.client.clone(), namespace, &served.resource),
            false => Api::all_with(self.client.clone(), &served.resource),
        })
    }

    /// Take the owner out of all its dependents.
    async fn orphan_dependents(&self, owner: Uid) -> anyhow::Result<()> {
        let dependents = self.shared.graph.lock().dependents(owner);
        for dependent in dependents {
            let api = self.api(&dependent.resource, &dependent.namespace)?;
            let Some(live) = api.get_opt(&dependent.name).await?.map(|o| o.metadata) else { continue };
            if live.uid.as_deref() == Some(dependent.uid.as_str()) {
                keep_owners(&api, &live, |o| Uid::of(&o.uid) != owner).await?;
            }
        }
        Ok(())
    }

    /// Delete dependents of an object in foreground deletion; when none blocks it any more, let it go.
    async fn finish_foreground(&self, uid: Uid, api: &Api<Meta>, live: &ObjectMeta) -> anyhow::Result<()> {
        let blocking = {
            let mut graph = self.shared.graph.lock();
            let blocking: Vec<_> = graph.dependents(uid).into_iter().filter(|item| item.blocks(uid)).collect();
            blocking.iter().filter(|item| !item.foreground).for_each(|item| graph.wake(Uid::of(&item.uid)));
            blocking
        };
        if blocking.is_empty() {
            return without_finalizer(api, live, FOREGROUND).await;
        }
        self.shared.news.notify_one();
        Ok(())
    }

    async fn check_owners(&self, uid: Uid, item: &Item, api: &Api<Meta>, live: &ObjectMeta) -> anyhow::Result<()> {
        let mut owners = Vec::new();
        for reference in &item.owners {
            owners.push(self.find(reference, item).await?);
        }
        let (has_dependents, circle) = {
            let graph = self.shared.graph.lock();
            (graph.has_dependents(uid), graph.dependents(uid).iter().any(|d| d.foreground))
        };
        match verdict::verdict(&owners, has_dependents, live.finalizers.as_deref().unwrap_or_default()) {
            Verdict::Keep => Ok(()),
            Verdict::Drop => {
                let stays: Vec<_> = item.owners.iter().zip(&owners).filter(|(_, o)| **o == Owner::Solid).collect();
                keep_owners(api, live, |o| stays.iter().any(|(s, _)| s.uid == o.uid)).await
            }
            Verdict::Delete(policy) => {
                if circle && policy == PropagationPolicy::Foreground {
                    // Owners that wait for each other would wait for ever: none of them blocks.
                    unblock(api, live).await?;
                }
                delete(api, live, policy).await
            }
        }
    }

    /// The state of an owner, from the server.
    async fn find(&self, owner: &OwnerReference, item: &Item) -> anyhow::Result<Owner> {
        let (group, _) = crate::object::split_api_version(&owner.api_version);
        let served = {
            let kinds = self.shared.kinds.lock();
            let found = kinds.values().find(|s| s.resource.group == group && s.resource.kind == owner.kind);
            // A kind that is not served at the moment may come back: nothing is concluded from it.
            found
                .cloned()
                .ok_or_else(|| anyhow::anyhow!("owner kind {} {} is not served", owner.api_version, owner.kind))?
        };
        if served.namespaced && item.namespace.is_empty() {
            // Not allowed, and nobody can say which object is meant: leave it alone.
            return Ok(Owner::Solid);
        }
        let api = self.api(&served.qualified(), &item.namespace)?;
        let found =
            api.get_opt(&owner.name).await?.map(|o| o.metadata).filter(|m| m.uid.as_deref() == Some(&owner.uid));
        Ok(match found {
            None => Owner::Gone,
            Some(meta) if Item::of(&item.resource, &meta).foreground => Owner::Waiting,
            Some(_) => Owner::Solid,
        })
    }
}

/// Write metadata of the version that was decided on; an object that is gone needs no writing.
async fn patch(api: &Api<Meta>, live: &ObjectMeta, mut metadata: serde_json::Value) -> anyhow::Result<()> {
    metadata["resourceVersion"] = json!(live.resource_version);
    metadata["uid"] = json!(live.uid);
    let name = live.name.as_deref().unwrap_or("");
    match api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"metadata": metadata}))).await {
        Err(error) if !apply::is_not_found(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

async fn without_finalizer(api: &Api<Meta>, live: &ObjectMeta, finalizer: &str) -> anyhow::Result<()> {
    let left: Vec<_> = live.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
    patch(api, live, json!({"finalizers": left})).await
}

async fn keep_owners(api: &Api<Meta>, live: &ObjectMeta, keep: impl Fn(&OwnerReference) -> bool) -> anyhow::Result<()> {
    let all = live.owner_references.as_deref().unwrap_or_default();
    let left: Vec<_> = all.iter().filter(|o| keep(o)).collect();
    if left.len() == all.len() {
        return Ok(());
    }
    patch(api, live, json!({"ownerReferences": left})).await
}

async fn unblock(api: &Api<Meta>, live: &ObjectMeta) -> anyhow::Result<()> {
    let mut owners = live.owner_references.clone().unwrap_or_default();
    owners.iter_mut().for_each(|o| o.block_owner_deletion = Some(false));
    patch(api, live, json!({"ownerReferences": owners})).await
}

async fn delete(api: &Api<Meta>, live: &ObjectMeta, policy: PropagationPolicy) -> anyhow::Result<()> {
    let preconditions = Preconditions { uid: live.uid.clone(), resource_version: None };
    let params = DeleteParams {
        propagation_policy: Some(policy),
        preconditions: Some(preconditions),
        ..DeleteParams::default()
    };
    match api.delete(live.name.as_deref().unwrap_or(""), &params).await {
        Err(error) if !apply::is_not_found(&error) => Err(error.into()),
        _ => Ok(()),
    }
}
