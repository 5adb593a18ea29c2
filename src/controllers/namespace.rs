//! Namespaces that are being deleted: their contents go first, found by discovery, pods before everything else
//! (KEP-5080); then the `kubernetes` finalizer. The conditions say what is in the way.

use super::conditions::{self, Condition};
use super::driver::{Controller, Requeue, Wakes};
use super::kinds::{self, Kinds, Served};
use super::{Context, apply};
use crate::cache::{Cache, Key};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::time::Duration;

const FINALIZER: &str = "kubernetes";
/// When to look again while something remains; deletions of pods take their grace period.
const POLL: Duration = Duration::from_secs(2);
/// Objects per page of a list of what remains.
const PAGE: u32 = 500;

struct Namespaces {
    client: Client,
    namespaces: Cache<Namespace>,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(Namespaces { client: context.client.clone(), namespaces: context.caches.of() })
}

/// Is the namespace there and not being deleted?
pub fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}

#[async_trait]
impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.namespaces);
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let Some(namespace) = self.namespaces.at(key).filter(|n| n.metadata.deletion_timestamp.is_some()) else {
            return Ok(Requeue::Done);
        };
        let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.clone()).unwrap_or_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            return Ok(Requeue::Done);
        }
        let left = match kinds::discover(&self.client).await {
            Ok(kinds) => self.empty(&key.name, kinds).await,
            Err(error) => Left { discovery: Some(apply::message(&error)), ..Default::default() },
        };
        self.tell(&key.name, &left).await?;
        if !left.is_clear() {
            return Ok(Requeue::After(POLL));
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let mut fresh = match api.get(&key.name).await {
            Err(error) if apply::is_not_found(&error) => return Ok(Requeue::Done),
            fresh => fresh?,
        };
        anyhow::ensure!(fresh.metadata.uid == namespace.metadata.uid, "the namespace was replaced");
        fresh.spec.get_or_insert_default().finalizers.get_or_insert_default().retain(|f| f != FINALIZER);
        let done = api.replace_subresource::<Namespace>("finalize", &key.name, &PostParams::default(), &fresh).await;
        match done {
            Err(error) if !apply::is_not_found(&error) => Err(error.into()),
            _ => Ok(Requeue::Done),
        }
    }
}

/// What keeps a namespace from going.
#[derive(Debug, Default, PartialEq)]
struct Left {
    /// Why discovery failed, or did not cover everything.
    discovery: Option<String>,
    /// Why deleting failed.
    content: Option<String>,
    /// Objects by resource.
    resources: BTreeMap<String, usize>,
    /// Objects by finalizer.
    finalizers: BTreeMap<String, usize>,
}

impl Left {
    fn is_clear(&self) -> bool {
        self.discovery.is_none() && self.content.is_none() && self.resources.is_empty()
    }
}

impl Namespaces {
    async fn empty(&self, namespace: &str, kinds: Kinds) -> Left {
        let mut left = Left::default();
        if !kinds.complete {
            left.discovery = Some("some groups could not be discovered".to_owned());
        }
        let deletable = |s: &Served| s.namespaced && s.can("delete") && s.can("list");
        let (pods, others): (Vec<_>, Vec<_>) =
            kinds.served.into_iter().filter(deletable).partition(|s| s.qualified() == "pods");
        for served in &pods {
            self.empty_of(namespace, served, &mut left).await;
        }
        if left.is_clear() || left.resources.is_empty() {
            for served in &others {
                self.empty_of(namespace, served, &mut left).await;
            }
        }
        left
    }

    /// Delete all objects of one resource and note what remains.
    async fn empty_of(&self, namespace: &str, served: &Served, left: &mut Left) {
        if let Err(error) = self.try_empty_of(namespace, served, left).await {
            let said = format!("{}: {}", served.qualified(), apply::message(&error));
            left.content.get_or_insert(said);
        }
    }

    async fn try_empty_of(&self, namespace: &str, served: &Served, left: &mut Left) -> kube::Result<()> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &served.resource);
        let found = remaining(&api).await?;
        if found.is_empty() {
            return Ok(());
        }
        let params = DeleteParams::background();
        if served.can("deletecollection") {
            api.delete_collection(&params, &ListParams::default()).await?;
        } else {
            for object in found.iter().filter_map(|o| o.metadata.name.as_deref()) {
                match api.delete(object, &params).await {
                    Err(error) if !apply::is_not_found(&error) => return Err(error),
                    _ => {}
                }
            }
        }
        for object in remaining(&api).await? {
            *left.resources.entry(served.qualified()).or_insert(0) += 1;
            for finalizer in object.metadata.finalizers.unwrap_or_default() {
                *left.finalizers.entry(finalizer).or_insert(0) += 1;
            }
        }
        Ok(())
    }

    async fn tell(&self, name: &str, left: &Left) -> anyhow::Result<()> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let mut fresh = match api.get(name).await {
            Err(error) if apply::is_not_found(&error) => return Ok(()),
            fresh => fresh?,
        };
        let before = fresh.status.clone();
        describe(fresh.status.get_or_insert_default(), left, crate::time::now());
        if fresh.status != before {
            api.replace_status(name, &PostParams::default(), &fresh).await?;
        }
        Ok(())
    }
}

async fn remaining(api: &Api<DynamicObject>) -> kube::Result<Vec<PartialObjectMeta<DynamicObject>>> {
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = api.list_metadata(&params).await?;
        found.extend(page.items);
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(found);
        }
    }
}

/// The five conditions of a namespace under deletion, with upstream's reasons and texts.
fn describe(status: &mut NamespaceStatus, left: &Left, now: Timestamp) {
    status.phase = Some("Terminating".into());
    let list = |counts: &BTreeMap<String, usize>, each: fn(&str, usize) -> String| {
        counts.iter().map(|(name, count)| each(name, *count)).collect::<Vec<_>>().join(", ")
    };
    let resources = list(&left.resources, |name, count| {
        let (plural, group) = name.split_once('.').unwrap_or((name, ""));
        format!("{plural}.{group} has {count} resource instances")
    });
    let finalizers = list(&left.finalizers, |name, count| format!("{name} in {count} resource instances"));
    let remaining = (!left.resources.is_empty()).then(|| format!("Some resources are remaining: {resources}"));
    let held = (!left.finalizers.is_empty())
        .then(|| format!("Some content in the namespace has finalizers remaining: {finalizers}"));
    let discovery = left.discovery.clone().map(|e| format!("Discovery failed for some groups: {e}"));
    let content = left.content.clone().map(|e| format!("Failed to delete all resource types: {e}"));
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            discovery,
            "DiscoveryFailed",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "GroupVersionParsingFailed",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            content,
            "ContentDeletionFailed",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            remaining,
            "SomeResourcesRemain",
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            held,
            "SomeFinalizersRemain",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ];
    for (kind, problem, bad, good, fine) in rows {
        let condition = match problem {
            Some(message) => NamespaceCondition::new(kind, "True", bad, &message, now),
            None => NamespaceCondition::new(kind, "False", good, fine, now),
        };
        conditions::set(&mut status.conditions, condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_is_in_the_way() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut status = NamespaceStatus::default();
        let left = Left {
            resources: [("pods".to_owned(), 2), ("widgets.example.com".to_owned(), 1)].into(),
            finalizers: [("example.com/keep".to_owned(), 1)].into(),
            ..Default::default()
        };
        describe(&mut status, &left, now);
        let message = |status: &NamespaceStatus, kind: &str| {
            let condition = conditions::get(&status.conditions, kind).unwrap();
            format!("{} {}", condition.status, condition.message.as_deref().unwrap())
        };
        let expected = "True Some resources are remaining: pods. has 2 resource instances, \
                        widgets.example.com has 1 resource instances";
        assert_eq!(message(&status, "NamespaceContentRemaining"), expected);
        let expected =
            "True Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances";
        assert_eq!(message(&status, "NamespaceFinalizersRemaining"), expected);
        describe(&mut status, &Left::default(), now);
        assert_eq!(message(&status, "NamespaceContentRemaining"), "False All content successfully removed");
        assert_eq!(status.conditions.as_ref().unwrap().len(), 5);
        assert_eq!(status.phase.as_deref(), Some("Terminating"));
    }
}
