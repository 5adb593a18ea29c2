//! One pod's life: [`run`] calls its stages in order. Each pod has one task; the latest spec wins.

use super::container::Parts;
use super::last_words;
use super::plan::{self, Plan, SandboxStep};
use super::probes::{Probes, grace_of};
use super::shared::Shared;
use super::sources::PodSources;
use super::status::{self, Facts, Verdict};
use super::stop;
use super::sync::{self, Outcome};
use super::teardown;
use super::view::View;
use super::writer::StatusWriter;
use crate::agent::context::{Agent, pod_full_name, pod_name};
use crate::agent::images::pull::Failure;
use crate::agent::observed::{Observed, Settled};
use crate::agent::volumes::Volumes;
use crate::events::{Normal, Warning};
use crate::task::Group;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// What the API says of a pod.
#[derive(Clone, Debug)]
pub enum Wanted {
    Object(Arc<Pod>),
    /// The object is gone: end it, tell nobody.
    Gone,
}

/// Why the running stage ended.
#[derive(Debug)]
enum End {
    /// The object is being deleted, or is gone.
    Deleted,
    /// All containers have ended for good.
    Finished,
    /// The pod has to go, for this reason.
    Failed(Verdict),
}

/// A pod looks again at least this often, whatever happens (level-triggered: repairs what was missed).
const LOOK_AT_LEAST: Duration = Duration::from_secs(60);
/// When the runtime does not answer.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);
/// Dead containers of one name that are kept: one, for `kubectl logs --previous`.
const DEAD_KEPT: usize = 1;

pub struct Task {
    agent: Arc<Agent>,
    group: Group,
    wanted: watch::Receiver<Wanted>,
    pod: Arc<Pod>,
    gone: bool,
    wake: Arc<Notify>,
    shared: Arc<Shared>,
    sources: Arc<PodSources>,
    volumes: Arc<Volumes>,
    probes: Probes,
    settled: Settled,
    observed: Observed,
    messages: HashMap<String, String>,
    writer: StatusWriter,
    /// Looked at the runtime at least once.
    looked: bool,
    removing: HashSet<String>,
}

/// Run a pod from what it is now to its end. Returns when nothing of it is left.
pub async fn run(agent: Arc<Agent>, uid: String, wanted: watch::Receiver<Wanted>, group: Group) {
    let Wanted::Object(pod) = wanted.borrow().clone() else { return };
    let mut task = Task::new(agent, &uid, pod, wanted, group);
    let terminal = matches!(task.writer.base().phase.as_deref(), Some("Succeeded" | "Failed"));
    let end = match sandbox_refusal(&task.pod).filter(|_| !terminal) {
        _ if terminal => End::Finished,
        Some(verdict) => End::Failed(verdict),
        None => task.live().await,
    };
    let verdict = match end {
        End::Failed(verdict) => Some(verdict),
        _ => None,
    };
    task.terminate(verdict.as_ref()).await;
    task.settle(verdict.as_ref()).await;
    task.wait_for_deletion().await;
    task.remove(verdict.as_ref()).await;
}

fn sandbox_refusal(pod: &Pod) -> Option<Verdict> {
    let (reason, message) = super::sandbox::refusal(pod)?;
    Some(Verdict { reason: reason.to_owned(), message })
}

impl Task {
    fn new(agent: Arc<Agent>, uid: &str, pod: Arc<Pod>, wanted: watch::Receiver<Wanted>, group: Group) -> Self {
        let wake = agent.wakes.bell(uid);
        let shared = Arc::new(Shared::new(uid, wake.clone()));
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let sources = Arc::new(PodSources::new(agent.sources.clone(), namespace, wake.clone()));
        Task {
            probes: Probes::new(agent.clone(), shared.clone(), group.clone()),
            volumes: Arc::new(Volumes::new(sources.clone())),
            writer: StatusWriter::new(agent.client.clone(), &pod),
            settled: Settled::default(),
            observed: Observed::default(),
            messages: HashMap::new(),
            looked: false,
            removing: HashSet::new(),
            gone: false,
            agent,
            group,
            wanted,
            pod,
            wake,
            shared,
            sources,
        }
    }

    fn uid(&self) -> &str {
        &self.shared.uid
    }

    fn is_deleting(&self) -> bool {
        self.gone || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Take the latest spec.
    fn take_wanted(&mut self) {
        match self.wanted.borrow_and_update().clone() {
            Wanted::Object(pod) => {
                self.writer.saw(&pod);
                self.pod = pod;
            }
            Wanted::Gone => self.gone = true,
        }
    }

    /// Look at the runtime. False: it did not answer.
    async fn look(&mut self) -> bool {
        let uid = self.shared.uid.clone();
        match Observed::of(&self.agent.cri, &uid, &mut self.settled).await {
            Ok(observed) => self.observed = observed,
            Err(error) => {
                tracing::debug!(pod = %pod_name(&self.pod), "looking at the runtime: {error}");
                return false;
            }
        }
        let observed = &self.observed;
        for id in observed.containers.iter().map(|c| &c.id).chain(observed.sandboxes.iter().map(|s| &s.id)) {
            self.agent.wakes.belongs(id, &uid);
        }
        for container in observed.containers.iter().filter(|c| c.is_exited()) {
            self.messages.entry(container.id.clone()).or_insert_with(|| last_words::of(container));
        }
        let ids: HashSet<&str> = observed.containers.iter().map(|c| c.id.as_str()).collect();
        self.messages.retain(|id, _| ids.contains(id.as_str()));
        self.shared.retain(&ids);
        if !std::mem::replace(&mut self.looked, true) {
            self.adopt();
        }
        true
    }

    /// Containers of an earlier kedge: what the API says of them still holds.
    fn adopt(&mut self) {
        let containers = plan::containers(&self.pod);
        let base = self.writer.base();
        let lists = [&base.container_statuses, &base.init_container_statuses, &base.ephemeral_container_statuses];
        let known: Vec<_> = lists.into_iter().flatten().flatten().collect();
        for seen in self.observed.running() {
            let id = format!("{}://{}", self.agent.runtime_name, seen.id);
            let status = known.iter().find(|s| s.container_id.as_deref() == Some(id.as_str()));
            let probed = containers.iter().any(|(_, c)| c.name == seen.name && c.startup_probe.is_some());
            if status.is_some_and(|s| s.started == Some(true)) || !probed {
                self.shared.memory.lock().started.insert(seen.id.clone());
            }
            if status.is_some_and(|s| s.ready) {
                self.shared.ready.lock().insert(seen.id.clone());
            }
        }
    }

    fn ips(&self) -> Vec<String> {
        self.observed.sandbox().map(|s| s.ips.clone()).unwrap_or_default()
    }

    fn parts(&self) -> Parts {
        Parts {
            agent: self.agent.clone(),
            pod: self.pod.clone(),
            shared: self.shared.clone(),
            sources: self.sources.clone(),
            volumes: self.volumes.clone(),
        }
    }

    /// The running stage: look, plan, act, tell; again when something happens.
    async fn live(&mut self) -> End {
        let mut step: Option<BoxFuture<'static, Outcome>> = None;
        let mut stops: FuturesUnordered<BoxFuture<'static, String>> = FuturesUnordered::new();
        let mut stopping: HashSet<String> = HashSet::new();
        let mut failures = 0u32;
        let mut retry_at = Instant::now();
        let mut mounted = false;
        // Containers that the running step is about to start.
        let mut starting: HashSet<String> = HashSet::new();
        let mut changes = 0;
        let mut generation = self.pod.metadata.generation;
        // A look at the content of volumes may wait for the server: nothing else waits for it.
        let mut refresh: Option<BoxFuture<'static, Option<Timestamp>>> = None;
        let mut renew: Option<Timestamp> = None;
        let mut stale = true;
        loop {
            // A new spec, or an object that it refers to, may mend what failed. Our own status writes do not.
            let now_changes = self.sources.changes();
            if std::mem::replace(&mut changes, now_changes) != now_changes
                || std::mem::replace(&mut generation, self.pod.metadata.generation) != self.pod.metadata.generation
            {
                retry_at = Instant::now();
            }
            if self.is_deleting() {
                return End::Deleted;
            }
            if let Some(verdict) = self.overdue() {
                return End::Failed(verdict);
            }
            if !self.look().await {
                tokio::select! {
                    () = tokio::time::sleep(RUNTIME_RETRY) => {}
                    _ = self.wanted.changed() => self.take_wanted(),
                }
                continue;
            }
            let now = crate::time::now();
            let plan = plan::plan(&self.pod, &self.observed, &self.shared.memory.lock(), now);
            self.crash_loops(&plan, &starting);
            if plan.finished && step.is_none() {
                return End::Finished;
            }
            for one in plan.stop.iter().filter(|s| stopping.insert(s.id.clone())) {
                stops.push(self.stop_one(one));
            }
            let mut next = Instant::now() + LOOK_AT_LEAST;
            if let Some(wake) = plan.wake {
                next = next.min(later(wake, now));
            }
            if let Some(deadline) = self.deadline() {
                next = next.min(later(deadline, now));
            }
            let work = plan.sandbox != SandboxStep::Keep || !plan.start.is_empty();
            if step.is_none() && work {
                if Instant::now() >= retry_at {
                    starting = plan.start.iter().map(|s| s.name.clone()).collect();
                    step = Some(sync::run(self.parts(), plan, self.observed.clone(), failures).boxed());
                } else {
                    next = next.min(retry_at);
                }
            }
            mounted |= self.observed.running().next().is_some();
            if mounted && step.is_none() && refresh.is_none() && std::mem::take(&mut stale) {
                refresh = Some(self.refresh_volumes());
            }
            if let Some(renew) = renew {
                next = next.min(later(renew, now).max(Instant::now() + RUNTIME_RETRY));
            }
            self.follow_probes();
            self.tidy();
            self.tell(false, None);
            tokio::select! {
                biased;
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    self.take_wanted();
                }
                outcome = maybe(&mut step) => {
                    step = None;
                    starting.clear();
                    failures = match outcome {
                        Outcome::Done => 0,
                        Outcome::Retry(pause) => {
                            retry_at = Instant::now() + pause;
                            failures + 1
                        }
                    };
                }
                soonest = maybe(&mut refresh) => {
                    (refresh, renew) = (None, soonest);
                    continue;
                }
                Some(id) = stops.next() => drop(stopping.remove(&id)),
                () = self.wake.notified() => {}
                () = self.writer.progress() => {}
                () = tokio::time::sleep_until(next) => {}
            }
            stale = true;
        }
    }

    /// Stop one running container of a pod that lives on.
    fn stop_one(&self, stop: &plan::Stop) -> BoxFuture<'static, String> {
        let (agent, pod, ips, id) = (self.agent.clone(), self.pod.clone(), self.ips(), stop.id.clone());
        let message = stop.message.clone();
        let containers = plan::containers(&self.pod);
        let container = containers.iter().find(|(_, c)| c.name == stop.name).map(|(_, c)| c);
        let own = stop.probe.zip(container).and_then(|(probe, c)| grace_of(c, probe));
        let grace = own.or(self.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds)).unwrap_or(30);
        let seen = self.observed.containers.iter().find(|c| c.id == id).cloned();
        async move {
            let (_keep, deadline) = watch::channel(Instant::now() + seconds(grace));
            if let Some(seen) = seen {
                stop::stop(&agent, &pod, &seen, &ips, &message, deadline).await;
            }
            id
        }
        .boxed()
    }

    /// Containers in back-off wait visibly.
    fn crash_loops(&self, plan: &Plan, starting: &HashSet<String>) {
        for (name, pause) in plan.crash_loops.iter().filter(|(name, _)| !starting.contains(name)) {
            let full = pod_full_name(&self.pod);
            let message = format!("back-off {} restarting failed container={name} pod={full}", go_seconds(*pause));
            let why = Failure { reason: "CrashLoopBackOff", message };
            let before = self.shared.waiting.lock().insert(name.clone(), why.clone());
            if before.as_ref() != Some(&why) {
                let event = format!("Back-off restarting failed container {name} in pod {full}");
                self.agent.event(&self.pod, Some(name), Warning, "BackOff", event);
            }
        }
    }

    /// Bring the content of volumes up to date; gives when a token is due.
    fn refresh_volumes(&self) -> BoxFuture<'static, Option<Timestamp>> {
        let (volumes, agent, pod, ips) = (self.volumes.clone(), self.agent.clone(), self.pod.clone(), self.ips());
        async move {
            if let Err(error) = volumes.refresh(&agent, &pod, &ips).await {
                agent.event(&pod, None, Warning, "FailedMount", error.to_string());
            }
            volumes.renew_at().await
        }
        .boxed()
    }

    fn follow_probes(&mut self) {
        let ips = self.ips();
        self.probes.follow(&self.pod, &ips, self.observed.containers.iter().filter(|c| c.is_running()));
    }

    /// Remove dead containers and sandboxes that nobody will ask for.
    fn tidy(&mut self) {
        let mut dead: HashMap<&str, usize> = HashMap::new();
        let mut old = Vec::new();
        for container in self.observed.containers.iter().filter(|c| !c.is_running()) {
            let seen = dead.entry(&container.name).or_default();
            *seen += 1;
            let newest = self.observed.newest(&container.name).is_some_and(|n| n.id == container.id);
            // A crashed container that is about to be restarted counts as the current one.
            let allowed =
                DEAD_KEPT + usize::from(self.observed.newest(&container.name).is_some_and(|n| !n.is_running()));
            if *seen > allowed && !newest {
                old.push((container.id.clone(), container.name.clone(), container.log_path.clone()));
            }
        }
        let sandboxes = self.observed.sandboxes.iter().skip(1).filter(|s| !s.ready);
        let empty: Vec<String> = sandboxes
            .filter(|s| !self.observed.containers.iter().any(|c| c.sandbox == s.id))
            .map(|s| s.id.clone())
            .collect();
        for (id, name, log) in old {
            if self.removing.insert(id.clone()) {
                let (agent, pod) = (self.agent.clone(), self.pod.clone());
                self.group.spawn("remove container", teardown::remove_container(agent, pod, id, name, log));
            }
        }
        for id in empty {
            if self.removing.insert(id.clone()) {
                let agent = self.agent.clone();
                self.group.spawn("remove sandbox", async move { drop(agent.cri.remove_sandbox(&id).await) });
            }
        }
    }

    /// activeDeadlineSeconds, counted from the pod's start.
    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        let start = self.writer.base().start_time.as_ref()?.0;
        Some(start + jiff::SignedDuration::from_secs(seconds))
    }

    fn overdue(&self) -> Option<Verdict> {
        self.deadline().filter(|d| *d <= crate::time::now())?;
        let message = "Pod was active on the node longer than the specified deadline";
        self.agent.event(&self.pod, None, Normal, "DeadlineExceeded", message);
        Some(Verdict { reason: "DeadlineExceeded".into(), message: message.into() })
    }

    /// Compute the status, show it to the rest of the program, and send it to the API if it is news.
    fn tell(&mut self, ended: bool, verdict: Option<&Verdict>) {
        let status = self.status(ended, verdict);
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let m = &self.pod.metadata;
        let logs = self.agent.paths.pod_log(&text(&m.namespace), &text(&m.name), self.uid());
        self.agent.views.set(
            self.uid(),
            View {
                pod: self.pod.clone(),
                status: status.clone(),
                sandbox: self.observed.sandbox().filter(|s| s.ready).map(|s| s.id.clone()),
                containers: self.observed.containers.clone(),
                logs,
            },
        );
        if !self.gone {
            self.writer.want(status);
        }
    }

    fn status(&self, ended: bool, verdict: Option<&Verdict>) -> PodStatus {
        let memory = self.shared.memory.lock();
        status::status(&Facts {
            pod: &self.pod,
            old: self.writer.base(),
            observed: &self.observed,
            waiting: &self.shared.waiting.lock(),
            started: &memory.started,
            ready: &self.shared.ready.lock(),
            messages: &self.messages,
            node_ip: &self.agent.config.node_ip.to_string(),
            runtime: &self.agent.runtime_name,
            ended,
            verdict,
            now: crate::time::now(),
        })
    }

    /// How long containers have from now on.
    fn grace(&self, verdict: Option<&Verdict>) -> i64 {
        let spec = self.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
        match self.pod.metadata.deletion_grace_period_seconds {
            Some(own) if self.pod.metadata.deletion_timestamp.is_some() => own,
            _ if verdict.is_some_and(|v| v.reason == "Evicted") => 0,
            _ => spec,
        }
    }

    /// The ending stage: stop every container within the grace period, then the sandbox.
    async fn terminate(&mut self, verdict: Option<&Verdict>) {
        self.probes.stop();
        while !self.look().await {
            tokio::time::sleep(RUNTIME_RETRY).await;
        }
        let began = Instant::now();
        let (move_deadline, deadline) = watch::channel(began + seconds(self.grace(verdict)));
        let mut stop: Option<BoxFuture<'static, ()>> = None;
        loop {
            let running: Vec<_> = self.observed.running().cloned().collect();
            if stop.is_none() {
                if running.is_empty() {
                    break;
                }
                let (agent, pod, ips, deadline) = (self.agent.clone(), self.pod.clone(), self.ips(), deadline.clone());
                stop = Some(async move { stop::stop_all(&agent, &pod, running, ips, deadline).await }.boxed());
            }
            self.tell(false, verdict);
            tokio::select! {
                biased;
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    self.take_wanted();
                    // A delete with a shorter period hurries everything up; a longer one changes nothing.
                    let sooner = began + seconds(self.grace(verdict));
                    move_deadline.send_if_modified(|d| std::mem::replace(d, sooner.min(*d)) > sooner);
                }
                () = maybe(&mut stop) => {
                    stop = None;
                    // What could not be stopped is tried again, not at once.
                    if self.look().await && self.observed.running().next().is_some() {
                        tokio::time::sleep(RUNTIME_RETRY).await;
                    }
                }
                () = self.wake.notified() => {}
                () = self.writer.progress() => {}
                () = tokio::time::sleep(LOOK_AT_LEAST) => {}
            }
            while !self.look().await {
                tokio::time::sleep(RUNTIME_RETRY).await;
            }
        }
        while let Err(error) = teardown::stop_sandboxes(&self.agent, &self.observed).await {
            self.agent.event(&self.pod, None, Warning, "FailedKillPod", format!("error killing pod: {error}"));
            tokio::time::sleep(RUNTIME_RETRY).await;
            self.look().await;
        }
        self.look().await;
    }

    /// Volumes and cgroups go; the API hears how it ended.
    async fn settle(&mut self, verdict: Option<&Verdict>) {
        while let Err(error) = teardown::volumes_and_cgroup(&self.agent, &self.pod).await {
            tracing::warn!(pod = %pod_name(&self.pod), "cleaning up: {error:#}");
            tokio::time::sleep(RUNTIME_RETRY).await;
        }
        self.tell(true, verdict);
    }

    /// A pod that has ended stays until somebody deletes it.
    async fn wait_for_deletion(&mut self) {
        loop {
            if self.is_deleting() && (self.gone || self.writer.is_settled()) {
                return;
            }
            tokio::select! {
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    self.take_wanted();
                    self.tell(true, None);
                }
                () = self.writer.progress() => {}
                () = tokio::time::sleep(LOOK_AT_LEAST) => {}
            }
        }
    }

    /// The object and all records go.
    async fn remove(&mut self, _verdict: Option<&Verdict>) {
        if !self.gone {
            teardown::delete_object(&self.agent, &self.pod).await;
        }
        self.look().await;
        teardown::records(&self.agent, &self.pod, &self.observed).await;
        self.agent.views.remove(self.uid());
        self.agent.wakes.forget(self.uid());
    }
}

fn seconds(n: i64) -> Duration {
    Duration::from_secs(n.max(0) as u64)
}

/// A wall-clock time as an instant.
fn later(time: Timestamp, now: Timestamp) -> Instant {
    let wait = time.duration_since(now);
    Instant::now() + Duration::try_from(wait).unwrap_or_default()
}

/// `10s`, `1m20s`, `5m0s`: Go's durations.
fn go_seconds(n: u64) -> String {
    if n < 60 { format!("{n}s") } else { format!("{}m{}s", n / 60, n % 60) }
}

/// The future's result and, when there is no future, nothing ever.
async fn maybe<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
