//! etcd's service Election: the leader is who is first in the queue, and its key's value is what it proclaims.

use super::Face;
use super::answer::{empty_key, from_error, header};
use super::kv::key_value;
use super::queue::{self, Place, Result, Waiting};
use crate::store::proto::{self, HeaderOnly, LeaderKey, LeaderResponse};
use crate::store::{Error, EventKind, KeyRange, KeyValue, LeaseId, Revision, Store, Watch, WatchMessage};
use bytes::Bytes;
use futures::Stream;
use std::collections::VecDeque;
use std::sync::Arc;
use tonic::Status;

/// As etcd says it.
fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

/// Answers when the election is won.
pub async fn campaign(face: Arc<Face>, request: proto::CampaignRequest) -> Result<proto::CampaignResponse> {
    let store = face.store.clone();
    let lease = queue::session(&*store, request.lease).await?;
    let entered = queue::enter(&*store, &request.name, lease, request.value.clone()).await?;
    let Place { key, made } = entered.place.clone();
    let waiting = Waiting::at(face, entered.place.clone());
    if entered.before.is_some_and(|value| value != request.value) {
        say(&*store, &entered.place, request.value, lease).await?;
    }
    queue::wait_for_turn(&*store, &request.name, made).await?;
    waiting.done();
    let leader = LeaderKey { name: request.name, key, rev: made.0 as i64, lease: lease.0 };
    Ok(proto::CampaignResponse { header: header(entered.revision), leader: Some(leader) })
}

pub async fn proclaim(store: &dyn Store, request: proto::ProclaimRequest) -> Result<HeaderOnly> {
    let leader = given(request.leader)?;
    let lease = queue::session(store, leader.lease).await?;
    let revision = say(store, &place_of(&leader)?, request.value, lease).await?;
    Ok(HeaderOnly { header: header(revision) })
}

/// Give the key in a place another value.
async fn say(store: &dyn Store, place: &Place, value: Bytes, lease: LeaseId) -> Result<Revision> {
    let done = queue::if_still(store, place, queue::put(&place.key, value, lease)).await?;
    if done.succeeded { Ok(done.revision) } else { Err(not_leader()) }
}

/// Who is no leader any more has nothing to give up, which is no error.
pub async fn resign(store: &dyn Store, request: proto::ResignRequest) -> Result<HeaderOnly> {
    let done = queue::give_up(store, &place_of(&given(request.leader)?)?).await?;
    Ok(HeaderOnly { header: header(done.revision) })
}

fn given(leader: Option<LeaderKey>) -> Result<LeaderKey> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

fn place_of(leader: &LeaderKey) -> Result<Place> {
    if leader.key.is_empty() {
        return Err(empty_key());
    }
    let made = u64::try_from(leader.rev).map_err(|_| not_leader())?;
    Ok(Place { key: leader.key.clone(), made: Revision(made) })
}

pub async fn leader(store: &dyn Store, request: proto::LeaderRequest) -> Result<LeaderResponse> {
    match queue::first(store, &request.name).await? {
        (revision, Some(kv)) => Ok(response(revision, kv)),
        (_, None) => Err(Status::unknown("election: no leader")),
    }
}

fn response(revision: Revision, kv: KeyValue) -> LeaderResponse {
    LeaderResponse { header: header(revision), kv: Some(key_value(kv)) }
}

/// What leaders proclaim, from the one that there is on.
pub fn observe(
    store: Arc<dyn Store>,
    request: proto::LeaderRequest,
) -> impl Stream<Item = Result<LeaderResponse>> + Send {
    let observer = Observer { store, name: request.name, following: None };
    futures::stream::try_unfold(observer, |mut observer| async move {
        let next = observer.next().await?;
        Ok(Some((next, observer)))
    })
}

struct Observer {
    store: Arc<dyn Store>,
    name: Bytes,
    following: Option<Following>,
}

impl Observer {
    async fn next(&mut self) -> Result<LeaderResponse> {
        loop {
            let Some(following) = &mut self.following else {
                let (revision, kv) = leader_to_come(&*self.store, &self.name).await?;
                let key = KeyRange::key(kv.key.clone());
                self.following = Some(Following::of(&*self.store, key, revision).await?);
                return Ok(response(revision, kv));
            };
            match following.next().await.map_err(from_error)? {
                Some(kv) => return Ok(response(kv.mod_revision, kv)),
                None => self.following = None,
            }
        }
    }
}

/// The leader, or the first one that comes, and the revision of that.
async fn leader_to_come(store: &dyn Store, name: &[u8]) -> Result<(Revision, KeyValue)> {
    loop {
        let (revision, first) = queue::first(store, name).await?;
        if let Some(kv) = first {
            return Ok((revision, kv));
        }
        let mut coming = Following::of(store, KeyRange::prefix(queue::queue(name)), revision).await?;
        loop {
            match coming.event().await {
                Ok((EventKind::Put, kv)) => return Ok((kv.mod_revision, kv)),
                Ok((EventKind::Delete, _)) => {}
                Err(Error::Compacted(_)) => break,
                Err(error) => return Err(from_error(error)),
            }
        }
    }
}

/// Keys after a revision.
struct Following {
    watch: Box<dyn Watch>,
    events: VecDeque<(EventKind, KeyValue)>,
}

impl Following {
    async fn of(store: &dyn Store, range: KeyRange, after: Revision) -> Result<Self> {
        let watch = store.watch(range, Some(Revision(after.0 + 1))).await.map_err(from_error)?;
        Ok(Following { watch, events: VecDeque::new() })
    }

    /// The next value; `None` at the key's end, or where what follows is forgotten.
    async fn next(&mut self) -> std::result::Result<Option<KeyValue>, Error> {
        match self.event().await {
            Ok((EventKind::Put, kv)) => Ok(Some(kv)),
            Ok((EventKind::Delete, _)) | Err(Error::Compacted(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn event(&mut self) -> std::result::Result<(EventKind, KeyValue), Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let WatchMessage::Events(events) = self.watch.next().await? {
                self.events.extend(events.iter().map(|event| (event.kind, event.kv.clone())));
            }
        }
    }
}
