//! Deployments: one ReplicaSet per pod template, moved from old to new by the strategy.
//!
//! [`plan`] decides from the Deployment and its ReplicaSets; this file gathers and applies.

mod plan;
mod revision;
mod rollout;
mod size;
mod status;

use super::apply;
use super::driver::{Controller, Requeue, Wakes};
use super::labels::Selector;
use super::owners;
use super::writes::Writes;
use super::{Context, pods};
use crate::cache::{Cache, Key};
use crate::events::{Normal, Recorder, Warning};
use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use plan::Plan;
use std::sync::Arc;

pub struct Deployments {
    client: Client,
    recorder: Recorder,
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    writes: Writes,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(Deployments {
        client: context.client.clone(),
        recorder: context.recorder.clone(),
        deployments: context.caches.of(),
        sets: context.caches.of(),
        pods: context.caches.of(),
        writes: Writes::default(),
    })
}

#[async_trait]
impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.deployments);
        let deployments = self.deployments.clone();
        wakes.on(&self.sets, move |change| {
            let set = change.latest().map(|s| s.as_ref());
            match set.and_then(|s| owners::controller_of::<ReplicaSet, Deployment>(s)) {
                Some(owner) => vec![Key::new(&change.key.namespace, &owner.name)],
                // A free ReplicaSet may belong to any Deployment of its namespace.
                None => deployments.list_in(&change.key.namespace).iter().map(|d| Key::of(d.as_ref())).collect(),
            }
        });
        // Recreate waits for old pods to go; nothing else here looks at pods.
        let sets = self.sets.clone();
        wakes.on(&self.pods, move |change| {
            let gone = change.new.as_ref().is_none_or(|pod| pods::is_finished(pod));
            let set = change.latest().filter(|_| gone);
            let set = set.and_then(|p| owners::controller_of::<Pod, ReplicaSet>(p).map(|o| o.name.clone()));
            let set = set.and_then(|name| sets.get(&change.key.namespace, &name));
            let owner = set.and_then(|s| owners::controller_of::<ReplicaSet, Deployment>(&s).map(|o| o.name.clone()));
            owner.map(|name| Key::new(&change.key.namespace, name)).into_iter().collect()
        });
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let Some(deployment) = self.deployments.at(key) else {
            self.writes.forget(key);
            return Ok(Requeue::Done);
        };
        if !self.writes.visible(key, &self.sets).await {
            return Ok(Requeue::After(super::writes::STALE_PAUSE));
        }
        let selector = Selector::of(Some(&deployment.spec.selector));
        if selector.is_everything() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&deployment.object_ref(&()), Warning, "SelectingAll", message);
            return Ok(Requeue::Done);
        }
        let uid = deployment.metadata.uid.as_deref().unwrap_or("");
        let (owned, free) = (owners::owned(&self.sets, uid), owners::orphans(&self.sets, &key.namespace));
        let claim = owners::claim(&deployment.metadata, &selector, owned, free);
        let sets = owners::settle(&self.client, deployment.as_ref(), claim).await?;
        let busy = |set: &ReplicaSet| {
            let pods = owners::owned(&self.pods, set.metadata.uid.as_deref().unwrap_or(""));
            pods.iter().any(|pod| !pods::is_finished(pod))
        };
        let busy: Vec<_> = sets.iter().filter(|s| busy(s)).filter_map(|s| s.metadata.uid.clone()).collect();
        let plan = plan::plan(&deployment, &sets, &busy, crate::time::now());
        self.apply(key, &deployment, plan).await
    }
}

impl Deployments {
    async fn apply(&self, key: &Key, deployment: &Deployment, plan: Plan) -> anyhow::Result<Requeue> {
        let api: Api<ReplicaSet> = apply::api(&self.client, &key.namespace);
        let mut status = plan.status;
        if let Some(set) = &plan.create {
            match self.create(key, deployment, &api, set).await? {
                Created::Yes => {}
                Created::NameTaken => {
                    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                    self.write_status(key, deployment, status, None).await?;
                    return Ok(Requeue::After(super::writes::STALE_PAUSE));
                }
                Created::Refused(error) => {
                    status::creation_failed(deployment, &mut status, &error, crate::time::now());
                    self.recorder.event(&deployment.object_ref(&()), Warning, "ReplicaSetCreateError", &error);
                    self.write_status(key, deployment, status, None).await?;
                    anyhow::bail!("{error}");
                }
            }
        }
        for (old, new) in &plan.update {
            let written = apply::update(&api, old.as_ref(), |fresh| {
                fresh.spec = new.spec.clone();
                revision::keep_annotations(fresh, new);
            });
            self.writes.record(key, &written.await?);
            self.scaled(deployment, new, size::size(old), size::size(new));
        }
        self.write_status(key, deployment, status, plan.revision).await?;
        for set in &plan.delete {
            apply::delete(&api, set.as_ref()).await?;
        }
        Ok(plan.after.map_or(Requeue::Done, Requeue::After))
    }

    fn scaled(&self, deployment: &Deployment, set: &ReplicaSet, from: i32, to: i32) {
        let direction = match from.cmp(&to) {
            std::cmp::Ordering::Less => "up",
            std::cmp::Ordering::Greater => "down",
            std::cmp::Ordering::Equal => return,
        };
        let name = set.metadata.name.as_deref().unwrap_or("");
        let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
        self.recorder.event(&deployment.object_ref(&()), Normal, "ScalingReplicaSet", message);
    }

    async fn create(
        &self,
        key: &Key,
        deployment: &Deployment,
        api: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> anyhow::Result<Created> {
        let error = match api.create(&PostParams::default(), set).await {
            Ok(made) => {
                self.writes.record(key, &made);
                self.scaled(deployment, &made, 0, size::size(set));
                return Ok(Created::Yes);
            }
            Err(error) => error,
        };
        if apply::is_already_exists(&error) {
            // Either ours, made a moment ago and not yet in the cache, or another's with the same hash.
            let held = api.get(set.metadata.name.as_deref().unwrap_or("")).await?;
            let ours = crate::cache::controller_uid(&held) == deployment.metadata.uid.as_deref();
            if ours && revision::same_template(deployment, &held) {
                self.writes.record(key, &held);
                return Ok(Created::Yes);
            }
            return Ok(Created::NameTaken);
        }
        if apply::is_namespace_terminating(&error) {
            return Ok(Created::Yes);
        }
        let name = set.metadata.name.as_deref().unwrap_or("");
        Ok(Created::Refused(format!("Failed to create new replica set \"{name}\": {}", apply::message(&error))))
    }

    async fn write_status(
        &self,
        key: &Key,
        deployment: &Deployment,
        status: k8s_openapi::api::apps::v1::DeploymentStatus,
        revision: Option<String>,
    ) -> anyhow::Result<()> {
        let told = deployment.metadata.annotations.as_ref().and_then(|a| a.get(revision::REVISION));
        let announce = revision.filter(|r| told != Some(r));
        if deployment.status.as_ref() == Some(&status) && announce.is_none() {
            return Ok(());
        }
        let api: Api<Deployment> = apply::api(&self.client, &key.namespace);
        apply::status(&api, deployment, |fresh| {
            fresh.status = Some(status);
            if let Some(revision) = announce {
                fresh.metadata.annotations.get_or_insert_default().insert(revision::REVISION.into(), revision);
            }
        })
        .await?;
        Ok(())
    }
}

enum Created {
    Yes,
    /// Another object has the name: the hash needs another salt.
    NameTaken,
    Refused(String),
}

/// The ReplicaSet as held in the cache, shared.
type Shared = Arc<ReplicaSet>;
