//! Claims that pods use and volumes that claims are bound to are not deleted under them: admission gives each a
//! finalizer, and these two controllers take it away when the object is to go and nobody uses it.

use super::driver::{Controller, Requeue, Wakes};
use super::{Context, apply, pods};
use crate::cache::{Cache, Cached, Change, Key};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use std::collections::BTreeSet;
use std::sync::Arc;

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

struct Claims {
    client: Client,
    claims: Cache<PersistentVolumeClaim>,
    pods: Cache<Pod>,
}

pub fn claims(context: &Context) -> Box<dyn Controller> {
    let caches = &context.caches;
    Box::new(Claims { client: context.client.clone(), claims: caches.of(), pods: caches.of() })
}

#[async_trait]
impl Controller for Claims {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-protection-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.claims);
        wakes.on(&self.pods, released);
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let Some(claim) = self.claims.at(key).filter(|claim| is_held(claim.as_ref(), CLAIM_FINALIZER)) else {
            return Ok(Requeue::Done);
        };
        let uses = |pod: &Pod| pods::node_name(pod).is_some() && claims_of(pod).contains(&key.name);
        if self.pods.list_in(&key.namespace).iter().any(|pod| uses(pod)) {
            return Ok(Requeue::Done);
        }
        // The cache may not show the latest binding yet: the last word is the server's.
        let live: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        if live.list(&ListParams::default()).await?.items.iter().any(uses) {
            return Ok(Requeue::Done);
        }
        let api = Api::namespaced(self.client.clone(), &key.namespace);
        release(&api, claim, CLAIM_FINALIZER).await
    }
}

/// Claims that a pod may have stopped using with this change.
fn released(change: &Change<Pod>) -> Vec<Key> {
    let claims = change.old.iter().filter(|_| change.new.as_ref().is_none_or(|pod| pods::is_finished(pod)));
    claims.flat_map(|pod| claims_of(pod)).map(|name| Key::new(&*change.key.namespace, name)).collect()
}

/// Names of the claims that a pod mounts. What has ended mounts nothing.
fn claims_of(pod: &Pod) -> BTreeSet<String> {
    if pods::is_finished(pod) {
        return BTreeSet::new();
    }
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let claim = |volume: &Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        // Its claim is named after pod and volume.
        (None, Some(_)) => Some(format!("{name}-{}", volume.name)),
        (None, None) => None,
    };
    volumes.filter_map(claim).collect()
}

struct Volumes {
    client: Client,
    volumes: Cache<PersistentVolume>,
}

pub fn volumes(context: &Context) -> Box<dyn Controller> {
    Box::new(Volumes { client: context.client.clone(), volumes: context.caches.of() })
}

#[async_trait]
impl Controller for Volumes {
    fn name(&self) -> &'static str {
        "persistentvolume-protection-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.volumes);
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let bound =
            |volume: &PersistentVolume| volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        match self.volumes.at(key).filter(|volume| is_held(volume.as_ref(), VOLUME_FINALIZER)) {
            Some(volume) if !bound(&volume) => release(&Api::all(self.client.clone()), volume, VOLUME_FINALIZER).await,
            _ => Ok(Requeue::Done),
        }
    }
}

/// To be deleted, and waiting for `finalizer`.
fn is_held<K: kube::Resource>(object: &K, finalizer: &str) -> bool {
    let meta = object.meta();
    meta.deletion_timestamp.is_some() && meta.finalizers.iter().flatten().any(|f| f == finalizer)
}

/// Take the finalizer away from the state that was looked at, and from no newer one.
async fn release<K: Cached + serde::Serialize>(api: &Api<K>, held: Arc<K>, finalizer: &str) -> anyhow::Result<Requeue> {
    let name = held.meta().name.clone().unwrap_or_default();
    // Caches do not hold whole objects, so what is written back is read first.
    let Some(mut object) = api.get_opt(&name).await? else { return Ok(Requeue::Done) };
    anyhow::ensure!(object.meta().uid == held.meta().uid, "{name} is another object by now");
    object.meta_mut().finalizers.get_or_insert_default().retain(|f| f != finalizer);
    match api.replace(&name, &PostParams::default(), &object).await {
        Err(error) if !apply::is_not_found(&error) => Err(error.into()),
        _ => Ok(Requeue::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(edit: impl FnOnce(&mut Value)) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [], "volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "b", "ephemeral": {}},
            {"name": "d", "emptyDir": {}}]}});
        edit(&mut pod);
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn claims_of_running_pods_only() {
        assert_eq!(claims_of(&pod(|_| ())).into_iter().collect::<Vec<_>>(), ["c", "p-b"]);
        assert!(claims_of(&pod(|pod| pod["status"] = json!({"phase": "Succeeded"}))).is_empty());
    }

    #[test]
    fn the_end_of_a_pod_releases_its_claims() {
        let key = Key::new("ns", "p");
        let running = pod(|_| ());
        let ended = pod(|pod| pod["status"] = json!({"phase": "Failed"}));
        let names = |old: &Arc<Pod>, new: Option<&Arc<Pod>>| {
            let change = Change { key: key.clone(), old: Some(old.clone()), new: new.cloned() };
            released(&change).into_iter().map(|key| key.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&running, None), ["ns/c", "ns/p-b"]);
        assert_eq!(names(&running, Some(&ended)), ["ns/c", "ns/p-b"]);
        assert!(names(&running, Some(&running)).is_empty());
    }
}
