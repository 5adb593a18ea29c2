//! ReplicaSets and ReplicationControllers: as many pods as asked for. One controller, generic over the kind.

mod plan;
mod replicaset;
mod replicationcontroller;

use super::apply::{self, Writable};
use super::driver::{Controller, Requeue, Wakes};
use super::labels::Selector;
use super::writes::{STALE_PAUSE, Writes};
use super::{Context, owners, pods};
use crate::cache::{Cache, Key};
use crate::events::{Normal, Recorder, Warning};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Pods made or deleted in one reconcile, at most; the rest follows in the next.
const BURST: usize = 500;

/// A kind that keeps a number of pods.
pub trait Set: Writable {
    /// Upstream's name of its controller.
    const CONTROLLER: &'static str;
    fn replicas(&self) -> usize;
    fn min_ready(&self) -> Duration;
    fn selector(&self) -> Selector;
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// Write the numbers and the ReplicaFailure condition into the status.
    fn tell(&mut self, counts: &plan::Counts, failure: Failure<'_>, now: Timestamp);
    fn same_status(&self, other: &Self) -> bool;
}

/// What a pass means for the ReplicaFailure condition.
#[derive(Clone, Copy)]
pub enum Failure<'a> {
    None,
    /// Reason (`FailedCreate`, `FailedDelete`) and message.
    Because(&'a str, &'a str),
}

pub struct Sets<S: Set> {
    client: Client,
    recorder: Recorder,
    sets: Cache<S>,
    pods: Cache<Pod>,
    writes: Writes,
}

pub fn replicasets(context: &Context) -> Box<dyn Controller> {
    Box::new(Sets::<k8s_openapi::api::apps::v1::ReplicaSet>::new(context))
}

pub fn replicationcontrollers(context: &Context) -> Box<dyn Controller> {
    Box::new(Sets::<k8s_openapi::api::core::v1::ReplicationController>::new(context))
}

impl<S: Set> Sets<S> {
    fn new(context: &Context) -> Self {
        Sets {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            sets: context.caches.of(),
            pods: context.caches.of(),
            writes: Writes::default(),
        }
    }
}

#[async_trait]
impl<S: Set> Controller for Sets<S> {
    fn name(&self) -> &'static str {
        S::CONTROLLER
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.sets);
        let sets = self.sets.clone();
        wakes.on(&self.pods, move |change| {
            let forms = change.old.iter().chain(&change.new);
            let mut keys: Vec<Key> = forms
                .filter_map(|pod| owners::controller_of::<Pod, S>(pod))
                .map(|owner| Key::new(&change.key.namespace, &owner.name))
                .collect();
            let free = change.new.as_ref().filter(|pod| crate::cache::controller_uid(pod.as_ref()).is_none());
            if let Some(pod) = free {
                let takers = sets.list_in(&change.key.namespace);
                let takers = takers.iter().filter(|s| s.selector().matches(pod.metadata.labels.as_ref()));
                keys.extend(takers.map(|s| Key::of(s.as_ref())));
            }
            keys.dedup();
            keys
        });
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let Some(set) = self.sets.at(key) else {
            self.writes.forget(key);
            return Ok(Requeue::Done);
        };
        if !self.writes.visible(key, &self.pods).await {
            return Ok(Requeue::After(STALE_PAUSE));
        }
        let now = Timestamp::now();
        let selector = set.selector();
        let uid = set.meta().uid.clone().unwrap_or_default();
        let mut free = owners::orphans(&self.pods, &key.namespace);
        free.retain(|pod| pods::is_active(pod));
        let claim = owners::claim(set.meta(), &selector, owners::owned(&self.pods, &uid), free);
        let mine = owners::settle(&self.client, set.as_ref(), claim).await?;
        let outcome =
            if set.meta().deletion_timestamp.is_none() { self.manage(key, &set, &mine, now).await } else { Ok(()) };
        let failure = match &outcome {
            Ok(()) => Failure::None,
            Err(Failed { reason, message }) => Failure::Because(reason, message),
        };
        let counts = plan::count(set.as_ref(), &mine, now);
        let mut told = set.as_ref().clone();
        told.tell(&counts, failure, now);
        if !told.same_status(&set) {
            let api: Api<S> = apply::api(&self.client, &key.namespace);
            apply::status(&api, set.as_ref(), |fresh| fresh.tell(&counts, failure, now)).await?;
        }
        if let Err(Failed { message, .. }) = outcome {
            anyhow::bail!("{message}");
        }
        Ok(counts.next_available.map_or(Requeue::Done, Requeue::After))
    }
}

/// Why pods could not be made or deleted.
struct Failed {
    reason: &'static str,
    message: String,
}

impl<S: Set> Sets<S> {
    async fn manage(&self, key: &Key, set: &S, mine: &[Arc<Pod>], now: Timestamp) -> Result<(), Failed> {
        let crowds = self.crowds(set, mine);
        let plan = plan::plan(set.replicas(), mine, &crowds, now);
        self.create(key, set, plan.create.min(BURST)).await?;
        let doomed = &plan.delete[..plan.delete.len().min(BURST)];
        let deletions = doomed.iter().map(|pod| self.delete_one(key, set, pod));
        futures::future::join_all(deletions).await.into_iter().collect()
    }

    /// Active pods per node of this set and of its siblings (other sets of the same owner): where pods crowd, one
    /// goes first (KEP-2185).
    fn crowds(&self, set: &S, mine: &[Arc<Pod>]) -> BTreeMap<String, usize> {
        let parent = crate::cache::controller_uid(set);
        let siblings = parent.map(|uid| owners::owned(&self.sets, uid)).unwrap_or_default();
        let others = siblings.iter().filter(|s| s.meta().uid != set.meta().uid);
        let others = others.flat_map(|s| owners::owned(&self.pods, s.meta().uid.as_deref().unwrap_or("")));
        let mut crowds = BTreeMap::new();
        for pod in others.chain(mine.iter().cloned()).filter(|pod| pods::is_active(pod)) {
            *crowds.entry(pods::node_name(&pod).unwrap_or("").to_owned()).or_insert(0) += 1;
        }
        crowds
    }

    /// Make pods in growing batches (1, 2, 4, …), so that what fails for all fails few times.
    async fn create(&self, key: &Key, set: &S, mut left: usize) -> Result<(), Failed> {
        let Some(template) = set.template() else { return Ok(()) };
        let pod = pods::from_template(set, template);
        let mut batch = 1;
        while left > 0 {
            let now = batch.min(left);
            let attempts = (0..now).map(|_| self.create_one(key, set, &pod));
            let outcomes = futures::future::join_all(attempts).await;
            outcomes.into_iter().collect::<Result<(), _>>()?;
            left -= now;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, key: &Key, set: &S, pod: &Pod) -> Result<(), Failed> {
        let api: Api<Pod> = apply::api(&self.client, &key.namespace);
        match api.create(&PostParams::default(), pod).await {
            Ok(made) => {
                self.writes.record(key, &made);
                let message = format!("Created pod: {}", made.metadata.name.as_deref().unwrap_or(""));
                self.recorder.event(&set.object_ref(&()), Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) if apply::is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = apply::message(&error);
                let told = format!("Error creating: {message}");
                self.recorder.event(&set.object_ref(&()), Warning, "FailedCreate", told);
                Err(Failed { reason: "FailedCreate", message })
            }
        }
    }

    async fn delete_one(&self, key: &Key, set: &S, pod: &Pod) -> Result<(), Failed> {
        let api: Api<Pod> = apply::api(&self.client, &key.namespace);
        let name = pod.metadata.name.as_deref().unwrap_or("");
        match apply::delete(&api, pod).await {
            Ok(()) => {
                let message = format!("Deleted pod: {name}");
                self.recorder.event(&set.object_ref(&()), Normal, "SuccessfulDelete", message);
                Ok(())
            }
            // The name belongs to another pod by now: ours is gone.
            Err(error) if apply::is_conflict(&error) => Ok(()),
            Err(error) => {
                let message = apply::message(&error);
                self.recorder.event(
                    &set.object_ref(&()),
                    Warning,
                    "FailedDelete",
                    format!("Error deleting: {message}"),
                );
                Err(Failed { reason: "FailedDelete", message })
            }
        }
    }
}
