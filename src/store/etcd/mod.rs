//! The backend for several servers: an etcd cluster, by its API.
//!
//! `cluster.rs`: calls and failing members. `form.rs`: the store's terms in etcd's. `watch.rs`: watches that survive the
//! loss of a member. `snapshot.rs`: all of it, for backups and for the way back into a store of our own.
//!
//! etcd has limits of its own, beneath ours: 128 operations and 1.5 MiB in a transaction unless it was started with
//! more (`--max-txn-ops`, `--max-request-bytes`).

mod cluster;
mod form;
mod snapshot;
mod watch;

use super::proto::{self, Empty, HeaderOnly};
use super::txn::{check, check_compact, check_revision};
use super::{
    Alarm, Error, KeyRange, LeaseId, LeaseStatus, RangeRequest, RangeResponse, Revision, Snapshot, Store, Txn,
    TxnResponse, Watch,
};
use async_trait::async_trait;
use bytes::Bytes;
use cluster::{Again, Cluster};
use parking_lot::Mutex;
use rustls::ClientConfig;
use snapshot::EtcdSnapshot;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;
use tonic::Status;

pub struct Etcd {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: Cluster,
    /// Newest revision heard of, and the oldest that can be read as far as known.
    revision: AtomicU64,
    compacted: AtomicU64,
    bytes: AtomicU64,
    alarm: Mutex<Option<Alarm>>,
    closed: CancellationToken,
    /// Progress may be told before the events that it covers.
    hasty: bool,
}

impl Etcd {
    /// Connect to a cluster: `https://HOST:PORT` with `tls`, or `http://HOST:PORT`. Fails if no member answers.
    pub async fn open(endpoints: &[String], tls: Option<Arc<ClientConfig>>) -> Result<Arc<dyn Store>, Error> {
        let cluster = Cluster::new(endpoints, tls)?;
        let asked = cluster.call("/etcdserverpb.Maintenance/Status", Empty {}, Again::Always).await;
        let status: proto::StatusResponse =
            asked.map_err(|e| Error::Unreachable(format!("{}: {}", endpoints.join(", "), e.message())))?;
        let hasty = is_hasty(&status.version);
        if hasty {
            tracing::warn!(
                version = status.version,
                "this etcd tells progress too early now and then; versions from 3.4.31, 3.5.13 and 3.6 do not"
            );
        }
        let shared = Shared {
            cluster,
            revision: AtomicU64::new(form::header_revision(status.header).0),
            compacted: AtomicU64::new(1),
            bytes: AtomicU64::new(u64::try_from(status.db_size).unwrap_or(0)),
            alarm: Mutex::new(None),
            closed: CancellationToken::new(),
            hasty,
        };
        let shared = Arc::new(shared);
        shared.find_compacted().await?;
        Ok(Arc::new(Etcd { shared }))
    }
}

/// Whether this version answers progress requests before it has sent all events up to them (etcd issue 15220).
fn is_hasty(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(3), Some(4), Some(patch)) => patch < 31,
        (Some(3), Some(5), Some(patch)) => patch < 13,
        (Some(3), Some(minor), _) => minor < 4,
        _ => false,
    }
}

impl Shared {
    fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::SeqCst))
    }

    fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::SeqCst))
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.closed.is_cancelled() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Note the revision in an answer.
    fn heard(&self, header: Option<proto::ResponseHeader>) -> Revision {
        let revision = form::header_revision(header);
        self.revision.fetch_max(revision.0, Ordering::SeqCst);
        revision
    }

    fn heard_compacted(&self, revision: Revision) {
        self.compacted.fetch_max(revision.0, Ordering::SeqCst);
    }

    async fn error(&self, status: Status, step: &'static str) -> Error {
        let error = form::error(&status, step, self.compacted(), self.revision());
        match error {
            // Others compact, too: ask how far.
            Error::Compacted(_) => match self.find_compacted().await {
                Ok(()) => Error::Compacted(self.compacted()),
                Err(error) => error,
            },
            Error::NoSpace(_) => {
                *self.alarm.lock() = Some(Alarm::NoSpace);
                error
            }
            error => error,
        }
    }

    /// Learn the oldest revision that can be read: a watch from the first one is refused with it.
    async fn find_compacted(&self) -> Result<(), Error> {
        if let Some(oldest) = watch::oldest(&self.cluster).await? {
            self.heard_compacted(oldest);
        }
        Ok(())
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q, again: Again, step: &'static str) -> Result<A, Error>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        self.check_open()?;
        match self.cluster.call(path, request, again).await {
            Ok(answer) => Ok(answer),
            Err(status) => Err(self.error(status, step).await),
        }
    }
}

#[async_trait]
impl Store for Etcd {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.shared.check_open()?;
        // What others have compacted since is for etcd to say.
        check_revision(&request, Revision(u64::MAX), self.shared.compacted())?;
        let asked = form::range(&request);
        let found: proto::RangeResponse =
            self.shared.call("/etcdserverpb.KV/Range", asked, Again::Always, "reading").await?;
        let revision = self.shared.heard(found.header);
        Ok(form::range_response(found, revision))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        check(&txn)?;
        let asked = form::txn(&txn);
        let done: proto::TxnResponse =
            self.shared.call("/etcdserverpb.KV/Txn", asked, Again::Unsent, "writing").await?;
        let revision = self.shared.heard(done.header);
        form::txn_response(done, revision)
            .ok_or_else(|| Error::Failed { step: "writing", message: "etcd's answer is incomplete".into() })
    }

    async fn watch(&self, range: KeyRange, from: Option<Revision>) -> Result<Box<dyn Watch>, Error> {
        self.shared.check_open()?;
        let compacted = self.shared.compacted();
        match from {
            Some(from) if from < compacted => Err(Error::Compacted(compacted)),
            _ => Ok(Box::new(watch::EtcdWatch::open(self.shared.clone(), range, from).await?)),
        }
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.shared.check_open()?;
        check_compact(revision, Revision(u64::MAX), self.shared.compacted())?;
        let asked = proto::CompactionRequest { revision: form::number(revision), physical: false };
        let done: HeaderOnly = self.shared.call("/etcdserverpb.KV/Compact", asked, Again::Always, "compacting").await?;
        self.shared.heard(done.header);
        self.shared.heard_compacted(revision);
        Ok(())
    }

    fn revision(&self) -> Revision {
        self.shared.revision()
    }

    fn compacted(&self) -> Revision {
        self.shared.compacted()
    }

    fn disk_bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    fn written_bytes(&self) -> u64 {
        0
    }

    async fn lease_grant(&self, id: LeaseId, seconds: u32) -> Result<(), Error> {
        let asked = proto::LeaseGrantRequest { id: id.0, ttl: seconds.into() };
        let granted: proto::LeaseGrantResponse =
            self.shared.call("/etcdserverpb.Lease/LeaseGrant", asked, Again::Unsent, "granting a lease").await?;
        self.shared.heard(granted.header);
        Ok(())
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        let asked = proto::LeaseRequest { id: id.0 };
        let revoked: HeaderOnly =
            self.shared.call("/etcdserverpb.Lease/LeaseRevoke", asked, Again::Unsent, "revoking a lease").await?;
        Ok(self.shared.heard(revoked.header))
    }

    async fn lease_renew(&self, id: LeaseId) -> Result<u32, Error> {
        self.shared.check_open()?;
        let asked = futures::stream::iter([proto::LeaseRequest { id: id.0 }]);
        let path = "/etcdserverpb.Lease/LeaseKeepAlive";
        let renewed = async {
            let mut answers = self.shared.cluster.stream::<_, proto::LeaseKeepAliveResponse>(path, asked).await?;
            answers.message().await
        };
        match renewed.await {
            Ok(Some(answer)) if answer.ttl > 0 => Ok(u32::try_from(answer.ttl).unwrap_or(u32::MAX)),
            Ok(_) => Err(Error::LeaseNotFound),
            Err(status) => Err(self.shared.error(status, "renewing a lease").await),
        }
    }

    async fn lease(&self, id: LeaseId, keys: bool) -> Result<(LeaseStatus, Vec<Bytes>), Error> {
        let asked = proto::LeaseTimeToLiveRequest { id: id.0, keys };
        let path = "/etcdserverpb.Lease/LeaseTimeToLive";
        let mut found: proto::LeaseTimeToLiveResponse =
            self.shared.call(path, asked, Again::Always, "reading a lease").await?;
        found.keys.sort();
        let seconds = |seconds: i64| u32::try_from(seconds).unwrap_or(0);
        match found.ttl {
            ..0 => Err(Error::LeaseNotFound),
            ttl => Ok((LeaseStatus { id, granted: seconds(found.granted_ttl), remaining: seconds(ttl) }, found.keys)),
        }
    }

    async fn leases(&self) -> Result<Vec<LeaseStatus>, Error> {
        let path = "/etcdserverpb.Lease/LeaseLeases";
        let listed: proto::LeaseLeasesResponse =
            self.shared.call(path, Empty {}, Again::Always, "listing leases").await?;
        let mut leases = Vec::with_capacity(listed.leases.len());
        for lease in listed.leases {
            match self.lease(LeaseId(lease.id), false).await {
                Ok((status, _)) => leases.push(status),
                Err(Error::LeaseNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        leases.sort_by_key(|lease| lease.remaining);
        Ok(leases)
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        Ok(Box::new(EtcdSnapshot::take(Etcd { shared: self.shared.clone() }).await?))
    }

    async fn defragment(&self) -> Result<(), Error> {
        let path = "/etcdserverpb.Maintenance/Defragment";
        self.shared.call::<_, HeaderOnly>(path, Empty {}, Again::Always, "defragmenting").await.map(drop)
    }

    fn alarm(&self) -> Option<Alarm> {
        *self.shared.alarm.lock()
    }

    fn disarm(&self) {
        *self.shared.alarm.lock() = None;
    }

    async fn close(&self) -> Result<(), Error> {
        self.shared.closed.cancel();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_tell_progress_too_early() {
        let cases = [
            ("3.3.27", true),
            ("3.4.23", true),
            ("3.4.31", false),
            ("3.5.12", true),
            ("3.5.13", false),
            ("3.6.0-rc.1", false),
            ("4.0.0", false),
            ("", false),
        ];
        for (version, hasty) in cases {
            assert_eq!(is_hasty(version), hasty, "{version}");
        }
    }
}
