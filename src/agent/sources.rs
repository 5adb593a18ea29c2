//! ConfigMaps and Secrets that this node's pods use: one watch an object, alive as long as a pod needs it.
//!
//! Not a cache of all: the Node authorizer lets a node read single objects of its own pods only, and a node should
//! hold no more than that.

use super::trust_bundles::TrustBundles;
use crate::cache::{Cached, Caches};
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

type Table<K> = Mutex<HashMap<(String, String), Weak<Watch<K>>>>;

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
        let trust_bundles = TrustBundles::new(caches, group.clone());
        Sources { client, group, config_maps: Mutex::default(), secrets: Mutex::default(), trust_bundles }
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
        let key = (namespace.to_owned(), name.to_owned());
        let mut table = table.lock();
        table.retain(|_, watch| watch.strong_count() > 0);
        if let Some(watch) = table.get(&key).and_then(Weak::upgrade) {
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
        watch.group.spawn("watch object", follow(api, name.to_owned(), Arc::downgrade(&watch)));
        table.insert(key, Arc::downgrade(&watch));
        Handle { value: watch.value.subscribe(), watch }
    }
}

/// Keep one object current until nobody needs it.
async fn follow<K: Cached>(api: Api<K>, name: String, to: Weak<Watch<K>>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut found = false;
    while let Some(event) = events.next().await {
        let known = match event {
            Ok(watcher::Event::Init) => {
                found = false;
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                found = true;
                Known::Here(Arc::new(object))
            }
            Ok(watcher::Event::Apply(object)) => Known::Here(Arc::new(object)),
            Ok(watcher::Event::InitDone) if found => continue,
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => Known::Missing,
            Err(error) => {
                let Some(watch) = to.upgrade() else { return };
                // What is known stays good while the server is away.
                let first = matches!(*watch.value.borrow(), Known::Nothing | Known::Failed(_));
                if first {
                    watch.set(Known::Failed(error.to_string()));
                }
                continue;
            }
        };
        let Some(watch) = to.upgrade() else { return };
        watch.set(known);
    }
}
