//! Pods waiting for a node: ready by priority, in backoff after a failure, or parked until something happens that
//! could help them. Pure: time comes in as an argument.

use super::cluster::PodInfo;
use super::cycle::PluginSet;
use super::plugins::{ALL, Event};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Parked pods are tried again after this time, whatever happened.
const PARKED_MAX: Duration = Duration::from_secs(300);

/// Priority first, then the order of arrival.
type Rank = (Reverse<i32>, u64);

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    arrival: u64,
    attempts: u32,
    tried: Option<Instant>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Ready,
    Backoff(Instant),
    /// Until a plugin of this set may be satisfied, or the time comes.
    Parked(PluginSet, Instant),
    /// Given out by [`Queue::pop`].
    Tried,
}

/// Bounded by the number of pods without a node.
#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<String, Entry>,
    ready: BTreeMap<Rank, String>,
    /// Backoffs and parking times.
    due: BTreeSet<(Instant, String)>,
    /// How many parked pods each plugin has refused: events that help none of them cost nothing.
    parked: [usize; PluginSet::BITS as usize],
    arrivals: u64,
}

impl Queue {
    /// A pod without a node appeared or changed. A change that could matter makes it ready.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        let uid = pod.uid().to_owned();
        let Some(entry) = self.entries.get_mut(&uid) else {
            self.arrivals += 1;
            let entry = Entry { pod, arrival: self.arrivals, attempts: 0, tried: None, state: State::Tried };
            self.entries.insert(uid.clone(), entry);
            return self.set(&uid, State::Ready);
        };
        if entry.pod.pod.spec == pod.pod.spec && entry.pod.labels() == pod.labels() {
            entry.pod = pod;
            return;
        }
        // Leave and enter again: the rank may have changed.
        let state = entry.state;
        self.set(&uid, State::Tried);
        let Some(entry) = self.entries.get_mut(&uid) else { return };
        entry.pod = pod;
        match state {
            State::Parked(..) => self.retry(&uid),
            other => self.set(&uid, other),
        }
    }

    /// The pod has a node or is gone.
    pub fn remove(&mut self, uid: &str) {
        self.leave(uid);
        self.entries.remove(uid);
    }

    /// The next pod to try; the caller reports with `remove`, `unfit` or `failed`.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        while let Some((_, uid)) = self.due.first().filter(|(when, _)| *when <= now).cloned() {
            self.set(&uid, State::Ready);
        }
        let uid = self.ready.first_key_value()?.1.clone();
        self.set(&uid, State::Tried);
        let entry = self.entries.get_mut(&uid)?;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.tried = Some(now);
        Some(entry.pod.clone())
    }

    /// No node fits, because of these plugins.
    pub fn unfit(&mut self, uid: &str, refused_by: PluginSet, now: Instant) {
        self.set(uid, State::Parked(refused_by, now + PARKED_MAX));
    }

    /// Something else went wrong: try again after a while.
    pub fn failed(&mut self, uid: &str) {
        self.retry(uid);
    }

    /// Something happened: wake the parked pods it may help.
    pub fn happened(&mut self, event: Event) {
        let helped = |at: usize| ALL.get(at).is_some_and(|plugin| plugin.helped_by(event));
        let mut helping: PluginSet = 0;
        for at in (0..ALL.len()).filter(|at| self.parked[*at] > 0 && helped(*at)) {
            helping |= 1 << at;
        }
        // Pods parked without a reason (no nodes at all) wait for a node.
        let waits = |set: PluginSet| set & helping != 0 || (set == 0 && event == Event::NodeAdded);
        if helping == 0 && event != Event::NodeAdded {
            return;
        }
        let parked = self.entries.iter().filter(|(_, e)| matches!(e.state, State::Parked(set, _) if waits(set)));
        let woken: Vec<String> = parked.map(|(uid, _)| uid.clone()).collect();
        woken.iter().for_each(|uid| self.retry(uid));
    }

    /// When a waiting pod becomes ready by itself.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(when, _)| *when)
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub fn contains(&self, uid: &str) -> bool {
        self.entries.contains_key(uid)
    }

    /// UIDs of all pods that wait.
    pub fn waiting(&self) -> impl Iterator<Item = &String> {
        self.entries.keys()
    }

    /// To backoff; the due time may have passed, then the next `pop` finds it ready.
    fn retry(&mut self, uid: &str) {
        let Some(entry) = self.entries.get(uid) else { return };
        let pause = BACKOFF_MIN * 2u32.saturating_pow(entry.attempts.saturating_sub(1).min(8));
        match entry.tried {
            Some(tried) => self.set(uid, State::Backoff(tried + pause.min(BACKOFF_MAX))),
            None => self.set(uid, State::Ready),
        }
    }

    fn leave(&mut self, uid: &str) {
        let Some(entry) = self.entries.get(uid) else { return };
        match entry.state {
            State::Ready => drop(self.ready.remove(&(Reverse(entry.pod.priority()), entry.arrival))),
            State::Backoff(when) => drop(self.due.remove(&(when, uid.to_owned()))),
            State::Parked(refused_by, when) => {
                self.due.remove(&(when, uid.to_owned()));
                bits(refused_by).for_each(|at| self.parked[at] -= 1);
            }
            State::Tried => {}
        }
    }

    fn set(&mut self, uid: &str, state: State) {
        self.leave(uid);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.state = state;
        match state {
            State::Ready => drop(self.ready.insert((Reverse(entry.pod.priority()), entry.arrival), uid.to_owned())),
            State::Backoff(when) => drop(self.due.insert((when, uid.to_owned()))),
            State::Parked(refused_by, when) => {
                self.due.insert((when, uid.to_owned()));
                bits(refused_by).for_each(|at| self.parked[at] += 1);
            }
            State::Tried => {}
        }
    }
}

fn bits(set: PluginSet) -> impl Iterator<Item = usize> {
    (0..PluginSet::BITS as usize).filter(move |at| set & (1 << at) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::scheduler::testing::pod;
    use serde_json::json;

    fn info(name: &str, priority: i32) -> Arc<PodInfo> {
        Arc::new(PodInfo::new(Arc::new(pod(name, json!({"priority": priority})))))
    }

    fn popped(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.pop(now).map(|p| p.uid().to_owned())
    }

    fn plugin(name: &str) -> PluginSet {
        1 << ALL.iter().position(|p| p.name() == name).unwrap()
    }

    #[test]
    fn higher_priority_first_then_arrival() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        [("a", 0), ("b", 5), ("c", 0), ("d", 5)].iter().for_each(|(n, p)| queue.add(info(n, *p)));
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue, now)).collect();
        assert_eq!(order, ["b", "d", "a", "c"]);
    }

    #[test]
    fn parked_pods_wake_for_what_may_help_and_respect_backoff() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(info("a", 0));
        queue.pop(now);
        queue.unfit("a", plugin("NodeResourcesFit"), now);
        queue.happened(Event::PodPlaced);
        assert_eq!(popped(&mut queue, now + BACKOFF_MAX), None, "a placed pod frees nothing");
        queue.happened(Event::PodRemoved);
        assert_eq!(popped(&mut queue, now), None, "still in backoff");
        assert_eq!(queue.next_due(), Some(now + BACKOFF_MIN));
        assert_eq!(popped(&mut queue, now + BACKOFF_MIN).as_deref(), Some("a"));
        queue.unfit("a", plugin("TaintToleration"), now + BACKOFF_MIN);
        queue.happened(Event::PodRemoved);
        assert_eq!(popped(&mut queue, now + BACKOFF_MAX), None);
        assert_eq!(popped(&mut queue, now + BACKOFF_MIN + PARKED_MAX).as_deref(), Some("a"), "not for ever");
    }

    #[test]
    fn a_changed_spec_is_a_new_chance_a_changed_status_is_not() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(info("a", 0));
        queue.pop(now);
        queue.unfit("a", plugin("NodeAffinity"), now);
        let mut told = pod("a", json!({"priority": 0}));
        told.status.get_or_insert_default().phase = Some("Pending".into());
        queue.add(Arc::new(PodInfo::new(Arc::new(told))));
        assert_eq!(popped(&mut queue, now + BACKOFF_MAX), None);
        queue.add(info("a", 7));
        assert_eq!(popped(&mut queue, now + BACKOFF_MAX).as_deref(), Some("a"));
        queue.remove("a");
        assert!(!queue.contains("a") && queue.next_due().is_none());
        assert_eq!(queue.parked, [0; 32]);
    }

    #[test]
    fn without_nodes_pods_wait_for_the_first() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(info("a", 0));
        queue.pop(now);
        queue.unfit("a", 0, now);
        queue.happened(Event::NodeChanged);
        assert_eq!(popped(&mut queue, now + BACKOFF_MAX), None);
        queue.happened(Event::NodeAdded);
        assert_eq!(popped(&mut queue, now + BACKOFF_MIN).as_deref(), Some("a"));
    }
}
