//! What a pod's loop, its running step and its probes tell each other.

use super::plan::Memory;
use crate::agent::context::Agent;
use crate::agent::images::pull::{Failure, PullBackoffs};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::Notify;

pub struct Shared {
    pub uid: String,
    /// Rung when something here has changed.
    pub wake: Arc<Notify>,
    pub memory: Mutex<Memory>,
    /// Why containers wait, by name.
    pub waiting: Mutex<HashMap<String, Failure>>,
    /// Containers (ids) whose readiness probe says yes.
    pub ready: Mutex<HashSet<String>>,
    pub pulls: PullBackoffs,
}

impl Shared {
    pub fn new(uid: &str, wake: Arc<Notify>) -> Self {
        Shared {
            uid: uid.to_owned(),
            wake,
            memory: Mutex::default(),
            waiting: Mutex::default(),
            ready: Mutex::default(),
            pulls: PullBackoffs::default(),
        }
    }

    /// A new container of this pod: its events are ours.
    pub fn note_container(&self, agent: &Agent, id: &str) {
        agent.wakes.belongs(id, &self.uid);
    }

    /// The container counts as started. Wakes the pod: sidecars hold up others until then.
    pub fn set_started(&self, id: &str) {
        self.memory.lock().started.insert(id.to_owned());
        self.wake.notify_one();
    }

    pub fn is_started(&self, id: &str) -> bool {
        self.memory.lock().started.contains(id)
    }

    /// What a readiness probe says; wakes the pod when that is news.
    pub fn set_ready(&self, id: &str, ready: bool) {
        let mut all = self.ready.lock();
        let news = if ready { all.insert(id.to_owned()) } else { all.remove(id) };
        drop(all);
        if news {
            self.wake.notify_one();
        }
    }

    /// A probe has failed for good: the container is to be restarted.
    pub fn set_failed(&self, id: &str, probe: &'static str) {
        self.memory.lock().failed_probes.insert(id.to_owned(), probe);
        self.wake.notify_one();
    }

    pub fn set_waiting(&self, container: &str, why: Failure) {
        self.waiting.lock().insert(container.to_owned(), why);
        self.wake.notify_one();
    }

    pub fn clear_waiting(&self, container: &str) {
        self.waiting.lock().remove(container);
        self.wake.notify_one();
    }

    /// Forget containers that are no longer there.
    pub fn retain(&self, ids: &HashSet<&str>) {
        let mut memory = self.memory.lock();
        memory.started.retain(|id| ids.contains(id.as_str()));
        memory.failed_probes.retain(|id, _| ids.contains(id.as_str()));
        drop(memory);
        self.ready.lock().retain(|id| ids.contains(id.as_str()));
    }
}
