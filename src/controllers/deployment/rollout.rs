//! The moves of a rollout, on copies of the ReplicaSets: scale, roll, recreate, clean up.
//!
//! Source of the rules: upstream's deployment controller and the Deployment page of the API reference.

use super::{Shared, revision, size, status};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use std::cmp::Reverse;

/// A Deployment's ReplicaSets while a plan changes them.
pub struct Rollout<'a> {
    pub deployment: &'a Deployment,
    pub now: Timestamp,
    /// The current template's set; without a UID while it is only planned.
    pub current: Option<ReplicaSet>,
    /// All others, oldest first.
    pub old: Vec<ReplicaSet>,
    pub status: DeploymentStatus,
    /// Nothing was scaled in this pass.
    pub settled: bool,
}

fn created(set: &ReplicaSet) -> (Option<Timestamp>, String) {
    let time = set.metadata.creation_timestamp.as_ref().map(|t| t.0);
    (time, set.metadata.name.clone().unwrap_or_default())
}

fn total(sets: &[ReplicaSet]) -> i32 {
    sets.iter().map(size::size).sum()
}

impl<'a> Rollout<'a> {
    pub fn new(deployment: &'a Deployment, sets: &[Shared], now: Timestamp) -> Self {
        let mut old: Vec<ReplicaSet> = sets.iter().map(|s| s.as_ref().clone()).collect();
        old.sort_by_key(created);
        let at = old.iter().position(|set| revision::same_template(deployment, set));
        let current = at.map(|at| old.remove(at));
        let status = deployment.status.clone().unwrap_or_default();
        Rollout { deployment, now, current, old, status, settled: true }
    }

    pub fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.current)
    }

    fn wanted(&self) -> i32 {
        size::wanted(self.deployment)
    }

    fn total(&self) -> i32 {
        self.all().map(size::size).sum()
    }

    pub fn note_pause(&mut self) {
        status::note_pause(self.deployment, &mut self.status, self.now);
    }

    /// The status after scaling or while paused: numbers only.
    pub fn with_plain_status(mut self) -> Self {
        self.status = status::counted(self.deployment, &self.status, self.current.as_ref(), &self.old, self.now);
        self
    }

    /// The status of a rollout: numbers, progress, failures.
    pub fn with_progress(mut self) -> Self {
        let counted = status::counted(self.deployment, &self.status, self.current.as_ref(), &self.old, self.now);
        self.status = status::progress(self.deployment, counted, self.current.as_ref(), &self.old, self.now);
        self
    }

    fn next_number(&self) -> i64 {
        self.old.iter().map(revision::number).max().unwrap_or(0) + 1
    }

    /// Give the current set its number and its Deployment's annotations, if it exists.
    pub fn number_current(&mut self) {
        let number = self.next_number();
        let Some(set) = &mut self.current else { return };
        revision::annotate(self.deployment, set, number);
        let min_ready = self.deployment.spec.min_ready_seconds;
        if set.spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0) {
            set.spec.min_ready_seconds = min_ready;
        }
        status::note_found(self.deployment, &mut self.status, set, self.now);
    }

    /// The current set, made (of the size that the strategy allows) if there is none.
    fn ensure_current(&mut self) {
        if self.current.is_some() {
            return self.number_current();
        }
        let mut set = revision::new_set(self.deployment);
        revision::annotate(self.deployment, &mut set, self.next_number());
        size::annotate(self.deployment, &mut set);
        size::set_size(&mut set, self.room_for(0));
        status::note_created(self.deployment, &mut self.status, &set, self.now);
        self.current = Some(set);
    }

    /// The size the current set may have now, given its present size.
    fn room_for(&self, present: i32) -> i32 {
        if size::rolling(self.deployment).is_none() {
            return self.wanted();
        }
        let most = self.wanted() + size::max_surge(self.deployment);
        let room = most - self.total();
        if room <= 0 { present } else { present + room.min(self.wanted() - present) }
    }

    /// Scale one set and note what its Deployment wants.
    fn resize(deployment: &Deployment, set: &mut ReplicaSet, replicas: i32) -> bool {
        let changed = size::size(set) != replicas;
        size::set_size(set, replicas);
        size::annotate(deployment, set);
        changed
    }

    fn resize_current(&mut self, replicas: i32) -> bool {
        let changed = self.current.as_mut().is_some_and(|set| Self::resize(self.deployment, set, replicas));
        self.settled &= !changed;
        changed
    }

    fn resize_old(&mut self, at: usize, replicas: i32) {
        self.settled &= !Self::resize(self.deployment, &mut self.old[at], replicas);
    }

    fn empty_old(&mut self) {
        for at in 0..self.old.len() {
            if size::size(&self.old[at]) > 0 {
                self.resize_old(at, 0);
            }
        }
    }

    pub fn roll(&mut self) {
        self.ensure_current();
        let present = self.current.as_ref().map_or(0, size::size);
        let grown = match present.cmp(&self.wanted()) {
            std::cmp::Ordering::Equal => false,
            std::cmp::Ordering::Greater => self.resize_current(self.wanted()),
            std::cmp::Ordering::Less => self.resize_current(self.room_for(present)),
        };
        if !grown {
            self.shrink_old();
        }
    }

    /// Shrink old sets as far as the pods that must stay available permit.
    fn shrink_old(&mut self) {
        if total(&self.old) == 0 {
            return;
        }
        let least = self.wanted() - size::max_unavailable(self.deployment);
        let new_unavailable = self.current.as_ref().map_or(0, |set| size::size(set) - size::available(set));
        let most = self.total() - least - new_unavailable;
        if most <= 0 {
            return;
        }
        self.shrink_unhealthy(most);
        let spare = self.all().map(size::available).sum::<i32>() - least;
        self.shrink_oldest(spare);
    }

    /// Pods that are not available are no loss: they go first, at most `most`.
    fn shrink_unhealthy(&mut self, most: i32) {
        let mut left = most;
        for at in 0..self.old.len() {
            let set = &self.old[at];
            let down = left.min(size::size(set) - size::available(set));
            if left > 0 && size::size(set) > 0 && down > 0 {
                left -= down;
                self.resize_old(at, size::size(&self.old[at]) - down);
            }
        }
    }

    fn shrink_oldest(&mut self, spare: i32) {
        let mut left = spare;
        for at in 0..self.old.len() {
            let down = left.min(size::size(&self.old[at]));
            if down > 0 {
                left -= down;
                self.resize_old(at, size::size(&self.old[at]) - down);
            }
        }
    }

    /// All old pods go before the first new one comes.
    pub fn recreate(&mut self, busy: &[String]) {
        if total(&self.old) > 0 {
            self.number_current();
            return self.empty_old();
        }
        let lingering = |set: &ReplicaSet| {
            set.status.as_ref().is_some_and(|s| s.replicas > 0)
                || set.metadata.uid.as_ref().is_some_and(|uid| busy.contains(uid))
        };
        if self.old.iter().any(lingering) {
            self.settled = false;
            return self.number_current();
        }
        self.ensure_current();
        self.resize_current(self.wanted());
    }

    /// Follow a change of the Deployment's size outside a rollout step.
    pub fn scale(&mut self) {
        let wanted = self.wanted();
        if let Some(only) = self.only_active_or_latest() {
            if size::size(only) != wanted {
                Self::resize(self.deployment, self.by_uid(only.metadata.uid.clone()), wanted);
            }
            return self.annotate_active();
        }
        let saturated = self.current.as_ref().is_some_and(|set| {
            size::annotated(set, size::DESIRED) == Some(wanted)
                && size::size(set) == wanted
                && size::available(set) == wanted
        });
        if saturated {
            self.empty_old();
        } else if size::rolling(self.deployment).is_some() {
            self.scale_in_proportion();
        }
    }

    /// The set to scale when it is the only one with pods; with none, the current one or the newest.
    fn only_active_or_latest(&self) -> Option<&ReplicaSet> {
        let mut active = self.all().filter(|set| size::size(set) > 0);
        match (active.next(), active.next()) {
            (None, _) => self.current.as_ref().or(self.old.last()),
            (Some(only), None) => Some(only),
            _ => None,
        }
    }

    fn by_uid(&mut self, uid: Option<String>) -> &mut ReplicaSet {
        let is_current = self.current.as_ref().is_some_and(|set| set.metadata.uid == uid);
        let old = self.old.iter_mut().find(|set| set.metadata.uid == uid);
        match (is_current, old) {
            (false, Some(set)) => set,
            _ => self.current.get_or_insert_default(),
        }
    }

    /// Sets that keep their size still note the new wish, or this would look like a resize for ever.
    fn annotate_active(&mut self) {
        for set in self.old.iter_mut().chain(&mut self.current).filter(|set| size::size(set) > 0) {
            size::annotate(self.deployment, set);
        }
    }

    /// Spread a change of size over all active sets, in proportion to their sizes; the rest goes to the largest.
    fn scale_in_proportion(&mut self) {
        let wanted = self.wanted();
        let allowed = if wanted > 0 { wanted + size::max_surge(self.deployment) } else { 0 };
        let to_add = allowed - self.total();
        let mut active: Vec<(Option<String>, i32, i32)> = Vec::new();
        let mut order: Vec<&ReplicaSet> = self.all().filter(|set| size::size(set) > 0).collect();
        order.sort_by_key(|set| (Reverse(size::size(set)), created(set)));
        if to_add > 0 {
            order.sort_by_key(|set| (Reverse(size::size(set)), Reverse(created(set))));
        }
        let mut added = 0;
        for set in order {
            let share = size::proportion(self.deployment, set, to_add, added);
            added += share;
            active.push((set.metadata.uid.clone(), size::size(set), share));
        }
        for (at, (uid, present, share)) in active.into_iter().enumerate() {
            let rest = if at == 0 { to_add - added } else { 0 };
            let deployment = self.deployment;
            Self::resize(deployment, self.by_uid(uid), (present + share + rest).max(0));
        }
        self.settled = false;
    }

    /// UIDs of empty old sets beyond the history limit, oldest revision first.
    pub fn surplus_history(&self) -> Vec<String> {
        let Some(limit) = self.deployment.spec.revision_history_limit else {
            return Vec::new();
        };
        let mut sets: Vec<_> = self.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
        sets.sort_by_key(|set| (revision::number(set), created(set)));
        let surplus = sets.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let idle = |set: &&&ReplicaSet| {
            let status = set.status.clone().unwrap_or_default();
            let observed = status.observed_generation.unwrap_or(0) >= set.metadata.generation.unwrap_or(0);
            size::size(set) == 0 && status.replicas == 0 && observed
        };
        sets[..surplus].iter().filter(idle).filter_map(|set| set.metadata.uid.clone()).collect()
    }
}
