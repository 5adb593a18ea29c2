//! The ConfigMaps, Secrets and trust bundles of one pod: each watched from its first use to the pod's end; a change
//! wakes the pod.

use crate::agent::sources::{Handle, Sources};
use k8s_openapi::api::core::v1::{ClusterTrustBundleProjection, ConfigMap, Secret};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

pub struct PodSources {
    all: Arc<Sources>,
    namespace: String,
    wake: Arc<Notify>,
    config_maps: Mutex<HashMap<String, Handle<ConfigMap>>>,
    secrets: Mutex<HashMap<String, Handle<Secret>>>,
    /// Whether the pod has asked for trust bundles.
    trusting: AtomicBool,
}

impl PodSources {
    pub fn new(all: Arc<Sources>, namespace: &str, wake: Arc<Notify>) -> Self {
        let namespace = namespace.to_owned();
        PodSources {
            all,
            namespace,
            wake,
            config_maps: Mutex::default(),
            secrets: Mutex::default(),
            trusting: AtomicBool::new(false),
        }
    }

    /// Rises with every change of any of them.
    pub fn changes(&self) -> u64 {
        let maps: u64 = self.config_maps.lock().values().map(Handle::changes).sum();
        let secrets: u64 = self.secrets.lock().values().map(Handle::changes).sum();
        let bundles = if self.trusting.load(Ordering::Relaxed) { self.all.trust_bundles.changes() } else { 0 };
        maps + secrets + bundles
    }

    /// None: it does not exist.
    pub async fn config_map(&self, name: &str) -> anyhow::Result<Option<Arc<ConfigMap>>> {
        let make = || self.all.config_map(&self.namespace, name, &self.wake);
        let handle = self.config_maps.lock().entry(name.to_owned()).or_insert_with(make).clone();
        handle.get().await
    }

    /// None: it does not exist.
    pub async fn secret(&self, name: &str) -> anyhow::Result<Option<Arc<Secret>>> {
        let make = || self.all.secret(&self.namespace, name, &self.wake);
        let handle = self.secrets.lock().entry(name.to_owned()).or_insert_with(make).clone();
        handle.get().await
    }

    /// The trust anchors that a projection selects, as PEM.
    pub async fn trust_anchors(&self, wanted: &ClusterTrustBundleProjection) -> anyhow::Result<String> {
        if !self.trusting.swap(true, Ordering::Relaxed) {
            self.all.trust_bundles.wake(&self.wake);
        }
        self.all.trust_bundles.anchors(wanted).await
    }
}
