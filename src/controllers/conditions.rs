//! Conditions: one shape, many structs.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSetCondition, DeploymentCondition, ReplicaSetCondition};
use k8s_openapi::api::batch::v1::JobCondition;
use k8s_openapi::api::core::v1::{NamespaceCondition, NodeCondition, PodCondition, ReplicationControllerCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What all condition structs have.
pub trait Condition: Clone {
    fn new(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Self;
    fn kind(&self) -> &str;
    fn status(&self) -> &str;
    fn reason(&self) -> &str;
    fn message(&self) -> &str;
    fn transition(&mut self) -> &mut Option<Time>;
}

macro_rules! conditions {
    ($($kind:ty, $read:path, $write:path;)*) => {$(
        #[allow(clippy::needless_update, reason = "some kinds have more fields than these")]
        impl Condition for $kind {
            fn new(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Self {
                Self {
                    type_: $write(kind.to_owned()),
                    status: $write(status.to_owned()),
                    reason: Some(reason.to_owned()).filter(|r| !r.is_empty()),
                    message: Some(message.to_owned()).filter(|m| !m.is_empty()),
                    last_transition_time: Some(Time(now)),
                    ..Default::default()
                }
            }
            fn kind(&self) -> &str {
                $read(&self.type_)
            }
            fn status(&self) -> &str {
                $read(&self.status)
            }
            fn reason(&self) -> &str {
                self.reason.as_deref().unwrap_or("")
            }
            fn message(&self) -> &str {
                self.message.as_deref().unwrap_or("")
            }
            fn transition(&mut self) -> &mut Option<Time> {
                &mut self.last_transition_time
            }
        }
    )*};
}

fn optional(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("")
}

conditions! {
    DeploymentCondition, optional, Some;
    ReplicaSetCondition, optional, Some;
    DaemonSetCondition, optional, Some;
    ReplicationControllerCondition, String::as_str, std::convert::identity;
    JobCondition, String::as_str, std::convert::identity;
    NamespaceCondition, String::as_str, std::convert::identity;
    NodeCondition, String::as_str, std::convert::identity;
    PodCondition, String::as_str, std::convert::identity;
}

pub fn get<'a, C: Condition>(conditions: &'a Option<Vec<C>>, kind: &str) -> Option<&'a C> {
    conditions.iter().flatten().find(|c| c.kind() == kind)
}

/// Is the condition there with status "True"?
pub fn is_true<C: Condition>(conditions: &Option<Vec<C>>, kind: &str) -> bool {
    get(conditions, kind).is_some_and(|c| c.status() == "True")
}

/// Replace or add a condition. The transition time moves only with the status. An existing condition that differs
/// in nothing but its times stays as it is.
pub fn set<C: Condition>(conditions: &mut Option<Vec<C>>, mut new: C) {
    let list = conditions.get_or_insert_default();
    let Some(old) = list.iter_mut().find(|c| c.kind() == new.kind()) else { return list.push(new) };
    if old.status() == new.status() {
        if old.reason() == new.reason() && old.message() == new.message() {
            return;
        }
        *new.transition() = old.transition().clone();
    }
    *old = new;
}

pub fn remove<C: Condition>(conditions: &mut Option<Vec<C>>, kind: &str) {
    if let Some(list) = conditions {
        list.retain(|c| c.kind() != kind);
    }
}
