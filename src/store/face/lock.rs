//! etcd's service Lock: a lock is held by who is first in its queue.

use super::Face;
use super::answer::{from_error, header};
use super::queue::{self, Result, Waiting};
use crate::store::proto::{self, HeaderOnly};
use crate::store::{KeyRange, RangeRequest, Store};
use bytes::Bytes;
use std::sync::Arc;
use tonic::Status;

/// Answers when the lock is held.
pub async fn lock(face: Arc<Face>, request: proto::LockRequest) -> Result<proto::LockResponse> {
    let store = face.store.clone();
    let lease = queue::session(&*store, request.lease).await?;
    let entered = queue::enter(&*store, &request.name, lease, Bytes::new()).await?;
    let (key, made) = (entered.place.key.clone(), entered.place.made);
    let waiting = Waiting::at(face, entered.place);
    let mut revision = entered.revision;
    if queue::wait_for_turn(&*store, &request.name, made).await? {
        // The lease may have ended meanwhile.
        let own = RangeRequest { keys_only: true, ..RangeRequest::of(KeyRange::key(key.clone())) };
        let found = store.range(own).await.map_err(from_error)?;
        if found.kvs.is_empty() {
            return Err(Status::unknown("mutex: session is expired"));
        }
        revision = found.revision;
    }
    waiting.done();
    Ok(proto::LockResponse { header: header(revision), key })
}

pub async fn unlock(store: &dyn Store, request: proto::UnlockRequest) -> Result<HeaderOnly> {
    let delete = proto::DeleteRangeRequest { key: request.key, ..Default::default() };
    Ok(HeaderOnly { header: super::kv::delete_range(store, delete).await?.header })
}
