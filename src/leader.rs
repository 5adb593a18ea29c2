//! Leader election by a Lease in kube-system, as client-go does it: one of several candidates for a part works at a
//! time, whoever made them. A leader that cannot renew in time ends its program before another begins.
//!
//! Time is measured by this process alone: a lease has lapsed when it did not change for its duration while we looked,
//! whatever anybody's clock says.

use crate::task::Group;
use anyhow::Context;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, info, warn};

const NAMESPACE: &str = "kube-system";
/// Upstream's numbers: how long a lease holds, within which time its holder must have renewed it, how often it tries.
const DURATION: Duration = Duration::from_secs(15);
const RENEW_WITHIN: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
/// For ending what was led: before another begins, it has [`DURATION`] less [`RENEW_WITHIN`].
const END_WITHIN: Duration = Duration::from_secs(4);
/// For handing the lease over at the end.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);

/// A candidate, and after [`Candidate::win`] the leader.
struct Candidate {
    leases: Api<Lease>,
    /// Of the lease: upstream's name of the part.
    name: &'static str,
    /// Of this process.
    identity: String,
    seen: Option<Seen>,
}

/// A lease as it was when it last changed.
struct Seen {
    version: Option<String>,
    at: Instant,
}

/// Wait until this process leads; it then goes on leading until the group ends, or ends the program.
pub async fn lead(client: &Client, name: &'static str, group: &Group) -> anyhow::Result<()> {
    let mut candidate = Candidate::new(client, name)?;
    info!(lease = name, "waiting until no other leads");
    candidate.win().await;
    info!(lease = name, identity = candidate.identity, "leading");
    let end = group.clone();
    group.spawn_vital("leader", async move {
        tokio::select! {
            () = end.cancelled() => {
                candidate.release().await;
                Ok(())
            }
            () = candidate.hold() => anyhow::bail!("the lease {NAMESPACE}/{name} was lost; another may lead now"),
        }
    });
    Ok(())
}

/// Work whenever this process leads: `work` starts its tasks in a group that ends with the leadership. For programs that
/// have more to do than this one part.
pub fn while_leading(
    client: &Client,
    name: &'static str,
    group: &Group,
    work: impl Fn(&Group) + Send + 'static,
) -> anyhow::Result<()> {
    let mut candidate = Candidate::new(client, name)?;
    let all = group.clone();
    group.spawn_graceful("election", async move {
        loop {
            tokio::select! {
                () = candidate.win() => info!(lease = name, identity = candidate.identity, "leading"),
                () = all.cancelled() => return,
            }
            let term = all.child();
            work(&term);
            let ended = tokio::select! {
                () = candidate.hold() => false,
                () = all.cancelled() => true,
            };
            term.wind_down(END_WITHIN).await;
            if ended {
                return candidate.release().await;
            }
            warn!(lease = name, "the lease was lost; another may lead now");
        }
    });
    Ok(())
}

impl Candidate {
    fn new(client: &Client, name: &'static str) -> anyhow::Result<Self> {
        let host = nix::unistd::gethostname().context("cannot read the host name")?;
        let identity = format!("{}_{:032x}", host.to_string_lossy(), rand::random::<u128>());
        Ok(Candidate { leases: Api::namespaced(client.clone(), NAMESPACE), name, identity, seen: None })
    }

    async fn win(&mut self) {
        while !self.attempt().await {
            tokio::time::sleep(RETRY.mul_f64(rand::random_range(1.0..1.2))).await;
        }
    }

    /// Returns when the lease could not be renewed in time.
    async fn hold(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < RENEW_WITHIN {
            tokio::time::sleep(RETRY).await;
            let left = RENEW_WITHIN.saturating_sub(renewed.elapsed());
            if let Ok(true) = tokio::time::timeout(left, self.attempt()).await {
                renewed = Instant::now();
            }
        }
    }

    /// Take or renew the lease. Says whether it is ours.
    async fn attempt(&mut self) -> bool {
        match self.written().await {
            Ok(ours) => ours,
            Err(error) => {
                debug!(lease = self.name, %error, "the lease could not be taken");
                false
            }
        }
    }

    async fn written(&mut self) -> kube::Result<bool> {
        let held = self.leases.get_opt(self.name).await?;
        if let Some(lease) = &held {
            self.look(lease);
        }
        let lapsed = self.seen.as_ref().is_none_or(|seen| seen.at.elapsed() >= duration(held.as_ref()));
        let Some(lease) = claim(held, &self.identity, lapsed, MicroTime(crate::time::now())) else { return Ok(false) };
        let written = self.write(lease).await?;
        self.look(&written);
        Ok(true)
    }

    async fn write(&self, mut lease: Lease) -> kube::Result<Lease> {
        if lease.metadata.resource_version.is_some() {
            return self.leases.replace(self.name, &PostParams::default(), &lease).await;
        }
        lease.metadata.name = Some(self.name.to_owned());
        self.leases.create(&PostParams::default(), &lease).await
    }

    fn look(&mut self, lease: &Lease) {
        let version = lease.metadata.resource_version.clone();
        if self.seen.as_ref().is_none_or(|seen| seen.version != version) {
            self.seen = Some(Seen { version, at: Instant::now() });
        }
    }

    /// Let the next one begin at once.
    async fn release(&self) {
        let given_up = async {
            let mut lease = self.leases.get(self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.write(lease).await.map(drop)
        };
        if let Ok(Err(error)) = tokio::time::timeout(RELEASE_WITHIN, given_up).await {
            debug!(lease = self.name, %error, "the lease could not be released");
        }
    }
}

/// How long the holder of a lease has asked for.
fn duration(lease: Option<&Lease>) -> Duration {
    let seconds = lease.and_then(|l| l.spec.as_ref()?.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
    seconds.map_or(DURATION, Duration::from_secs)
}

/// What to write to hold the lease; None while somebody else does. `lapsed`: it did not change for its duration.
fn claim(held: Option<Lease>, identity: &str, lapsed: bool, now: MicroTime) -> Option<Lease> {
    let mut lease = held.unwrap_or_else(|| Lease { metadata: ObjectMeta::default(), spec: None });
    let spec = lease.spec.get_or_insert_default();
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    if holder != identity {
        if !holder.is_empty() && !lapsed {
            return None;
        }
        let transitions = spec.lease_transitions.map_or(0, |n| n.saturating_add(1));
        let (acquire_time, lease_transitions) = (Some(now.clone()), Some(transitions));
        *spec = LeaseSpec { acquire_time, lease_transitions, ..Default::default() };
    }
    spec.holder_identity = Some(identity.to_owned());
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    spec.renew_time = Some(now);
    Some(lease)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, transitions: i32) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_transitions: Some(transitions),
            ..Default::default()
        };
        Lease { metadata: ObjectMeta::default(), spec: Some(spec) }
    }

    #[test]
    fn a_lease_is_taken_only_from_who_let_go_of_it() {
        let now = MicroTime("2026-01-01T00:00:00Z".parse().unwrap());
        let claimed = |held, lapsed| {
            let spec = claim(held, "me", lapsed, now.clone())?.spec?;
            assert_eq!((spec.holder_identity.as_deref(), spec.renew_time.as_ref()), (Some("me"), Some(&now)));
            assert_eq!(spec.lease_duration_seconds, Some(15));
            Some((spec.lease_transitions, spec.acquire_time.is_some()))
        };
        assert_eq!(claimed(None, false), Some((Some(0), true)));
        assert_eq!(claimed(Some(lease("other", 3)), false), None);
        assert_eq!(claimed(Some(lease("other", 3)), true), Some((Some(4), true)));
        assert_eq!(claimed(Some(lease("", 3)), false), Some((Some(4), true)));
        assert_eq!(claimed(Some(lease("me", 3)), false), Some((Some(3), false)));
    }
}
