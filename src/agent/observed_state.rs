//! Who has to look again: the runtime's events wake the pods they belong to, a slow relist repairs what was missed
//! (DESIGN D6).
//!
//! Sources in this order: CRI's own events (containerd 1.7 and later), containerd's native events (1.6), relists alone.

use super::context::Agent;
use super::cri::Labels;
use super::labels;
use crate::task::Group;
use containerd_client::events::TaskExit;
use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use k8s_cri::v1 as cri;
use parking_lot::Mutex;
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tracing::{debug, info};

/// Relist with events, and without.
const RELIST_SLOW: Duration = Duration::from_secs(20);
const RELIST_FAST: Duration = Duration::from_secs(1);
/// After a lost event stream.
const STREAM_RETRY: Duration = Duration::from_secs(2);
/// A runtime that has no such stream says so within this time.
const REFUSAL: Duration = Duration::from_secs(1);
/// CRI hears of an exit by the same events as we do: how often and how long we ask until it knows.
const EXIT_ASKS: u32 = 40;
const EXIT_ASK_EVERY: Duration = Duration::from_millis(25);

/// Pods' bells, and whose container is whose.
#[derive(Default)]
pub struct Wakes {
    bells: Mutex<HashMap<String, Arc<Notify>>>,
    /// Container or sandbox id → pod uid.
    owners: Mutex<HashMap<String, String>>,
    /// Rung when something unknown has happened: list again.
    pub relist: Notify,
    /// Rung when there are pods in the runtime that nobody here knows.
    pub strangers: Notify,
}

impl Wakes {
    /// The bell of a pod.
    pub fn bell(&self, uid: &str) -> Arc<Notify> {
        self.bells.lock().entry(uid.to_owned()).or_default().clone()
    }

    pub fn forget(&self, uid: &str) {
        self.bells.lock().remove(uid);
        self.owners.lock().retain(|_, owner| owner != uid);
    }

    /// Note whose a container is.
    pub fn belongs(&self, id: &str, uid: &str) {
        let mut owners = self.owners.lock();
        if !owners.contains_key(id) {
            owners.insert(id.to_owned(), uid.to_owned());
        }
    }

    fn ring(&self, uid: &str) {
        if let Some(bell) = self.bells.lock().get(uid) {
            bell.notify_one();
        }
    }

    fn ring_owner(&self, id: &str) {
        let owner = self.owners.lock().get(id).cloned();
        match owner {
            Some(uid) => self.ring(&uid),
            None => self.relist.notify_one(),
        }
    }

    /// Everybody looks again (the runtime is back).
    pub fn ring_all(&self) {
        self.bells.lock().values().for_each(|bell| bell.notify_one());
    }
}

/// Listen and relist until the group ends.
pub async fn run(agent: Arc<Agent>, group: Group) {
    let streaming = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let listener = (agent.clone(), group.clone(), streaming.clone());
    group.spawn("runtime events", async move {
        let (agent, group, streaming) = listener;
        loop {
            let result = listen(&agent, &group, &streaming).await;
            streaming.store(false, std::sync::atomic::Ordering::Relaxed);
            debug!("runtime event stream ended: {result:?}");
            tokio::time::sleep(STREAM_RETRY).await;
            agent.wakes.relist.notify_one();
        }
    });
    let mut before = HashMap::new();
    loop {
        match relist(&agent).await {
            Ok(now) => {
                compare(&agent, &before, &now);
                before = now;
            }
            Err(error) => debug!("relist: {error}"),
        }
        let streams = streaming.load(std::sync::atomic::Ordering::Relaxed);
        let pause = if streams { RELIST_SLOW } else { RELIST_FAST };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = agent.wakes.relist.notified() => {}
        }
    }
}

/// Pod uid → its objects with their states.
type Listed = HashMap<String, HashSet<(String, i32)>>;

async fn relist(agent: &Agent) -> super::cri::Result<Listed> {
    let selector = Labels::from([(labels::INSTANCE.to_owned(), agent.instance.clone())]);
    let (sandboxes, containers) =
        tokio::try_join!(agent.cri.sandboxes(selector.clone()), agent.cri.containers(selector))?;
    let mut listed = Listed::new();
    let sandboxes = sandboxes.into_iter().map(|s| (s.labels, s.id, s.state));
    for (labels, id, state) in sandboxes.chain(containers.into_iter().map(|c| (c.labels, c.id, c.state))) {
        let Some(uid) = labels.get(labels::POD_UID) else { continue };
        agent.wakes.belongs(&id, uid);
        listed.entry(uid.clone()).or_default().insert((id, state));
    }
    Ok(listed)
}

fn compare(agent: &Agent, before: &Listed, now: &Listed) {
    let uids: HashSet<&String> = before.keys().chain(now.keys()).collect();
    for uid in uids {
        if before.get(uid) != now.get(uid) {
            agent.wakes.ring(uid);
        }
    }
    let known = agent.wakes.bells.lock();
    if now.keys().any(|uid| !known.contains_key(uid)) {
        agent.wakes.strangers.notify_one();
    }
}

/// One life of an event stream.
async fn listen(agent: &Arc<Agent>, group: &Group, streaming: &std::sync::atomic::AtomicBool) -> anyhow::Result<()> {
    let started = || streaming.store(true, std::sync::atomic::Ordering::Relaxed);
    match silent(agent.cri.events(), started).await {
        Ok(mut events) => {
            while let Some(event) = events.message().await? {
                agent.wakes.ring_owner(&event.container_id);
            }
            Ok(())
        }
        Err(error) if error.is_unimplemented() && agent.store.is_some() => {
            let filters = vec!["topic==\"/tasks/exit\",namespace==\"k8s.io\"".to_owned()];
            let request = SubscribeRequest { filters };
            let mut client = EventsClient::new(agent.cri.channel());
            info!("listening to containerd's task events");
            let mut events = silent(client.subscribe(request), started).await?.into_inner();
            while let Some(envelope) = events.message().await? {
                let Some(any) = envelope.event else { continue };
                let Ok(exit) = TaskExit::decode(any.value.as_slice()) else { continue };
                // Another id is an exec's.
                if exit.id == exit.container_id {
                    let agent = agent.clone();
                    group.spawn("exit", async move { settle_exit(&agent, &exit.container_id).await });
                }
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Begin a stream. Runtimes answer with the first event only: silence means that we listen, refusals come at once.
async fn silent<T>(begin: impl Future<Output = T>, started: impl Fn()) -> T {
    let mut begin = std::pin::pin!(begin);
    if let Ok(answer) = tokio::time::timeout(REFUSAL, &mut begin).await {
        started();
        return answer;
    }
    started();
    begin.await
}

/// Wake the pod when CRI has seen the exit too.
async fn settle_exit(agent: &Agent, id: &str) {
    for _ in 0..EXIT_ASKS {
        match agent.cri.container_status(id).await {
            Ok(status) if status.state == cri::ContainerState::ContainerRunning as i32 => {
                tokio::time::sleep(EXIT_ASK_EVERY).await;
            }
            // Exited, or a sandbox's own process, which has no container status.
            _ => break,
        }
    }
    agent.wakes.ring_owner(id);
}
