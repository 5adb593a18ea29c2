//! Pods: one task each, fed with the latest object; what the runtime has beyond them is taken down.

pub mod backoff;
mod container;
pub mod dns;
pub mod env;
pub mod fields;
mod hooks;
mod hosts;
mod last_words;
mod leftovers;
pub mod plan;
mod probe_grpc;
mod probe_http;
mod probes;
mod sandbox;
mod security;
mod shared;
pub mod sources;
mod status;
mod status_patch;
mod stop;
mod sync;
mod task;
mod teardown;
pub mod view;
mod writer;

pub use stop::stop_all;

use super::context::Agent;
use crate::cache::{Cache, Key, Notice};
use crate::task::Group;
use k8s_openapi::api::core::v1::Pod;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use task::Wanted;
use tokio::sync::{mpsc, watch};

/// How often ended tasks with living objects are started again.
const AGAIN_EVERY: Duration = Duration::from_secs(60);

/// All pods of this node.
struct Pods {
    agent: Arc<Agent>,
    group: Group,
    cache: Cache<Pod>,
    /// Uid → the task's inbox.
    tasks: HashMap<String, watch::Sender<Wanted>>,
    /// Pods whose tasks have ended, until the API forgets them too.
    ended: HashSet<String>,
    done: mpsc::UnboundedSender<String>,
    known: leftovers::Known,
}

/// Run pods until the group ends. They go on without us.
pub async fn run(agent: Arc<Agent>, cache: Cache<Pod>, group: Group) {
    cache.synced().await;
    // Bounded by the number of pods: one message each.
    let (done, mut ended) = mpsc::unbounded_channel();
    let mut changes = cache.subscribe();
    let known = leftovers::Known::default();
    let (tasks, ended_before) = (HashMap::new(), HashSet::new());
    let mut pods = Pods { agent: agent.clone(), group, cache, tasks, ended: ended_before, done, known };
    pods.resync();
    let (live, known) = (pods.cache.clone(), pods.known.clone());
    pods.group.spawn("leftovers", async move {
        // Pods as last known may not be all: only the server says what is not ours any more.
        live.live().await;
        leftovers::run(agent, known).await;
    });
    let mut again = tokio::time::interval(AGAIN_EVERY);
    loop {
        tokio::select! {
            notice = changes.next() => match notice {
                None => return,
                Some(Notice::Resync) => pods.resync(),
                Some(Notice::Change(change)) => {
                    let old_uid = change.old.as_ref().and_then(|p| p.metadata.uid.clone());
                    let new_uid = change.new.as_ref().and_then(|p| p.metadata.uid.clone());
                    if let Some(uid) = old_uid.filter(|uid| new_uid.as_ref() != Some(uid)) {
                        pods.gone(&uid);
                    }
                    pods.latest(&change.key);
                }
            },
            Some(uid) = ended.recv() => pods.task_ended(&uid),
            _ = again.tick() => pods.again(),
        }
    }
}

impl Pods {
    /// Look at everything again.
    fn resync(&mut self) {
        let all = self.cache.list();
        let there: HashSet<&str> = all.iter().filter_map(|p| p.metadata.uid.as_deref()).collect();
        let gone: Vec<String> = self.tasks.keys().filter(|uid| !there.contains(uid.as_str())).cloned().collect();
        self.ended.retain(|uid| there.contains(uid.as_str()));
        gone.iter().for_each(|uid| self.gone(uid));
        all.into_iter().for_each(|pod| self.object(pod));
    }

    fn latest(&mut self, key: &Key) {
        if let Some(pod) = self.cache.at(key) {
            self.object(pod);
        }
    }

    fn object(&mut self, pod: Arc<Pod>) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if self.ended.contains(&uid) {
            return;
        }
        if let Some(inbox) = self.tasks.get(&uid) {
            inbox.send_replace(Wanted::Object(pod));
            return;
        }
        self.known.lock().insert(uid.clone());
        let (inbox, wanted) = watch::channel(Wanted::Object(pod));
        let group = self.group.child();
        let (agent, done, name) = (self.agent.clone(), self.done.clone(), uid.clone());
        let own = group.clone();
        group.spawn("pod", async move {
            // The message goes out even when the task panics: the next sweep or change starts it anew.
            let _told = Told { uid: name.clone(), done };
            task::run(agent, name, wanted, own).await;
        });
        self.tasks.insert(uid, inbox);
    }

    fn gone(&mut self, uid: &str) {
        self.ended.remove(uid);
        if let Some(inbox) = self.tasks.get(uid) {
            inbox.send_replace(Wanted::Gone);
        }
    }

    fn task_ended(&mut self, uid: &str) {
        self.tasks.remove(uid);
        self.known.lock().remove(uid);
        if self.cache.list().iter().any(|p| p.metadata.uid.as_deref() == Some(uid)) {
            // Its object is on its way out; should it stay, the task failed and the next resync starts another.
            self.ended.insert(uid.to_owned());
        }
    }

    /// Tasks that have ended although their objects stay (a panic, a delete that somebody undid): start them again.
    fn again(&mut self) {
        let all = self.cache.list();
        for uid in std::mem::take(&mut self.ended) {
            if let Some(pod) = all.iter().find(|p| p.metadata.uid.as_deref() == Some(uid.as_str())) {
                self.object(pod.clone());
            }
        }
    }
}

/// Says that a pod's task is over when it is dropped.
struct Told {
    uid: String,
    done: mpsc::UnboundedSender<String>,
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.done.send(self.uid.clone());
    }
}
