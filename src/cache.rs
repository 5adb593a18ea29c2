//! One list+watch cache per kind for the whole process, many readers (DESIGN D5).
//!
//! A cache starts with its first reader and keeps itself current (relist on 410, backoff with jitter on errors).
//! Objects are shared (`Arc`); `metadata.managedFields` and the last-applied annotation are dropped to save memory.

use kube::Client;
use std::sync::Arc;

/// What a cache can hold: any k8s-openapi kind.
pub trait Cached:
    kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static
{
}
impl<K> Cached for K where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static
{
}

/// namespace (empty for cluster scope) and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// One change seen by a cache. `old` None: added; `new` None: deleted.
#[derive(Clone, Debug)]
pub struct Change<K> {
    pub key: Key,
    pub old: Option<Arc<K>>,
    pub new: Option<Arc<K>>,
}

/// What a subscriber gets.
#[derive(Clone, Debug)]
pub enum Notice<K> {
    Change(Change<K>),
    /// Changes were missed (slow reader, relist): look at everything again.
    Resync,
}

/// All caches of one process.
pub struct Caches {
    client: Client,
}

impl Caches {
    pub fn new(client: Client, _group: crate::task::Group) -> Arc<Self> {
        Arc::new(Caches { client })
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The cache of a kind, started on first use.
    pub fn of<K: Cached>(self: &Arc<Self>) -> Cache<K> {
        todo!()
    }

    /// The cache of one kind restricted to a field selector (an agent's own pods: `spec.nodeName=x`); one per
    /// (kind, selector).
    pub fn selected<K: Cached>(self: &Arc<Self>, _field_selector: &str) -> Cache<K> {
        todo!()
    }
}

/// A shared view of one kind. Cheap to clone.
pub struct Cache<K: Cached> {
    _marker: std::marker::PhantomData<K>,
}

impl<K: Cached> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Cache { _marker: std::marker::PhantomData }
    }
}

impl<K: Cached> Cache<K> {
    /// Resolves after the first complete list.
    pub async fn synced(&self) {
        todo!()
    }

    pub fn get(&self, _namespace: &str, _name: &str) -> Option<Arc<K>> {
        todo!()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        todo!()
    }

    pub fn list_in(&self, _namespace: &str) -> Vec<Arc<K>> {
        todo!()
    }

    /// Changes from now on. The caller lists first, or treats every key as changed.
    pub fn subscribe(&self) -> Changes<K> {
        todo!()
    }
}

/// A subscription; bounded, a slow reader gets [`Notice::Resync`].
pub struct Changes<K: Cached> {
    _marker: std::marker::PhantomData<K>,
}

impl<K: Cached> Changes<K> {
    /// The next notice; None when the process stops.
    pub async fn next(&mut self) -> Option<Notice<K>> {
        todo!()
    }
}
