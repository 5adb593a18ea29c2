//! What to do about a Deployment: pure, from the Deployment, its ReplicaSets and the time.

use super::rollout::Rollout;
use super::{Shared, revision, size, status};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use std::time::Duration;

/// Writes, in this order: create, update, status and revision, delete.
#[derive(Debug, Default)]
pub struct Plan {
    pub create: Option<ReplicaSet>,
    /// From what is held to what is wanted.
    pub update: Vec<(Shared, ReplicaSet)>,
    pub status: DeploymentStatus,
    /// The revision that the Deployment's annotation must name; None: leave it.
    pub revision: Option<String>,
    pub delete: Vec<Shared>,
    /// Look again then (progress deadline).
    pub after: Option<Duration>,
}

/// `sets` are the Deployment's own; `busy` are the UIDs of those with pods that have not finished.
pub fn plan(deployment: &Deployment, sets: &[Shared], busy: &[String], now: Timestamp) -> Plan {
    let mut rollout = Rollout::new(deployment, sets, now);
    if deployment.metadata.deletion_timestamp.is_some() {
        return finish(rollout.with_plain_status(), sets, Vec::new());
    }
    rollout.note_pause();
    let paused = deployment.spec.paused == Some(true);
    let resized = rollout.all().any(|set| {
        size::size(set) > 0 && size::annotated(set, size::DESIRED).is_some_and(|d| d != size::wanted(deployment))
    });
    if paused || resized {
        rollout.number_current();
        rollout.scale();
        let delete = if paused { rollout.surplus_history() } else { Vec::new() };
        return finish(rollout.with_plain_status(), sets, delete);
    }
    if size::rolling(deployment).is_some() {
        rollout.roll();
    } else {
        rollout.recreate(busy);
    }
    let complete = status::is_complete(deployment, deployment.status.as_ref().unwrap_or(&DeploymentStatus::default()));
    let delete = if complete && rollout.settled { rollout.surplus_history() } else { Vec::new() };
    finish(rollout.with_progress(), sets, delete)
}

/// Differences between the sets as held and as the rollout left them.
fn finish(rollout: Rollout<'_>, sets: &[Shared], delete: Vec<String>) -> Plan {
    let mut plan = Plan {
        after: status::check_again(rollout.deployment, &rollout.status, rollout.now),
        revision: rollout.current.as_ref().map(revision::number).filter(|n| *n > 0).map(|n| n.to_string()),
        status: rollout.status,
        ..Default::default()
    };
    for set in rollout.current.into_iter().chain(rollout.old) {
        match sets.iter().find(|held| held.metadata.uid.is_some() && held.metadata.uid == set.metadata.uid) {
            None => plan.create = Some(set),
            Some(held) if **held != set => plan.update.push((held.clone(), set)),
            Some(_) => {}
        }
    }
    let gone = |set: &&Shared| set.metadata.uid.as_ref().is_some_and(|uid| delete.contains(uid));
    plan.delete = sets.iter().filter(gone).cloned().collect();
    plan
}

#[cfg(test)]
mod tests;
