//! `v1` ReplicationController.

use super::plan::Counts;
use super::{Failure, Set};
use crate::controllers::conditions::{self, Condition};
use crate::controllers::labels::Selector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController, ReplicationControllerCondition};
use std::time::Duration;

impl Set for ReplicationController {
    const CONTROLLER: &'static str = "replication-controller";

    fn replicas(&self) -> usize {
        usize::try_from(self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)).unwrap_or(0)
    }

    fn min_ready(&self) -> Duration {
        Duration::from_secs(
            u64::try_from(self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)).unwrap_or(0),
        )
    }

    fn selector(&self) -> Selector {
        Selector::of_map(self.spec.as_ref().and_then(|s| s.selector.as_ref()))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn tell(&mut self, counts: &Counts, failure: Failure<'_>, now: Timestamp) {
        let status = self.status.get_or_insert_default();
        status.replicas = counts.replicas;
        status.fully_labeled_replicas = Some(counts.fully_labeled).filter(|n| *n != 0);
        status.ready_replicas = Some(counts.ready).filter(|n| *n != 0);
        status.available_replicas = Some(counts.available).filter(|n| *n != 0);
        status.observed_generation = self.metadata.generation;
        match failure {
            Failure::None => conditions::remove(&mut status.conditions, "ReplicaFailure"),
            Failure::Because(reason, message) => {
                let failure = ReplicationControllerCondition::new("ReplicaFailure", "True", reason, message, now);
                conditions::set(&mut status.conditions, failure);
            }
        }
    }

    fn same_status(&self, other: &Self) -> bool {
        self.status == other.status
    }
}
