//! Service Lease.

use super::Incoming;
use super::answer::{from_error, header};
use crate::store::proto::{self, HeaderOnly};
use crate::store::{Error, LeaseId, Store};
use futures::Stream;
use rand::RngExt;
use std::sync::Arc;
use tonic::Status;

type Result<T> = std::result::Result<T, Status>;

/// Leases last at least so many seconds: the time in which an etcd cluster elects a leader.
const MIN_SECONDS: u32 = 2;

/// etcd's limit.
const MAX_SECONDS: i64 = 9_000_000_000;

pub async fn grant(store: &dyn Store, request: proto::LeaseGrantRequest) -> Result<proto::LeaseGrantResponse> {
    if request.ttl > MAX_SECONDS {
        return Err(Status::out_of_range("etcdserver: too large lease TTL"));
    }
    // The store counts in 32 bits: 136 years instead of 285.
    let seconds = u32::try_from(request.ttl.max(0)).unwrap_or(u32::MAX).max(MIN_SECONDS);
    let id = match request.id {
        0 => LeaseId(rand::rng().random_range(1..i64::MAX)),
        id => LeaseId(id),
    };
    store.lease_grant(id, seconds).await.map_err(from_error)?;
    let header = header(store.revision());
    Ok(proto::LeaseGrantResponse { header, id: id.0, ttl: seconds.into(), error: String::new() })
}

pub async fn revoke(store: &dyn Store, request: proto::LeaseRequest) -> Result<HeaderOnly> {
    let revision = store.lease_revoke(LeaseId(request.id)).await.map_err(from_error)?;
    Ok(HeaderOnly { header: header(revision) })
}

/// Answers each request on the stream; a lease that does not exist has a time to live of 0.
pub fn keep_alive(
    store: Arc<dyn Store>,
    requests: Incoming<proto::LeaseRequest>,
) -> impl Stream<Item = Result<proto::LeaseKeepAliveResponse>> + Send {
    futures::stream::try_unfold((store, requests), |(store, mut requests)| async move {
        let Some(request) = requests.message().await? else { return Ok(None) };
        let ttl = match store.lease_renew(LeaseId(request.id)).await {
            Ok(seconds) => seconds.into(),
            Err(Error::LeaseNotFound) => 0,
            Err(error) => return Err(from_error(error)),
        };
        let header = header(store.revision());
        Ok(Some((proto::LeaseKeepAliveResponse { header, id: request.id, ttl }, (store, requests))))
    })
}

/// A lease that does not exist has a time to live of -1.
pub async fn time_to_live(
    store: &dyn Store,
    request: proto::LeaseTimeToLiveRequest,
) -> Result<proto::LeaseTimeToLiveResponse> {
    let unknown = proto::LeaseTimeToLiveResponse { id: request.id, ttl: -1, ..Default::default() };
    let mut response = match store.lease(LeaseId(request.id), request.keys).await {
        Ok((lease, keys)) => proto::LeaseTimeToLiveResponse {
            id: request.id,
            ttl: lease.remaining.into(),
            granted_ttl: lease.granted.into(),
            keys,
            ..Default::default()
        },
        Err(Error::LeaseNotFound) => unknown,
        Err(error) => return Err(from_error(error)),
    };
    response.header = header(store.revision());
    Ok(response)
}

pub async fn leases(store: &dyn Store) -> Result<proto::LeaseLeasesResponse> {
    let all = store.leases().await.map_err(from_error)?;
    let leases = all.into_iter().map(|lease| proto::LeaseRequest { id: lease.id.0 }).collect();
    Ok(proto::LeaseLeasesResponse { header: header(store.revision()), leases })
}
