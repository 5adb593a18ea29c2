//! The status of a Deployment: numbers and the conditions Available, Progressing, ReplicaFailure.

use super::size;
use crate::controllers::conditions::{get, remove};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

const PROGRESSING: &str = "Progressing";
const FOUND: &str = "FoundNewReplicaSet";
const CREATED: &str = "NewReplicaSetCreated";
const UPDATED: &str = "ReplicaSetUpdated";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(kind.into()),
        status: Some(status.into()),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Upstream's `SetDeploymentCondition`: nothing happens if status and reason are the same; the transition time moves
/// only with the status.
fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    let kind = new.type_.clone().unwrap_or_default();
    if let Some(old) = get(&status.conditions, &kind) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    remove(&mut status.conditions, &kind);
    status.conditions.get_or_insert_default().push(new);
}

/// Seconds until a rollout without progress has failed; None: never.
fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn progressing(status: &DeploymentStatus) -> Option<&DeploymentCondition> {
    get(&status.conditions, PROGRESSING)
}

fn has_reason(condition: Option<&DeploymentCondition>, reason: &str) -> bool {
    condition.is_some_and(|c| c.reason.as_deref() == Some(reason))
}

/// The condition of a Deployment that is, or was, paused.
pub fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    if deadline(deployment).is_none() || has_reason(progressing(status), TIMED_OUT) {
        return;
    }
    let noted = has_reason(progressing(status), PAUSED);
    let paused = deployment.spec.paused == Some(true);
    match (paused, noted) {
        (true, false) => set(status, condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused", now)),
        (false, true) => {
            set(status, condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", now));
        }
        _ => {}
    }
}

/// A rollout goes on with a set that exists.
pub fn note_found(deployment: &Deployment, status: &mut DeploymentStatus, current: &ReplicaSet, now: Timestamp) {
    if deadline(deployment).is_some() && progressing(status).is_none() {
        let message = format!("Found new replica set \"{}\"", current.metadata.name.as_deref().unwrap_or(""));
        set(status, condition(PROGRESSING, "True", FOUND, &message, now));
    }
}

pub fn note_created(deployment: &Deployment, status: &mut DeploymentStatus, current: &ReplicaSet, now: Timestamp) {
    if deadline(deployment).is_some() {
        let message = format!("Created new replica set \"{}\"", current.metadata.name.as_deref().unwrap_or(""));
        set(status, condition(PROGRESSING, "True", CREATED, &message, now));
    }
}

pub fn creation_failed(deployment: &Deployment, status: &mut DeploymentStatus, error: &str, now: Timestamp) {
    if deadline(deployment).is_some() {
        set(status, condition(PROGRESSING, "False", "ReplicaSetCreateError", error, now));
    }
}

/// Numbers, and whether enough pods are available.
pub fn counted(
    deployment: &Deployment,
    before: &DeploymentStatus,
    current: Option<&ReplicaSet>,
    old: &[ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let sets = || old.iter().chain(current);
    let sum = |number: fn(&ReplicaSetStatus) -> i32| sets().filter_map(|s| s.status.as_ref()).map(number).sum::<i32>();
    let available = sum(|s| s.available_replicas.unwrap_or(0));
    let asked: i32 = sets().map(size::size).sum();
    let terminating = sets().map(|s| s.status.as_ref().map_or(Some(0), |s| s.terminating_replicas));
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(sum(|s| s.replicas)),
        updated_replicas: nonzero(current.and_then(|s| s.status.as_ref()).map_or(0, |s| s.replicas)),
        ready_replicas: nonzero(sum(|s| s.ready_replicas.unwrap_or(0))),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((asked - available).max(0)),
        terminating_replicas: terminating.sum(),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
    };
    let enough = available >= size::wanted(deployment) - size::max_unavailable(deployment);
    let verdict = if enough {
        condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now)
    } else {
        let message = "Deployment does not have minimum availability.";
        condition("Available", "False", "MinimumReplicasUnavailable", message, now)
    };
    set(&mut status, verdict);
    status
}

/// The API omits zero counts.
fn nonzero(n: i32) -> Option<i32> {
    Some(n).filter(|n| *n != 0)
}

/// All pods are of the current template, and available.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = size::wanted(deployment);
    [status.updated_replicas, status.replicas, status.available_replicas].iter().all(|n| n.unwrap_or(0) == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

/// Did anything move in the right direction?
fn moved(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let n = |n: Option<i32>| n.unwrap_or(0);
    let old = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(after.updated_replicas) > n(before.updated_replicas)
        || old(after) < old(before)
        || n(after.ready_replicas) > n(before.ready_replicas)
        || n(after.available_replicas) > n(before.available_replicas)
}

/// When the deadline ends for what is noted in the Progressing condition.
fn deadline_end(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let since = progressing(status)?.last_update_time.as_ref()?.0;
    since.checked_add(jiff::SignedDuration::try_from(deadline(deployment)?).ok()?).ok()
}

fn timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    match progressing(status) {
        None => false,
        condition if has_reason(condition, COMPLETE) => false,
        condition if has_reason(condition, TIMED_OUT) => true,
        _ => deadline_end(deployment, status).is_some_and(|end| end < now),
    }
}

/// Add progress and failures to `status` (fresh numbers, conditions noted so far).
pub fn progress(
    deployment: &Deployment,
    mut status: DeploymentStatus,
    current: Option<&ReplicaSet>,
    old: &[ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let was_complete = status.replicas == status.updated_replicas && has_reason(progressing(&status), COMPLETE);
    if deadline(deployment).is_none() {
        remove(&mut status.conditions, PROGRESSING);
    } else if !was_complete {
        let subject = match current {
            Some(set) => format!("ReplicaSet \"{}\"", set.metadata.name.as_deref().unwrap_or("")),
            None => format!("Deployment \"{}\"", deployment.metadata.name.as_deref().unwrap_or("")),
        };
        if is_complete(deployment, &status) {
            let message = format!("{subject} has successfully progressed.");
            set(&mut status, condition(PROGRESSING, "True", COMPLETE, &message, now));
        } else if moved(&before, &status) {
            let mut news = condition(PROGRESSING, "True", UPDATED, &format!("{subject} is progressing."), now);
            if let Some(old) = progressing(&status).filter(|c| c.status.as_deref() == Some("True")) {
                news.last_transition_time = old.last_transition_time.clone();
            }
            remove(&mut status.conditions, PROGRESSING);
            set(&mut status, news);
        } else if timed_out(deployment, &status, now) {
            let message = format!("{subject} has timed out progressing.");
            set(&mut status, condition(PROGRESSING, "False", TIMED_OUT, &message, now));
        }
    }
    match replica_failure(current, old) {
        Some(failure) => set(&mut status, failure),
        None => remove(&mut status.conditions, "ReplicaFailure"),
    }
    status
}

/// The failure of the current set, else of any old one.
fn replica_failure(current: Option<&ReplicaSet>, old: &[ReplicaSet]) -> Option<DeploymentCondition> {
    let mut sets = current.into_iter().chain(old).filter_map(|s| s.status.as_ref());
    let failure = sets.find_map(|s| get(&s.conditions, "ReplicaFailure"))?;
    Some(DeploymentCondition {
        type_: failure.type_.clone(),
        status: failure.status.clone(),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        last_transition_time: failure.last_transition_time.clone(),
        last_update_time: failure.last_transition_time.clone(),
    })
}

/// When a rollout that stands still must be looked at again.
pub fn check_again(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let condition = progressing(status);
    if is_complete(deployment, status) || has_reason(condition, TIMED_OUT) || has_reason(condition, PAUSED) {
        return None;
    }
    let left = deadline_end(deployment, status)?.duration_since(now);
    Some(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1))
}
