//! One list+watch cache per kind for the whole process, many readers (DESIGN D5).
//!
//! A cache starts with its first reader and keeps itself current: a paginated list, then a watch from the list's
//! revision; a new list on 410, retries with backoff and jitter on errors. Objects are shared (`Arc`);
//! `metadata.managedFields` and the last-applied annotation are dropped to save memory, so an object from here must
//! never be sent back whole: write with patches.
//!
//! On an agent, what caches hold is kept on disk, and fills them when the server does not answer ([`recall`]).

mod changes;
mod follow;
mod lenient;
mod recall;

pub use changes::Changes;
pub use follow::{Followed, Sink, follow};

use crate::kept::Vault;
use crate::task::Group;
use changes::Mailbox;
use kube::{Api, Client};
use parking_lot::{Mutex, RwLock};
use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use tokio::sync::{Notify, watch};

/// What `kubectl apply` leaves on every object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What a cache can hold: any k8s-openapi kind.
pub trait Cached: kube::Resource<DynamicType = ()> + Followed + serde::Serialize + Sync {}
impl<K> Cached for K where K: kube::Resource<DynamicType = ()> + Followed + serde::Serialize + Sync {}

/// namespace (empty for cluster scope) and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of<K: kube::Resource>(object: &K) -> Self {
        let meta = object.meta();
        Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// One change seen by a cache. `old` None: added; `new` None: deleted.
#[derive(Clone, Debug)]
pub struct Change<K> {
    pub key: Key,
    pub old: Option<Arc<K>>,
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The newest form of the object that is known.
    pub fn latest(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

/// What a subscriber gets.
#[derive(Clone, Debug)]
pub enum Notice<K> {
    Change(Change<K>),
    /// Changes were missed (slow reader, relist): look at everything again.
    Resync,
}

/// A way to find objects by something else than their key. `name` is unique within the kind.
pub struct Index<K> {
    pub name: &'static str,
    pub values: fn(&K) -> Vec<String>,
}

/// Objects by the UID of their controlling owner.
pub fn by_controller<K: Cached>() -> Index<K> {
    Index { name: "controller-uid", values: |object| controller_uid(object).map(str::to_owned).into_iter().collect() }
}

/// UID of the owner reference with `controller: true`.
pub fn controller_uid<K: kube::Resource>(object: &K) -> Option<&str> {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|o| o.controller == Some(true)).map(|o| o.uid.as_str())
}

/// All caches of one process.
pub struct Caches {
    client: Client,
    group: Group,
    /// Where what is known is kept; None: the server is in this process.
    vault: Option<Arc<Vault>>,
    running: Mutex<HashMap<(TypeId, String), Box<dyn Any + Send + Sync>>>,
}

impl Caches {
    pub fn new(client: Client, group: Group) -> Arc<Self> {
        Arc::new(Caches { client, group, vault: None, running: Mutex::default() })
    }

    /// Caches that are kept in `vault`, for a start without the server.
    pub fn kept(client: Client, vault: Arc<Vault>, group: Group) -> Arc<Self> {
        Arc::new(Caches { client, group, vault: Some(vault), running: Mutex::default() })
    }

    pub fn vault(&self) -> Option<Arc<Vault>> {
        self.vault.clone()
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The cache of a kind, started on first use.
    pub fn of<K: Cached>(self: &Arc<Self>) -> Cache<K> {
        self.selected("")
    }

    /// The cache of one kind restricted to a field selector (an agent's own pods: `spec.nodeName=x`); one per
    /// (kind, selector).
    pub fn selected<K: Cached>(self: &Arc<Self>, field_selector: &str) -> Cache<K> {
        let mut running = self.running.lock();
        let id = (TypeId::of::<K>(), field_selector.to_owned());
        if let Some(cache) = running.get(&id).and_then(|c| c.downcast_ref::<Cache<K>>()) {
            return cache.clone();
        }
        let cache = Cache::<K>::unfilled(self.group.clone());
        let api = Api::all(self.client.clone());
        let (filler, selector) = (Filler { cache: cache.clone(), found: BTreeMap::new() }, field_selector.to_owned());
        if let Some(vault) = self.vault.clone() {
            let (cache, name) = (cache.clone(), recall::name::<K>(field_selector));
            self.group.spawn_graceful("kept cache", recall::keep(cache, vault, name, self.group.clone()));
        }
        self.group.spawn("cache", async move { follow(api, &K::kind(&()), &selector, filler).await });
        running.insert(id, Box::new(cache.clone()));
        cache
    }
}

/// A shared view of one kind. Cheap to clone.
pub struct Cache<K: Cached> {
    shared: Arc<Shared<K>>,
}

struct Shared<K: Cached> {
    state: RwLock<State<K>>,
    /// Latest revision seen; 0 until the first list is complete.
    revision: watch::Sender<u64>,
    /// A complete list has come from the server.
    live: watch::Sender<bool>,
    /// Something has changed since this was last looked at.
    touched: Notify,
    group: Group,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    indexes: HashMap<&'static str, Indexed<K>>,
    subscribers: Vec<Weak<Mailbox<K>>>,
}

struct Indexed<K> {
    values: fn(&K) -> Vec<String>,
    keys: HashMap<String, BTreeSet<Key>>,
}

impl<K> Indexed<K> {
    fn remove(&mut self, key: &Key, object: &K) {
        for value in (self.values)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }

    fn insert(&mut self, key: &Key, object: &K) {
        for value in (self.values)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }
}

impl<K> State<K> {
    /// Put or remove one object and tell the subscribers.
    fn set(&mut self, key: Key, new: Option<Arc<K>>) {
        let old = match &new {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(&key),
        };
        if old.is_none() && new.is_none() {
            return;
        }
        for index in self.indexes.values_mut() {
            old.iter().for_each(|o| index.remove(&key, o));
            new.iter().for_each(|n| index.insert(&key, n));
        }
        let change = Change { key, old, new };
        self.subscribers.retain(|s| s.upgrade().map(|mailbox| mailbox.push(&change)).is_some());
    }
}

impl<K: Cached> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Cache { shared: self.shared.clone() }
    }
}

impl<K: Cached> Cache<K> {
    fn unfilled(group: Group) -> Self {
        let state = State { objects: BTreeMap::new(), indexes: HashMap::new(), subscribers: Vec::new() };
        let (revision, live) = (watch::Sender::new(0), watch::Sender::new(false));
        Cache { shared: Arc::new(Shared { state: RwLock::new(state), revision, live, touched: Notify::new(), group }) }
    }

    /// A cache with fixed contents at revision 1, for tests of what reads caches.
    #[cfg(test)]
    pub fn fixed(objects: impl IntoIterator<Item = K>) -> Self {
        let cache = Self::unfilled(Group::root());
        cache.replace(objects.into_iter().map(|o| (Key::of(&o), Arc::new(o))).collect(), 1);
        cache
    }

    /// Resolves after the first complete list, or when the cache was filled with what was kept.
    pub async fn synced(&self) {
        self.reached(1).await;
    }

    /// Resolves after the first complete list from the server.
    pub async fn live(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.shared.live.subscribe().wait_for(|live| *live).await;
    }

    pub fn is_live(&self) -> bool {
        *self.shared.live.borrow()
    }

    pub fn is_synced(&self) -> bool {
        self.revision() > 0
    }

    /// The latest revision this cache has seen, 0 before the first complete list. A write whose answer carries a
    /// `resourceVersion` not above it is visible here.
    pub fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    /// Resolves when [`Cache::revision`] is at least `revision`.
    pub async fn reached(&self, revision: u64) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.shared.revision.subscribe().wait_for(|r| *r >= revision).await;
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.at(&Key::new(namespace, name))
    }

    pub fn at(&self, key: &Key) -> Option<Arc<K>> {
        self.shared.state.read().objects.get(key).cloned()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.state.read().objects.values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.shared.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        let range = state.objects.range(Key::new(namespace, "")..);
        range.take_while(|(key, _)| key.namespace == namespace).map(|(_, object)| object.clone()).collect()
    }

    /// Objects that `index` files under `value`, in key order. The index is built at its first use.
    pub fn by(&self, index: &Index<K>, value: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        if let Some(indexed) = state.indexes.get(index.name) {
            let keys = indexed.keys.get(value).into_iter().flatten();
            return keys.filter_map(|key| state.objects.get(key).cloned()).collect();
        }
        drop(state);
        self.build(index);
        self.by(index, value)
    }

    fn build(&self, index: &Index<K>) {
        let mut state = self.shared.state.write();
        let mut indexed = Indexed { values: index.values, keys: HashMap::new() };
        state.objects.iter().for_each(|(key, object)| indexed.insert(key, object));
        state.indexes.entry(index.name).or_insert(indexed);
    }

    /// Changes from now on. The caller lists first, or treats every key as changed.
    pub fn subscribe(&self) -> Changes<K> {
        let mailbox = Arc::new(Mailbox::default());
        self.shared.state.write().subscribers.push(Arc::downgrade(&mailbox));
        Changes { mailbox, group: self.shared.group.clone() }
    }

    /// The outcome of a complete list: what differs is told as changes.
    fn replace(&self, mut listed: BTreeMap<Key, Arc<K>>, revision: u64) {
        let mut state = self.shared.state.write();
        let gone: Vec<Key> = state.objects.keys().filter(|key| !listed.contains_key(key)).cloned().collect();
        gone.into_iter().for_each(|key| state.set(key, None));
        listed.retain(|key, object| state.objects.get(key).is_none_or(|held| !Arc::ptr_eq(held, object)));
        listed.into_iter().for_each(|(key, object)| state.set(key, Some(object)));
        self.shared.live.send_replace(true);
        drop(state);
        self.shared.touched.notify_one();
        self.saw(revision);
    }

    fn put(&self, key: Key, object: Option<Arc<K>>) {
        self.shared.state.write().set(key, object);
        self.shared.touched.notify_one();
    }

    fn saw(&self, revision: u64) {
        self.shared.revision.send_if_modified(|r| std::mem::replace(r, revision.max(*r)) < revision);
    }

    /// The object held already, if it is the same version: relists then allocate nothing that stays.
    fn share(&self, key: &Key, object: K) -> Arc<K> {
        let version = &object.meta().resource_version;
        match self.at(key) {
            Some(held) if version.is_some() && held.meta().resource_version == *version => held,
            _ => Arc::new(trimmed(object)),
        }
    }
}

/// Without the parts that no reader wants.
pub fn trimmed<K: kube::Resource>(mut object: K) -> K {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
    object
}

/// A revision as a number; resource versions are comparable integers (KEP-5504).
pub fn revision(resource_version: Option<&str>) -> u64 {
    resource_version.and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// The sink behind a cache.
struct Filler<K: Cached> {
    cache: Cache<K>,
    found: BTreeMap<Key, Arc<K>>,
}

impl<K: Cached> Sink<K> for Filler<K> {
    fn found(&mut self, object: K) {
        let key = Key::of(&object);
        let object = self.cache.share(&key, object);
        self.found.insert(key, object);
    }

    fn unreadable(&mut self, key: Key) {
        self.found.extend(self.cache.at(&key).map(|held| (key, held)));
    }

    fn listed(&mut self, revision: u64) {
        self.cache.replace(std::mem::take(&mut self.found), revision);
    }

    fn abandoned(&mut self) {
        self.found = BTreeMap::new();
    }

    fn changed(&mut self, object: K) {
        self.cache.put(Key::of(&object), Some(Arc::new(trimmed(object))));
    }

    fn removed(&mut self, object: K) {
        self.cache.put(Key::of(&object), None);
    }

    fn reached(&mut self, revision: u64) {
        self.cache.saw(revision);
    }
}

#[cfg(test)]
mod tests;
