//! Numbers of a Deployment: surge, unavailability, proportions.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

pub fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(0)
}

pub fn set_size(set: &mut ReplicaSet, replicas: i32) {
    set.spec.replicas = Some(replicas);
}

pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// Parameters of the rolling strategy; None for Recreate.
pub fn rolling(deployment: &Deployment) -> Option<RollingUpdateDeployment> {
    let strategy = deployment.spec.strategy.as_ref();
    match strategy {
        Some(s) if s.type_.as_deref() == Some("Recreate") => None,
        Some(s) => Some(s.rolling_update.clone().unwrap_or_default()),
        None => Some(RollingUpdateDeployment::default()),
    }
}

enum Round {
    Up,
    Down,
}

/// A number or a percentage of `total`; the default is 25 %, upstream's.
fn resolve(value: Option<&IntOrString>, total: i32, round: Round) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(n)) => return *n,
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().unwrap_or(0),
        None => 25,
    };
    let parts = i64::from(total) * percent;
    let whole = match round {
        Round::Up => (parts + 99).div_euclid(100),
        Round::Down => parts.div_euclid(100),
    };
    i32::try_from(whole).unwrap_or(i32::MAX)
}

/// (maxSurge, maxUnavailable), never both 0.
fn bounds(deployment: &Deployment) -> (i32, i32) {
    let Some(rolling) = rolling(deployment) else { return (0, 0) };
    let total = wanted(deployment);
    let surge = resolve(rolling.max_surge.as_ref(), total, Round::Up);
    let unavailable = resolve(rolling.max_unavailable.as_ref(), total, Round::Down);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// Pods above the wanted number that a rollout may have.
pub fn max_surge(deployment: &Deployment) -> i32 {
    bounds(deployment).0
}

/// Pods below the wanted number that may be unavailable.
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    if wanted(deployment) == 0 { 0 } else { bounds(deployment).1.min(wanted(deployment)) }
}

/// A replica annotation as a number.
pub fn annotated(set: &ReplicaSet, key: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// Note on a set what its Deployment wanted, for proportional scaling later.
pub fn annotate(deployment: &Deployment, set: &mut ReplicaSet) {
    let (desired, max) = (wanted(deployment), wanted(deployment) + max_surge(deployment));
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED.into(), desired.to_string());
    annotations.insert(MAX.into(), max.to_string());
}

/// The share of a set in a change of the Deployment's size by `to_add`, of which `added` is given out already.
pub fn proportion(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if size(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let (share, left) = (fraction(deployment, set), to_add - added);
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    if wanted(deployment) == 0 {
        return -size(set);
    }
    let status = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    let before = annotated(set, MAX).filter(|max| *max != 0).unwrap_or(status).max(1);
    let after = wanted(deployment) + max_surge(deployment);
    let scaled = f64::from(size(set)) * f64::from(after) / f64::from(before);
    scaled.round() as i32 - size(set)
}
