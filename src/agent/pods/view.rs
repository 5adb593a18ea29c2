//! What the rest of the program may know of pods: the latest object, status and containers of each.

use crate::agent::observed::Container;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// One pod, as its task last saw it.
#[derive(Clone, Debug)]
pub struct View {
    pub pod: Arc<Pod>,
    pub status: PodStatus,
    /// The sandbox that runs, if one does.
    pub sandbox: Option<String>,
    /// Newest first.
    pub containers: Vec<Container>,
    /// Directory of its logs.
    pub logs: PathBuf,
}

impl View {
    /// The latest container of a name, or the one before it.
    pub fn container(&self, name: &str, previous: bool) -> Option<&Container> {
        self.containers.iter().filter(|c| c.name == name).nth(usize::from(previous))
    }
}

/// All pods by uid.
#[derive(Default)]
pub struct Views(RwLock<HashMap<String, Arc<View>>>);

impl Views {
    pub fn set(&self, uid: &str, view: View) {
        self.0.write().insert(uid.to_owned(), Arc::new(view));
    }

    pub fn remove(&self, uid: &str) {
        self.0.write().remove(uid);
    }

    pub fn get(&self, uid: &str) -> Option<Arc<View>> {
        self.0.read().get(uid).cloned()
    }

    /// By name; where an old pod of that name is still ending, the newer one.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<View>> {
        let views = self.0.read();
        let named = views.values().filter(|v| {
            v.pod.metadata.namespace.as_deref() == Some(namespace) && v.pod.metadata.name.as_deref() == Some(name)
        });
        named.max_by_key(|v| v.pod.metadata.creation_timestamp.as_ref().map(|t| t.0)).cloned()
    }

    pub fn all(&self) -> Vec<Arc<View>> {
        self.0.read().values().cloned().collect()
    }
}
