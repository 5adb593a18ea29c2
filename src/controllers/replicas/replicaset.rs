//! `apps/v1` ReplicaSet.

use super::plan::Counts;
use super::{Failure, Set};
use crate::controllers::conditions::{self, Condition};
use crate::controllers::labels::Selector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use std::time::Duration;

impl Set for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";

    fn replicas(&self) -> usize {
        usize::try_from(self.spec.replicas.unwrap_or(1)).unwrap_or(0)
    }

    fn min_ready(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0))
    }

    fn selector(&self) -> Selector {
        Selector::of(Some(&self.spec.selector))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.template.as_ref()
    }

    fn tell(&mut self, counts: &Counts, failure: Failure<'_>, now: Timestamp) {
        let status = self.status.get_or_insert_default();
        status.replicas = counts.replicas;
        status.fully_labeled_replicas = Some(counts.fully_labeled).filter(|n| *n != 0);
        status.ready_replicas = Some(counts.ready).filter(|n| *n != 0);
        status.available_replicas = Some(counts.available).filter(|n| *n != 0);
        status.terminating_replicas = Some(counts.terminating);
        status.observed_generation = self.metadata.generation;
        match failure {
            Failure::None => conditions::remove(&mut status.conditions, "ReplicaFailure"),
            Failure::Because(reason, message) => {
                let failure = ReplicaSetCondition::new("ReplicaFailure", "True", reason, message, now);
                conditions::set(&mut status.conditions, failure);
            }
        }
    }

    fn same_status(&self, other: &Self) -> bool {
        self.status == other.status
    }
}
