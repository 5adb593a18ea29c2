//! What services Lock and Election share: etcd's recipe. Who wants something puts a key `NAME/LEASE`, and has it once no
//! key with that beginning is older. A lease that ends takes its keys with it, so nobody waits for who is gone.

use super::Face;
use super::answer::from_error;
use crate::store::{
    Compare, Error, EventKind, KeyRange, KeyValue, LeaseId, Op, OpResponse, Put, RangeRequest, Revision, Store, Target,
    Txn, TxnResponse, WatchMessage,
};
use bytes::Bytes;
use rand::RngExt;
use std::sync::Arc;
use tonic::Status;
use tracing::debug;

pub type Result<T> = std::result::Result<T, Status>;

/// Seconds of the lease that who brings none is given, as etcd does.
const SESSION_SECONDS: u32 = 60;

/// etcd's own services call it as clients do, and on that way lose the code of an error.
pub fn told(error: Status) -> Status {
    Status::unknown(error.message())
}

/// A key in a queue: it stays there until it is given up or its lease ends.
#[derive(Clone)]
pub struct Place {
    pub key: Bytes,
    /// At which it was made: the order of the queue.
    pub made: Revision,
}

/// Beginning of all keys that wait for `name`.
pub fn queue(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The lease asked for, or a new one for 0.
pub async fn session(store: &dyn Store, lease: i64) -> Result<LeaseId> {
    if lease != 0 {
        return Ok(LeaseId(lease));
    }
    let id = LeaseId(rand::rng().random_range(1..i64::MAX));
    store.lease_grant(id, SESSION_SECONDS).await.map_err(from_error)?;
    Ok(id)
}

/// Where a lease's key was put into a queue, or was before.
pub struct Entered {
    pub place: Place,
    /// Revision of the store then.
    pub revision: Revision,
    /// The value that it had before.
    pub before: Option<Bytes>,
}

/// Put a lease's key into a queue, unless it is there.
pub async fn enter(store: &dyn Store, name: &[u8], lease: LeaseId, value: Bytes) -> Result<Entered> {
    let key: Bytes = [&queue(name), format!("{:x}", lease.0).as_bytes()].concat().into();
    let txn = Txn {
        compare: vec![Compare::equal(key.clone(), Target::CreateRevision(Revision(0)))],
        success: vec![put(&key, value, lease)],
        failure: vec![Op::Range(RangeRequest::of(KeyRange::key(key.clone())))],
    };
    let done = store.txn(txn).await.map_err(from_error)?;
    let place = Place { key, made: done.revision };
    Ok(match there(&done) {
        None => Entered { place, revision: done.revision, before: None },
        Some(kv) => Entered {
            place: Place { made: kv.create_revision, ..place },
            revision: done.revision,
            before: Some(kv.value.clone()),
        },
    })
}

/// The key that a transaction found, if that is what it did.
fn there(done: &TxnResponse) -> Option<&KeyValue> {
    match done.responses.first() {
        Some(OpResponse::Range(found)) => found.kvs.first(),
        _ => None,
    }
}

pub fn put(key: &Bytes, value: Bytes, lease: LeaseId) -> Op {
    Op::Put(Put { key: key.clone(), value: Some(value), lease: Some(lease) })
}

/// Do something while a place is still the same.
pub async fn if_still(store: &dyn Store, place: &Place, op: Op) -> Result<TxnResponse> {
    let compare = vec![Compare::equal(place.key.clone(), Target::CreateRevision(place.made))];
    store.txn(Txn { compare, success: vec![op], ..Txn::default() }).await.map_err(from_error)
}

/// Leave the queue.
pub async fn give_up(store: &dyn Store, place: &Place) -> Result<TxnResponse> {
    if_still(store, place, Op::Delete(KeyRange::key(place.key.clone()))).await
}

/// Wait until no key of the queue is older. Says whether that took any waiting.
pub async fn wait_for_turn(store: &dyn Store, name: &[u8], made: Revision) -> Result<bool> {
    let queue = KeyRange::prefix(queue(name));
    let mut waited = false;
    loop {
        let all = RangeRequest { keys_only: true, ..RangeRequest::of(queue.clone()) };
        let found = store.range(all).await.map_err(from_error)?;
        let older = found.kvs.into_iter().filter(|kv| kv.create_revision < made);
        // The one just before: who waits for the first would be woken with everybody else.
        let Some(last) = older.max_by_key(|kv| kv.create_revision) else { return Ok(waited) };
        waited = true;
        deleted(store, last.key, found.revision).await?;
    }
}

/// Wait until a key that was there at a revision is deleted, or might have been.
async fn deleted(store: &dyn Store, key: Bytes, seen: Revision) -> Result<()> {
    let watching = async {
        let mut watch = store.watch(KeyRange::key(key), Some(Revision(seen.0 + 1))).await?;
        loop {
            if let WatchMessage::Events(events) = watch.next().await?
                && events.iter().any(|event| event.kind == EventKind::Delete)
            {
                return Ok(());
            }
        }
    };
    match watching.await {
        // What has happened since is forgotten: look again.
        Ok(()) | Err(Error::Compacted(_)) => Ok(()),
        Err(error) => Err(from_error(error)),
    }
}

/// The oldest key of a queue, and the store's revision.
pub async fn first(store: &dyn Store, name: &[u8]) -> Result<(Revision, Option<KeyValue>)> {
    let all = RangeRequest::of(KeyRange::prefix(queue(name)));
    let found = store.range(all).await.map_err(from_error)?;
    Ok((found.revision, found.kvs.into_iter().min_by_key(|kv| kv.create_revision)))
}

/// A place whose owner waits. It is given up if that ends before its turn: the client has gone.
pub struct Waiting {
    face: Arc<Face>,
    place: Option<Place>,
}

impl Waiting {
    pub fn at(face: Arc<Face>, place: Place) -> Self {
        Waiting { face, place: Some(place) }
    }

    /// The wait has ended well.
    pub fn done(mut self) {
        self.place = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let store = self.face.store.clone();
        self.face.group.spawn("etcd-give-up", async move {
            if let Err(error) = give_up(&*store, &place).await {
                debug!(%error, "a place in a queue stays until its lease ends");
            }
        });
    }
}
