//! ReplicaSets and ReplicationControllers: as many pods as asked for. One controller, generic over the kind.

mod plan;
mod replicaset;
mod replicationcontroller;

use super::apply::{self, Writable};
use super::driver::{Controller, Requeue, Wakes};
use super::labels::Selector;
use super::pod_control::{Failed, PodControl};
use super::writes::STALE_PAUSE;
use super::{Context, owners, pods};
use crate::cache::{Cache, Key};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
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
    control: PodControl,
    sets: Cache<S>,
    pods: Cache<Pod>,
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
            control: PodControl::new(context),
            sets: context.caches.of(),
            pods: context.caches.of(),
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
            self.control.writes.forget(key);
            return Ok(Requeue::Done);
        };
        if !self.control.writes.visible(key, &self.pods).await {
            return Ok(Requeue::After(STALE_PAUSE));
        }
        let now = crate::time::now();
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

impl<S: Set> Sets<S> {
    async fn manage(&self, key: &Key, set: &S, mine: &[Arc<Pod>], now: Timestamp) -> Result<(), Failed> {
        let crowds = self.crowds(set, mine);
        let plan = plan::plan(set.replicas(), mine, &crowds, now);
        if let Some(template) = set.template() {
            let pod = pods::from_template(set, template);
            self.control.create_all(key, set, &vec![pod; plan.create.min(BURST)]).await?;
        }
        self.control.delete_all(key, set, plan.delete.iter().take(BURST).map(AsRef::as_ref)).await
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
}
