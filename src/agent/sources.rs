//! ConfigMaps and Secrets that this node's pods use: one watch an object, alive as long as a pod needs it.
//!
//! Not a cache of all: the Node authorizer lets a node read single objects of its own pods only, and a node should
//! hold no more than that. What was seen last is kept for a start without the server.

use super::trust_bundles::TrustBundles;
use crate::cache::{Cached, Caches};
use crate::kept::{Book, PATIENCE, Vault};
use crate::task::Group;
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long a pod's step waits for an object's first answer; then it fails and is tried again.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// What is known of an object.
#[derive(Debug)]
pub enum Known<K> {
    Nothing,
    Missing,
    Here(Arc<K>),
    /// The last try failed.
    Failed(String),
}

impl<K> Clone for Known<K> {
    fn clone(&self) -> Self {
        match self {
            Known::Nothing => Known::Nothing,
            Known::Missing => Known::Missing,
            Known::Here(object) => Known::Here(object.clone()),
            Known::Failed(why) => Known::Failed(why.clone()),
        }
    }
}

/// One watched object; the watch ends with the last handle.
pub struct Handle<K: Cached> {
    value: watch::Receiver<Known<K>>,
    watch: Arc<Watch<K>>,
}

impl<K: Cached> Clone for Handle<K> {
    fn clone(&self) -> Self {
        Handle { value: self.value.clone(), watch: self.watch.clone() }
    }
}

struct Watch<K> {
    value: watch::Sender<Known<K>>,
    group: Group,
    /// Pods to wake when it changes.
    wakes: Mutex<Vec<Weak<Notify>>>,
    changes: AtomicU64,
}

impl<K> Watch<K> {
    fn set(&self, known: Known<K>) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.value.send_replace(known);
        self.wakes.lock().retain(|wake| wake.upgrade().map(|wake| wake.notify_one()).is_some());
    }
}

impl<K> Drop for Watch<K> {
    fn drop(&mut self) {
        self.group.cancel();
    }
}

impl<K: Cached> Handle<K> {
    /// How often the object has changed since it is watched.
    pub fn changes(&self) -> u64 {
        self.watch.changes.load(Ordering::Relaxed)
    }

    /// The object, waiting for the first answer. None: it does not exist.
    pub async fn get(&self) -> anyhow::Result<Option<Arc<K>>> {
        let mut value = self.value.clone();
        let answered = value.wait_for(|known| !matches!(known, Known::Nothing));
        match tokio::time::timeout(FIRST_ANSWER, answered).await {
            Ok(Ok(known)) => match &*known {
                Known::Here(object) => Ok(Some(object.clone())),
                Known::Failed(why) => anyhow::bail!("{why}"),
                _ => Ok(None),
            },
            // Upstream's words for the same.
            _ => anyhow::bail!(
                "failed to sync {} cache: timed out waiting for the condition",
                K::kind(&()).to_lowercase()
            ),
        }
    }
}

/// Changes of objects are kept after this time at the latest.
const KEEP_LAZILY: Duration = Duration::from_secs(10);

/// The watched objects of one kind, by `namespace/name`.
struct Table<K> {
    watched: Mutex<HashMap<String, Weak<Watch<K>>>>,
    kept: Book<K>,
}

impl<K: Cached> Table<K> {
    fn new(vault: Option<Arc<Vault>>, name: &'static str, group: &Group) -> Self {
        Table { watched: Mutex::default(), kept: Book::open(vault, name, KEEP_LAZILY, group) }
    }

    fn forget_unused(&self) {
        let watched = self.watched.lock();
        self.kept.retain(|key| watched.get(key).is_some_and(|watch| watch.strong_count() > 0));
    }
}

/// All watched objects.
pub struct Sources {
    client: Client,
    group: Group,
    config_maps: Table<ConfigMap>,
    secrets: Table<Secret>,
    pub trust_bundles: TrustBundles,
}

impl Sources {
    pub fn new(client: Client, caches: Arc<Caches>, group: Group) -> Self {
        let config_maps = Table::new(caches.vault(), "configmaps", &group);
        let secrets = Table::new(caches.vault(), "secrets", &group);
        Sources { client, config_maps, secrets, trust_bundles: TrustBundles::new(caches, group.clone()), group }
    }

    /// Keep only what pods use now.
    pub fn forget_unused(&self) {
        self.config_maps.forget_unused();
        self.secrets.forget_unused();
    }

    /// A ConfigMap from now on; `wake` is notified when it changes.
    pub fn config_map(&self, namespace: &str, name: &str, wake: &Arc<Notify>) -> Handle<ConfigMap> {
        self.handle(&self.config_maps, namespace, name, wake)
    }

    /// A Secret from now on; `wake` is notified when it changes.
    pub fn secret(&self, namespace: &str, name: &str, wake: &Arc<Notify>) -> Handle<Secret> {
        self.handle(&self.secrets, namespace, name, wake)
    }

    fn handle<K>(&self, table: &Table<K>, namespace: &str, name: &str, wake: &Arc<Notify>) -> Handle<K>
    where
        K: Cached + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let key = format!("{namespace}/{name}");
        let mut watched = table.watched.lock();
        watched.retain(|_, watch| watch.strong_count() > 0);
        if let Some(watch) = watched.get(&key).and_then(Weak::upgrade) {
            watch.wakes.lock().push(Arc::downgrade(wake));
            return Handle { value: watch.value.subscribe(), watch };
        }
        let watch = Arc::new(Watch {
            value: watch::Sender::new(Known::Nothing),
            group: self.group.child(),
            wakes: Mutex::new(vec![Arc::downgrade(wake)]),
            changes: AtomicU64::new(0),
        });
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let place = Place { key: key.clone(), to: Arc::downgrade(&watch), kept: table.kept.clone() };
        watch.group.spawn("watch object", follow(api, name.to_owned(), place));
        watched.insert(key, Arc::downgrade(&watch));
        Handle { value: watch.value.subscribe(), watch }
    }
}

/// Where what is known of one object goes.
struct Place<K> {
    key: String,
    to: Weak<Watch<K>>,
    kept: Book<K>,
}

impl<K: Cached> Place<K> {
    /// The server's word. False: nobody needs it any more.
    fn set(&self, known: Known<K>) -> bool {
        let Some(watch) = self.to.upgrade() else { return false };
        match &known {
            Known::Here(object) => self.kept.put(&self.key, object.clone()),
            _ => self.kept.remove(&self.key),
        }
        watch.set(known);
        true
    }

    /// The server does not answer: what is known stays good, at first what was kept. False: nobody needs it any more.
    fn without_server(&self, why: &str) -> bool {
        let Some(watch) = self.to.upgrade() else { return false };
        if matches!(*watch.value.borrow(), Known::Nothing | Known::Failed(_)) {
            watch.set(self.kept.get(&self.key).map_or_else(|| Known::Failed(why.to_owned()), Known::Here));
        }
        true
    }
}

/// Keep one object current until nobody needs it.
async fn follow<K: Cached>(api: Api<K>, name: String, place: Place<K>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut found = false;
    let mut patience = std::pin::pin!(tokio::time::sleep(PATIENCE));
    let mut waits = place.kept.get(&place.key).is_some();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = &mut patience, if waits => {
                waits = false;
                place.without_server("no answer");
                continue;
            }
        };
        let needed = match event {
            None => return,
            Some(Ok(watcher::Event::Init)) => {
                found = false;
                true
            }
            Some(Ok(watcher::Event::InitApply(object))) => {
                found = true;
                place.set(Known::Here(Arc::new(crate::cache::trimmed(object))))
            }
            Some(Ok(watcher::Event::Apply(object))) => place.set(Known::Here(Arc::new(crate::cache::trimmed(object)))),
            Some(Ok(watcher::Event::InitDone)) if found => true,
            Some(Ok(watcher::Event::InitDone | watcher::Event::Delete(_))) => place.set(Known::Missing),
            Some(Err(error)) => place.without_server(&error.to_string()),
        };
        if !needed {
            return;
        }
    }
}
