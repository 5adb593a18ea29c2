//! The book of leases that backends share: which there are and when they end. Which keys are attached to a lease, and
//! how leases are kept on disk, is the backend's.

use super::{Error, LeaseId, LeaseStatus, Revision, Store};
use crate::task;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tracing::warn;

/// Most leases, about 150 bytes of memory each. When full, none is granted.
pub const MAX_LEASES: usize = 200_000;

/// How often the remaining time of long leases is noted down, so that a restart does not give them their full time again.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(300);

/// Pause after a lease could not be revoked.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Book {
    inner: Mutex<Inner>,
    /// The first thing to do may have become another.
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    leases: HashMap<LeaseId, Lease>,
    /// By end.
    order: BTreeSet<(Instant, LeaseId)>,
    /// When the remaining times were last noted down.
    noted: Option<Instant>,
}

struct Lease {
    granted: u32,
    ends: Instant,
    /// Whether a remaining time is noted down for it.
    noted: bool,
}

/// What has to be done about leases.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub revoke: Vec<LeaseId>,
    /// Remaining seconds to note down.
    pub note: Vec<(LeaseId, u32)>,
}

impl Book {
    /// Whether a lease can be granted.
    pub fn check_new(&self, id: LeaseId) -> Result<(), Error> {
        let inner = self.inner.lock();
        match () {
            _ if id.is_none() => Err(Error::LeaseNotFound),
            _ if inner.leases.contains_key(&id) => Err(Error::LeaseExists),
            _ if inner.leases.len() >= MAX_LEASES => Err(Error::TooManyLeases(MAX_LEASES)),
            _ => Ok(()),
        }
    }

    /// Enter a lease of `granted` seconds, of which `remaining` are left if that was noted down.
    pub fn enter(&self, id: LeaseId, granted: u32, remaining: Option<u32>, now: Instant) {
        let mut inner = self.inner.lock();
        inner.remove(id);
        let ends = now + Duration::from_secs(remaining.unwrap_or(granted).into());
        inner.leases.insert(id, Lease { granted, ends, noted: remaining.is_some() });
        inner.order.insert((ends, id));
        inner.noted.get_or_insert(now);
        drop(inner);
        self.changed.notify_one();
    }

    pub fn contains(&self, id: LeaseId) -> bool {
        self.inner.lock().leases.contains_key(&id)
    }

    pub fn remove(&self, id: LeaseId) {
        self.inner.lock().remove(id);
    }

    /// Start a lease's time anew. Gives its seconds, and whether a remaining time is noted down that no longer holds.
    pub fn renew(&self, id: LeaseId, now: Instant) -> Result<(u32, bool), Error> {
        let mut inner = self.inner.lock();
        let Inner { leases, order, .. } = &mut *inner;
        // One that has ended is being revoked.
        let lease = leases.get_mut(&id).filter(|lease| lease.ends > now).ok_or(Error::LeaseNotFound)?;
        order.remove(&(lease.ends, id));
        lease.ends = now + Duration::from_secs(lease.granted.into());
        order.insert((lease.ends, id));
        Ok((lease.granted, std::mem::take(&mut lease.noted)))
    }

    pub fn status(&self, id: LeaseId, now: Instant) -> Result<LeaseStatus, Error> {
        let inner = self.inner.lock();
        inner.leases.get(&id).map(|lease| lease.status(id, now)).ok_or(Error::LeaseNotFound)
    }

    /// All leases by end.
    pub fn all(&self, now: Instant) -> Vec<LeaseStatus> {
        let inner = self.inner.lock();
        let status = |(_, id): &(Instant, LeaseId)| Some(inner.leases.get(id)?.status(*id, now));
        inner.order.iter().filter_map(status).collect()
    }

    /// What is due now, and when to look again.
    pub fn due(&self, now: Instant) -> (Due, Option<Instant>) {
        let mut inner = self.inner.lock();
        let Inner { leases, order, noted } = &mut *inner;
        let mut due = Due::default();
        due.revoke.extend(order.iter().take_while(|(ends, _)| *ends <= now).map(|(_, id)| *id));
        let note_at = noted.map(|noted| noted + CHECKPOINT_EVERY);
        if note_at.is_some_and(|at| at <= now) {
            *noted = Some(now);
            for (id, lease) in leases.iter_mut().filter(|(_, lease)| lease.outlives(now + CHECKPOINT_EVERY)) {
                lease.noted = true;
                due.note.push((*id, lease.status(*id, now).remaining));
            }
        }
        let first_end = order.first().map(|(ends, _)| *ends);
        let next_note = noted.map(|noted| noted + CHECKPOINT_EVERY);
        let next_note = next_note.filter(|at| order.last().is_some_and(|(ends, _)| *ends > *at + CHECKPOINT_EVERY));
        (due, [first_end, next_note].into_iter().flatten().min())
    }

    /// Wait until something is due. Cancel safe, but for what is handed out.
    pub async fn next_due(&self) -> Due {
        loop {
            let (due, next) = self.due(Instant::now());
            if due != Due::default() {
                return due;
            }
            let sleep = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.changed.notified() => {}
            }
        }
    }
}

impl Inner {
    fn remove(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id) {
            self.order.remove(&(lease.ends, id));
        }
    }
}

impl Lease {
    fn status(&self, id: LeaseId, now: Instant) -> LeaseStatus {
        // Rounded up: a lease that has just been granted has all its time.
        let remaining = self.ends.saturating_duration_since(now).as_millis().div_ceil(1000);
        LeaseStatus { id, granted: self.granted, remaining: u32::try_from(remaining).unwrap_or(u32::MAX) }
    }

    /// Whether the lease, if it is not renewed, lasts beyond some time.
    fn outlives(&self, time: Instant) -> bool {
        self.ends > time
    }
}

/// A lease that has gone meanwhile needs not be revoked.
pub(super) fn gone(revoked: Result<Revision, Error>) -> Result<(), Error> {
    match revoked {
        Ok(_) | Err(Error::LeaseNotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Revoke leases as they end, until the group ends.
pub fn start(group: &task::Group, store: Arc<dyn Store>) {
    group.spawn("store-leases", async move {
        loop {
            match store.keep_leases().await {
                Ok(()) => {}
                Err(Error::Closed) => return,
                Err(error) => {
                    warn!(%error, "a lease that has ended cannot be revoked; it is tried again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LeaseId = LeaseId(1);
    const B: LeaseId = LeaseId(2);

    #[test]
    fn leases_end_in_order_unless_they_are_renewed() {
        let book = Book::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        book.enter(A, 10, None, start);
        book.enter(B, 20, Some(5), start);
        assert!(matches!(book.check_new(A), Err(Error::LeaseExists)));
        assert_eq!(book.due(start), (Due::default(), Some(at(5))));
        assert_eq!(book.all(start).iter().map(|lease| lease.id).collect::<Vec<_>>(), [B, A]);
        assert_eq!(book.status(B, at(3)).ok(), Some(LeaseStatus { id: B, granted: 20, remaining: 2 }));
        assert!(matches!(book.renew(B, at(4)), Ok((20, true))));
        assert!(matches!(book.renew(B, at(4)), Ok((20, false))));
        assert_eq!(book.due(at(10)), (Due { revoke: vec![A], note: vec![] }, Some(at(10))));
        assert!(matches!(book.renew(A, at(10)), Err(Error::LeaseNotFound)), "it has ended");
        assert_eq!(book.status(A, at(11)).map(|lease| lease.remaining).ok(), Some(0));
        book.remove(A);
        assert_eq!(book.due(at(11)), (Due::default(), Some(at(24))));
        assert!(!book.contains(A) && book.contains(B));
    }

    #[test]
    fn remaining_times_of_long_leases_are_noted_down_now_and_then() {
        let book = Book::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        book.enter(A, 1000, None, start);
        book.enter(B, 400, None, start);
        assert_eq!(book.due(at(299)), (Due::default(), Some(at(300))));
        assert_eq!(book.due(at(300)), (Due { revoke: vec![], note: vec![(A, 700)] }, Some(at(400))));
        assert!(matches!(book.renew(A, at(350)), Ok((1000, true))));
    }
}
